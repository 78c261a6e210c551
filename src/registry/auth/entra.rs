//! Sign-in by Microsoft Entra ID: access tokens, and service principals by client id and secret.

use super::{AcrRole, AuthError, Principal, Rights};
use aksim_runtime::oidc::{Claims, OidcConfig, TokenError, TokenVerifier};
use serde::Deserialize;
use std::time::Duration;

/// How long the issuer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A role given to a principal for the whole registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleAssignment {
    /// Object id of a user, group or service principal, or the client id of an application.
    pub principal: String,
    /// The role.
    pub role: AcrRole,
}

/// The tenant whose principals may sign in.
#[derive(Clone)]
pub struct EntraConfig {
    /// Tenant id.
    pub tenant_id: String,
    /// `https://login.microsoftonline.com`, without a slash at the end.
    pub authority: String,
    /// Accepted `aud` of access tokens; see [`EntraConfig::default_audiences`].
    pub audiences: Vec<String>,
    /// Scope asked for when a client secret is checked.
    pub scope: String,
    /// Client that reaches and trusts the issuer.
    pub http: reqwest::Client,
    /// Who has which role.
    pub assignments: Vec<RoleAssignment>,
}

impl EntraConfig {
    /// The tenant `tenant_id` at `login.microsoftonline.com`, as ACR asks it.
    pub fn new(tenant_id: &str, http: reqwest::Client, assignments: Vec<RoleAssignment>) -> Self {
        Self {
            tenant_id: tenant_id.to_owned(),
            authority: "https://login.microsoftonline.com".to_owned(),
            audiences: Self::default_audiences(),
            scope: "https://management.azure.com/.default".to_owned(),
            http,
            assignments,
        }
    }

    /// Resources whose tokens ACR takes: Azure Resource Manager and ACR itself.
    pub fn default_audiences() -> Vec<String> {
        let resources = [
            "https://management.azure.com",
            "https://management.core.windows.net",
            "https://containerregistry.azure.net",
        ];
        // Version 2.0 tokens name a resource by its client id.
        let ids = ["797f4846-ba00-4fd7-ba43-dac1f8f63013", "6a0ec4d3-30cb-4a83-91c0-ae56bc0e3d26"];
        let by_uri = resources.iter().flat_map(|r| [(*r).to_owned(), format!("{r}/")]);
        by_uri.chain(ids.map(str::to_owned)).collect()
    }
}

pub(super) struct Entra {
    config: EntraConfig,
    verifier: TokenVerifier,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Entra {
    pub(super) fn new(config: EntraConfig) -> Self {
        let verifier = TokenVerifier::new(OidcConfig {
            issuer: format!("{}/{}/v2.0", config.authority, config.tenant_id),
            audiences: config.audiences.clone(),
            http: config.http.clone(),
        });
        Self { config, verifier }
    }

    pub(super) fn tenant_id(&self) -> &str {
        &self.config.tenant_id
    }

    /// Whose access token it is.
    pub(super) async fn sign_in_token(&self, token: &str) -> Result<Principal, AuthError> {
        match self.verifier.verify(token).await {
            Ok(claims) => self.principal(&claims),
            Err(TokenError::Unavailable { issuer, cause }) => {
                Err(AuthError::IssuerUnavailable(format!("{issuer}: {cause}")))
            }
            Err(error) => Err(AuthError::BadCredentials(error.to_string())),
        }
    }

    /// A service principal: its secret is right when the issuer gives a token for it.
    pub(super) async fn sign_in_application(&self, id: &str, secret: &str) -> Result<Principal, AuthError> {
        let url = format!("{}/{}/oauth2/v2.0/token", self.config.authority, self.config.tenant_id);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", id),
            ("client_secret", secret),
            ("scope", &self.config.scope),
        ];
        let unavailable = |e: reqwest::Error| AuthError::IssuerUnavailable(e.to_string());
        let response = self.config.http.post(&url).form(&form).timeout(DEADLINE).send().await.map_err(unavailable)?;
        let status = response.status();
        if status.is_server_error() {
            return Err(AuthError::IssuerUnavailable(format!("{url} answered {status}")));
        }
        let answer: TokenAnswer = response.json().await.map_err(unavailable)?;
        match answer.access_token {
            Some(token) if status.is_success() => self.sign_in_token(&token).await,
            _ => {
                let reason = answer.error_description.or(answer.error).unwrap_or_else(|| status.to_string());
                Err(AuthError::BadCredentials(format!("invalid username or password: {reason}")))
            }
        }
    }

    fn principal(&self, claims: &Claims) -> Result<Principal, AuthError> {
        let mut ids: Vec<&str> = claims.groups();
        ids.extend(claims.oid());
        // The application's own token: a user's token must not get the rights of the application it was asked by.
        if claims.scp().is_empty() {
            ids.extend(claims.azp());
        }
        let held = |a: &&RoleAssignment| ids.iter().any(|id| id.eq_ignore_ascii_case(&a.principal));
        let rights = Rights::of(self.config.assignments.iter().filter(held).map(|a| a.role));
        let name = claims.preferred_username().or(claims.azp()).or(claims.oid()).unwrap_or(claims.sub()).to_owned();
        if rights.is_empty() {
            return Err(AuthError::Denied { principal: name, asked: "any role on this registry".to_owned() });
        }
        Ok(Principal { name, rights })
    }
}
