//! Service-account tokens: signed here, verified here and by anyone with the published keys.

use aksim_runtime::files::{PRIVATE, write_atomic};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Issuer of service-account tokens, and their default audience.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Verified tokens remembered, so that a busy client costs one signature check.
const REMEMBERED: usize = 4096;

/// Why the signing key could not be had or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The key file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key is malformed.
    #[error("service-account key: {0}\nhint: remove the file; tokens signed with it stop being accepted")]
    Key(#[from] rcgen::Error),
    /// A token cannot be signed.
    #[error("service-account token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
}

/// Claims of a service-account token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    pub aud: Vec<String>,
    /// End of validity, seconds since 1970.
    pub exp: i64,
    /// When issued.
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// Unique id.
    pub jti: String,
    /// What the token is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    /// Start of validity.
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// What a token is bound to: it is good only while all of these exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Namespace of all.
    pub namespace: String,
    /// Node the pod runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// Pod the token was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// Secret the token was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    /// The account.
    pub serviceaccount: BoundObject,
}

/// An object by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    /// Name.
    pub name: String,
    /// Uid; empty when it was not known.
    #[serde(default)]
    pub uid: String,
}

/// Signs and verifies service-account tokens (ES256).
pub struct TokenIssuer {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    jwk: Value,
    verified: Mutex<HashMap<Box<str>, Arc<Claims>>>,
}

impl TokenIssuer {
    /// Reads the key at `path`, or makes one there (0600).
    ///
    /// # Errors
    /// [`TokenKeyError`].
    pub fn open(path: &Path) -> Result<Self, TokenKeyError> {
        let file = |source| TokenKeyError::File { path: path.to_owned(), source };
        let pem = match std::fs::read_to_string(path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pem = rcgen::KeyPair::generate()?.serialize_pem();
                write_atomic(path, pem.as_bytes(), PRIVATE).map_err(file)?;
                pem
            }
            Err(error) => return Err(file(error)),
        };
        let pair = rcgen::KeyPair::from_pem(&pem)?;
        // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
        let point = pair.public_key_raw();
        let (x, y) = match point {
            [4, xy @ ..] if xy.len() == 64 => xy.split_at(32),
            _ => return Err(TokenKeyError::Key(rcgen::Error::UnsupportedSignatureAlgorithm)),
        };
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(point));
        let jwk = json!({"use": "sig", "kty": "EC", "kid": kid, "crv": "P-256", "alg": "ES256", "x": x, "y": y});
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(pem.as_bytes())?,
            decoding: DecodingKey::from_ec_components(&x, &y)?,
            kid,
            jwk,
            verified: Mutex::default(),
        })
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`TokenKeyError::Token`].
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenKeyError> {
        let header = Header { kid: Some(self.kid.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }

    /// Whether a token says that it was issued here; nothing is verified.
    pub fn issued(&self, token: &str) -> bool {
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        claims
            .and_then(|json| serde_json::from_slice::<Value>(&json).ok())
            .is_some_and(|claims| claims["iss"] == ISSUER)
    }

    /// Verifies signature, issuer, time and audience; gives the claims.
    pub fn verify(&self, token: &str, audiences: &[&str], now: jiff::Timestamp) -> Option<Arc<Claims>> {
        let known = self.verified.lock().get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.check(token)?);
                let mut verified = self.verified.lock();
                if verified.len() >= REMEMBERED {
                    verified.clear();
                }
                verified.insert(token.into(), claims.clone());
                claims
            }
        };
        let meant = claims.aud.iter().any(|audience| audiences.contains(&audience.as_str()));
        let now = now.as_second();
        (meant && claims.nbf <= now && now < claims.exp).then_some(claims)
    }

    fn check(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        // Time and audience are checked at every use, by the caller's clock.
        validation.validate_aud = false;
        validation.validate_exp = false;
        jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).ok().map(|decoded| decoded.claims)
    }

    /// The published keys (RFC 7517).
    pub fn key_set(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// OpenID Connect discovery document.
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{SignedDuration, Timestamp};

    fn claims(now: Timestamp) -> Claims {
        Claims {
            aud: vec![ISSUER.into()],
            exp: now.as_second() + 60,
            iat: now.as_second(),
            iss: ISSUER.into(),
            jti: "j".into(),
            kubernetes: Bound { namespace: "ns".into(), ..Bound::default() },
            nbf: now.as_second(),
            sub: "system:serviceaccount:ns:default".into(),
        }
    }

    #[test]
    fn a_token_is_good_for_its_time_audience_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = TokenIssuer::open(&dir.path().join("sa.key")).unwrap();
        let now = Timestamp::now();
        let token = issuer.sign(&claims(now)).unwrap();
        assert!(issuer.issued(&token));
        assert_eq!(*issuer.verify(&token, &[ISSUER], now).unwrap(), claims(now));
        assert!(issuer.verify(&token, &["other"], now).is_none());
        assert!(issuer.verify(&token, &[ISSUER], now + SignedDuration::from_secs(60)).is_none());
        assert!(issuer.verify(&token, &[ISSUER], now - SignedDuration::from_secs(1)).is_none());
        let mut forged = token.clone().into_bytes();
        let at = token.find('.').unwrap() + 5;
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        assert!(issuer.verify(&String::from_utf8(forged).unwrap(), &[ISSUER], now).is_none());
        let reopened = TokenIssuer::open(&dir.path().join("sa.key")).unwrap();
        assert!(reopened.verify(&token, &[ISSUER], now).is_some());
        let other = TokenIssuer::open(&dir.path().join("other.key")).unwrap();
        assert!(other.verify(&token, &[ISSUER], now).is_none());
    }
}
