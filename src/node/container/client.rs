//! The daemon's side of agent and shim: async calls on their sockets, and starting an agent.

use super::{
    agent::{self, AgentConfig, Birth},
    wire::{self, AgentRequest, IdMapping, PROTOCOL, Reply},
};
use crate::runtime::RuntimeError;
use aksim_runtime::{files, process::ProcessHandle};
use nix::{sys::signal::Signal, unistd::Pid};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Longest wait for an agent to come up or go away.
const AGENT_DEADLINE: Duration = Duration::from_secs(20);
/// Longest wait for an answer: every request is a few system calls, but for those below.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for work that grows with its files: unpacking a layer, removing a tree.
const WORK_DEADLINE: Duration = Duration::from_secs(600);

/// An async seqpacket connection.
#[derive(Debug)]
pub struct Connection {
    fd: AsyncFd<OwnedFd>,
}

impl Connection {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when nobody listens.
    pub fn open(path: &Path) -> io::Result<Self> {
        let socket = wire::connect(path)?;
        socket2::SockRef::from(&socket).set_nonblocking(true)?;
        // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
        Ok(Self { fd: unsafe { AsyncFd::register(socket) }? })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// As [`wire::send`].
    pub async fn send(&self, request: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.fd.async_io(Interest::WRITABLE, |fd| wire::send(fd.as_fd(), request, fds)).await
    }

    /// Receives one message; `None` when the other side has closed.
    ///
    /// # Errors
    /// As [`wire::receive`].
    pub async fn receive(&self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        self.fd.async_io(Interest::READABLE, |fd| wire::receive(fd.as_fd())).await
    }

    /// One request and its answer, soon.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other side closes, `TimedOut` when it does not answer in time; the
    /// error number of a failure that has one.
    pub async fn call(&self, request: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<(Reply, Vec<OwnedFd>)> {
        self.call_within(CALL_DEADLINE, request, fds).await
    }

    async fn call_within(
        &self,
        deadline: Duration,
        request: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let answer = async {
            self.send(request, fds).await?;
            self.receive().await
        };
        match tokio::time::timeout(deadline, answer).await?? {
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some((Reply::Failed { message, errno }, _)) => {
                let kind = io::Error::from_raw_os_error(errno).kind();
                Err(io::Error::new(kind, message))
            }
            Some(answer) => Ok(answer),
        }
    }

    /// Waits until the other side has closed.
    pub async fn closed(&self) {
        while let Ok(Some(_)) = self.receive().await {}
    }

    fn peer(&self) -> io::Result<Pid> {
        let credentials = nix::sys::socket::getsockopt(self.fd.get_ref(), nix::sys::socket::sockopt::PeerCredentials)?;
        Ok(Pid::from_raw(credentials.pid()))
    }
}

/// The agent of an environment, started again when it has gone.
pub struct AgentClient {
    exe: PathBuf,
    state: PathBuf,
    config: AgentConfig,
    idle: Mutex<Vec<Connection>>,
    starting: tokio::sync::Mutex<()>,
    ids: IdMapping,
    overlay: bool,
    found: bool,
}

impl AgentClient {
    /// Finds the living agent of `state`, or starts one.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] where no namespaces can be had.
    pub async fn open(exe: &Path, state: &Path, config: AgentConfig) -> Result<Arc<Self>, RuntimeError> {
        let mut client = Self {
            exe: exe.to_owned(),
            state: state.to_owned(),
            config,
            idle: Mutex::default(),
            starting: tokio::sync::Mutex::new(()),
            ids: IdMapping::Root,
            overlay: true,
            found: true,
        };
        let hello = match client.hello().await {
            Ok(Some(hello)) => Some(hello),
            Ok(None) => {
                client.kill().await.map_err(io_error("replace the node agent of an earlier version"))?;
                None
            }
            Err(_) => None,
        };
        client.found = hello.is_some();
        (client.ids, client.overlay) = match hello {
            Some(hello) => hello,
            None => client.spawn_and_greet().await?,
        };
        Ok(Arc::new(client))
    }

    /// Whether the agent lived before this client was opened.
    pub fn was_found(&self) -> bool {
        self.found
    }

    /// How ids are mapped.
    pub fn ids(&self) -> IdMapping {
        self.ids
    }

    /// Whether overlayfs works.
    pub fn overlay(&self) -> bool {
        self.overlay
    }

    /// One request and its answer, on a connection of its own: a caller that gives up does not
    /// leave its answer to the next one.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call(&self, request: &AgentRequest) -> io::Result<(Reply, Vec<OwnedFd>)> {
        self.call_with(request, &[]).await
    }

    /// As [`AgentClient::call`], with descriptors beside the request.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call_with(&self, request: &AgentRequest, fds: &[BorrowedFd<'_>]) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let deadline = match request {
            AgentRequest::RemoveTree { .. } | AgentRequest::Unpack { .. } => WORK_DEADLINE,
            _ => CALL_DEADLINE,
        };
        let idle = self.idle.lock().pop();
        if let Some(connection) = idle {
            match connection.call_within(deadline, request, fds).await {
                // Closed by an agent that has gone since.
                Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {}
                answer => return self.keep(connection, answer),
            }
        }
        let connection = self.connect().await?;
        let answer = connection.call_within(deadline, request, fds).await;
        self.keep(connection, answer)
    }

    /// Returns when the agent has ended.
    pub async fn ended(&self) {
        if let Ok(connection) = Connection::open(&agent::socket_path(&self.state)) {
            connection.closed().await;
        }
    }

    /// Ends the agent and everything in its namespaces; returns when all of it is gone.
    ///
    /// # Errors
    /// When it cannot be killed, or does not end in time.
    pub async fn kill(&self) -> io::Result<()> {
        self.idle.lock().clear();
        let connection = match Connection::open(&agent::socket_path(&self.state)) {
            Ok(connection) => connection,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(()),
            Err(e) => return Err(e),
        };
        // The number is of the process that holds the other end, alive until that end closes.
        let process = ProcessHandle::open(connection.peer()?)?;
        process.signal(Signal::SIGKILL)?;
        // Process 1 of a PID namespace ends after all the others of it.
        tokio::time::timeout(AGENT_DEADLINE, process.ended()).await.map_err(io::Error::from)??;
        match std::fs::remove_file(agent::socket_path(&self.state)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Keeps a connection for the next call, unless it is closed or its answer may still come.
    fn keep<T>(&self, connection: Connection, answer: io::Result<T>) -> io::Result<T> {
        let unfit = |e: &io::Error| matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut);
        let mut idle = self.idle.lock();
        if idle.len() < 16 && !answer.as_ref().is_err_and(unfit) {
            idle.push(connection);
        }
        answer
    }

    async fn connect(&self) -> io::Result<Connection> {
        let path = agent::socket_path(&self.state);
        match Connection::open(&path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            other => return other,
        }
        let _starting = self.starting.lock().await;
        if let Ok(connection) = Connection::open(&path) {
            return Ok(connection);
        }
        self.spawn().await.map_err(io::Error::other)?;
        Connection::open(&path)
    }

    async fn hello(&self) -> io::Result<Option<(IdMapping, bool)>> {
        let connection = Connection::open(&agent::socket_path(&self.state))?;
        match connection.call(&AgentRequest::Hello, &[]).await?.0 {
            Reply::Hello { protocol: PROTOCOL, ids, overlay } => Ok(Some((ids, overlay))),
            _ => Ok(None),
        }
    }

    /// An agent that cannot be talked to is ended again.
    async fn spawn_and_greet(&self) -> Result<(IdMapping, bool), RuntimeError> {
        self.spawn().await?;
        let error = match self.hello().await {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => RuntimeError::Start { message: "the node agent speaks another protocol".into() },
            Err(error) => io_error("greet the node agent")(error),
        };
        self.kill().await.map_err(io_error("end the node agent again"))?;
        Err(error)
    }

    async fn spawn(&self) -> Result<(), RuntimeError> {
        let text = serde_json::to_vec(&self.config).map_err(|e| io_error("write agent.json")(e.into()))?;
        files::write_atomic(&self.state.join("agent.json"), &text, files::PRIVATE)
            .map_err(io_error("write agent.json"))?;
        let mut command = tokio::process::Command::new(&self.exe);
        command.arg("__node-agent").arg("--state").arg(&self.state);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = tokio::time::timeout(AGENT_DEADLINE, command.output())
            .await
            .map_err(|e| io_error("wait for the node agent")(e.into()))?
            .map_err(io_error(&format!("start {}", self.exe.display())))?;
        match serde_json::from_slice(&output.stdout) {
            Ok(Birth::Ready) => Ok(()),
            Ok(Birth::Failed { doing, message }) => Err(RuntimeError::Unsupported {
                message: format!("no container runtime on this machine: could not {doing}: {message}"),
                hint: hint(&doing),
            }),
            Err(_) => Err(RuntimeError::Start {
                message: format!(
                    "the node agent did not start ({}): {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
            }),
        }
    }
}

/// What the user can do about a step of the agent's start that failed.
fn hint(doing: &str) -> String {
    let text = match doing {
        "make a user namespace" | "map user ids" => {
            "allow user namespaces (sysctl user.max_user_namespaces=15000 and, where they exist, \
             kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), or run aksim as root"
        }
        "mount proc" => {
            "inside a container, start it with an unmasked /proc (docker run --privileged, or \
             --security-opt systempaths=unconfined)"
        }
        _ => "run aksim where Linux namespaces may be made; inside a container, start that one with --privileged",
    };
    text.to_owned()
}

/// Makes a [`RuntimeError::Io`].
pub fn io_error(doing: &str) -> impl FnOnce(io::Error) -> RuntimeError {
    let doing = doing.to_owned();
    move |source| RuntimeError::Io { doing, source }
}
