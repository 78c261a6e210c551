//! From a request to a stream: SPDY/3.1 or a WebSocket.

use super::{Api, Refusal};
use crate::streaming::spdy::PROTOCOL;
use axum::{
    body::Body,
    extract::{FromRequestParts, Request, WebSocketUpgrade},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

/// Header that offers and chooses the protocol spoken inside SPDY.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// Largest message of a client, bytes: kubectl sends 32 KiB at a time.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

pub(super) fn wants_spdy(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok());
    upgrade.is_some_and(|v| v.eq_ignore_ascii_case(PROTOCOL))
}

/// A WebSocket as the request asks for one.
pub(super) async fn websocket(request: Request) -> Result<WebSocketUpgrade, Refusal> {
    let (mut parts, _) = request.into_parts();
    let socket = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|e| Refusal(StatusCode::BAD_REQUEST, format!("unable to upgrade: {e}")))?;
    Ok(socket.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE))
}

/// Switches to SPDY with the first of our protocols that the client offers.
pub(super) fn spdy<F, Fut>(
    api: &Api,
    mut request: Request,
    protocols: &[&'static str],
    session: F,
) -> Result<Response, Refusal>
where
    F: FnOnce(TokioIo<Upgraded>, &'static str) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let offered: Vec<&str> = request
        .headers()
        .get_all(STREAM_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect();
    let Some(protocol) = protocols.iter().copied().find(|p| offered.contains(p)) else {
        let text = format!("unable to upgrade: offered {offered:?}, supported {protocols:?}");
        return Err(Refusal(StatusCode::FORBIDDEN, text));
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let mut sessions = api.sessions.lock();
    while sessions.try_join_next().is_some() {}
    sessions.spawn(async move {
        match upgraded.await {
            Ok(io) => session(TokioIo::new(io), protocol).await,
            Err(error) => tracing::debug!(%error, "connection not upgraded"),
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .header(STREAM_PROTOCOL, protocol)
        .body(Body::empty())
        .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}
