//! exec and attach: WebSocket channels or SPDY streams.

use super::{Api, ContainerPath, Refusal, find, flag, query, upgrade};
use crate::{
    runtime::{ContainerState, ExecSpec, RuntimeError, Session},
    streaming::{
        remote_command::{self, Peer},
        spdy,
        spdy_exec::{self, Expected},
        websocket,
    },
};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use std::sync::Arc;

pub(super) async fn exec(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): ContainerPath,
    request: Request,
) -> Result<Response, Refusal> {
    let query = query(&request);
    let command: Vec<String> = query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
    if command.is_empty() {
        return Err(Refusal(StatusCode::BAD_REQUEST, "you must specify at least one command for the container".into()));
    }
    let id = running(&api, &namespace, &pod, &container)?;
    let spec = ExecSpec { command: command.clone(), tty: flag(&query, "tty"), stdin: flag(&query, "input") };
    let runtime = api.shared.runtime.clone();
    let begin = move || async move { runtime.exec(&id, spec).await };
    carry(&api, request, expected(&query), begin, command, true).await
}

pub(super) async fn attach(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): ContainerPath,
    request: Request,
) -> Result<Response, Refusal> {
    let query = query(&request);
    let id = running(&api, &namespace, &pod, &container)?;
    let runtime = api.shared.runtime.clone();
    let begin = move || async move { runtime.attach(&id).await };
    carry(&api, request, expected(&query), begin, vec![], false).await
}

fn expected(query: &[(String, String)]) -> Expected {
    let tty = flag(query, "tty");
    Expected {
        stdin: flag(query, "input"),
        stdout: flag(query, "output"),
        stderr: flag(query, "error") && !tty,
        resize: tty,
    }
}

/// Id of a container that runs.
fn running(api: &Api, namespace: &str, pod: &str, container: &str) -> Result<String, Refusal> {
    let view = find(api, namespace, pod)?;
    let current = view.containers.get(container).and_then(|c| c.current.as_ref());
    current.filter(|c| matches!(c.state, ContainerState::Running { .. })).map(|c| c.id.clone()).ok_or_else(|| {
        Refusal(StatusCode::NOT_FOUND, format!("container not found (\"{container}\"): it does not run in pod {pod}"))
    })
}

/// Answers the upgrade; the session begins once the client's streams are there.
async fn carry<F, Fut>(
    api: &Arc<Api>,
    request: Request,
    expected: Expected,
    begin: F,
    command: Vec<String>,
    own: bool,
) -> Result<Response, Refusal>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Session, RuntimeError>> + Send,
{
    if upgrade::wants_spdy(request.headers()) {
        return upgrade::spdy(api, request, &spdy_exec::PROTOCOLS, move |io, protocol| async move {
            let (mut connection, driver) = spdy::connection(io);
            let session = async {
                let Some(streams) = spdy_exec::accept(&mut connection, expected, protocol).await else { return };
                drop(connection);
                let (peer, wire) = remote_command::pair();
                tokio::join!(spdy_exec::carry(streams, wire), join(begin, peer, &command, own));
            };
            let (driven, ()) = tokio::join!(driver, session);
            if let Err(error) = driven {
                tracing::debug!(%error, "SPDY connection");
            }
        });
    }
    let socket = upgrade::websocket(request).await?.protocols(websocket::PROTOCOLS);
    Ok(socket.on_upgrade(move |socket| async move {
        let (peer, wire) = remote_command::pair();
        tokio::join!(websocket::carry(socket, expected, wire), join(begin, peer, &command, own));
    }))
}

async fn join<F, Fut>(begin: F, peer: Peer, command: &[String], own: bool)
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<Session, RuntimeError>>,
{
    match begin().await {
        Ok(session) => remote_command::join(session, peer, command, own).await,
        Err(error) => {
            let status = remote_command::internal_error(&error.to_string());
            // A client that is gone does not care.
            let _ = peer.output.send(remote_command::Output::Status(status)).await;
        }
    }
}
