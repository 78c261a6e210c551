//! Client of the pipelines' REST API of a running environment.

use crate::{
    context::Context,
    failure::{Code, Failure},
};
use aksim_pipelines::{ServiceAddress, record::RunRecord};
use aksim_runtime::{net::azure_http_client, pki::Pki};
use reqwest::{Method, Response};
use serde::Serialize;
use serde_json::Value;

/// A client of the service.
pub struct PipelineClient {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl PipelineClient {
    /// The client of the project's environment.
    pub async fn connect(context: &Context) -> Result<Self, Failure> {
        let (config, home, control) = context.running()?;
        control.info().await?;
        let dir = home.component("pipelines");
        let address = ServiceAddress::load(&dir).map_err(|error| {
            Failure::new(Code::Failure, format!("the environment has no pipelines: {error}"))
                .hint("start it with `aksim up`")
        })?;
        let token = std::fs::read_to_string(dir.join("access-token"))?;
        let pki = Pki::open(&home.pki(), &format!("aksim {} CA", config.name)).map_err(Failure::other)?;
        let http = azure_http_client(&pki, &[]).map_err(Failure::other)?;
        Ok(Self { http, base: address.api(), token })
    }

    /// Sends a request; an answer that is no success is a failure with the service's words.
    pub async fn send(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Response, Failure> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(Failure::other)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let said: Value = answer.json().await.unwrap_or_default();
        let message = said["message"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        let failure = Failure::new(if status.as_u16() == 400 { Code::Usage } else { Code::Failure }, message);
        Err(match said["hint"].as_str() {
            Some(hint) => failure.hint(hint),
            None => failure,
        })
    }

    /// JSON of an answer.
    pub async fn json(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Value, Failure> {
        self.send(method, path, body).await?.json().await.map_err(Failure::other)
    }

    /// Runs, newest first.
    pub async fn runs(&self) -> Result<Vec<RunRecord>, Failure> {
        let answer = self.json(Method::GET, "/build/builds", None::<&()>).await?;
        answer["value"].as_array().into_iter().flatten().map(record).collect()
    }

    /// A run.
    pub async fn get(&self, id: u64) -> Result<RunRecord, Failure> {
        record(&self.json(Method::GET, &format!("/build/builds/{id}"), None::<&()>).await?)
    }
}

/// The record in a build.
pub fn record(build: &Value) -> Result<RunRecord, Failure> {
    serde_json::from_value(build["run"].clone()).map_err(Failure::other)
}
