//! Port-forward over the channels of a WebSocket (`v4.channel.k8s.io`): the client names its ports
//! in the request, and port number i has channel 2i for data and 2i + 1 for its error. The first
//! message on each channel is the port, two bytes, little-endian.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, SinkExt, StreamExt};
use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

/// Subprotocol.
pub const PROTOCOL: &str = "v4.channel.k8s.io";
/// Two channels each, and a channel is one byte.
pub const MAX_PORTS: usize = 128;

const BUFFER: usize = 32 * 1024;
/// Messages that wait; a slow reader holds up the connection.
const QUEUE: usize = 8;

/// The ports of a request's query: `port` or `ports`, repeated or separated by commas.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut found = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !matches!(&*name, "port" | "ports") {
            continue;
        }
        for port in value.split(',') {
            match port.trim().parse() {
                Ok(number) if number != 0 => found.push(number),
                _ => return Err(format!("unable to parse {port:?} as a port")),
            }
        }
    }
    match found.len() {
        0 => Err("query parameter \"port\" is required".to_owned()),
        count if count > MAX_PORTS => Err(format!("{count} ports; at most {MAX_PORTS} can be forwarded at once")),
        _ => Ok(found),
    }
}

/// Forwards the ports until the pod has closed all of them or the client is gone.
pub async fn carry<D, F>(socket: WebSocket, ports: Vec<u16>, dial: D)
where
    D: Fn(u16) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<TcpStream>> + Send + 'static,
{
    let (mut sink, mut source) = socket.split();
    let (to_client, mut from_pods) = mpsc::channel(QUEUE);
    let mut forwards = JoinSet::new();
    let mut to_pods = Vec::with_capacity(ports.len());
    // `ports` has at most 128 entries, so that a channel fits a byte.
    for (channel, port) in (0u8..).step_by(2).zip(ports) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        to_pods.push(sender);
        forwards.spawn(forward(channel, port, dial.clone(), receiver, to_client.clone()));
    }
    // From now on the forwards alone hold it: it closes when they have all ended.
    drop(to_client);
    let incoming = async {
        while let Some(Ok(message)) = source.next().await {
            let mut data = match message {
                Message::Binary(data) => data,
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
            };
            if data.is_empty() {
                continue;
            }
            let channel = data.split_to(1)[0];
            // Clients say nothing on channels of errors.
            if channel % 2 == 0
                && let Some(pod) = to_pods.get(usize::from(channel / 2))
            {
                // What comes after the pod has closed its end is lost, as on any connection.
                let _ = pod.send(data).await;
            }
        }
    };
    let outgoing = async {
        if send_all(&mut sink, &mut from_pods).await.is_err() {
            return;
        }
        let normal = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        // The client may be gone already.
        let _ = sink.send(Message::Close(Some(normal))).await;
    };
    tokio::select! {
        () = incoming => {}
        () = outgoing => {}
    }
    forwards.shutdown().await;
}

async fn send_all<S: Sink<Message> + Unpin>(
    sink: &mut S,
    messages: &mut mpsc::Receiver<Message>,
) -> Result<(), S::Error> {
    while let Some(message) = messages.recv().await {
        sink.send(message).await?;
    }
    Ok(())
}

async fn forward<D, F>(channel: u8, port: u16, dial: D, pod: mpsc::Receiver<Bytes>, client: mpsc::Sender<Message>)
where
    D: Fn(u16) -> F + Send,
    F: Future<Output = io::Result<TcpStream>> + Send,
{
    for channel in [channel, channel + 1] {
        if client.send(seal(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    match dial(port).await {
        Ok(stream) => copy(channel, stream, pod, client).await,
        Err(failure) => {
            let text = format!("error forwarding port {port} to pod: {failure}");
            // A client that is gone does not care.
            let _ = client.send(seal(channel + 1, text.as_bytes())).await;
        }
    }
}

async fn copy(channel: u8, stream: TcpStream, mut pod: mpsc::Receiver<Bytes>, client: mpsc::Sender<Message>) {
    let (mut read, mut write) = stream.into_split();
    let to_pod = async {
        while let Some(chunk) = pod.recv().await {
            if write.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    let from_pod = async {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        while let Ok(count) = read.read_buf(&mut buffer).await {
            if count == 0 || client.send(seal(channel, &buffer.split())).await.is_err() {
                break;
            }
            buffer.reserve(BUFFER);
        }
    };
    let mut from_pod = std::pin::pin!(from_pod);
    tokio::select! {
        () = &mut from_pod => {}
        () = to_pod => from_pod.await,
    }
}

fn seal(channel: u8, data: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    Message::Binary(message.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query() {
        assert_eq!(ports("ports=80%2C8080&port=90"), Ok(vec![80, 8080, 90]));
        for wrong in ["", "ports=", "port=0", "port=65536", "ports=80,x"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
        assert!(ports(&format!("ports={}", vec!["1"; MAX_PORTS + 1].join(","))).is_err());
    }
}
