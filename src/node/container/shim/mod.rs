//! The shim: a container's parent. Forked from the agent, single-threaded; it writes the log,
//! serves exec and attach on `shim.sock`, and leaves `exit.json` when the container has ended.
//! Closing its socket is the news of that.

mod log;
mod serve;
mod streams;

use crate::container::{
    agent::exit_now,
    launch::{Bundle, Inside, LaunchError, Streams, doing},
    wire::{self, IdMapping, Reply},
};
use aksim_runtime::process::pidfd_open;
use jiff::Timestamp;
use log::LogWriter;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, pipe2},
};
use serde::{Deserialize, Serialize};
use serve::Connection;
use socket2::Socket;
use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};
use streams::{Kind, Stream};

/// How a container ended: `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code; 128 + signal when killed by one.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// When it had started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The kernel killed something in it for lack of memory, and it failed.
    pub oom_killed: bool,
}

/// How long output is awaited that others than the container's process may still hold open.
const DRAIN: Duration = Duration::from_millis(500);

/// Stdin, stdout and stderr of a process.
type Ends = [OwnedFd; 3];

/// The child's words to its parent before `execve`, which closes the socket.
#[derive(Serialize, Deserialize)]
enum Word {
    /// The terminal's master comes beside.
    Terminal,
    /// It could not become the process.
    Failed(String),
}

struct Shim {
    bundle: Bundle,
    /// `None` when the process had ended before they could be opened.
    inside: Option<Inside>,
    init: Pid,
    pidfd: OwnedFd,
    started: Timestamp,
    ended: Option<(WaitStatus, Timestamp)>,
    oom_before: u64,
    listener: Socket,
    signals: SignalFd,
    connections: Vec<Connection>,
    streams: Vec<Stream>,
    stdin: Option<OwnedFd>,
    log: LogWriter,
}

/// Starts the container of `directory` and looks after it until it has ended. `starter` hears
/// how the start went.
///
/// # Errors
/// When it could not be started.
pub fn run(starter: BorrowedFd<'_>, directory: &Path, ids: IdMapping) -> io::Result<()> {
    nix::unistd::setsid()?;
    let _ = nix::sys::prctl::set_name(c"aksim-shim");
    let shim = match Shim::start(directory, ids) {
        Ok(shim) => shim,
        Err(error) => {
            return wire::send(starter, &Reply::Failed { message: error.to_string(), errno: 0 }, &[]);
        }
    };
    let state = Reply::State { started_nanos: shim.started.as_nanosecond() };
    // The starter may have been killed meanwhile; the container runs on all the same.
    let _ = wire::send(starter, &state, &[shim.pidfd.as_fd()]);
    crate::container::agent::close_one(starter.as_raw_fd());
    shim.look_after()
}

impl Shim {
    fn start(directory: &Path, ids: IdMapping) -> Result<Self, LaunchError> {
        let bundle = Bundle::read(directory, ids)?;
        let log = LogWriter::open(&bundle.launch.log_path)
            .map_err(doing(format!("open log {}", bundle.launch.log_path.display())))?;
        let signals = watch_children().map_err(doing("watch children"))?;
        let oom_before = bundle.launch.oom_events.as_deref().map_or(0, oom_kills);
        let (inner, outer, stdin) = connect(&bundle).map_err(doing("make streams"))?;
        let (parent, child) = sync_pair().map_err(doing("make a socket pair"))?;
        // SAFETY: this process has one thread.
        match unsafe { fork() }.map_err(doing("fork"))? {
            ForkResult::Child => {
                drop(parent);
                let streams = with_terminal(inner, &child);
                let Err(error) = bundle.become_init(streams);
                give_up(&child, &error)
            }
            ForkResult::Parent { child: init } => {
                drop((child, inner));
                let terminal = hear(&parent, init)?;
                let pidfd = pidfd_open(init).map_err(doing("open the process"))?;
                let started = Timestamp::now();
                let mut streams = outer;
                let stdin = match terminal {
                    Some(master) => {
                        let copy = master.try_clone().map_err(doing("keep the terminal"))?;
                        streams = vec![Stream::new(Kind::Terminal, copy).map_err(doing("keep the terminal"))?];
                        Some(master)
                    }
                    None => stdin,
                };
                Ok(Self {
                    inside: Inside::of(init, ids).ok(),
                    listener: wire::listen(&directory.join("shim.sock")).map_err(doing("listen"))?,
                    bundle,
                    init,
                    pidfd,
                    started,
                    ended: None,
                    oom_before,
                    signals,
                    connections: Vec::new(),
                    streams,
                    stdin,
                    log,
                })
            }
        }
    }

    fn look_after(mut self) -> io::Result<()> {
        let mut deadline = None;
        loop {
            if self.ended.is_some() {
                let end = *deadline.get_or_insert_with(|| Instant::now() + DRAIN);
                let quiet = self.streams.is_empty() && self.connections.iter().all(|c| c.process.is_none());
                if quiet || Instant::now() >= end {
                    return self.finish();
                }
            }
            let ready = self.wait(deadline)?;
            if ready.contains(&self.signals.as_raw_fd()) {
                while self.signals.read_signal()?.is_some() {}
                self.reap();
            }
            self.pump(&ready);
            self.serve_ready(&ready);
            // Last: a new connection may get the number of a stream that was ready and has been
            // closed since; served by that number it would be waited for, and may never speak.
            if ready.contains(&self.listener.as_raw_fd()) {
                let (socket, _) = self.listener.accept()?;
                self.connections.push(Connection { socket: socket.into(), process: None });
            }
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> io::Result<HashSet<RawFd>> {
        let input = |fd: BorrowedFd<'_>| (fd.as_raw_fd(), PollFlags::POLLIN);
        let mut wanted = vec![input(self.signals.as_fd()), input(self.listener.as_fd())];
        wanted.extend(self.connections.iter().map(|c| input(c.socket.as_fd())));
        for stream in &self.streams {
            wanted.extend(stream.interests());
        }
        let mut fds: Vec<PollFd<'_>> = wanted
            .into_iter()
            // SAFETY: every descriptor is owned by `self` and stays open for the call.
            .map(|(fd, flags)| PollFd::new(unsafe { BorrowedFd::borrow_raw(fd) }, flags))
            .collect();
        let timeout = deadline.map_or(PollTimeout::NONE, |end| {
            let left = end.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &&PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        Ok(fds.iter().filter(ready).map(|fd| fd.as_fd().as_raw_fd()).collect())
    }

    /// Moves output on; what others wrote while the disk was full is lost, said once on stderr.
    fn pump(&mut self, ready: &HashSet<RawFd>) {
        for stream in &mut self.streams {
            stream.pump(ready, &mut self.log);
        }
        self.streams.retain(|s| !s.finished());
    }

    fn reap(&mut self) {
        while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            let Some(code) = exit_code(status) else { continue };
            if pid == self.init {
                self.ended = Some((status, Timestamp::now()));
            }
            for connection in self.connections.iter_mut().filter(|c| c.process == Some(pid)) {
                connection.process = None;
                // The daemon may have gone.
                let _ = wire::send(connection.socket.as_fd(), &Reply::Exited(code), &[]);
            }
        }
    }

    /// Writes the exit record. Dropping the sockets then tells the daemon.
    fn finish(mut self) -> io::Result<()> {
        let Some((status, finished)) = self.ended else { return Ok(()) };
        for stream in &mut self.streams {
            stream.close(&mut self.log);
        }
        let code = exit_code(status).unwrap_or(255);
        let signal = match status {
            WaitStatus::Signaled(_, signal, _) => Some(signal as i32),
            _ => None,
        };
        let kills = self.bundle.launch.oom_events.as_deref().map_or(0, oom_kills);
        let record = ExitRecord {
            code,
            signal,
            started: self.started,
            finished,
            oom_killed: code != 0 && kills > self.oom_before,
        };
        let text = serde_json::to_vec(&record)?;
        aksim_runtime::files::write_atomic(&self.bundle.directory.join("exit.json"), &text, 0o600)
    }
}

/// Exit code of a process that has ended.
pub fn exit_code(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
        _ => None,
    }
}

fn watch_children() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Kills for lack of memory so far, by `memory.events` (v2) or `memory.oom_control` (v1).
fn oom_kills(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

fn sync_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Streams of the new process: its ends, ours, and the end of its stdin that is kept for attach.
fn connect(bundle: &Bundle) -> io::Result<(Option<Ends>, Vec<Stream>, Option<OwnedFd>)> {
    if bundle.terminal() {
        return Ok((None, Vec::new(), None));
    }
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let ((out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?);
    let (input, keep) = if bundle.launch.stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (std::fs::File::open("/dev/null")?.into(), None)
    };
    let streams = vec![Stream::new(Kind::Stdout, out_read)?, Stream::new(Kind::Stderr, err_read)?];
    Ok((Some([input, out_write, err_write]), streams, keep))
}

/// Streams of a process run by exec: the daemon's, or `None` for a terminal.
fn connect_exec(tty: bool, fds: Vec<OwnedFd>) -> Result<Option<Ends>, LaunchError> {
    if tty {
        return Ok(None);
    }
    let fds = Ends::try_from(fds).map_err(|_| {
        doing("connect the streams")(io::Error::new(io::ErrorKind::InvalidInput, "three descriptors expected"))
    })?;
    Ok(Some(fds))
}

fn with_terminal(pipes: Option<Ends>, child: &OwnedFd) -> Streams {
    match pipes {
        Some([stdin, stdout, stderr]) => Streams::Pipes(stdin, stdout, stderr),
        None => {
            let child = child.try_clone();
            Streams::Terminal(Box::new(move |master| wire::send(child?.as_fd(), &Word::Terminal, &[master.as_fd()])))
        }
    }
}

/// In the child: says why and ends.
fn give_up(child: &OwnedFd, error: &LaunchError) -> ! {
    // Without a parent there is nobody to tell.
    let _ = wire::send(child.as_fd(), &Word::Failed(error.to_string()), &[]);
    exit_now(127)
}

/// In the parent: listens until the child has become its process; its terminal, if it has one.
fn hear(parent: &OwnedFd, child: Pid) -> Result<Option<OwnedFd>, LaunchError> {
    let mut terminal = None;
    loop {
        match wire::receive::<Word>(parent.as_fd()).map_err(doing("hear from the process"))? {
            Some((Word::Terminal, fds)) => terminal = fds.into_iter().next(),
            Some((Word::Failed(message), _)) => {
                let _ = waitpid(child, None);
                let source = io::Error::other(message);
                return Err(doing("failed to start the process")(source));
            }
            None => return Ok(terminal),
        }
    }
}
