//! What probes and hooks do: run a command, ask over HTTP or gRPC, open a port.

use crate::runtime::{ExecSpec, NodeNetwork, NodeRuntime};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Bytes of output or body that are kept for a message.
const OUTPUT_LIMIT: usize = 10 * 1024;

/// An action failed; the message is the familiar one.
pub(super) type ActionResult = Result<(), String>;

/// Where the actions of a container go.
#[derive(Clone)]
pub(super) struct Target {
    pub runtime: Arc<dyn NodeRuntime>,
    pub network: Arc<dyn NodeNetwork>,
    pub container_id: String,
    pub container: Arc<Container>,
    pub address: IpAddr,
}

/// A port number, or the number of a named port of the container.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|p| *p > 0).ok_or_else(|| format!("invalid port {port:?}"))
}

fn address(target: &Target, host: Option<&String>, number: &IntOrString) -> Result<SocketAddr, String> {
    let ip = match host.filter(|h| !h.is_empty()) {
        Some(host) if host == "localhost" => IpAddr::from([127, 0, 0, 1]),
        Some(host) => host.parse().map_err(|_| format!("host {host}: only addresses are dialled by probes"))?,
        None => target.address,
    };
    Ok(SocketAddr::new(ip, port(&target.container, number)?))
}

/// Runs a command in the container; success is exit code 0. The process is killed at `deadline`.
pub(super) async fn exec(target: &Target, action: &ExecAction, deadline: Duration) -> ActionResult {
    let command = action.command.clone().unwrap_or_default();
    let spec = ExecSpec { command: command.clone(), tty: false, stdin: false };
    let mut session = target.runtime.exec(&target.container_id, spec).await.map_err(|e| e.to_string())?;
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let ended = async { tokio::join!(session.control.wait(), read_limited(stdout), read_limited(stderr)) };
    let Ok((code, output, errors)) = tokio::time::timeout(deadline, ended).await else {
        // It may have ended meanwhile; then there is nothing to kill.
        let _ = session.control.kill().await;
        return Err(format!("command {:?} timed out", command.join(" ")));
    };
    match code.map_err(|e| e.to_string())? {
        0 => Ok(()),
        _ => Err(format!("{output}{errors}")),
    }
}

async fn read_limited(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0u8; 4096];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        // The rest is read and dropped, so that the process is not held up.
        let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Opens a TCP connection.
pub(super) async fn tcp(target: &Target, action: &TCPSocketAction) -> ActionResult {
    let address = address(target, action.host.as_ref(), &action.port)?;
    target.network.dial(address).await.map(drop).map_err(|e| format!("dial tcp {address}: {e}"))
}

/// Asks over HTTP; success is a status from 200 to 399.
pub(super) async fn http_get(target: &Target, action: &HTTPGetAction) -> ActionResult {
    let address = address(target, action.host.as_ref(), &action.port)?;
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("{scheme}://{address}{path}");
    let failed = |e: &dyn std::fmt::Display| format!("Get \"{url}\": {e}");
    let mut request = http::Request::get(&path);
    let mut host = None;
    let mut agent = false;
    for header in action.http_headers.iter().flatten() {
        if header.name.eq_ignore_ascii_case("host") {
            host = Some(header.value.clone());
            continue;
        }
        agent |= header.name.eq_ignore_ascii_case("user-agent");
        request = request.header(header.name.as_str(), header.value.as_str());
    }
    request = request.header(http::header::HOST, host.unwrap_or_else(|| address.to_string()));
    request = request.header(http::header::CONNECTION, "close").header(http::header::ACCEPT, "*/*");
    if !agent {
        request = request.header(http::header::USER_AGENT, "kube-probe/1.36");
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|e| failed(&e))?;
    let stream = target.network.dial(address).await.map_err(|e| failed(&format!("dial tcp {address}: {e}")))?;
    let (status, body) = match scheme.as_str() {
        "https" => {
            let connector = tokio_rustls::TlsConnector::from(super::tls::unverified());
            let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
            let stream = connector.connect(name, stream).await.map_err(|e| failed(&e))?;
            send(stream, request).await
        }
        _ => send(stream, request).await,
    }
    .map_err(|e| failed(&e))?;
    match status {
        200..=399 => Ok(()),
        _ if body.is_empty() => Err(format!("HTTP probe failed with statuscode: {status}")),
        _ => {
            tracing::debug!(status, body, "probe");
            Err(format!("HTTP probe failed with statuscode: {status}"))
        }
    }
}

async fn send<I>(
    io: I,
    request: http::Request<Full<Bytes>>,
) -> Result<(u16, String), Box<dyn std::error::Error + Send + Sync>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), OUTPUT_LIMIT).collect().await;
        // A body beyond the limit is of no interest; the status has been seen.
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}

/// Asks the gRPC health service; success is `SERVING`.
pub(super) async fn grpc(target: &Target, action: &GRPCAction) -> ActionResult {
    let address = address(target, None, &IntOrString::Int(action.port))?;
    let service = action.service.as_deref().unwrap_or_default();
    let stream = target.network.dial(address).await;
    let stream = stream.map_err(|e| format!("failed to connect service {address:?}: {e}"))?;
    let answer = health(stream, address, service).await;
    match answer.map_err(|e| format!("error: health rpc probe failed: {e}"))? {
        1 => Ok(()),
        status => Err(format!("service unhealthy (responded with {status})")),
    }
}

/// `grpc.health.v1.Health/Check`, written out: one field each way is not worth generated code.
async fn health(
    stream: tokio::net::TcpStream,
    address: SocketAddr,
    service: &str,
) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let length = u8::try_from(service.len()).ok().filter(|l| *l < 120).ok_or("the service name is too long")?;
    let mut body = vec![0, 0, 0, 0, if length == 0 { 0 } else { length + 2 }];
    if length > 0 {
        body.extend([0x0a, length]);
        body.extend(service.as_bytes());
    }
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::USER_AGENT, "kube-probe/1.36")
        .header(http::header::TE, "trailers")
        .body(Full::new(Bytes::from(body)))?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let headers = response.headers().clone();
        let body = Limited::new(response.into_body(), OUTPUT_LIMIT).collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or_else(|| headers.get("grpc-status"));
        if let Some(status) = status.filter(|s| s.as_bytes() != b"0") {
            return Err(format!("grpc status {status:?}").into());
        }
        // Frame header of five bytes, then field 1 as varint; absent means UNKNOWN.
        let message = body.to_bytes();
        Ok(match message.get(5..7) {
            Some([0x08, status]) => *status,
            _ => 0,
        })
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => {
            ended?;
            Err("the connection was closed".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_by_number_and_name() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }]
        }))
        .unwrap();
        assert_eq!(port(&container, &IntOrString::Int(80)), Ok(80));
        assert_eq!(port(&container, &IntOrString::String("web".into())), Ok(8080));
        assert_eq!(port(&container, &IntOrString::String("90".into())), Ok(90));
        for bad in [IntOrString::Int(0), IntOrString::Int(70000), IntOrString::String("no".into())] {
            assert!(port(&container, &bad).is_err());
        }
    }
}
