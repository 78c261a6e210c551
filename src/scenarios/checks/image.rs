//! An image is in the environment's registry.

use super::{Check, Verdict};
use crate::{Run, ScenarioError};
use aksim_runtime::net::azure_http_client;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// `image`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ImagePushed {
    /// Repository.
    repository: String,
    /// Tag.
    tag: String,
}

#[async_trait]
impl Check for ImagePushed {
    fn claim(&self) -> String {
        format!("the registry has {}:{}", self.repository, self.tag)
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let environment = run.environment;
        let port = environment.port(&environment.control.world().await?, "registry")?;
        let path = environment.home.component("registry").join("admin-password");
        let password = std::fs::read_to_string(&path).map_err(|source| ScenarioError::Read { path, source })?;
        let http = azure_http_client(&environment.pki()?, &[])?;
        let url = format!("https://127.0.0.1:{port}/v2/{}/manifests/{}", self.repository, self.tag);
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        let request = http.head(url).basic_auth(&environment.config.registry, Some(password)).header("accept", accept);
        let answer = request.send().await?;
        let digest = answer.headers().get("docker-content-digest").and_then(|d| d.to_str().ok());
        let found = digest.map_or_else(|| format!("HTTP {}", answer.status()), str::to_owned);
        Ok(Verdict::new(answer.status().is_success(), found))
    }
}
