//! Output of a container: to its log, and to whoever is attached.

use super::log::LogWriter;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::PollFlags,
};
use std::{
    collections::HashSet,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stdout,
    Stderr,
    /// Both, through a terminal; logged as stdout.
    Terminal,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout | Self::Terminal => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One who is attached. Output waits for him, as a terminal would make it.
struct Sink {
    fd: OwnedFd,
    pending: Vec<u8>,
    gone: bool,
}

impl Sink {
    fn flush(&mut self) {
        while !self.pending.is_empty() {
            match nix::unistd::write(&self.fd, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}

/// An output stream of the container.
pub(super) struct Stream {
    kind: Kind,
    fd: OwnedFd,
    ended: bool,
    line: Vec<u8>,
    sinks: Vec<Sink>,
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Stream {
    pub(super) fn new(kind: Kind, fd: OwnedFd) -> io::Result<Self> {
        nonblocking(&fd)?;
        Ok(Self { kind, fd, ended: false, line: Vec::new(), sinks: Vec::new() })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Copies what comes from now on to `fd`.
    pub(super) fn copy_to(&mut self, fd: OwnedFd) -> io::Result<()> {
        nonblocking(&fd)?;
        self.sinks.push(Sink { fd, pending: Vec::new(), gone: false });
        Ok(())
    }

    /// Nothing more will come and everything has been given on.
    pub(super) fn finished(&self) -> bool {
        self.ended && self.sinks.iter().all(|s| s.pending.is_empty())
    }

    /// What to poll for: input unless somebody attached lags; room (or departure) of the attached.
    pub(super) fn interests(&self) -> Vec<(RawFd, PollFlags)> {
        let mut all = Vec::new();
        let lagging = self.sinks.iter().any(|s| !s.pending.is_empty());
        if !self.ended && !lagging {
            all.push((self.fd.as_raw_fd(), PollFlags::POLLIN));
        }
        all.extend(self.sinks.iter().map(|s| {
            let flags = if s.pending.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (s.fd.as_raw_fd(), flags)
        }));
        all
    }

    pub(super) fn pump(&mut self, ready: &HashSet<RawFd>, log: &mut LogWriter) {
        for sink in self.sinks.iter_mut().filter(|s| ready.contains(&s.fd.as_raw_fd())) {
            // Nothing to write and yet ready: the reader has closed.
            sink.gone |= sink.pending.is_empty();
            sink.flush();
        }
        self.sinks.retain(|s| !s.gone);
        if !self.ended && ready.contains(&self.fd.as_raw_fd()) {
            self.read(log);
        }
    }

    /// Reads once, at most a pipe's worth, so that one stream cannot starve the others.
    fn read(&mut self, log: &mut LogWriter) {
        let mut buffer = [0_u8; 64 * 1024];
        match nix::unistd::read(&self.fd, &mut buffer) {
            // A terminal says EIO when its last process has closed it.
            Ok(0) | Err(Errno::EIO) => {
                self.ended = true;
                log.finish(self.kind.name(), &mut self.line);
            }
            Ok(count) => {
                let chunk = &buffer[..count];
                log.write(self.kind.name(), &mut self.line, chunk);
                for sink in &mut self.sinks {
                    sink.pending.extend_from_slice(chunk);
                    sink.flush();
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.ended = true,
        }
    }

    /// Takes what is there and ends the log line: called once the container has ended.
    pub(super) fn close(&mut self, log: &mut LogWriter) {
        log.finish(self.kind.name(), &mut self.line);
    }
}
