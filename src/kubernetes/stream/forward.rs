//! Passing one request on: headers, bodies, upgraded connections.

use super::upstream::Upstream;
use crate::request::status::ApiError;
use axum::body::Body;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, header, request::Parts};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, sync::Arc};

/// Headers of a hop, which are not passed on (RFC 9110 §7.6.1), and the caller's credentials.
const NOT_PASSED: &[HeaderName] = &[
    header::CONNECTION,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::HOST,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
];

/// Where a request goes.
pub struct Destination {
    /// Address in the node network.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Path and parameters there.
    pub path: String,
}

/// Passes a request on and gives the answer; an upgrade is copied both ways until either ends.
///
/// # Errors
/// 500 with the cause when the other side cannot be reached.
pub async fn forward(
    upstream: &Arc<Upstream>,
    mut parts: Parts,
    body: Body,
    to: &Destination,
) -> Result<Response<Body>, ApiError> {
    let wants_upgrade = parts.headers.get(header::UPGRADE).cloned();
    let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() =
        to.path.parse::<Uri>().map_err(|error| ApiError::bad_request(format!("{}: {error}", to.path)))?;
    *request.headers_mut() = passed(&parts.headers);
    let host = to.address.to_string().parse().map_err(ApiError::internal)?;
    request.headers_mut().insert(header::HOST, host);
    if let Some(protocol) = &wants_upgrade {
        request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(header::UPGRADE, protocol.clone());
    }
    let mut answer = upstream
        .send(to.address, to.tls, request)
        .await
        .map_err(|error| ApiError::internal(format!("error dialing backend: {error}")))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, body) = answer.into_parts();
        head.headers = passed(&head.headers);
        return Ok(Response::from_parts(head, Body::new(body)));
    }
    let Some(client) = client else {
        return Err(ApiError::bad_request("the connection cannot be upgraded: HTTP/1.1 is needed"));
    };
    let server = hyper::upgrade::on(&mut answer);
    upstream.spawn(async move {
        let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        // Either side going away ends the session; there is nobody left to tell.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let (head, _) = answer.into_parts();
    Ok(Response::from_parts(head, Body::empty()))
}

fn passed(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| !NOT_PASSED.contains(name) && !name.as_str().starts_with("impersonate-"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
