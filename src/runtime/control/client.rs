//! Calling side of the control API.

use super::Info;
use aksim_model::{
    advice::Advice,
    command::{Command, CommandReply},
    event::Event,
    log::{LogLine, LogQuery},
    world::World,
};
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{net::UnixStream, sync::watch};

/// Why the running environment could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens at the socket.
    #[error("the environment is not running ({}: {source})", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// The error of connecting.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("control API: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is not what this version understands.
    #[error("control API answered something else: {0}")]
    Answer(#[from] serde_json::Error),
    /// The environment refused.
    #[error("{message}")]
    Refused {
        /// Why, for people.
        message: String,
    },
}

impl Advice for ControlError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NotRunning { .. } => Some("start it with `aksim up`".into()),
            _ => None,
        }
    }
}

/// A client of the control API of one environment. One connection a call.
#[derive(Clone, Debug)]
pub struct ControlClient {
    socket: PathBuf,
}

impl ControlClient {
    /// A client of the environment whose socket is `socket`; connects at each call.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Who answers.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] when nobody does.
    pub async fn info(&self) -> Result<Info, ControlError> {
        self.get("/v1/info").await
    }

    /// The world now.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn world(&self) -> Result<World, ControlError> {
        self.get("/v1/world").await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the reason when it is not.
    pub async fn command(&self, command: &Command) -> Result<CommandReply, ControlError> {
        let body = serde_json::to_vec(command)?;
        let request = Request::post("/v1/commands").header("content-type", "application/json");
        let answer = self.send(request, body).await?;
        Ok(serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?)
    }

    /// Log lines.
    ///
    /// # Errors
    /// [`ControlError`] on connecting; the stream ends when the connection does.
    pub async fn logs(&self, query: &LogQuery) -> Result<impl Stream<Item = LogLine> + use<>, ControlError> {
        let mut path = format!("/v1/logs?follow={}", query.follow);
        if let Some(service) = &query.service {
            path.push_str(&format!("&service={service}"));
        }
        if let Some(tail) = query.tail {
            path.push_str(&format!("&tail={tail}"));
        }
        let answer = self.send(Request::get(path), Vec::new()).await?;
        let lines = lines(answer.into_body());
        Ok(lines.filter_map(async |line| serde_json::from_slice(&line).ok()))
    }

    /// Follows the world until the sender's receivers are gone or the connection ends.
    ///
    /// # Errors
    /// [`ControlError`] when connecting fails or the connection breaks.
    pub async fn follow(&self, world: &watch::Sender<Arc<World>>) -> Result<(), ControlError> {
        let answer = self.send(Request::get("/v1/events"), Vec::new()).await?;
        let mut lines = std::pin::pin!(lines(answer.into_body()));
        let mut kind = Bytes::new();
        while let Some(line) = lines.next().await {
            if let Some(name) = line.strip_prefix(b"event:") {
                kind = Bytes::copy_from_slice(name.trim_ascii());
            } else if let Some(data) = line.strip_prefix(b"data:") {
                let data = data.trim_ascii();
                match &kind[..] {
                    b"world" => {
                        world.send_replace(Arc::new(serde_json::from_slice(data)?));
                    }
                    b"event" => {
                        let event: Event = serde_json::from_slice(data)?;
                        world.send_if_modified(|world| {
                            // Events between subscription and snapshot arrive twice.
                            let newer = event.seq > world.seq;
                            if newer {
                                Arc::make_mut(world).apply(&event);
                            }
                            newer
                        });
                    }
                    _ => {}
                }
            }
            if world.is_closed() {
                break;
            }
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        let answer = self.send(Request::get(path), Vec::new()).await?;
        Ok(serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<http::Response<Incoming>, ControlError> {
        let not_running = |source| ControlError::NotRunning { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(not_running)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = request
            .header("host", "aksim")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| ControlError::Refused { message: e.to_string() })?;
        // hyper wants its connection polled until the body ends. The task holds the socket alone
        // and ends when the body is dropped.
        #[expect(clippy::disallowed_methods, reason = "it ends with the body, which the caller holds")]
        tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            let text = answer.into_body().collect().await?.to_bytes();
            let message = match String::from_utf8_lossy(&text).trim() {
                "" => status.to_string(),
                text => text.to_owned(),
            };
            return Err(ControlError::Refused { message });
        }
        Ok(answer)
    }
}

fn lines(body: Incoming) -> impl Stream<Item = Bytes> {
    let data = BodyStream::new(body).map_ok(|frame| frame.into_data().unwrap_or_default());
    futures::stream::unfold((data, BytesMut::new()), async |(mut data, mut buffer)| {
        loop {
            if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(end).freeze();
                buffer.advance(1);
                return Some((line, (data, buffer)));
            }
            match data.next().await {
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                _ => return None,
            }
        }
    })
}
