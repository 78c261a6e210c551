//! The tenant's signing keys: one that signs, and older ones still published (rotation with
//! overlap), kept in `keys.json` (0600).

use super::issuer::IdentityError;
use aksim_runtime::files::{PRIVATE, write_atomic};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{DecodingKey, EncodingKey};
use rsa::{RsaPrivateKey, pkcs8::EncodePrivateKey, traits::PublicKeyParts};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Size of keys, as Entra's.
const BITS: usize = 2048;
/// How long a key stays published after it stopped signing; no token lives longer.
const OVERLAP: SignedDuration = SignedDuration::from_hours(24);
/// A key older than this is replaced at the next start.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(90 * 24);

#[derive(Clone, Serialize, Deserialize)]
struct StoredKey {
    private_key: String,
    certificate: String,
    created: Timestamp,
    #[serde(default)]
    retired: Option<Timestamp>,
}

/// A key ready for use.
pub(super) struct SigningKey {
    /// Key id: base64url of the certificate's SHA-1, as Entra's.
    pub kid: String,
    pub encoding: EncodingKey,
    pub decoding: DecodingKey,
    jwk: Value,
    stored: StoredKey,
}

/// All keys that verifiers may still meet, the signing one first.
pub(super) struct KeyRing {
    path: PathBuf,
    keys: parking_lot::RwLock<Arc<Vec<SigningKey>>>,
}

impl KeyRing {
    /// Opens the keys, or makes the first; blocks for the making, about half a second.
    pub(super) fn open(path: &Path) -> Result<Self, IdentityError> {
        let stored: Vec<StoredKey> = match std::fs::read(path) {
            Ok(content) => serde_json::from_slice(&content)
                .map_err(|source| IdentityError::State { path: path.to_owned(), source: source.into() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(IdentityError::State { path: path.to_owned(), source }),
        };
        let now = Timestamp::now();
        let live = |key: &StoredKey| key.retired.is_none_or(|at| now.duration_since(at) < OVERLAP);
        let keys = stored.into_iter().filter(live).map(SigningKey::load).collect::<Result<Vec<_>, _>>()?;
        let fresh =
            keys.first().is_some_and(|k| k.stored.retired.is_none() && now.duration_since(k.stored.created) < MAX_AGE);
        let ring = Self { path: path.to_owned(), keys: parking_lot::RwLock::new(Arc::new(keys)) };
        if !fresh {
            ring.rotate()?;
        }
        Ok(ring)
    }

    /// Makes a new signing key; the old ones stay published for a day. Blocks like `open`.
    pub(super) fn rotate(&self) -> Result<(), IdentityError> {
        let fresh = generate()?;
        let mut ring = self.keys.write();
        let now = Timestamp::now();
        let mut stored: Vec<StoredKey> = ring.iter().map(|key| key.stored.clone()).collect();
        stored.iter_mut().for_each(|key| {
            key.retired.get_or_insert(now);
        });
        stored.insert(0, fresh);
        let content = serde_json::to_vec_pretty(&stored).map_err(|e| self.state(e.into()))?;
        let keys = stored.into_iter().map(SigningKey::load).collect::<Result<Vec<_>, _>>()?;
        write_atomic(&self.path, &content, PRIVATE).map_err(|e| self.state(e))?;
        *ring = Arc::new(keys);
        Ok(())
    }

    fn state(&self, source: std::io::Error) -> IdentityError {
        IdentityError::State { path: self.path.clone(), source }
    }

    /// All keys now, the signing one first; never empty.
    pub(super) fn keys(&self) -> Arc<Vec<SigningKey>> {
        self.keys.read().clone()
    }

    /// The published key set (RFC 7517 §5), with `issuer` as Entra adds it.
    pub(super) fn jwks(&self, issuer: &str) -> Value {
        let keys = self.keys();
        let published = keys.iter().map(|key| {
            let mut jwk = key.jwk.clone();
            jwk["issuer"] = json!(issuer);
            jwk
        });
        json!({ "keys": published.collect::<Vec<_>>() })
    }
}

impl SigningKey {
    fn load(stored: StoredKey) -> Result<Self, IdentityError> {
        let key = |error: &dyn std::fmt::Display| IdentityError::Key(error.to_string());
        let encoding = EncodingKey::from_rsa_pem(stored.private_key.as_bytes()).map_err(|e| key(&e))?;
        let private = <RsaPrivateKey as rsa::pkcs8::DecodePrivateKey>::from_pkcs8_pem(&stored.private_key)
            .map_err(|e| key(&e))?;
        let certificate = CertificateDer::from_pem_slice(stored.certificate.as_bytes()).map_err(|e| key(&e))?;
        let (n, e) = (private.n().to_bytes_be(), private.e().to_bytes_be());
        let kid = URL_SAFE_NO_PAD.encode(Sha1::digest(&certificate));
        let jwk = json!({
            "kty": "RSA",
            "use": "sig",
            "kid": kid,
            "x5t": kid,
            "n": URL_SAFE_NO_PAD.encode(&n),
            "e": URL_SAFE_NO_PAD.encode(&e),
            "x5c": [STANDARD.encode(&certificate)],
            "cloud_instance_name": "microsoftonline.com",
        });
        Ok(Self { kid, encoding, decoding: DecodingKey::from_rsa_raw_components(&n, &e), jwk, stored })
    }
}

fn generate() -> Result<StoredKey, IdentityError> {
    let failed = |error: &dyn std::fmt::Display| IdentityError::Key(error.to_string());
    let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(|e| failed(&e))?;
    let pem = private.to_pkcs8_pem(rsa::pkcs8::LineEnding::LF).map_err(|e| failed(&e))?;
    let pair = rcgen::KeyPair::from_pem(&pem).map_err(|e| failed(&e))?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "accounts.accesscontrol.windows.net");
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(24 * 3600);
    params.not_before = (now - day).into();
    params.not_after = (now + day * 1825).into();
    let certificate = params.self_signed(&pair).map_err(|e| failed(&e))?;
    Ok(StoredKey {
        private_key: pem.to_string(),
        certificate: certificate.pem(),
        created: Timestamp::now(),
        retired: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_kept_private_and_overlap_when_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let ring = KeyRing::open(&path).unwrap();
        let first = ring.keys()[0].kid.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        ring.rotate().unwrap();
        let second = ring.keys()[0].kid.clone();
        assert_ne!(first, second);
        let again = KeyRing::open(&path).unwrap();
        let kids: Vec<String> = again.keys().iter().map(|k| k.kid.clone()).collect();
        assert_eq!(kids, [second, first]);
        assert_eq!(again.jwks("i")["keys"][1]["issuer"], "i");
    }

    #[test]
    fn a_broken_file_is_an_error_not_new_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        std::fs::write(&path, "[{").unwrap();
        assert!(KeyRing::open(&path).is_err_and(|e| e.to_string().contains("keys.json")));
    }
}
