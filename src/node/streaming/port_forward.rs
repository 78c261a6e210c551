//! Port-forward: over SPDY two streams a connection, `data` and `error`, paired by request id;
//! SPDY itself either on the upgraded connection or inside a WebSocket.

use super::spdy::{Connection, Stream};
use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use std::{collections::HashMap, io};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    task::JoinSet,
};

/// Version of the protocol (`X-Stream-Protocol-Version`).
pub const PROTOCOL: &str = "portforward.k8s.io";
/// Subprotocol of a WebSocket that carries SPDY.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

const BUFFER: usize = 32 * 1024;
/// Streams that wait for their other half.
const MAX_WAITING: usize = 256;

/// Serves a connection until the client is gone. `dial` connects to a port of the pod.
pub async fn serve<D, F>(mut connection: Connection, dial: D)
where
    D: Fn(u16) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<TcpStream>> + Send + 'static,
{
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            Some(_) = forwards.join_next() => continue,
        };
        let Some(stream) = stream else { break };
        let request = stream.header("requestid").unwrap_or_default().to_owned();
        match waiting.remove(&request) {
            Some(other) => {
                let first_is_data = other.header("streamtype") == Some("data");
                let (data, error) = if first_is_data { (other, stream) } else { (stream, other) };
                forwards.spawn(forward(data, error, dial.clone()));
            }
            None if waiting.len() >= MAX_WAITING => stream.writer.reset().await,
            None => {
                waiting.insert(request, stream);
            }
        }
    }
    forwards.shutdown().await;
}

async fn forward<D, F>(mut data: Stream, error: Stream, dial: D)
where
    D: Fn(u16) -> F + Send,
    F: Future<Output = io::Result<TcpStream>> + Send,
{
    let port = data.header("port").and_then(|p| p.parse::<u16>().ok());
    let dialed = match port {
        Some(port) => dial(port).await,
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the port header is not a port")),
    };
    match dialed {
        Ok(stream) => copy(&mut data, stream).await,
        Err(failure) => {
            let port = port.map_or_else(String::new, |p| p.to_string());
            let text = format!("error forwarding port {port} to pod: {failure}");
            error.writer.write(text.into()).await;
        }
    }
    // Closing both tells the client that this connection is over.
    data.writer.finish().await;
    error.writer.finish().await;
}

async fn copy(data: &mut Stream, stream: TcpStream) {
    let (mut read, mut write) = stream.into_split();
    let reader = &mut data.reader;
    let to_pod = async {
        while let Some(chunk) = reader.read().await {
            if write.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The pod may have closed already.
        let _ = write.shutdown().await;
    };
    let from_pod = async {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        while let Ok(count) = read.read_buf(&mut buffer).await {
            if count == 0 || !data.writer.write(buffer.split().freeze()).await {
                break;
            }
            buffer.reserve(BUFFER);
        }
    };
    let mut from_pod = std::pin::pin!(from_pod);
    // What the pod sends counts: a client that has sent its request may close its half.
    tokio::select! {
        () = &mut from_pod => {}
        () = to_pod => from_pod.await,
    }
}

/// Bytes inside a WebSocket's binary messages, as a stream of bytes.
pub async fn tunnel(socket: WebSocket, far: DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(far);
    let incoming = async {
        while let Some(Ok(message)) = source.next().await {
            let data: Bytes = match message {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if write.write_all(&data).await.is_err() {
                break;
            }
        }
    };
    let outgoing = async {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        while let Ok(count) = read.read_buf(&mut buffer).await {
            if count == 0 || sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                break;
            }
            buffer.reserve(BUFFER);
        }
        // The client may be gone already.
        let _ = sink.close().await;
    };
    tokio::select! {
        () = incoming => {}
        () = outgoing => {}
    }
}
