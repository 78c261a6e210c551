//! The registry's HTTP interface: OCI distribution specification 1.1, ACR's token endpoints and metadata.

mod acr;
mod blobs;
mod error;
mod listing;
mod manifests;
mod route;
mod uploads;

pub use error::ApiError;

use super::{
    auth::{Authenticator, Fields},
    storage::{Storage, StorageError, Uploads},
};
use aksim_runtime::recorder::Recorder;
use axum::{body::Body, response::IntoResponse};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts, uri::Authority};
use route::Route;
use std::sync::Arc;

/// Largest form of the token endpoints, bytes.
const MAX_FORM: usize = 256 << 10;
/// `Docker-Content-Digest`.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What every request works with.
pub struct App {
    /// Content.
    pub storage: Arc<Storage>,
    /// Uploads under way.
    pub uploads: Arc<Uploads>,
    /// Sign-in.
    pub auth: Arc<Authenticator>,
    /// Pushes are recorded.
    pub recorder: Recorder,
    /// `shopacr.azurecr.io`.
    pub login_server: String,
}

type Answer = Result<Response<Body>, ApiError>;

impl App {
    /// Answers a request; errors in the form of the specification.
    pub async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut response = match self.dispatch(&parts, body).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(target: "registry", method = %parts.method, path = parts.uri.path(), %error, "refused");
                error.into_response()
            }
        };
        let version = HeaderName::from_static("docker-distribution-api-version");
        response.headers_mut().insert(version, HeaderValue::from_static("registry/2.0"));
        if parts.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn dispatch(&self, parts: &Parts, body: Body) -> Answer {
        let path = parts.uri.path();
        let route = match Route::parse(path) {
            Ok(Route::Token) => return self.token(parts, body).await,
            Ok(Route::Exchange) => return self.exchange(parts, body).await,
            Ok(route) => Ok(route),
            Err(error) => Err(error),
        };
        // Who is not signed in does not learn what is wrong with a path.
        let needs = route.as_ref().ok().and_then(|r| r.needs(&parts.method));
        let suggested = route.as_ref().ok().and_then(|r| r.suggests(&parts.method));
        self.auth.authorize(&parts.headers, &self.host(parts), needs.as_ref(), suggested.as_ref()).await?;
        let query = Fields::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let get = parts.method == Method::GET;
        let reading = get || parts.method == Method::HEAD;
        match (route?, &parts.method) {
            (Route::Base, _) if reading => Ok(axum::Json(serde_json::json!({})).into_response()),
            (Route::Catalog, _) if get => self.catalog(path, &query).await,
            (Route::Manifest(name, reference), _) if reading => self.manifest(name, reference, parts).await,
            (Route::Manifest(name, reference), &Method::PUT) => self.put_manifest(name, reference, parts, body).await,
            (Route::Manifest(name, reference), &Method::DELETE) => self.delete_manifest(name, reference).await,
            (Route::Blob(name, digest), _) if reading => self.blob(name, digest, parts).await,
            (Route::Blob(name, digest), &Method::DELETE) => self.delete_blob(name, digest).await,
            (Route::Uploads(name), &Method::POST) => self.begin_upload(name, &query, parts, body).await,
            (Route::Upload(name, id), &Method::PATCH) => self.append_upload(name, id, parts, body).await,
            (Route::Upload(name, id), &Method::PUT) => self.complete_upload(name, id, &query, parts, body).await,
            (Route::Upload(name, id), &Method::DELETE) => self.cancel_upload(name, id).await,
            (Route::Upload(name, id), _) if reading => self.upload_status(name, id).await,
            (Route::Tags(name), _) if get => self.tags(name, path, &query).await,
            (Route::Referrers(name, digest), _) if get => self.referrers(name, digest, &query).await,
            (Route::AcrRepository(name), _) if get => self.acr_repository(name).await,
            (Route::AcrRepository(name), &Method::DELETE) => self.acr_delete_repository(name).await,
            (Route::AcrTags(name), _) if get => self.acr_tags(name, &query).await,
            (Route::AcrTag(name, tag), _) if get => self.acr_tag(name, tag).await,
            (Route::AcrTag(name, tag), &Method::DELETE) => self.acr_untag(name, tag).await,
            (Route::AcrManifests(name), _) if get => self.acr_manifests(name, &query).await,
            (Route::AcrManifest(name, digest), _) if get => self.acr_manifest(name, digest).await,
            _ => Err(ApiError::MethodNotAllowed),
        }
    }

    /// Host that the client asked for, as a challenge and a link may repeat it.
    fn host(&self, parts: &Parts) -> String {
        let header = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let asked = parts.uri.authority().cloned().or_else(|| header?.parse::<Authority>().ok());
        match asked {
            Some(authority) if !authority.as_str().contains(['@', '"']) => authority.to_string(),
            _ => self.login_server.clone(),
        }
    }

    async fn token(&self, parts: &Parts, body: Body) -> Answer {
        let answer = match parts.method {
            Method::GET => {
                let query = Fields::parse(parts.uri.query().unwrap_or_default().as_bytes());
                self.auth.token_by_header(&parts.headers, &query).await?
            }
            Method::POST => self.auth.token_by_form(&form(body).await?).await?,
            _ => return Err(ApiError::MethodNotAllowed),
        };
        Ok(([(header::CACHE_CONTROL, "no-store")], axum::Json(answer)).into_response())
    }

    async fn exchange(&self, parts: &Parts, body: Body) -> Answer {
        if parts.method != Method::POST {
            return Err(ApiError::MethodNotAllowed);
        }
        let answer = self.auth.exchange(&form(body).await?).await?;
        Ok(([(header::CACHE_CONTROL, "no-store")], axum::Json(answer)).into_response())
    }

    /// Runs work on the storage off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let storage = self.storage.clone();
        Ok(tokio::task::spawn_blocking(move || work(&storage)).await??)
    }
}

async fn form(body: Body) -> Result<Fields, ApiError> {
    let bytes = axum::body::to_bytes(body, MAX_FORM)
        .await
        .map_err(|e| ApiError::Unsupported(format!("the form cannot be read: {e}")))?;
    Ok(Fields::parse(&bytes))
}

/// An answer of a status and headers; values that cannot stand in a header are left out.
fn answer<'a>(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, std::borrow::Cow<'a, str>)>,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
