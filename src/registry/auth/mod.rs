//! Who may do what: ACR's tokens, its admin user, service principals and Entra sign-in.

mod entra;
mod oauth2;
mod scope;
mod token;

pub use entra::{EntraConfig, RoleAssignment};
pub use oauth2::Fields;
pub use scope::{Access, AcrRole, Action, Rights};
pub use token::{SigningKeyError, TokenSigner};

use base64::{Engine, engine::general_purpose::STANDARD};
use entra::Entra;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// User name that stands for "the password is a refresh token" at ACR.
pub const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// Why a request is not allowed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No credentials, or a token that is not (any more) valid.
    #[error("authentication required, visit https://aka.ms/acr/authorization for more information")]
    Required {
        /// How to get a token.
        challenge: HeaderValue,
        /// What was wrong with the token sent, if one was.
        reason: Option<String>,
    },
    /// The token does not cover the request.
    #[error("authentication required: the token does not allow {asked}")]
    InsufficientScope {
        /// What is needed.
        asked: Access,
        /// How to get a token for it.
        challenge: HeaderValue,
    },
    /// User name or password, or a token in their place, are wrong.
    #[error("{0}")]
    BadCredentials(String),
    /// Known, but without the right.
    #[error("requested access to the resource is denied: {principal} lacks {asked}")]
    Denied {
        /// Who.
        principal: String,
        /// What for.
        asked: String,
    },
    /// The issuer cannot be asked.
    #[error("the issuer cannot be reached: {0}")]
    IssuerUnavailable(String),
    /// A request of the token endpoints that means nothing.
    #[error("{0}")]
    BadRequest(String),
    /// A token could not be signed.
    #[error("signing: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

impl AuthError {
    /// HTTP status and error code of the distribution specification.
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Required { .. } | Self::InsufficientScope { .. } | Self::BadCredentials(_) => {
                (StatusCode::UNAUTHORIZED, "UNAUTHORIZED")
            }
            Self::Denied { .. } => (StatusCode::FORBIDDEN, "DENIED"),
            Self::IssuerUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::Signing(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }

    /// Value of `WWW-Authenticate`, where there is one.
    pub fn challenge(&self) -> Option<&HeaderValue> {
        match self {
            Self::Required { challenge, .. } | Self::InsufficientScope { challenge, .. } => Some(challenge),
            _ => None,
        }
    }

    /// `detail` of the error.
    pub fn detail(&self) -> Value {
        match self {
            Self::InsufficientScope { asked, .. } => {
                let one = |action: &Action| json!({"Type": asked.kind, "Name": asked.name, "Action": action});
                asked.actions.iter().map(one).collect()
            }
            Self::Required { reason: Some(reason), .. } => json!(reason),
            _ => Value::Null,
        }
    }
}

/// Somebody who has shown who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Admin user, application id or user name, for people and logs.
    pub name: String,
    /// What they may do.
    pub rights: Rights,
}

/// Name and password of the admin user.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminCredentials {
    /// The registry's name.
    pub username: String,
    /// Random, kept in the state folder.
    pub password: String,
}

impl std::fmt::Debug for AdminCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Checks credentials and issues tokens.
pub struct Authenticator {
    /// `shopacr.azurecr.io`: `service` of the challenge, `aud` of the tokens.
    login_server: String,
    admin: AdminCredentials,
    signer: TokenSigner,
    entra: Option<Entra>,
}

impl Authenticator {
    /// An authenticator; without `entra` only the admin user can sign in.
    pub fn new(login_server: String, admin: AdminCredentials, signer: TokenSigner, entra: Option<EntraConfig>) -> Self {
        Self { login_server, admin, signer, entra: entra.map(Entra::new) }
    }

    /// Name and password of the admin user.
    pub fn admin(&self) -> &AdminCredentials {
        &self.admin
    }

    /// Allows or refuses a request that needs `asked`; `None` is anybody who is signed in.
    /// `suggested` is the scope that a challenge names: what the client will need next, too.
    ///
    /// # Errors
    /// [`AuthError`] with a challenge when a token would help.
    pub async fn authorize(
        &self,
        headers: &HeaderMap,
        host: &str,
        asked: Option<&Access>,
        suggested: Option<&Access>,
    ) -> Result<(), AuthError> {
        let required = |reason| AuthError::Required { challenge: self.challenge(host, suggested, None), reason };
        let Some((scheme, value)) = authorization(headers) else { return Err(required(None)) };
        if scheme.eq_ignore_ascii_case("bearer") {
            let granted = self.signer.verify_access(value).map_err(|e| required(Some(e.to_string())))?;
            return match asked {
                Some(asked) if !granted.iter().any(|g| g.covers(asked)) => Err(AuthError::InsufficientScope {
                    asked: asked.clone(),
                    challenge: self.challenge(host, suggested, Some("insufficient_scope")),
                }),
                _ => Ok(()),
            };
        }
        let Some((user, password)) = basic(scheme, value) else {
            return Err(required(Some("neither Bearer nor Basic".to_owned())));
        };
        let principal = match self.sign_in(&user, &password).await {
            Err(AuthError::BadCredentials(reason)) => return Err(required(Some(reason))),
            other => other?,
        };
        match asked {
            Some(asked) if !principal.rights.grant(asked).covers(asked) => {
                Err(AuthError::Denied { principal: principal.name, asked: asked.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// `WWW-Authenticate`: the realm is at the host that was asked, so that it works by every name of the registry.
    fn challenge(&self, host: &str, asked: Option<&Access>, error: Option<&str>) -> HeaderValue {
        let mut text = format!(r#"Bearer realm="https://{host}/oauth2/token",service="{}""#, self.login_server);
        if let Some(asked) = asked {
            text.push_str(&format!(r#",scope="{asked}""#));
        }
        if let Some(error) = error {
            text.push_str(&format!(r#",error="{error}""#));
        }
        // Host and scope are validated; what is left cannot hold a control character.
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Bearer"))
    }

    /// Who has this name and password: the admin user, the bearer of a refresh token, or a service principal.
    async fn sign_in(&self, user: &str, password: &str) -> Result<Principal, AuthError> {
        if user == TOKEN_USER {
            return self.signer.verify_refresh(password).map_err(|e| AuthError::BadCredentials(e.to_string()));
        }
        if user == self.admin.username {
            // Of equal length and unrelated to the password, so the time to compare tells nothing.
            return match Sha256::digest(password) == Sha256::digest(&self.admin.password) {
                true => Ok(Principal { name: user.to_owned(), rights: Rights::all() }),
                false => Err(AuthError::BadCredentials("invalid username or password".to_owned())),
            };
        }
        match &self.entra {
            Some(entra) => entra.sign_in_application(user, password).await,
            None => Err(AuthError::BadCredentials("invalid username or password".to_owned())),
        }
    }
}

fn authorization(headers: &HeaderMap) -> Option<(&str, &str)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.split_once(' ').map(|(scheme, value)| (scheme, value.trim()))
}

fn basic(scheme: &str, value: &str) -> Option<(String, String)> {
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}
