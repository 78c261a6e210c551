//! Port-forward into a pod's own network namespace.

use super::{Api, Refusal, find, upgrade};
use crate::streaming::{port_forward, port_forward_channels as channels, spdy};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use std::sync::Arc;

/// Bytes between a WebSocket and the SPDY connection inside it.
const TUNNEL_BUFFER: usize = 256 * 1024;

pub(super) async fn port_forward(
    State(api): State<Arc<Api>>,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let view = find(&api, &namespace, &pod)?;
    let Some(sandbox) = view.sandbox.clone() else {
        let text = format!("unable to forward port because pod is not running: {namespace}/{pod}");
        return Err(Refusal(StatusCode::BAD_REQUEST, text));
    };
    let network = api.shared.network.clone();
    let dial = move |port: u16| {
        let (network, sandbox) = (network.clone(), sandbox.clone());
        async move { network.dial_sandbox(&sandbox, port).await }
    };
    if upgrade::wants_spdy(request.headers()) {
        return upgrade::spdy(&api, request, &[port_forward::PROTOCOL], move |io, _| async move {
            let (connection, driver) = spdy::connection(io);
            serve(driver, port_forward::serve(connection, dial)).await;
        });
    }
    let ports = channels::ports(request.uri().query().unwrap_or_default());
    let protocols = [port_forward::TUNNEL_PROTOCOL, channels::PROTOCOL];
    let socket = upgrade::websocket(request).await?.protocols(protocols);
    let Some(protocol) = socket.selected_protocol() else {
        let text = format!("the WebSocket must speak one of {protocols:?}");
        return Err(Refusal(StatusCode::BAD_REQUEST, text));
    };
    if protocol == channels::PROTOCOL {
        let ports = ports.map_err(|text| Refusal(StatusCode::BAD_REQUEST, text))?;
        return Ok(socket.on_upgrade(move |socket| channels::carry(socket, ports, dial)));
    }
    Ok(socket.on_upgrade(move |socket| async move {
        let (near, far) = tokio::io::duplex(TUNNEL_BUFFER);
        let (connection, driver) = spdy::connection(near);
        let served = serve(driver, port_forward::serve(connection, dial));
        tokio::join!(port_forward::tunnel(socket, far), served);
    }))
}

/// Until the client is gone; forwards under way end with it.
async fn serve(driver: impl Future<Output = Result<(), spdy::FrameError>>, forwards: impl Future<Output = ()>) {
    tokio::select! {
        driven = driver => if let Err(error) = driven {
            tracing::debug!(%error, "SPDY connection");
        },
        () = forwards => {}
    }
}
