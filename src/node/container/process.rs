//! A handle on a process that cannot come to mean another one (pidfd).

use nix::{errno::Errno, unistd::Pid};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A process.
#[derive(Debug)]
pub struct ProcessHandle {
    fd: AsyncFd<OwnedFd>,
    pid: i32,
}

impl ProcessHandle {
    /// Opens a process by number; the caller knows that it is alive.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: takes two integers and gives a new descriptor.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the descriptor is new and ours.
        Self::from_fd(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Takes a pidfd; the number is then the one in this process's own PID namespace.
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

    /// Its number here; -1 when it has ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills it.
    ///
    /// # Errors
    /// Errors of `pidfd_send_signal(2)`; none when it has ended.
    pub fn kill(&self) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: no siginfo is passed.
        let code = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.get_ref().as_raw_fd(), libc::SIGKILL, none, 0)
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
