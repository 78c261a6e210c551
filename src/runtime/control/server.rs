//! Serving side of the control API.

use super::Info;
use crate::{
    component::{Component, ComponentError, RunContext},
    http::{ConnectionInfo, drain, serve_connection},
    recorder::Recorder,
};
use aksim_model::{
    command::{Command, CommandReply},
    log::{LogLine, LogQuery},
};
use async_trait::async_trait;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::{Stream, StreamExt, stream::BoxStream};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long a command may wait for its answer.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// A command with the place for its answer; an `Err` is for people.
pub type CommandRequest = (Command, oneshot::Sender<Result<CommandReply, String>>);

/// Where log lines come from.
pub trait LogSource: Send + Sync + 'static {
    /// Lines that fit `query`, oldest first; ends by itself unless `query.follow`.
    fn lines(&self, query: LogQuery) -> BoxStream<'static, LogLine>;
}

/// The control API of one environment.
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    info: Info,
    recorder: Recorder,
    commands: mpsc::Sender<CommandRequest>,
    logs: Arc<dyn LogSource>,
    /// Ends the streams, which have no end of their own.
    ending: CancellationToken,
}

impl ControlServer {
    /// Listens on `path`, in place of a socket left behind. The caller holds the environment's lock.
    ///
    /// # Errors
    /// Any error of binding; a path longer than about 100 bytes is one.
    pub fn bind(
        path: &Path,
        info: Info,
        recorder: Recorder,
        commands: mpsc::Sender<CommandRequest>,
        logs: Arc<dyn LogSource>,
    ) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let ending = CancellationToken::new();
        Ok(Self {
            listener,
            path: path.to_owned(),
            shared: Arc::new(Shared { info, recorder, commands, logs, ending }),
        })
    }
}

#[async_trait]
impl Component for ControlServer {
    fn name(&self) -> &'static str {
        "control"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let ending = self.shared.ending.clone();
        let router = Router::new()
            .route("/v1/info", get(async |State(s): State<Arc<Shared>>| Json(s.info.clone())))
            .route("/v1/world", get(async |State(s): State<Arc<Shared>>| Json((*s.recorder.world()).clone())))
            .route("/v1/events", get(events))
            .route("/v1/logs", get(logs))
            .route("/v1/commands", post(command))
            .with_state(self.shared);
        context.readiness.ready();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept() => if let Ok((stream, _)) = accepted {
                    let info = ConnectionInfo {
                        peer: SocketAddr::from(([127, 0, 0, 1], 0)),
                        client_certificates: Arc::default(),
                        server_name: None,
                    };
                    connections.spawn(serve_connection(stream, info, router.clone(), context.shutdown.clone()));
                }
            }
        }
        drop(self.listener);
        ending.cancel();
        drain(connections).await;
        // Gone already is what is wanted.
        let _ = std::fs::remove_file(&self.path);
        Ok(())
    }
}

async fn events(State(shared): State<Arc<Shared>>) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let receiver = shared.recorder.subscribe();
    let ended = shared.ending.clone().cancelled_owned();
    let first = SseEvent::default().event("world").json_data(&*shared.recorder.world());
    let rest = futures::stream::unfold((receiver, shared), async |(mut receiver, shared)| {
        let event = match receiver.recv().await {
            Ok(event) => SseEvent::default().event("event").json_data(&*event),
            Err(RecvError::Lagged(_)) => SseEvent::default().event("world").json_data(&*shared.recorder.world()),
            Err(RecvError::Closed) => return None,
        };
        Some((event, (receiver, shared)))
    });
    let stream = futures::stream::once(async { first }).chain(rest);
    Sse::new(stream.filter_map(async |event| event.ok().map(Ok)).take_until(ended)).keep_alive(KeepAlive::default())
}

async fn logs(State(shared): State<Arc<Shared>>, Query(query): Query<LogQuery>) -> Response {
    let ended = shared.ending.clone().cancelled_owned();
    let lines = shared.logs.lines(query).take_until(ended).filter_map(async |line| {
        let mut json = serde_json::to_vec(&line).ok()?;
        json.push(b'\n');
        Some(Ok::<_, Infallible>(Bytes::from(json)))
    });
    Response::new(Body::from_stream(lines))
}

async fn command(State(shared): State<Arc<Shared>>, Json(command): Json<Command>) -> Response {
    let (sender, receiver) = oneshot::channel();
    let answer = async {
        shared.commands.send((command, sender)).await.ok()?;
        receiver.await.ok()
    };
    match tokio::time::timeout(COMMAND_DEADLINE, answer).await {
        Ok(Some(Ok(reply))) => Json(reply).into_response(),
        Ok(Some(Err(message))) => (StatusCode::CONFLICT, message).into_response(),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the environment is stopping").into_response(),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "no answer within 30 s").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{component::readiness, control::ControlClient};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    struct NoLogs;
    impl LogSource for NoLogs {
        fn lines(&self, _: LogQuery) -> BoxStream<'static, LogLine> {
            futures::stream::pending().boxed()
        }
    }

    /// What was asked is answered, and streams end, when the environment stops.
    #[tokio::test]
    async fn the_end_cuts_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let info = Info { pid: 1, project: "/p".into(), name: "p".into(), version: "0".into() };
        let (commands, mut asked) = mpsc::channel(1);
        let recorder = Recorder::in_memory();
        let server = ControlServer::bind(&socket, info, recorder.clone(), commands, Arc::new(NoLogs)).unwrap();
        let shutdown = CancellationToken::new();
        let (signal, _) = readiness();
        let context = RunContext { shutdown: shutdown.clone(), readiness: signal, recorder };
        let client = ControlClient::new(&socket);
        let (worlds, mut seen) = watch::channel(Arc::default());
        let stop = async {
            // Both streams are open by then.
            seen.changed().await.unwrap();
            let logs = client.logs(&LogQuery { follow: true, ..LogQuery::default() }).await.unwrap();
            let asking = client.command(&Command::Stop);
            let answering = async {
                let (_, reply) = asked.recv().await.unwrap();
                shutdown.cancel();
                tokio::task::yield_now().await;
                reply.send(Ok(CommandReply { message: "stopping".into() })).unwrap();
            };
            let (answer, ()) = tokio::join!(asking, answering);
            assert_eq!(answer.unwrap().message, "stopping");
            assert_eq!(logs.count().await, 0);
        };
        let all = async { tokio::join!(Box::new(server).run(context), client.follow(&worlds), stop) };
        let (ran, followed, ()) = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        ran.unwrap();
        followed.unwrap();
        assert!(!socket.exists());
    }
}
