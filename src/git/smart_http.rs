//! Smart HTTP (gitprotocol-http(5)) through git's own `http-backend`.
//!
//! Reading is streamed both ways. A push is taken in whole, its changes of references are written
//! down for the webhooks, and only then the client is told: what is acknowledged is delivered.

use super::{
    GitError,
    access::{Access, Principal, Refusal},
    body::{BodyError, Fed, feed},
    cgi,
    host::Host,
    name::RepositoryName,
    program::bounded,
    protection,
    repository::Repository,
    statuses,
};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, BufReader},
    process::{ChildStdout, Command},
    sync::{mpsc, oneshot},
};

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// How long a push waits for another one of the same repository.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// How long a client may take to read a piece of the answer.
const READ_DEADLINE: Duration = Duration::from_secs(60);
/// Largest request that fetches, unpacked, bytes.
const MAX_FETCH_REQUEST: u64 = 64 << 20;
/// Largest answer to a push, bytes: a line a reference, and progress.
const MAX_REPORT: u64 = 32 << 20;
/// Pieces of an answer, bytes.
const CHUNK: usize = 64 << 10;

/// Which program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// Clone and fetch.
    UploadPack,
    /// Push.
    ReceivePack,
}

impl Service {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "git-upload-pack" => Some(Self::UploadPack),
            "git-receive-pack" => Some(Self::ReceivePack),
            _ => None,
        }
    }

    fn needs(self) -> Access {
        match self {
            Self::UploadPack => Access::Read,
            Self::ReceivePack => Access::Write,
        }
    }
}

/// A request of the protocol.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    name: RepositoryName,
    service: Service,
    /// Whether references are asked for, rather than the service itself.
    advertise: bool,
}

/// Why a request is not answered as asked; the text reaches git's user.
#[derive(Debug)]
struct Denied(StatusCode, String);

impl Call {
    /// From method, path and query. The path is not decoded: names need no encoding.
    fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Denied> {
        let not_found = || Denied(StatusCode::NOT_FOUND, format!("Not found: {path}"));
        let mut parts = path.trim_start_matches('/').splitn(3, '/');
        let (Some(organization), Some(repository), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(not_found());
        };
        let name = RepositoryName::new(organization, repository).map_err(|_| not_found())?;
        if rest == "info/refs" && method == Method::GET {
            let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
            let asked = pairs.find(|(key, _)| key == "service").and_then(|(_, value)| Service::parse(&value));
            let dumb =
                || Denied(StatusCode::FORBIDDEN, "Please upgrade your git client: dumb HTTP is not served.".into());
            return Ok(Self { name, service: asked.ok_or_else(dumb)?, advertise: true });
        }
        let service = Service::parse(rest).ok_or_else(not_found)?;
        match *method == Method::POST {
            true => Ok(Self { name, service, advertise: false }),
            false => Err(Denied(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed here."))),
        }
    }
}

/// Answers a request of a git client.
pub(super) async fn handle(host: Arc<Host>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match answer(&host, &parts, body).await {
        Ok(response) => response,
        Err(Denied(status, text)) => {
            tracing::debug!(target: "git", method = %parts.method, path = parts.uri.path(), %status, text, "refused");
            plain(status, &text)
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // git shows bodies of this type to its user.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, super::host::CHALLENGE);
    }
    response
}

async fn answer(host: &Arc<Host>, parts: &Parts, body: Body) -> Result<Response<Body>, Denied> {
    let principal = host.auth.authenticate(&parts.headers).await.map_err(|refusal| match refusal {
        Refusal::Anonymous => Denied(StatusCode::UNAUTHORIZED, "Authentication is required.".into()),
        Refusal::Credentials(why) => Denied(StatusCode::UNAUTHORIZED, format!("Authentication failed: {why}.")),
        Refusal::Unavailable(why) => {
            Denied(StatusCode::SERVICE_UNAVAILABLE, format!("The issuer cannot be asked: {why}"))
        }
    })?;
    let call = Call::parse(&parts.method, parts.uri.path(), parts.uri.query())?;
    let repository = match host.repositories.find(&call.name).map_err(internal)? {
        // Who may not read does not learn what there is.
        Some(repository) if principal.may(Access::Read) => repository,
        _ => return Err(Denied(StatusCode::NOT_FOUND, format!("Repository {} not found.", call.name))),
    };
    if !principal.may(call.service.needs()) {
        let text = format!("Write access to repository {} not granted to {}.", call.name, principal.login);
        return Err(Denied(StatusCode::FORBIDDEN, text));
    }
    let limit = match call.service {
        Service::ReceivePack => host.max_push_bytes,
        Service::UploadPack => MAX_FETCH_REQUEST,
    };
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let exchange = Exchange { host: host.clone(), repository, principal, limit, gzip: is_gzip(&parts.headers)?, body };
    let mut command = exchange.command(&call, parts);
    if call.service == Service::ReceivePack {
        // Also before references are shown: then git tells its user what is wrong.
        exchange.prepare_push(&mut command).map_err(internal)?;
        if !call.advertise {
            return exchange.push(command).await;
        }
    }
    exchange.stream(command).await
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Denied> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => Err(Denied(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Only gzip is accepted as encoding.".into())),
    }
}

fn too_large(limit: u64) -> Denied {
    Denied(StatusCode::PAYLOAD_TOO_LARGE, format!("The request is larger than {limit} bytes."))
}

fn internal(error: GitError) -> Denied {
    tracing::warn!(target: "git", %error, "a request failed");
    Denied(StatusCode::INTERNAL_SERVER_ERROR, format!("The Git host failed: {error}"))
}

fn stopping() -> Denied {
    Denied(StatusCode::SERVICE_UNAVAILABLE, "The Git host is stopping.".into())
}

/// One request with what answers it.
struct Exchange {
    host: Arc<Host>,
    repository: Repository,
    principal: Principal,
    limit: u64,
    gzip: bool,
    body: Body,
}

impl Exchange {
    /// `http-backend` with the request as CGI gives it (RFC 3875). The body is unpacked before,
    /// so its length is not told; it ends with the input.
    fn command(&self, call: &Call, parts: &Parts) -> Command {
        let rest = parts.uri.path().trim_start_matches('/').splitn(3, '/').nth(2).unwrap_or_default();
        let path = format!("/{}.git/{rest}", call.name);
        let mut command = self.host.repositories.git().http_backend();
        command
            .current_dir(&self.repository.dir)
            .env("GIT_PROJECT_ROOT", self.host.repositories.root())
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_HTTP_MAX_REQUEST_BUFFER", MAX_FETCH_REQUEST.to_string())
            .env("PATH_INFO", path)
            .env("REQUEST_METHOD", parts.method.as_str())
            .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
            .env("REMOTE_USER", &self.principal.login)
            .env("REMOTE_ADDR", "127.0.0.1");
        for (header, variable) in [("content-type", "CONTENT_TYPE"), ("git-protocol", "GIT_PROTOCOL")] {
            if let Some(value) = parts.headers.get(header).and_then(|v| v.to_str().ok()) {
                command.env(variable, value);
            }
        }
        command
    }

    fn prepare_push(&self, command: &mut Command) -> Result<(), GitError> {
        protection::check_installed(&self.host.hooks_dir)?;
        let statuses = statuses::folder(&self.repository.data);
        let git = self.host.repositories.git().path();
        let (variable, order) = protection::order(git, &statuses, &self.repository.record.protected);
        command.env(variable, order);
        Ok(())
    }

    /// Answers as the program speaks. When the client goes, the program is ended.
    async fn stream(self, mut command: Command) -> Result<Response<Body>, Denied> {
        let broken = |source| internal(GitError::File { path: self.repository.dir.clone(), source });
        let fed = Fed::spawn(&mut command).map_err(broken)?;
        let (head_sender, head) = oneshot::channel();
        let (chunks, mut received) = mpsc::channel::<io::Result<Bytes>>(4);
        let host = self.host.clone();
        let work = async move {
            let stopping = self.host.stopping.clone();
            let gone = chunks.clone();
            let outcome = tokio::select! {
                outcome = self.converse(fed, head_sender, chunks) => outcome,
                () = gone.closed() => Ok(()),
                () = stopping.cancelled() => Ok(()),
                () = tokio::time::sleep(DEADLINE) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            if let Err(error) = outcome {
                // An answer that has begun can only be broken off, which the client notices.
                let _ = gone.try_send(Err(error));
            }
        };
        host.work.spawn(work);
        let head = head.await.map_err(|_| stopping())?;
        let cgi::Head { status, headers } = head?;
        let body = futures::stream::poll_fn(move |context| received.poll_recv(context));
        let mut response = Response::new(Body::from_stream(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }

    async fn converse(
        self,
        fed: Fed,
        head: oneshot::Sender<Result<cgi::Head, Denied>>,
        chunks: mpsc::Sender<io::Result<Bytes>>,
    ) -> io::Result<()> {
        let Fed { mut child, stdout, stderr, stdin } = fed;
        let feeding = async { feed(self.body, self.gzip, self.limit, stdin).await.map_err(io::Error::other) };
        let reading = async {
            let mut stdout = BufReader::with_capacity(CHUNK, stdout);
            let begun = cgi::read_head(&mut stdout).await;
            let failed =
                |error| internal(GitError::Answer { command: "http-backend".into(), what: format!("{error}") });
            // Nobody waits for the head any more: the next send says so.
            let _ = head.send(begun.map_err(failed));
            pass_on(stdout, &chunks).await
        };
        let ((), (), message) = tokio::try_join!(feeding, reading, async { Ok(bounded(stderr).await) })?;
        let status = child.wait().await?;
        if !status.success() {
            let message = String::from_utf8_lossy(&message).into_owned();
            tracing::debug!(target: "git", %status, message, "http-backend");
        }
        Ok(())
    }

    /// Takes a push in. It goes on when the client goes after having sent everything.
    async fn push(self, command: Command) -> Result<Response<Body>, Denied> {
        let (sender, outcome) = oneshot::channel();
        let host = self.host.clone();
        let work = async move {
            let stopping_token = self.host.stopping.clone();
            let outcome = tokio::select! {
                outcome = self.receive(command) => outcome,
                () = stopping_token.cancelled() => Err(stopping()),
                () = tokio::time::sleep(DEADLINE) => {
                    Err(Denied(StatusCode::GATEWAY_TIMEOUT, "The push took too long.".into()))
                }
            };
            // The client may be gone.
            let _ = sender.send(outcome);
        };
        host.work.spawn(work);
        outcome.await.map_err(|_| stopping())?
    }

    async fn receive(self, mut command: Command) -> Result<Response<Body>, Denied> {
        let busy = || Denied(StatusCode::SERVICE_UNAVAILABLE, "Another push to this repository takes long.".into());
        let turns = self.host.turns(&self.repository.name);
        let turn = tokio::time::timeout(QUEUE_DEADLINE, turns.acquire()).await.map_err(|_| busy())?;
        let _turn = turn.map_err(|_| stopping())?;
        self.host.before_push(&self.repository, &self.principal).map_err(internal)?;
        let broken = |source| internal(GitError::File { path: self.repository.dir.clone(), source });
        let Fed { mut child, stdout, stderr, stdin } = Fed::spawn(&mut command).map_err(broken)?;
        let feeding = async {
            feed(self.body, self.gzip, self.limit, stdin).await.map_err(|error| match error {
                BodyError::TooLarge(limit) => too_large(limit),
                error => Denied(StatusCode::BAD_REQUEST, error.to_string()),
            })
        };
        let reading = async {
            let mut report = Vec::new();
            let read = stdout.take(MAX_REPORT).read_to_end(&mut report).await;
            read.map(|_| report).map_err(broken)
        };
        let ((), report, message) = tokio::try_join!(feeding, reading, async { Ok(bounded(stderr).await) })?;
        let status = child.wait().await.map_err(broken)?;
        // Whatever the program said: references that changed have changed.
        self.host.after_push(&self.repository).await.map_err(internal)?;
        if !status.success() && report.is_empty() {
            let what = String::from_utf8_lossy(&message).trim().to_owned();
            return Err(internal(GitError::Answer { command: "http-backend".into(), what }));
        }
        let mut report = report.as_slice();
        let failed = |error| internal(GitError::Answer { command: "http-backend".into(), what: format!("{error}") });
        let cgi::Head { status, headers } = cgi::read_head(&mut report).await.map_err(failed)?;
        let mut response = Response::new(Body::from(report.to_vec()));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// Passes output on until its end, or until nobody takes it.
async fn pass_on(mut stdout: BufReader<ChildStdout>, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
        if stdout.read_buf(&mut chunk).await? == 0 {
            return Ok(());
        }
        match tokio::time::timeout(READ_DEADLINE, chunks.send(Ok(chunk.freeze()))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, path: &str, query: Option<&str>) -> Result<Call, u16> {
        Call::parse(&method, path, query).map_err(|Denied(status, _)| status.as_u16())
    }

    #[test]
    fn only_the_protocols_paths_are_served() {
        let call = parse(Method::GET, "/o/r.git/info/refs", Some("service=git-upload-pack")).unwrap();
        assert!(call.advertise && call.service == Service::UploadPack && call.name.to_string() == "o/r");
        assert!(parse(Method::POST, "/o/r/git-receive-pack", None).unwrap().service == Service::ReceivePack);
        let refused = [
            (Method::GET, "/o/r/info/refs", None, 403),
            (Method::GET, "/o/r/info/refs", Some("service=git-upload-archive"), 403),
            (Method::GET, "/o/r/HEAD", None, 404),
            (Method::GET, "/o/r/objects/info/packs", None, 404),
            (Method::GET, "/o/r/git-upload-pack", None, 405),
            (Method::POST, "/o/../x/git-upload-pack", None, 404),
            (Method::POST, "/o/%2e%2e/git-upload-pack", None, 404),
            (Method::POST, "/../../git-upload-pack", None, 404),
            (Method::POST, "/o/r/../../git-upload-pack", None, 404),
            (Method::GET, "/", None, 404),
        ];
        for (method, path, query, status) in refused {
            assert_eq!(parse(method, path, query).unwrap_err(), status, "{path}");
        }
    }
}
