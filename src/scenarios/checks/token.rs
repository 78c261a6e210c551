//! A token of the issuer for a user has the claims it must have.

use super::{Check, Verdict};
use crate::{Run, ScenarioError};
use aksim_identity::DEVELOPMENT_PASSWORD;
use aksim_model::endpoint::AzureName;
use aksim_runtime::net::azure_http_client;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::net::SocketAddr;

/// Azure CLI's own application, a public client of every tenant.
const AZURE_CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
const ISSUER: &str = "login.microsoftonline.com";

/// `token`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TokenClaims {
    /// User of the project.
    user: String,
    /// Scope, such as `api://shop/.default`.
    scope: String,
    /// Claims; a list must contain the value, anything else equal it.
    claims: serde_json::Map<String, Value>,
}

#[async_trait]
impl Check for TokenClaims {
    fn claim(&self) -> String {
        format!("a token of {} has {}", self.user, Value::Object(self.claims.clone()))
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let environment = run.environment;
        let port = environment.port(&environment.control.world().await?, "identity")?;
        let name = AzureName { host: ISSUER.into(), port: 443, target: SocketAddr::from(([127, 0, 0, 1], port)) };
        let http = azure_http_client(&environment.pki()?, &[name])?;
        let tenant = format!("{}.onmicrosoft.com", environment.config.tenant);
        let own = environment.config.users.iter().find(|u| u.name == self.user).and_then(|u| u.password.clone());
        let password = own.unwrap_or_else(|| DEVELOPMENT_PASSWORD.to_owned());
        let username = format!("{}@{tenant}", self.user);
        let form = [
            ("grant_type", "password"),
            ("client_id", AZURE_CLI),
            ("scope", self.scope.as_str()),
            ("username", username.as_str()),
            ("password", password.as_str()),
        ];
        let answer = http.post(format!("https://{ISSUER}/{tenant}/oauth2/v2.0/token")).form(&form).send().await?;
        let answer: Value = answer.json().await?;
        let payload = answer["access_token"].as_str().and_then(|t| t.split('.').nth(1));
        let decoded = payload.and_then(|p| URL_SAFE_NO_PAD.decode(p).ok());
        let Some(claims) = decoded.and_then(|d| serde_json::from_slice::<Value>(&d).ok()) else {
            return Ok(Verdict::final_(false, plain_error(&answer)));
        };
        let wrong: Vec<&String> =
            self.claims.iter().filter(|(k, v)| !has(&claims[k.as_str()], v)).map(|(k, _)| k).collect();
        let found = wrong.iter().map(|k| format!("{k} is {}", claims[k.as_str()])).collect::<Vec<_>>().join(", ");
        Ok(Verdict::final_(wrong.is_empty(), if wrong.is_empty() { "it has".into() } else { found }))
    }
}

fn plain_error(answer: &Value) -> String {
    answer["error_description"].as_str().unwrap_or("the issuer gave no token").to_owned()
}

fn has(claim: &Value, wanted: &Value) -> bool {
    claim == wanted || claim.as_array().is_some_and(|items| items.contains(wanted))
}
