//! Tokens with Entra ID's v2.0 claims.

use super::{
    directory::{Application, Directory, User},
    keys::KeyRing,
    scope::Grant,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// Entra's tokens begin five minutes in the past, for clocks that lag.
const BACKDATED_SECONDS: u64 = 300;

/// How a client proved who it is: claim `azpacr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProof {
    /// Not at all: a public client.
    None,
    /// Client secret.
    Secret,
    /// Signed assertion.
    Certificate,
}

impl ClientProof {
    fn claim(self) -> &'static str {
        match self {
            Self::None => "0",
            Self::Secret => "1",
            Self::Certificate => "2",
        }
    }
}

/// For whom a token is made.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// A user, signed in in this session.
    User(&'a User, Uuid),
    /// The client itself.
    Application,
}

/// Makes tokens.
pub(super) struct Minter {
    pub directory: Arc<Directory>,
    pub keys: Arc<KeyRing>,
    pub lifetime: Duration,
}

type Minted = Result<String, jsonwebtoken::errors::Error>;

impl Minter {
    /// An access token of `client` for the resource of `grant`.
    pub(super) fn access_token(
        &self,
        subject: Subject<'_>,
        client: &Application,
        proof: ClientProof,
        grant: &Grant,
    ) -> Minted {
        let mut claims = self.base(&grant.audience);
        claims.insert("azp".into(), json!(client.client_id));
        claims.insert("azpacr".into(), json!(proof.claim()));
        let resource = self.directory.client(&grant.resource.to_string()).unwrap_or(client);
        match subject {
            Subject::User(user, sid) => {
                self.describe_user(&mut claims, user, resource);
                claims.insert("name".into(), json!(user.display_name));
                claims.insert("preferred_username".into(), json!(user.principal_name));
                claims.insert("sub".into(), json!(self.pairwise(user.id, resource.client_id)));
                claims.insert("scp".into(), json!(grant.permissions.join(" ")));
                claims.insert("sid".into(), json!(sid));
            }
            Subject::Application => {
                claims.insert("oid".into(), json!(client.service_principal));
                claims.insert("sub".into(), json!(client.service_principal));
                let roles = resource.known_roles(&client.roles);
                if !roles.is_empty() {
                    claims.insert("roles".into(), json!(roles));
                }
            }
        }
        self.sign(&claims)
    }

    /// An ID token for `client`; `code` is what it is delivered with in the hybrid flow.
    pub(super) fn id_token(
        &self,
        user: &User,
        sid: Uuid,
        client: &Application,
        grant: &Grant,
        nonce: Option<&str>,
        code: Option<&str>,
    ) -> Minted {
        let mut claims = self.base(&client.client_id.to_string());
        self.describe_user(&mut claims, user, client);
        claims.insert("sub".into(), json!(self.pairwise(user.id, client.client_id)));
        claims.insert("sid".into(), json!(sid));
        if grant.has("profile") {
            claims.insert("name".into(), json!(user.display_name));
            claims.insert("preferred_username".into(), json!(user.principal_name));
        }
        if grant.has("email") {
            claims.insert("email".into(), json!(user.principal_name));
        }
        if let Some(nonce) = nonce {
            claims.insert("nonce".into(), json!(nonce));
        }
        if let Some(code) = code {
            claims.insert("c_hash".into(), json!(half_hash(code)));
        }
        self.sign(&claims)
    }

    fn base(&self, audience: &str) -> Map<String, Value> {
        let now = jsonwebtoken::get_current_timestamp();
        let tenant = self.directory.tenant();
        let claims = json!({
            "aud": audience,
            "iss": self.directory.issuer(),
            "iat": now - BACKDATED_SECONDS,
            "nbf": now - BACKDATED_SECONDS,
            "exp": now + self.lifetime.as_secs(),
            "tid": tenant.id,
            "uti": URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()),
            "ver": "2.0",
        });
        match claims {
            Value::Object(claims) => claims,
            _ => Map::new(),
        }
    }

    fn describe_user(&self, claims: &mut Map<String, Value>, user: &User, audience: &Application) {
        claims.insert("oid".into(), json!(user.id));
        if !user.groups.is_empty() {
            claims.insert("groups".into(), json!(user.groups));
        }
        let roles = audience.known_roles(&user.roles);
        if !roles.is_empty() {
            claims.insert("roles".into(), json!(roles));
        }
    }

    /// `sub`: another one for every application, the same for ever.
    fn pairwise(&self, user: Uuid, application: Uuid) -> String {
        let mut hash = Sha256::new();
        for id in [self.directory.tenant().id, application, user] {
            hash.update(id.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(hash.finalize())
    }

    fn sign(&self, claims: &Map<String, Value>) -> Minted {
        let keys = self.keys.keys();
        // A key ring is never empty; should it be, that is an error of signing.
        let key = keys.first().ok_or(jsonwebtoken::errors::ErrorKind::RsaFailedSigning)?;
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(key.kid.clone());
        jsonwebtoken::encode(&header, claims, &key.encoding)
    }
}

/// Left half of SHA-256 (OpenID Connect Core §3.3.2.11).
fn half_hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(text)[..16])
}
