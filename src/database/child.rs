//! The server process: started, watched, stopped, and found again when an earlier aksim died.

use super::server::DatabaseError;
use aksim_runtime::{
    files::{PRIVATE, write_atomic},
    process::{End, ProcessHandle, end, pidfd_open},
};
use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    collections::VecDeque,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::{oneshot, watch},
    task::JoinSet,
};

/// Lines of the server's log that an error shows.
const SHOWN_LINES: usize = 12;
/// A log longer than this is begun anew at the next start, bytes.
const MAX_LOG: u64 = 4 << 20;
/// What MySQL and MariaDB write once they accept connections.
const READY: &str = "ready for connections";

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

/// SIGTERM, then SIGKILL after the deadline; `false` if it had to be killed.
async fn stop(process: &ProcessHandle, deadline: Duration) -> io::Result<bool> {
    let send = |signal| {
        if let Err(error) = process.signal(signal) {
            tracing::warn!(pid = process.pid(), %signal, %error, "the database server could not be signalled");
        }
        std::future::ready(())
    };
    match end(&[(Signal::SIGTERM, deadline)], send, process.ended()).await {
        End::Heeded(ended) => ended.map(|()| true),
        End::Killed(ended) => ended.map(|()| false),
        End::Stuck => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Last lines of the server's log.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<parking_lot::Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == SHOWN_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }
    /// As one text.
    pub(super) fn text(&self) -> String {
        self.0.lock().iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

/// A running server. Dropping it kills the server.
pub(super) struct Child {
    process: ProcessHandle,
    exit: oneshot::Receiver<io::Result<ExitStatus>>,
    ready: watch::Receiver<bool>,
    /// Last lines it wrote.
    pub tail: Tail,
    // Copies the log; ends with the server.
    _log: JoinSet<()>,
}

/// What to start.
pub(super) struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Where its log goes.
    pub log: PathBuf,
    /// Where its process id is kept for the next aksim.
    pub pid_file: PathBuf,
}

impl Child {
    /// Starts the server; it may not be ready yet.
    pub(super) async fn start(launch: Launch) -> Result<Self, DatabaseError> {
        let failed = |source: io::Error| DatabaseError::Start { program: launch.program.clone(), source };
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Azure's servers live in UTC. A group of its own: Ctrl-C is aksim's to handle.
        command.env("TZ", "UTC").env("LC_ALL", "C").env_remove("NOTIFY_SOCKET").process_group(0);
        let parent = std::process::id();
        // SAFETY: between fork and exec only system calls that are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
                // The parent may have died before the signal was asked for.
                if nix::unistd::getppid() == Pid::from_raw(parent.cast_signed()) {
                    Ok(())
                } else {
                    Err(io::ErrorKind::BrokenPipe.into())
                }
            });
        }
        let (started, pid) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        // The death signal belongs to the thread that starts the child, not to the process: this
        // thread lives as long as the child, which threads of the runtime do not promise.
        std::thread::Builder::new()
            .name("database".into())
            .spawn(move || match command.spawn() {
                Ok(mut child) => {
                    // Taken before anybody waits: until then the id cannot be another's.
                    let pid = child.id();
                    let process = pidfd_open(self::pid(pid)).map(|fd| (fd, pid, start_time(pid), child.stderr.take()));
                    // Without a handle at the other end nobody could stop the child.
                    let held = process.is_ok();
                    if started.send(process).is_err() || !held {
                        let _ = child.kill();
                    }
                    let _ = exited.send(child.wait());
                }
                Err(error) => drop(started.send(Err(error))),
            })
            .map_err(failed)?;
        let gone = || io::Error::other("the thread that starts the server ended");
        let (fd, pid, born, pipe) = pid.await.map_err(|_| gone()).and_then(|spawned| spawned).map_err(failed)?;
        let process = ProcessHandle::from_fd(fd).map_err(failed)?;
        if let Some(born) = born {
            let content = format!("{pid} {born}\n");
            write_atomic(&launch.pid_file, content.as_bytes(), PRIVATE)
                .map_err(|source| DatabaseError::File { path: launch.pid_file.clone(), source })?;
        }
        let (tail, mut tasks) = (Tail::default(), JoinSet::new());
        let (signal, ready) = watch::channel(false);
        if let Some(pipe) = pipe {
            let pipe = tokio::process::ChildStderr::from_std(pipe).map_err(failed)?;
            tasks.spawn(copy_log(pipe, launch.log, tail.clone(), signal));
        }
        Ok(Self { process, exit, ready, tail, _log: tasks })
    }

    /// Waits until it accepts connections; how it ended if it ends first.
    pub(super) async fn ready(&mut self) -> Result<(), String> {
        tokio::select! {
            said = self.ready.wait_for(|ready| *ready) => {
                // Otherwise its log has ended: so does it.
                if said.is_ok() {
                    return Ok(());
                }
            }
            exit = &mut self.exit => return Err(describe(exit)),
        }
        Err(describe((&mut self.exit).await))
    }

    /// Waits until it ends, and says how.
    pub(super) async fn ended(&mut self) -> String {
        describe((&mut self.exit).await)
    }

    /// Shuts it down; kills it after the deadline. `false` if it had to be killed.
    pub(super) async fn stop(mut self, deadline: Duration) -> bool {
        match stop(&self.process, deadline).await {
            Ok(clean) => {
                // Reaped by its thread.
                let _ = (&mut self.exit).await;
                clean
            }
            Err(error) => {
                tracing::warn!(%error, "the end of the database server was not seen");
                false
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Already ended: nothing happens.
        let _ = self.process.signal(Signal::SIGKILL);
    }
}

fn describe(exit: Result<io::Result<ExitStatus>, oneshot::error::RecvError>) -> String {
    match exit {
        Ok(Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Ok(Err(error)) => format!("cannot be waited for: {error}"),
        Err(_) => "is gone".to_owned(),
    }
}

async fn copy_log(pipe: tokio::process::ChildStderr, path: PathBuf, tail: Tail, ready: watch::Sender<bool>) {
    if tokio::fs::metadata(&path).await.is_ok_and(|log| log.len() > MAX_LOG) {
        // Best effort: a log that stays is only long.
        let _ = tokio::fs::remove_file(&path).await;
    }
    let mut file = tokio::fs::OpenOptions::new().create(true).append(true).mode(PRIVATE).open(&path).await.ok();
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        tracing::debug!(target: "aksim::database", "{line}");
        tail.push(&line);
        if line.contains(READY) {
            ready.send_replace(true);
        }
        if let Some(log) = &mut file
            && log.write_all(format!("{line}\n").as_bytes()).await.is_err()
        {
            file = None;
        }
    }
}

/// Stops a server that an earlier aksim left behind, and waits until it has let go of its data.
pub(super) async fn stop_stale(pid_file: &Path, deadline: Duration) -> io::Result<bool> {
    let Ok(content) = std::fs::read_to_string(pid_file) else { return Ok(false) };
    let mut fields = content.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(born))) = (fields.next(), fields.next()) else { return Ok(false) };
    let Ok(pid) = u32::try_from(pid) else { return Ok(false) };
    let Ok(process) = ProcessHandle::open(self::pid(pid)) else { return Ok(false) };
    // Compared after opening: from here on the descriptor means this process and no other.
    if start_time(pid) != Some(born) {
        return Ok(false);
    }
    stop(&process, deadline).await?;
    Ok(true)
}

/// When a process started, clock ticks since boot; `None` when it is gone.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything: count from its closing parenthesis (proc(5), field 22).
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(dir: &Path, script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            log: dir.join("log"),
            pid_file: dir.join("pid"),
        }
    }

    #[tokio::test]
    async fn says_when_it_is_ready_and_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo one >&2; echo 'sh: ready for connections.' >&2; read x; exit 3";
        let mut child = Child::start(launch(dir.path(), script)).await.unwrap();
        assert_eq!(child.ended().await, "ended with exit code 3");
        let mut child = Child::start(launch(dir.path(), "echo no >&2; exit 7")).await.unwrap();
        assert_eq!(child.ready().await.unwrap_err(), "ended with exit code 7");
    }

    #[tokio::test]
    async fn what_does_not_stop_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; echo ready for connections >&2; while :; do sleep 60; done";
        let mut child = Child::start(launch(dir.path(), script)).await.unwrap();
        child.ready().await.unwrap();
        assert!(!child.stop(Duration::from_millis(50)).await);
        let child = Child::start(launch(dir.path(), "exec sleep 60")).await.unwrap();
        assert!(child.stop(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_stale_server_is_stopped_and_a_stranger_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut left = Child::start(launch(dir.path(), "exec sleep 60")).await.unwrap();
        let pid_file = dir.path().join("pid");
        let content = std::fs::read_to_string(&pid_file).unwrap();
        let pid = content.split(' ').next().unwrap();
        std::fs::write(&pid_file, format!("{pid} 1\n")).unwrap();
        assert!(!stop_stale(&pid_file, Duration::from_secs(10)).await.unwrap());
        std::fs::write(&pid_file, content).unwrap();
        assert!(stop_stale(&pid_file, Duration::from_secs(10)).await.unwrap());
        assert_eq!(left.ended().await, "was killed by signal 15");
    }
}
