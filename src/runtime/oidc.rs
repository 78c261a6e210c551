//! Verification of tokens of an OpenID Connect issuer: signature, issuer, audience, time.
//!
//! The issuer is met over its public protocol only (OpenID Connect Discovery 1.0, RFC 7517,
//! RFC 7519): the API server, the registry and the ingress verify tokens here as a service in
//! Azure would. Keys are fetched when first needed, kept, and fetched again when a token names
//! a key that is not known, so that a rotation at the issuer needs no restart here.

use aksim_model::advice::Advice;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Difference of clocks that is tolerated, seconds (what AKS and most libraries take).
const LEEWAY_SECONDS: u64 = 60;
/// Shortest time between two fetches caused by unknown key ids.
const REFETCH_PAUSE: Duration = Duration::from_secs(2);
/// Keys older than this are fetched again, so that a withdrawn key stops being accepted.
const MAX_KEY_AGE: Duration = Duration::from_secs(3600);
/// How long one request to the issuer may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// Largest discovery document or key set that is read, bytes.
const MAX_DOCUMENT: usize = 1 << 20;
/// Largest token that is looked at, bytes (Entra's stay below 16 KiB).
const MAX_TOKEN: usize = 64 << 10;

/// Whose tokens are accepted, for whom.
#[derive(Clone)]
pub struct OidcConfig {
    /// The issuer exactly as in `iss`: `https://login.microsoftonline.com/{tenantId}/v2.0`.
    pub issuer: String,
    /// Accepted values of `aud`; one of them must be in the token. None accepts no token.
    pub audiences: Vec<String>,
    /// Client that reaches and trusts the issuer, see [`crate::net::azure_http_client`].
    pub http: reqwest::Client,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a signed JWT.
    #[error("the token is not a signed JWT: {0}")]
    Malformed(String),
    /// Signed with something other than RS256 or ES256, or other than its key is for.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// Its `kid` is none of the issuer's.
    #[error("the token is signed by a key ({kid}) that {issuer} does not publish")]
    UnknownKey {
        /// The token's `kid`.
        kid: String,
        /// The issuer asked.
        issuer: String,
    },
    /// The signature does not fit.
    #[error("the token's signature is invalid")]
    Signature,
    /// Another issuer's token.
    #[error("the token's issuer is not {expected}")]
    Issuer {
        /// The accepted issuer.
        expected: String,
    },
    /// Meant for another service.
    #[error("the token's audience is none of: {expected}")]
    Audience {
        /// The accepted audiences, separated by commas.
        expected: String,
    },
    /// Past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before its `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim that every token must have is missing.
    #[error("the token lacks the claim {0}")]
    MissingClaim(String),
    /// The issuer's keys could not be had; the token may be good.
    #[error("cannot get the keys of {issuer}: {cause}")]
    Unavailable {
        /// The issuer.
        issuer: String,
        /// The chain of causes.
        cause: String,
    },
}

impl Advice for TokenError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::Expired => Some("sign in again, or get a new token with `aksim token`"),
            Self::Audience { .. } => Some("ask for the scope of the service that the token is sent to"),
            Self::Unavailable { .. } => Some("see the issuer in `aksim status`"),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }
}

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// All claims as they stand in the token.
    pub fn map(&self) -> &Map<String, Value> {
        &self.0
    }
    /// A claim that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }
    /// A claim that is a list of texts, or one text; empty when absent.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
    /// `iss`: the issuer.
    pub fn iss(&self) -> &str {
        self.text("iss").unwrap_or_default()
    }
    /// `sub`: the subject, pairwise per application at Entra.
    pub fn sub(&self) -> &str {
        self.text("sub").unwrap_or_default()
    }
    /// `aud`: for whom.
    pub fn aud(&self) -> Vec<&str> {
        self.texts("aud")
    }
    /// `oid`: object id of the user or service principal.
    pub fn oid(&self) -> Option<&str> {
        self.text("oid")
    }
    /// `tid`: tenant id.
    pub fn tid(&self) -> Option<&str> {
        self.text("tid")
    }
    /// `azp` (v2.0) or `appid` (v1.0): the application that asked for the token.
    pub fn azp(&self) -> Option<&str> {
        self.text("azp").or_else(|| self.text("appid"))
    }
    /// `name`: display name of a user.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }
    /// `preferred_username`: sign-in name of a user; not for authorization.
    pub fn preferred_username(&self) -> Option<&str> {
        self.text("preferred_username")
    }
    /// `nonce` of an ID token.
    pub fn nonce(&self) -> Option<&str> {
        self.text("nonce")
    }
    /// `groups`: object ids of the groups.
    pub fn groups(&self) -> Vec<&str> {
        self.texts("groups")
    }
    /// `roles`: application roles.
    pub fn roles(&self) -> Vec<&str> {
        self.texts("roles")
    }
    /// `scp`: delegated scopes.
    pub fn scp(&self) -> Vec<&str> {
        self.text("scp").map(|s| s.split_ascii_whitespace().collect()).unwrap_or_default()
    }
    /// `exp`: end of validity, seconds since 1970.
    pub fn exp(&self) -> u64 {
        self.seconds("exp").unwrap_or_default()
    }
    /// `iat`: when issued, seconds since 1970.
    pub fn iat(&self) -> Option<u64> {
        self.seconds("iat")
    }
    /// `nbf`: start of validity, seconds since 1970.
    pub fn nbf(&self) -> Option<u64> {
        self.seconds("nbf")
    }

    fn seconds(&self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?;
        // NumericDate may have a fraction (RFC 7519 §2); the cast saturates.
        value.as_u64().or_else(|| value.as_f64().map(|s| s as u64))
    }
}

struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

struct KeySet {
    keys: HashMap<String, Key>,
    fetched: Instant,
}

type Fetch = Shared<BoxFuture<'static, Result<Arc<KeySet>, TokenError>>>;

#[derive(Default)]
struct Cache {
    keys: Option<Arc<KeySet>>,
    fetching: Option<Fetch>,
}

struct Inner {
    config: OidcConfig,
    cache: Mutex<Cache>,
}

/// Verifies tokens of one issuer; clones share the keys.
#[derive(Clone)]
pub struct TokenVerifier {
    inner: Arc<Inner>,
}

impl TokenVerifier {
    /// A verifier that has not asked the issuer anything yet.
    pub fn new(config: OidcConfig) -> Self {
        Self { inner: Arc::new(Inner { config, cache: Mutex::default() }) }
    }

    /// The issuer whose tokens are accepted.
    pub fn issuer(&self) -> &str {
        &self.inner.config.issuer
    }

    /// Verifies signature, issuer, audience and time, and returns the claims.
    ///
    /// # Errors
    /// [`TokenError`]; [`TokenError::Unavailable`] alone says nothing about the token.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed(format!("longer than {MAX_TOKEN} bytes")));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| TokenError::Malformed(e.to_string()))?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(TokenError::Algorithm);
        }
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: an extension that is not understood must be refused.
            return Err(TokenError::Malformed("critical header extensions are not supported".into()));
        }
        let kid = header.kid.ok_or_else(|| TokenError::Malformed("no kid in its header".into()))?;
        let keys = self.keys_with(&kid).await?;
        let key = keys
            .keys
            .get(&kid)
            .ok_or_else(|| TokenError::UnknownKey { kid: kid.clone(), issuer: self.inner.config.issuer.clone() })?;
        self.check(token, key)
    }

    fn check(&self, token: &str, key: &Key) -> Result<Claims, TokenError> {
        let config = &self.inner.config;
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&config.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation)
            .map(|data| Claims(data.claims))
            .map_err(|error| match error.into_kind() {
                ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::InvalidIssuer => TokenError::Issuer { expected: config.issuer.clone() },
                ErrorKind::InvalidAudience => TokenError::Audience { expected: config.audiences.join(", ") },
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::NotYetValid,
                ErrorKind::MissingRequiredClaim(claim) => TokenError::MissingClaim(claim),
                other => TokenError::Malformed(format!("{other:?}")),
            })
    }

    /// The keys, fetched again if they are old, or lack `kid` and were not fetched just now.
    async fn keys_with(&self, kid: &str) -> Result<Arc<KeySet>, TokenError> {
        let (known, fetch) = {
            let mut cache = self.inner.cache.lock();
            let age = |set: &KeySet| set.fetched.elapsed();
            let known = cache.keys.clone();
            if let Some(set) = &known {
                let wanted = set.keys.contains_key(kid) || age(set) < REFETCH_PAUSE;
                if wanted && age(set) < MAX_KEY_AGE {
                    return Ok(set.clone());
                }
            }
            (known, cache.fetching.get_or_insert_with(|| self.fetch()).clone())
        };
        match (fetch.await, known) {
            (Ok(set), _) => Ok(set),
            // The issuer is away: keys that were good stay good until it is back.
            (Err(_), Some(set)) if set.keys.contains_key(kid) => Ok(set),
            (Err(error), _) => Err(error),
        }
    }

    /// One fetch for all who wait for it; it goes on while any of them still does.
    fn fetch(&self) -> Fetch {
        let inner = self.inner.clone();
        async move {
            let fetched = fetch_keys(&inner.config).await;
            let mut cache = inner.cache.lock();
            cache.fetching = None;
            match fetched {
                Ok(keys) => {
                    let set = Arc::new(KeySet { keys, fetched: Instant::now() });
                    cache.keys = Some(set.clone());
                    Ok(set)
                }
                Err(cause) => Err(TokenError::Unavailable { issuer: inner.config.issuer.clone(), cause }),
            }
        }
        .boxed()
        .shared()
    }
}

async fn fetch_keys(config: &OidcConfig) -> Result<HashMap<String, Key>, String> {
    let url = format!("{}/.well-known/openid-configuration", config.issuer.trim_end_matches('/'));
    let discovery = fetch_json(&config.http, &url).await?;
    let named = |name: &str| discovery.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if named("issuer") != config.issuer {
        // OpenID Connect Discovery 1.0 §4.3: both must be identical.
        return Err(format!("{url} names another issuer: {}", named("issuer")));
    }
    let jwks = fetch_json(&config.http, &named("jwks_uri")).await?;
    let listed = jwks.get("keys").and_then(Value::as_array).ok_or("the key set has no keys")?;
    // A key that cannot be used is left out; the others still count (RFC 7517 §5).
    Ok(listed.iter().filter_map(usable_key).collect())
}

fn usable_key(value: &Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        _ => return None,
    };
    let named = value.get("alg").and_then(Value::as_str);
    if named.is_some_and(|name| name != format!("{algorithm:?}")) {
        return None;
    }
    Some((jwk.common.key_id.clone()?, Key { algorithm, key: DecodingKey::from_jwk(&jwk).ok()? }))
}

async fn fetch_json(http: &reqwest::Client, url: &str) -> Result<Value, String> {
    let failed = |error: reqwest::Error| format!("{url}: {}", chain(&error));
    let response = http.get(url).timeout(FETCH_DEADLINE).send().await.and_then(reqwest::Response::error_for_status);
    let mut response = response.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(format!("{url}: larger than {MAX_DOCUMENT} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |e| e.source()).fold(error.to_string(), |text, e| format!("{text}: {e}"))
}

#[cfg(test)]
#[path = "oidc_tests.rs"]
mod tests;
