//! Requests to a shim: signals, log rotation, attach, exec.

use super::{Shim, connect_exec, give_up, hear, streams::Kind, sync_pair, with_terminal};
use crate::container::{
    launch::LaunchError,
    wire::{self, Reply, ShimRequest},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{ForkResult, Pid, fork},
};
use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// A connection to the shim.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    /// The process it runs (exec).
    pub(super) process: Option<Pid>,
}

impl Shim {
    pub(super) fn serve_ready(&mut self, ready: &HashSet<RawFd>) {
        let mut index = 0;
        while index < self.connections.len() {
            let keep = !ready.contains(&self.connections[index].socket.as_raw_fd()) || self.serve(index);
            if keep { index += 1 } else { drop(self.connections.swap_remove(index)) }
        }
    }

    fn serve(&mut self, index: usize) -> bool {
        let Ok(Some((request, fds))) = wire::receive::<ShimRequest>(self.connections[index].socket.as_fd()) else {
            return false;
        };
        let (reply, fds) = match self.handle(request, fds, index) {
            Ok(answer) => answer,
            Err(e) => (Reply::failed("container", &e), None),
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        wire::send(self.connections[index].socket.as_fd(), &reply, &fds).is_ok()
    }

    fn handle(
        &mut self,
        request: ShimRequest,
        fds: Vec<OwnedFd>,
        index: usize,
    ) -> io::Result<(Reply, Option<OwnedFd>)> {
        Ok(match request {
            ShimRequest::State => {
                (Reply::State { started_nanos: self.started.as_nanosecond() }, Some(self.pidfd.try_clone()?))
            }
            ShimRequest::Signal(number) => {
                if self.ended.is_none() {
                    kill(self.init, Signal::try_from(number)?)?;
                }
                (Reply::Done, None)
            }
            ShimRequest::ReopenLog => {
                self.log.reopen()?;
                (Reply::Done, None)
            }
            ShimRequest::Attach => (Reply::Done, self.attach(fds)?),
            ShimRequest::Exec { command, tty } => match self.exec(&command, tty, fds) {
                Ok((pid, terminal)) => {
                    self.connections[index].process = Some(pid);
                    (Reply::Running, terminal)
                }
                Err(e) => (Reply::Failed { message: e.to_string(), errno: 0 }, None),
            },
            ShimRequest::Kill => {
                if let Some(pid) = self.connections[index].process {
                    kill(pid, Signal::SIGKILL)?;
                }
                (Reply::Done, None)
            }
        })
    }

    /// Copies output to the descriptors (stdout, stderr) from now on; gives the end of stdin.
    fn attach(&mut self, fds: Vec<OwnedFd>) -> io::Result<Option<OwnedFd>> {
        let mut fds = fds.into_iter();
        let (stdout, stderr) = (fds.next(), fds.next());
        for stream in &mut self.streams {
            let sink = match stream.kind() {
                Kind::Stdout | Kind::Terminal => &stdout,
                Kind::Stderr => &stderr,
            };
            if let Some(sink) = sink {
                stream.copy_to(sink.try_clone()?)?;
            }
        }
        if self.bundle.launch.stdin_once && !self.bundle.terminal() {
            return Ok(self.stdin.take());
        }
        if !self.bundle.launch.stdin && !self.bundle.terminal() {
            return Ok(None);
        }
        self.stdin.as_ref().map(OwnedFd::try_clone).transpose()
    }

    fn exec(
        &mut self,
        command: &[String],
        tty: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(Pid, Option<OwnedFd>), LaunchError> {
        let Some(inside) = self.inside.as_ref().filter(|_| self.ended.is_none()) else {
            return Err(super::doing("run the process")(io::Error::other("the container is not running")));
        };
        let pipes = connect_exec(tty, fds)?;
        let (parent, child) = sync_pair().map_err(super::doing("make a socket pair"))?;
        // The child is born into the container's PID namespace, see `Sandbox::enter`.
        // SAFETY: this process has one thread.
        match unsafe { fork() }.map_err(super::doing("fork"))? {
            ForkResult::Child => {
                drop(parent);
                let streams = with_terminal(pipes, &child);
                let Err(error) = self.bundle.become_exec(inside, command, streams);
                give_up(&child, &error)
            }
            ForkResult::Parent { child: pid } => {
                drop((child, pipes));
                Ok((pid, hear(&parent, pid)?))
            }
        }
    }
}
