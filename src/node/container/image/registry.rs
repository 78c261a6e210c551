//! Pulling by the OCI distribution specification, with Docker's token authentication.

use super::{
    for_this_machine,
    store::{BlobSource, MAX_DOCUMENT, digest_of},
};
use crate::{container::config::ContainerRuntimeConfig, runtime::RegistryCredentials};
use aksim_model::{
    endpoint::AzureName,
    image_ref::{DEFAULT_REGISTRY, ImageRef},
};
use aksim_runtime::pki::install_crypto_provider;
use async_trait::async_trait;
use futures::StreamExt;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use parking_lot::{Mutex, RwLock};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs::File, io::Write, path::Path, time::Duration};

const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// A registry that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Reaches registries.
pub(super) struct RegistryClient {
    ca_pem: Option<String>,
    http: Mutex<Http>,
    credentials: RwLock<BTreeMap<String, RegistryCredentials>>,
}

/// The client, made at the first pull: until then the names may change.
struct Http {
    azure_names: Vec<AzureName>,
    client: Option<Client>,
}

fn build(ca_pem: Option<&str>, names: &[AzureName]) -> Result<Client, reqwest::Error> {
    install_crypto_provider();
    let mut client = Client::builder().connect_timeout(Duration::from_secs(10)).read_timeout(SILENCE);
    if let Some(pem) = ca_pem {
        client = client.tls_certs_merge([reqwest::Certificate::from_pem(pem.as_bytes())?]);
    }
    for name in names.iter().filter(|n| n.port == 443) {
        client = client.resolve(&name.host, name.target);
    }
    client.build()
}

impl RegistryClient {
    pub(super) fn new(config: &ContainerRuntimeConfig) -> Self {
        Self {
            ca_pem: config.ca_pem.clone(),
            http: Mutex::new(Http { azure_names: config.azure_names.clone(), client: None }),
            credentials: RwLock::new(config.credentials.clone()),
        }
    }

    pub(super) fn set_azure_names(&self, azure_names: Vec<AzureName>) {
        *self.http.lock() = Http { azure_names, client: None };
    }

    fn http(&self) -> Result<Client, String> {
        let mut http = self.http.lock();
        if let Some(client) = &http.client {
            return Ok(client.clone());
        }
        let client = build(self.ca_pem.as_deref(), &http.azure_names);
        let client = client.map_err(|e| format!("cannot make the image puller: {e}"))?;
        Ok(http.client.insert(client).clone())
    }

    pub(super) fn set_credentials(&self, registry: &str, credentials: RegistryCredentials) {
        self.credentials.write().insert(registry.to_owned(), credentials);
    }

    pub(super) fn session(&self, image: &ImageRef, credentials: &RegistryCredentials) -> Result<Session, String> {
        let own = self.credentials.read().get(&image.registry).cloned();
        let credentials = match (credentials, own) {
            (RegistryCredentials::Anonymous, Some(own)) => own,
            (given, _) => given.clone(),
        };
        let host = if image.registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &image.registry };
        let name = host.split(':').next().unwrap_or(host);
        // As Docker does: a registry on this machine may speak plain HTTP.
        let scheme = if matches!(name, "localhost" | "127.0.0.1") { "http" } else { "https" };
        Ok(Session {
            http: self.http()?,
            base: format!("{scheme}://{host}/v2/{}", image.repository),
            repository: image.repository.clone(),
            reference: image.manifest_reference().to_owned(),
            credentials,
            token: Mutex::new(None),
        })
    }
}

/// One pull.
pub(super) struct Session {
    http: Client,
    base: String,
    repository: String,
    reference: String,
    credentials: RegistryCredentials,
    token: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// An error with its causes: reqwest keeps the reason (name, certificate) below.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Session {
    fn authorized(&self, request: RequestBuilder, challenge: Option<&str>) -> RequestBuilder {
        if let Some(token) = &*self.token.lock() {
            return request.bearer_auth(token);
        }
        match (&self.credentials, challenge) {
            (RegistryCredentials::Basic { username, password }, Some(c))
                if c.to_ascii_lowercase().starts_with("basic") =>
            {
                request.basic_auth(username, Some(password))
            }
            _ => request,
        }
    }

    async fn get(&self, url: &str, accept: &str) -> Result<Response, String> {
        let request = || self.http.get(url).header(ACCEPT, accept);
        let mut response = self.authorized(request(), None).send().await.map_err(|e| explain(&e))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let header =
                response.headers().get(WWW_AUTHENTICATE).and_then(|h| h.to_str().ok()).unwrap_or("").to_owned();
            if header.to_ascii_lowercase().starts_with("bearer") {
                let token = self.fetch_token(&header).await?;
                *self.token.lock() = Some(token);
            }
            response = self.authorized(request(), Some(&header)).send().await.map_err(|e| explain(&e))?;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        Err(refusal(status, &body, &format!("{}:{}", self.repository, self.reference)))
    }

    async fn fetch_token(&self, challenge: &str) -> Result<String, String> {
        let fields = challenge_fields(challenge);
        let realm = fields.get("realm").ok_or("the registry's challenge names no realm")?;
        let scope = fields.get("scope").cloned().unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut query = vec![("scope", scope)];
        query.extend(fields.get("service").map(|s| ("service", s.clone())));
        let mut request = self.http.get(realm).query(&query);
        if let RegistryCredentials::Basic { username, password } = &self.credentials {
            request = request.basic_auth(username, Some(password));
        }
        let response = request.send().await.map_err(|e| explain(&e))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.bytes().await.unwrap_or_default();
            return Err(format!("failed to authorize: {}", refusal(status, &body, &self.repository)));
        }
        let token: Token = response.json().await.map_err(|e| explain(&e))?;
        token.token.or(token.access_token).ok_or_else(|| "the registry's token service gave no token".to_owned())
    }

    async fn document(&self, reference: &str) -> Result<(String, Vec<u8>), String> {
        let response = self.get(&format!("{}/manifests/{reference}", self.base), MANIFESTS).await?;
        let mut text = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            text.extend_from_slice(&chunk.map_err(|e| explain(&e))?);
            if text.len() as u64 > MAX_DOCUMENT {
                return Err("the manifest is too large".into());
            }
        }
        let digest = digest_of(&text);
        if reference.starts_with("sha256:") && reference != digest {
            return Err(format!("the registry gave {digest} when asked for {reference}"));
        }
        Ok((digest, text))
    }

    /// Digest and manifest for this machine, and the digest of the index it was chosen from.
    pub(super) async fn manifest(&self) -> Result<(String, ImageManifest, Option<String>), String> {
        let (digest, text) = self.document(&self.reference).await?;
        let is_index = serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|v| v.get("manifests").is_some());
        let parse = |text: &[u8]| serde_json::from_slice(text).map_err(|e| format!("the manifest does not parse: {e}"));
        if !is_index {
            return Ok((digest, parse(&text)?, None));
        }
        let index: ImageIndex = serde_json::from_slice(&text).map_err(|e| format!("the index does not parse: {e}"))?;
        let chosen = for_this_machine(&index)?.digest().to_string();
        let (chosen, text) = self.document(&chosen).await?;
        Ok((chosen, parse(&text)?, Some(digest)))
    }
}

fn refusal(status: StatusCode, body: &[u8], what: &str) -> String {
    let detail = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|v| {
        let first = v.pointer("/errors/0")?;
        let text = |key: &str| first.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        Some(format!(": {}: {}", text("code"), text("message")))
    });
    let detail = detail.unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND => format!("{what}: not found{detail}"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!("{what}: {status}, sign-in needed{detail}"),
        _ => format!("{what}: unexpected status {status}{detail}"),
    }
}

/// `Bearer realm="…",service="…"` as fields.
fn challenge_fields(challenge: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = challenge.split_once(' ').map_or("", |(_, rest)| rest);
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        fields.insert(key.trim_matches([' ', ',']).to_ascii_lowercase(), value.to_owned());
        rest = next;
    }
    fields
}

#[async_trait]
impl BlobSource for Session {
    async fn fetch(&self, blob: &Descriptor, to: &Path) -> Result<(), String> {
        let response = self.get(&format!("{}/blobs/{}", self.base, blob.digest()), "*/*").await?;
        let mut sink = BlobFile::create(to, blob)?;
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            sink.write(&chunk.map_err(|e| explain(&e))?)?;
        }
        sink.finish()
    }
}

/// A blob being written: never longer than its descriptor says, and checked at the end.
pub(super) struct BlobFile {
    file: File,
    hash: Sha256,
    left: u64,
    digest: String,
}

impl BlobFile {
    pub(super) fn create(path: &Path, blob: &Descriptor) -> Result<Self, String> {
        let file = File::create_new(path).map_err(|e| format!("write {}: {e}", path.display()))?;
        Ok(Self { file, hash: Sha256::new(), left: blob.size(), digest: blob.digest().to_string() })
    }

    pub(super) fn write(&mut self, chunk: &[u8]) -> Result<(), String> {
        let over = || format!("{} is longer than its descriptor says", self.digest);
        self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(over)?;
        self.hash.update(chunk);
        self.file.write_all(chunk).map_err(|e| format!("write {}: {e}", self.digest))
    }

    pub(super) fn finish(self) -> Result<(), String> {
        let found = format!("sha256:{}", hex::encode(self.hash.finalize()));
        if self.left == 0 && found == self.digest {
            Ok(())
        } else {
            Err(format!("{}: the content received is {found}, {} bytes short", self.digest, self.left))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_challenges() {
        let fields = challenge_fields(
            r#"Bearer realm="https://shopacr.azurecr.io/oauth2/token",service="shopacr.azurecr.io",scope="repository:web:pull,push""#,
        );
        assert_eq!(fields["realm"], "https://shopacr.azurecr.io/oauth2/token");
        assert_eq!(fields["scope"], "repository:web:pull,push");
        assert_eq!(challenge_fields("Basic realm=x")["realm"], "x");
        assert!(challenge_fields("Bearer").is_empty());
    }
}
