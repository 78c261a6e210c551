//! Processes: a handle that cannot come to mean another one (pidfd), and the ladder of signals that ends one.

use nix::{errno::Errno, libc, sys::signal::Signal, unistd::Pid};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    pin::pin,
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Opens a process by number as a descriptor. A system call and nothing else: it needs no runtime, and a process of one
/// thread between `fork` and `exec` may use it.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and gives a new descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A process, which may not be a child; safe against reuse of its number.
#[derive(Debug)]
pub struct ProcessHandle {
    fd: AsyncFd<OwnedFd>,
    pid: i32,
}

impl ProcessHandle {
    /// Opens a process by number; the caller knows that it is alive, or compares afterwards.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Self::from_fd(pidfd_open(pid)?)
    }

    /// Takes a pidfd; the number is then the one in this process's own PID namespace. Needs a runtime.
    ///
    /// # Errors
    /// When it is not a pidfd.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let pid = info.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok());
        // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { pid: pid.ok_or(io::ErrorKind::InvalidInput)?, fd })
    }

    /// Its number here; -1 when it had ended before it was opened.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Errors of `pidfd_send_signal(2)`; none when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: no siginfo is passed.
        let code = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.get_ref().as_raw_fd(), signal as i32, none, 0)
        };
        match Errno::result(code) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns when it has ended.
    ///
    /// # Errors
    /// Errors of polling.
    pub async fn ended(&self) -> io::Result<()> {
        drop(self.fd.readable().await?);
        Ok(())
    }
}

/// Sends a signal to the process group of a leader; a group that is gone is what a signal is to bring about.
pub fn signal_group(leader: Option<u32>, signal: Signal) {
    if let Some(group) = leader.and_then(|id| i32::try_from(id).ok()) {
        let _ = nix::sys::signal::killpg(Pid::from_raw(group), signal);
    }
}

/// How long the kernel is given to end what SIGKILL was sent to.
const AFTER_KILL: Duration = Duration::from_secs(30);

/// How a process ended that was to.
#[derive(Debug, PartialEq, Eq)]
pub enum End<T> {
    /// By a signal that it could have refused.
    Heeded(T),
    /// By SIGKILL.
    Killed(T),
    /// Not even so in time: the kernel holds it.
    Stuck,
}

/// Asks a process to end by the `steps`, each a signal and the time that it is given, and then with SIGKILL, which
/// cannot be refused. `ended` is what tells of its end.
pub async fn end<T, S: Future<Output = ()>>(
    steps: &[(Signal, Duration)],
    mut send: impl FnMut(Signal) -> S,
    ended: impl Future<Output = T>,
) -> End<T> {
    let mut ended = pin!(ended);
    for (signal, patience) in steps {
        send(*signal).await;
        if let Ok(result) = tokio::time::timeout(*patience, &mut ended).await {
            return End::Heeded(result);
        }
    }
    send(Signal::SIGKILL).await;
    tokio::time::timeout(AFTER_KILL, ended).await.map_or(End::Stuck, End::Killed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn a_handle_signals_and_hears_the_end() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let handle = ProcessHandle::open(pid).unwrap();
        assert_eq!(handle.pid(), pid.as_raw());
        handle.signal(Signal::SIGTERM).unwrap();
        tokio::time::timeout(Duration::from_secs(60), handle.ended()).await.unwrap().unwrap();
        child.wait().unwrap();
        // Its number may be another's by now; the handle is not.
        handle.signal(Signal::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn the_ladder_goes_up_only_as_far_as_it_must() {
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(600));
        for (heeds, patience, sent) in [
            (Signal::SIGINT, [long, long], &[Signal::SIGINT][..]),
            (Signal::SIGTERM, [short, long], &[Signal::SIGINT, Signal::SIGTERM]),
            (Signal::SIGKILL, [short, short], &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL]),
        ] {
            let steps = [(Signal::SIGINT, patience[0]), (Signal::SIGTERM, patience[1])];
            let (told, mut heard) = tokio::sync::watch::channel(Vec::new());
            let ended = async { heard.wait_for(|signals: &Vec<Signal>| signals.contains(&heeds)).await.is_ok() };
            let send = |signal| {
                told.send_modify(|all| all.push(signal));
                std::future::ready(())
            };
            let end = end(&steps, send, ended).await;
            assert_eq!(end, if heeds == Signal::SIGKILL { End::Killed(true) } else { End::Heeded(true) });
            assert_eq!(&told.borrow()[..], sent);
        }
    }
}
