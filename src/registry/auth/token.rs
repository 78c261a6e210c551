//! The registry's own tokens, signed ES256 with a key of its own.

use super::{Access, Principal, Rights, TOKEN_USER};
use aksim_runtime::files::{PRIVATE, write_atomic};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `iss` of ACR's tokens.
const ISSUER: &str = "Azure Container Registry";
/// Life of an access token, seconds (ACR: 75 minutes).
pub const ACCESS_SECONDS: u64 = 75 * 60;
/// Life of a refresh token, seconds (ACR: 3 hours).
const REFRESH_SECONDS: u64 = 3 * 3600;

/// Why the signing key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The key file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file does not hold a key.
    #[error("signing key: {0}")]
    Key(#[from] rcgen::Error),
    /// The key is not for ES256.
    #[error("signing key: {0}")]
    Algorithm(#[from] jsonwebtoken::errors::Error),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    jti: String,
    sub: String,
    nbf: u64,
    exp: u64,
    iat: u64,
    iss: String,
    aud: String,
    version: String,
    grant_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Vec<Access>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rights: Option<Rights>,
}

/// Signs and verifies the registry's tokens.
pub struct TokenSigner {
    encoding: EncodingKey,
    decoding: DecodingKey,
    audience: String,
}

impl TokenSigner {
    /// Opens the key in `path`, made there (0600) if absent; tokens outlive a restart.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn open(path: &Path, audience: &str) -> Result<Self, SigningKeyError> {
        let file = |source| SigningKeyError::File { path: path.to_owned(), source };
        if !path.exists() {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            write_atomic(path, key.serialize_pem().as_bytes(), PRIVATE).map_err(file)?;
        }
        let pem = std::fs::read_to_string(path).map_err(file)?;
        let public = rcgen::KeyPair::from_pem(&pem)?.public_key_pem();
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(pem.as_bytes())?,
            decoding: DecodingKey::from_ec_pem(public.as_bytes())?,
            audience: audience.to_owned(),
        })
    }

    /// A token for requests, that allows `access`.
    ///
    /// # Errors
    /// An error of signing.
    pub fn access_token(
        &self,
        principal: &Principal,
        access: Vec<Access>,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        self.sign(principal, "access_token", ACCESS_SECONDS, Some(access), None)
    }

    /// A token to get access tokens with.
    ///
    /// # Errors
    /// An error of signing.
    pub fn refresh_token(&self, principal: &Principal) -> Result<String, jsonwebtoken::errors::Error> {
        self.sign(principal, "refresh_token", REFRESH_SECONDS, None, Some(principal.rights.clone()))
    }

    fn sign(
        &self,
        principal: &Principal,
        grant_type: &str,
        seconds: u64,
        access: Option<Vec<Access>>,
        rights: Option<Rights>,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = jsonwebtoken::get_current_timestamp();
        let claims = Claims {
            jti: uuid::Uuid::new_v4().to_string(),
            sub: principal.name.clone(),
            nbf: now,
            exp: now + seconds,
            iat: now,
            iss: ISSUER.to_owned(),
            aud: self.audience.clone(),
            version: "1.0".to_owned(),
            grant_type: grant_type.to_owned(),
            access,
            rights,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.encoding)
    }

    /// What an access token allows.
    ///
    /// # Errors
    /// When it is not one of ours, not an access token, or out of its time.
    pub fn verify_access(&self, token: &str) -> Result<Vec<Access>, jsonwebtoken::errors::Error> {
        let claims = self.verify(token, "access_token")?;
        Ok(claims.access.unwrap_or_default())
    }

    /// Whose refresh token it is, with the rights they had when it was issued.
    ///
    /// # Errors
    /// When it is not one of ours, not a refresh token, or out of its time.
    pub fn verify_refresh(&self, token: &str) -> Result<Principal, jsonwebtoken::errors::Error> {
        let claims = self.verify(token, "refresh_token")?;
        let name = if claims.sub.is_empty() { TOKEN_USER.to_owned() } else { claims.sub };
        Ok(Principal { name, rights: claims.rights.unwrap_or_default() })
    }

    fn verify(&self, token: &str, grant_type: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss"]);
        validation.validate_nbf = true;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)?.claims;
        if claims.grant_type != grant_type {
            // One kind of token never passes for the other.
            return Err(jsonwebtoken::errors::ErrorKind::InvalidToken.into());
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn principal() -> Principal {
        Principal { name: "shopacr".into(), rights: Rights::all() }
    }

    #[test]
    fn tokens_are_of_one_kind_one_registry_and_outlive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.key");
        let signer = TokenSigner::open(&path, "a.azurecr.io").unwrap();
        let access = signer.access_token(&principal(), vec![Access::catalog()]).unwrap();
        let refresh = signer.refresh_token(&principal()).unwrap();
        let again = TokenSigner::open(&path, "a.azurecr.io").unwrap();
        assert_eq!(again.verify_access(&access).unwrap(), vec![Access::catalog()]);
        assert_eq!(again.verify_refresh(&refresh).unwrap(), principal());
        assert!(again.verify_access(&refresh).is_err() && again.verify_refresh(&access).is_err());
        assert!(TokenSigner::open(&path, "b.azurecr.io").unwrap().verify_access(&access).is_err());
        let other = TokenSigner::open(&dir.path().join("other.key"), "a.azurecr.io").unwrap();
        assert!(other.verify_access(&access).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
