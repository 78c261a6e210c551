//! The kubelet's own API on the node's address, for the API server alone.

mod exec;
mod logs;
mod port_forward;
mod stats;
mod upgrade;

use super::{shared::Shared, table::PodView};
use aksim_runtime::{
    http::{ConnectionInfo, serve as serve_http},
    pki::{Pki, PkiError},
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use parking_lot::Mutex;
use std::{future::Future, sync::Arc};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Group whose members may use this API.
const ADMINISTRATORS: &str = "system:masters";

/// State of the handlers.
struct Api {
    shared: Arc<Shared>,
    stats: stats::Sampler,
    /// Upgraded connections; they end with the server.
    sessions: Mutex<JoinSet<()>>,
}

/// Serves until told to stop.
pub(super) fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    pki: &Pki,
    shutdown: CancellationToken,
) -> Result<impl Future<Output = std::io::Result<()>> + use<>, PkiError> {
    let address = shared.node.internal_ip.to_string();
    let tls = pki.server_config(&[&shared.node.name, &address], true)?;
    let api = Arc::new(Api { shared, stats: stats::Sampler::default(), sessions: Mutex::default() });
    Ok(serve_http(listener, Some(tls), router(api), shutdown))
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics/resource", get(stats::metrics))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(exec::attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward::port_forward))
        .layer(middleware::from_fn(authorize))
        .with_state(api)
}

async fn authorize(Extension(connection): Extension<ConnectionInfo>, request: Request, next: Next) -> Response {
    // rustls has verified the chain against the environment's CA.
    match connection.client_certificates.first() {
        None => (StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
        Some(certificate) if !is_administrator(certificate) => {
            (StatusCode::FORBIDDEN, "Forbidden (group system:masters required)").into_response()
        }
        Some(_) => next.run(request).await,
    }
}

fn is_administrator(certificate: &[u8]) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    parsed.subject().iter_organization().any(|o| o.as_str() == Ok(ADMINISTRATORS))
}

async fn pods(State(api): State<Arc<Api>>) -> Response {
    let items: Vec<_> = api.shared.pods.all().iter().map(|view| view.pod.clone()).collect();
    Json(serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })).into_response()
}

/// A refused request; text as the kubelet writes it.
#[derive(Debug)]
pub(super) struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// The pod that a path names.
fn find(api: &Api, namespace: &str, pod: &str) -> Result<Arc<PodView>, Refusal> {
    let found = api.shared.pods.find(namespace, pod);
    found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("pod does not exist: {namespace}/{pod}")))
}

/// A query as pairs, for names that come more than once.
pub(super) fn query(request: &Request) -> Vec<(String, String)> {
    let text = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

/// Whether a query's flag is set: `1` or `true`.
pub(super) fn flag(query: &[(String, String)], name: &str) -> bool {
    query.iter().any(|(key, value)| key == name && matches!(value.as_str(), "1" | "true"))
}

type ContainerPath = Path<(String, String, String)>;
