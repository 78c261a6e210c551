//! Values that the issuer hands out and takes back: refresh tokens, session cookies, form
//! tokens. They carry their own content under the issuer's MAC, so nothing is stored for them
//! and they survive a restart.

use super::issuer::IdentityError;
use aksim_runtime::files::{PRIVATE, write_atomic};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{path::Path, time::Duration};
use uuid::Uuid;

/// What a sealed value is for; one for another purpose does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Refresh,
    Session,
    Form,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Session => "session",
            Self::Form => "form",
        }
    }
}

/// Why a sealed value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Expired,
    Forged,
}

/// A signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    pub user: Uuid,
    pub sid: Uuid,
}

/// Content of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refresh {
    pub user: Uuid,
    pub client: Uuid,
    pub scope: String,
    pub sid: Uuid,
    /// Makes every token of a rotation different.
    pub id: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    aud: String,
    exp: u64,
    #[serde(flatten)]
    content: T,
}

/// The issuer's own MAC key.
pub(super) struct Seal {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Seal {
    /// Reads the key (32 bytes, hex), or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, IdentityError> {
        let state = |source| IdentityError::State { path: path.to_owned(), source };
        let key = match std::fs::read_to_string(path) {
            Ok(text) => match hex::decode(text.trim()) {
                Ok(key) if key.len() == 32 => key,
                _ => return Err(state(std::io::Error::other("is not 32 bytes of hex"))),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key: [u8; 32] = rand::random();
                write_atomic(path, hex::encode(key).as_bytes(), PRIVATE).map_err(state)?;
                key.to_vec()
            }
            Err(error) => return Err(state(error)),
        };
        Ok(Self { encoding: EncodingKey::from_secret(&key), decoding: DecodingKey::from_secret(&key) })
    }

    /// Seals `content` for `lifetime`.
    pub(super) fn seal<T: Serialize>(
        &self,
        purpose: Purpose,
        content: T,
        lifetime: Duration,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let exp = jsonwebtoken::get_current_timestamp().saturating_add(lifetime.as_secs());
        let envelope = Envelope { aud: purpose.name().to_owned(), exp, content };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &envelope, &self.encoding)
    }

    /// Opens a sealed value.
    pub(super) fn unseal<T: DeserializeOwned>(&self, purpose: Purpose, sealed: &str) -> Result<T, Broken> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_audience(&[purpose.name()]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        jsonwebtoken::decode::<Envelope<T>>(sealed, &self.decoding, &validation)
            .map(|data| data.claims.content)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => Broken::Expired,
                _ => Broken::Forged,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_across_restarts_and_for_its_purpose_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        let session = Session { user: Uuid::new_v4(), sid: Uuid::new_v4() };
        let sealed = Seal::open(&path).unwrap().seal(Purpose::Session, &session, Duration::from_secs(60)).unwrap();
        let again = Seal::open(&path).unwrap();
        assert_eq!(again.unseal::<Session>(Purpose::Session, &sealed), Ok(session));
        assert_eq!(again.unseal::<Session>(Purpose::Form, &sealed), Err(Broken::Forged));
        let other = Seal::open(&dir.path().join("other.key")).unwrap();
        assert_eq!(other.unseal::<Session>(Purpose::Session, &sealed), Err(Broken::Forged));
    }
}
