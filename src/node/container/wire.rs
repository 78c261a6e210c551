//! Messages between daemon, agent and shim: one JSON datagram on a Unix seqpacket socket,
//! with file descriptors beside it (SCM_RIGHTS).

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Changes whenever a message changes; an agent of another protocol is replaced.
pub const PROTOCOL: u32 = 1;
/// Largest message, bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// Most descriptors in one message.
pub const MAX_FDS: usize = 32;

/// What the daemon asks of the agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum AgentRequest {
    /// Who are you?
    Hello,
    /// Makes the namespaces and the network of a pod.
    CreateSandbox(SandboxSetup),
    /// Takes them down; what runs in them is killed by the daemon before.
    RemoveSandbox {
        /// Sandbox.
        id: String,
    },
    /// Ids of the living sandboxes.
    Sandboxes,
    /// Adds an address of the node itself.
    AddAddress {
        /// The address, /32 or /128.
        address: IpAddr,
    },
    /// Makes unbound sockets inside the node's or a pod's network namespace.
    Sockets {
        /// Pod; the node when `None`.
        sandbox: Option<String>,
        /// Datagram instead of stream.
        udp: bool,
        /// IPv6 instead of IPv4.
        ipv6: bool,
        /// How many, at most [`MAX_FDS`].
        count: usize,
    },
    /// Starts a shim for the container prepared in `directory`.
    StartShim {
        /// Sandbox it joins.
        sandbox: String,
        /// Folder with `config.json` and `launch.json`.
        directory: PathBuf,
        /// Whether the PID namespace whose descriptor comes beside is joined instead of a new one.
        #[serde(default)]
        joins_pid: bool,
    },
    /// Deletes a tree whose files may belong to mapped users.
    RemoveTree {
        /// What to delete.
        path: PathBuf,
    },
    /// Unpacks a layer.
    Unpack {
        /// The blob.
        blob: PathBuf,
        /// Folder to make; must not exist.
        target: PathBuf,
        /// Media type of the blob.
        media_type: String,
        /// `sha256:…` of the uncompressed tar.
        diff_id: String,
    },
}

/// How to make a sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub struct SandboxSetup {
    /// Id.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// Address, from the pod network.
    pub ip: IpAddr,
    /// Share the node's network.
    pub host_network: bool,
    /// One PID namespace for the containers.
    pub share_pid: bool,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
}

/// What agent and shim answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done; descriptors come beside where the request implies them.
    Done,
    /// To [`AgentRequest::Hello`].
    Hello {
        /// [`PROTOCOL`] of the agent.
        protocol: u32,
        /// How ids are mapped.
        ids: IdMapping,
        /// Whether overlayfs can be mounted there.
        overlay: bool,
    },
    /// To [`AgentRequest::Sandboxes`].
    Sandboxes(Vec<String>),
    /// Bytes unpacked.
    Unpacked(u64),
    /// A container started; its first process comes beside as a pidfd.
    State {
        /// When, nanoseconds since the epoch.
        started_nanos: i128,
    },
    /// A process run by exec has started; with a terminal its master comes beside.
    Running,
    /// It has ended.
    Exited(i32),
    /// It failed.
    Failed {
        /// Why.
        message: String,
        /// `errno`, 0 when it has none.
        errno: i32,
    },
}

/// How user ids inside relate to the ones outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdMapping {
    /// Real root: no user namespace.
    Root,
    /// User namespace with subordinate ids (`newuidmap`).
    Mapped,
    /// User namespace with the user's own id as 0 and nothing else.
    Single,
}

/// What the daemon asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub enum ShimRequest {
    /// Running since when, and a pidfd of the first process.
    State,
    /// Sends a signal to the first process.
    Signal(i32),
    /// Opens the log file anew.
    ReopenLog,
    /// Connects to the container's streams: the descriptors beside are where its stdout and
    /// stderr are copied; beside the answer comes its stdin (or terminal).
    Attach,
    /// Runs a process; the descriptors beside are its stdin, stdout, stderr (none with a terminal).
    Exec {
        /// Program and arguments.
        command: Vec<String>,
        /// With a terminal.
        tty: bool,
    },
    /// Kills the process this connection runs.
    Kill,
}

impl Reply {
    /// A failure with the error number of `error`.
    pub fn failed(doing: &str, error: &io::Error) -> Self {
        Self::Failed { message: format!("{doing}: {error}"), errno: error.raw_os_error().unwrap_or(0) }
    }
}

/// Sends one message.
///
/// # Errors
/// Errors of `sendmsg(2)`; `EMSGSIZE` when the message is too long.
pub fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_MESSAGE {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&body)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message with its descriptors; `None` when the other side has closed.
///
/// # Errors
/// Errors of `recvmsg(2)`, `WouldBlock` among them; a message that does not parse.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut body = vec![0_u8; MAX_MESSAGE];
    let mut control = cmsg_space!([i32; MAX_FDS]);
    let mut fds = Vec::new();
    let length = {
        let mut slices = [IoSliceMut::new(&mut body)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for item in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = item {
                // SAFETY: the kernel has just installed these descriptors for us.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        message.bytes
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&body[..length])?, fds)))
}

/// A path for `bind(2)` and `connect(2)` that is short however deep `folder` lies (`sun_path`
/// holds 108 bytes); the descriptor keeps it valid.
fn short(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    use std::os::unix::fs::OpenOptionsExt;
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "socket path has no folder or name");
    let folder = path.parent().ok_or_else(invalid)?;
    let name = path.file_name().ok_or_else(invalid)?;
    let folder = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
    let folder = OwnedFd::from(folder);
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, path))
}

/// Listens at `path`, replacing a stale socket.
///
/// # Errors
/// Errors of the system.
pub fn listen(path: &Path) -> io::Result<Socket> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (_folder, short) = short(path)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.bind(&SockAddr::unix(short)?)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    socket.listen(128)?;
    Ok(socket)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when nobody listens.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (_folder, short) = short(path)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.connect(&SockAddr::unix(short)?)?;
    Ok(socket.into())
}

/// One request and its answer, blocking.
///
/// # Errors
/// As [`send`] and [`receive`]; `UnexpectedEof` when the other side closes.
pub fn call(socket: &OwnedFd, request: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<(Reply, Vec<OwnedFd>)> {
    send(socket.as_fd(), request, fds)?;
    receive(socket.as_fd())?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
