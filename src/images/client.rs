//! Requests to registries: Docker's token protocol, tokens and challenges remembered, connections reused.

use super::error::BuildError;
use aksim_model::image_ref::ImageRef;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;
use reqwest::{Body, RequestBuilder, Response};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// How long a registry may take to begin its answer to a small request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// A token is thrown away this long before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(30);

/// User names and passwords by registry host.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<String, (String, String)>);

impl Credentials {
    /// Adds those of a registry.
    pub fn with(mut self, registry: &str, username: &str, password: &str) -> Self {
        self.0.insert(registry.to_owned(), (username.to_owned(), password.to_owned()));
        self
    }
}

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Anonymous,
    Basic,
    Bearer { realm: String, service: Option<String> },
}

struct Token {
    value: String,
    until: Instant,
}

/// A client of any registry.
pub struct RegistryClient {
    http: reqwest::Client,
    credentials: Credentials,
    challenges: Mutex<HashMap<String, Challenge>>,
    /// By registry and scope.
    tokens: Mutex<HashMap<(String, String), Token>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Host that answers for a registry's name.
pub fn host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

impl RegistryClient {
    pub(super) fn new(http: reqwest::Client, credentials: Credentials) -> Self {
        Self { http, credentials, challenges: Mutex::default(), tokens: Mutex::default() }
    }

    /// Asks for a URL outside of registries, without credentials.
    pub async fn get(&self, url: url::Url) -> Result<Response, reqwest::Error> {
        self.http.get(url).send().await
    }

    /// URL below an image's repository.
    pub fn url(&self, image: &ImageRef, tail: &str) -> String {
        format!("https://{}/v2/{}/{tail}", host(&image.registry), image.repository)
    }

    /// Sends a request; with a new token once more when the old one is refused.
    ///
    /// `body` is called for each try. Any answer that is not a refusal is returned, whatever its status.
    pub async fn send(
        &self,
        image: &ImageRef,
        push: bool,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: impl Fn() -> Option<Body>,
    ) -> Result<Response, BuildError> {
        let scope = format!("repository:{}:{}", image.repository, if push { "pull,push" } else { "pull" });
        for attempt in 0..2 {
            let mut request = self.http.request(method.clone(), url).headers(headers.clone());
            // An absolute location on another host (a redirect to storage) gets no credentials of this one.
            if url.starts_with(&format!("https://{}/", host(&image.registry))) {
                request = self.authorize(request, &image.registry, &scope).await?;
            }
            let streaming = match body() {
                Some(body) => {
                    request = request.body(body);
                    true
                }
                None => false,
            };
            if !streaming {
                request = request.timeout(ANSWER_DEADLINE);
            }
            let response = request.send().await.map_err(|e| self.failed(&image.registry, e))?;
            if response.status() != StatusCode::UNAUTHORIZED || attempt == 1 {
                return Ok(response);
            }
            let challenge = self.challenge(&image.registry, response.headers())?;
            let known = self.challenges.lock().insert(image.registry.clone(), challenge.clone());
            self.tokens.lock().remove(&(image.registry.clone(), scope.clone()));
            if known.as_ref() == Some(&challenge) && challenge == Challenge::Basic {
                return Ok(response);
            }
        }
        Err(BuildError::Registry { registry: image.registry.clone(), reason: "refused".to_owned() })
    }

    /// An error of the network as ours, causes included.
    pub fn failed(&self, registry: &str, error: reqwest::Error) -> BuildError {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        BuildError::Registry { registry: registry.to_owned(), reason }
    }

    /// A registry's refusal as an error, with its own words.
    pub async fn refused(&self, registry: &str, response: Response) -> BuildError {
        let (status, url) = (response.status(), response.url().clone());
        let body = response.bytes().await.unwrap_or_default();
        let said = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let message = said.as_ref().and_then(|v| v["errors"][0]["message"].as_str()).unwrap_or_default();
        let reason = format!("{status} for {}: {message}", url.path());
        BuildError::Registry { registry: registry.to_owned(), reason }
    }

    async fn authorize(
        &self,
        request: RequestBuilder,
        registry: &str,
        scope: &str,
    ) -> Result<RequestBuilder, BuildError> {
        let challenge = self.challenges.lock().get(registry).cloned();
        Ok(match challenge {
            None | Some(Challenge::Anonymous) => request,
            Some(Challenge::Basic) => match self.credentials.0.get(registry) {
                Some((user, password)) => request.basic_auth(user, Some(password)),
                None => request,
            },
            Some(Challenge::Bearer { realm, service }) => {
                request.bearer_auth(self.token(registry, scope, &realm, service.as_deref()).await?)
            }
        })
    }

    async fn token(
        &self,
        registry: &str,
        scope: &str,
        realm: &str,
        service: Option<&str>,
    ) -> Result<String, BuildError> {
        let key = (registry.to_owned(), scope.to_owned());
        if let Some(token) = self.tokens.lock().get(&key)
            && token.until > Instant::now()
        {
            return Ok(token.value.clone());
        }
        let mut query = vec![("scope", scope)];
        query.extend(service.map(|s| ("service", s)));
        let mut request = self.http.get(realm).query(&query).timeout(ANSWER_DEADLINE);
        if let Some((user, password)) = self.credentials.0.get(registry) {
            let basic = STANDARD.encode(format!("{user}:{password}"));
            request = request.header(header::AUTHORIZATION, format!("Basic {basic}"));
        }
        let response = request.send().await.map_err(|e| self.failed(registry, e))?;
        if !response.status().is_success() {
            return Err(self.refused(registry, response).await);
        }
        let answer: TokenAnswer = response.json().await.map_err(|e| self.failed(registry, e))?;
        let value = answer.access_token.or(answer.token).ok_or_else(|| BuildError::Registry {
            registry: registry.to_owned(),
            reason: format!("{realm} answered without a token"),
        })?;
        // Docker's token specification: 60 seconds when not said.
        let life = Duration::from_secs(answer.expires_in.unwrap_or(60));
        let until = Instant::now() + life.saturating_sub(TOKEN_MARGIN);
        self.tokens.lock().insert(key, Token { value: value.clone(), until });
        Ok(value)
    }

    /// Reads `WWW-Authenticate`. The realm must be as safe as the registry: credentials go there.
    fn challenge(&self, registry: &str, headers: &HeaderMap) -> Result<Challenge, BuildError> {
        let text = headers.get(header::WWW_AUTHENTICATE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (scheme, parameters) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Challenge::Anonymous);
        }
        let parameters = parameters_of(parameters);
        let realm = parameters.get("realm").filter(|r| r.starts_with("https://"));
        let realm = realm.ok_or_else(|| BuildError::Registry {
            registry: registry.to_owned(),
            reason: format!("its token realm is not an https URL: {text}"),
        })?;
        Ok(Challenge::Bearer { realm: realm.clone(), service: parameters.get("service").cloned() })
    }
}

/// `name="value"` pairs separated by commas (RFC 9110 §11.2); values may hold commas.
fn parameters_of(text: &str) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(name, value.to_owned());
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let read = parameters_of(r#"realm="https://a/t",service="a b",scope="repository:x:pull,push", error=none"#);
        assert_eq!(read["realm"], "https://a/t");
        assert_eq!(read["scope"], "repository:x:pull,push");
        assert_eq!(read["error"], "none");
        for odd in ["", "=", "a=\"", "a=,b"] {
            parameters_of(odd);
        }
    }
}
