//! exec and attach.

use super::{Api, ContainerPath, Refusal, find, flag, query};
use crate::node::{
    runtime::{ContainerState, ExecSpec, RuntimeError, Session},
    streaming::{remote_command, websocket},
};
use axum::{
    extract::{FromRequestParts, Path, Request, State, WebSocketUpgrade},
    http::StatusCode,
    response::Response,
};
use std::sync::Arc;

/// Largest message of a client, bytes: kubectl sends 32 KiB at a time.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

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
    upgrade(request, move || async move { api.shared.runtime.exec(&id, spec).await }, command, true).await
}

pub(super) async fn attach(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): ContainerPath,
    request: Request,
) -> Result<Response, Refusal> {
    let id = running(&api, &namespace, &pod, &container)?;
    upgrade(request, move || async move { api.shared.runtime.attach(&id).await }, vec![], false).await
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
async fn upgrade<F, Fut>(request: Request, begin: F, command: Vec<String>, own: bool) -> Result<Response, Refusal>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Session, RuntimeError>> + Send,
{
    let (mut parts, _) = request.into_parts();
    let socket = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|e| Refusal(StatusCode::BAD_REQUEST, format!("unable to upgrade: {e}")))?;
    let socket = socket.protocols(websocket::PROTOCOLS).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(socket.on_upgrade(move |socket| async move {
        let (peer, wire) = remote_command::pair();
        let session = async {
            match begin().await {
                Ok(session) => remote_command::join(session, peer, &command, own).await,
                Err(error) => {
                    let status = remote_command::internal_error(&error.to_string());
                    // A client that is gone does not care.
                    let _ = peer.output.send(remote_command::Output::Status(status)).await;
                }
            }
        };
        tokio::join!(websocket::carry(socket, wire), session);
    }))
}
