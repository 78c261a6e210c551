//! The channel protocol of exec and attach over a WebSocket: the first byte of a message names
//! its channel (`v4.channel.k8s.io`); version 5 adds closing a channel.

use super::{
    remote_command::{Output, TerminalSize, Wire},
    spdy_exec::Expected,
};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};

/// Subprotocols in order of preference.
pub const PROTOCOLS: [&str; 4] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Carries a session over a socket until either side ends. The first reply tells the client that
/// its channels are there: a zero-length message on each it asked for, as the kubelet sends.
pub async fn carry(socket: WebSocket, expected: Expected, wire: Wire) {
    let base64 = socket.protocol().is_some_and(|p| p.as_bytes().starts_with(b"v4.base64"));
    let status_text = socket.protocol().is_none_or(|p| p.as_bytes() == b"channel.k8s.io");
    let (mut sink, mut stream) = socket.split();
    let Wire { stdin, resize, mut output } = wire;
    let incoming = async {
        let mut stdin = Some(stdin);
        while let Some(Ok(message)) = stream.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            let Some((channel, payload)) = open(&data, base64) else { continue };
            match channel {
                STDIN => {
                    if let Some(stdin) = stdin.as_ref().filter(|_| !payload.is_empty())
                        && stdin.send(payload).await.is_err()
                    {
                        // The process has ended; its status is on the way.
                        continue;
                    }
                }
                RESIZE => {
                    if let Ok(size) = serde_json::from_slice::<TerminalSize>(&payload) {
                        // A full queue drops a size; a newer one follows while a window is dragged.
                        let _ = resize.try_send(size);
                    }
                }
                CLOSE if payload.first() == Some(&STDIN) => stdin = None,
                _ => {}
            }
        }
    };
    let outgoing = async {
        for (channel, wanted) in [(STDOUT, expected.stdout), (STDERR, expected.stderr), (ERROR, true)] {
            if wanted {
                sink.send(seal(channel, &[], base64)).await?;
            }
        }
        while let Some(chunk) = output.recv().await {
            let (message, last) = match chunk {
                Output::Stdout(data) => (seal(STDOUT, &data, base64), false),
                Output::Stderr(data) => (seal(STDERR, &data, base64), false),
                Output::Status(status) if status_text => {
                    let text = match status["status"].as_str() {
                        Some("Success") => String::new(),
                        _ => status["message"].as_str().unwrap_or_default().to_owned(),
                    };
                    (seal(ERROR, text.as_bytes(), base64), true)
                }
                Output::Status(status) => (seal(ERROR, status.to_string().as_bytes(), base64), true),
            };
            sink.send(message).await?;
            if last {
                break;
            }
        }
        let normal = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
        sink.send(Message::Close(Some(normal))).await
    };
    tokio::select! {
        () = incoming => {}
        sent = outgoing => if let Err(error) = sent {
            tracing::debug!(%error, "WebSocket");
        },
    }
}

fn open(data: &Bytes, base64: bool) -> Option<(u8, Bytes)> {
    let channel = *data.first()?;
    if !base64 {
        return Some((channel, data.slice(1..)));
    }
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &data[1..]).ok()?;
    // Channels are digits here.
    Some((channel.checked_sub(b'0')?, payload.into()))
}

fn seal(channel: u8, data: &[u8], base64: bool) -> Message {
    if base64 {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, data);
        return Message::Text(format!("{channel}{text}").into());
    }
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    Message::Binary(message.freeze())
}
