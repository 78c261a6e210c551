//! The agent: one process per environment that is "the node". It is process 1 of a PID namespace
//! and owns the user (rootless), mount and network namespaces that the pods live in. It outlives
//! the daemon; when it ends, the kernel ends everything in it.
//!
//! Single-threaded, because it forks and changes namespaces.

mod birth;
mod sandbox;

use crate::container::{
    image::unpack,
    netlink::Netlink,
    shim,
    wire::{self, AgentRequest, IdMapping, MAX_FDS, PROTOCOL, Reply},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use sandbox::Sandbox;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

pub use birth::main;

/// Name of the bridge that the pods hang on.
const BRIDGE: &str = "cni0";

/// What the daemon tells its agent at start, in `agent.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// First address of the pod network: the bridge's own, and the pods' gateway.
    pub gateway: Ipv4Addr,
    /// Prefix length of the pod network.
    pub pod_prefix: u8,
    /// Service network, all of it local to the node.
    pub service_network: Ipv4Addr,
    /// Its prefix length.
    pub service_prefix: u8,
}

/// How the agent's start ended, one JSON line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub enum Birth {
    /// It listens.
    Ready,
    /// It cannot be.
    Failed {
        /// What was tried.
        doing: String,
        /// What the system said.
        message: String,
    },
}

/// Path of the agent's socket in the node's state folder.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("agent.sock")
}

struct Agent {
    listener: Socket,
    connections: Vec<OwnedFd>,
    signals: SignalFd,
    sandboxes: BTreeMap<String, Sandbox>,
    config: AgentConfig,
    ids: IdMapping,
    overlay: bool,
    node_net: File,
    netlink: Netlink,
    loopback: u32,
    bridge: u32,
}

/// What to do after a request.
enum Next {
    Answer(Reply, Vec<OwnedFd>),
    /// A forked child answers on the connection.
    Delegated,
}

impl Agent {
    fn new(state: &Path, config: AgentConfig, ids: IdMapping) -> io::Result<Self> {
        let mut netlink = Netlink::open()?;
        let loopback = netlink.index("lo")?;
        netlink.up(loopback)?;
        let bridge = netlink.add_bridge(BRIDGE, config.gateway)?;
        netlink.add_address(bridge, IpAddr::V4(config.gateway), config.pod_prefix)?;
        netlink.add_local_range(loopback, config.service_network, config.service_prefix)?;
        sandbox::write_sysctl("net.ipv4.ip_forward", "1")?;
        sandbox::unprivileged_network()?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        Ok(Self {
            signals: SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            listener: wire::listen(&socket_path(state))?,
            connections: Vec::new(),
            sandboxes: BTreeMap::new(),
            overlay: crate::container::launch::overlay::works(state, ids),
            config,
            ids,
            node_net: File::open("/proc/self/ns/net")?,
            netlink,
            loopback,
            bridge,
        })
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.contains(&self.signals.as_raw_fd()) {
                while self.signals.read_signal()?.is_some() {}
                self.reap();
            }
            let mut index = 0;
            while index < self.connections.len() {
                let keep = !ready.contains(&self.connections[index].as_raw_fd()) || self.serve(index);
                if keep { index += 1 } else { drop(self.connections.swap_remove(index)) }
            }
            // Last: what is accepted now may have a number that was ready as something else.
            if ready.contains(&self.listener.as_raw_fd()) {
                let (socket, _) = self.listener.accept()?;
                self.connections.push(socket.into());
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<RawFd>> {
        let mut fds: Vec<PollFd<'_>> = [self.signals.as_fd(), self.listener.as_fd()]
            .into_iter()
            .chain(self.connections.iter().map(AsFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &&PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        Ok(fds.iter().filter(ready).map(|fd| fd.as_fd().as_raw_fd()).collect())
    }

    /// Reaps what ended: shims, workers, and (as process 1) orphans.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
                _ => continue,
            }
        }
    }

    /// Serves one request; false when the connection is to be closed.
    fn serve(&mut self, index: usize) -> bool {
        let Ok(Some((request, fds))) = wire::receive::<AgentRequest>(self.connections[index].as_fd()) else {
            return false;
        };
        let next =
            self.handle(request, fds, index).unwrap_or_else(|e| Next::Answer(Reply::failed("node agent", &e), vec![]));
        match next {
            Next::Delegated => true,
            Next::Answer(reply, fds) => {
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                wire::send(self.connections[index].as_fd(), &reply, &fds).is_ok()
            }
        }
    }

    fn handle(&mut self, request: AgentRequest, mut fds: Vec<OwnedFd>, index: usize) -> io::Result<Next> {
        let done = || Next::Answer(Reply::Done, vec![]);
        Ok(match request {
            AgentRequest::Hello => {
                Next::Answer(Reply::Hello { protocol: PROTOCOL, ids: self.ids, overlay: self.overlay }, vec![])
            }
            AgentRequest::CreateSandbox(setup) => {
                if !self.sandboxes.contains_key(&setup.id) {
                    let sandbox = self.create_sandbox(&setup)?;
                    self.sandboxes.insert(setup.id, sandbox);
                }
                done()
            }
            AgentRequest::RemoveSandbox { id } => {
                if let Some(sandbox) = self.sandboxes.remove(&id) {
                    self.remove_sandbox(sandbox)?;
                }
                done()
            }
            AgentRequest::Sandboxes => Next::Answer(Reply::Sandboxes(self.sandboxes.keys().cloned().collect()), vec![]),
            AgentRequest::AddAddress { address } => {
                let prefix = if address.is_ipv4() { 32 } else { 128 };
                self.netlink.add_address(self.loopback, address, prefix)?;
                done()
            }
            AgentRequest::Sockets { sandbox, udp, ipv6, count } => {
                let fds = self.sockets(sandbox.as_deref(), udp, ipv6, count.clamp(1, MAX_FDS))?;
                Next::Answer(Reply::Done, fds)
            }
            AgentRequest::StartShim { sandbox, directory, joins_pid } => {
                let missing = || io::Error::new(io::ErrorKind::InvalidInput, "the PID namespace to join is missing");
                let pid = joins_pid.then(|| fds.pop().ok_or_else(missing)).transpose()?;
                self.start_shim(&sandbox, &directory, pid.as_ref(), index)?
            }
            AgentRequest::RemoveTree { path } => self.work(index, move || match remove_tree(&path) {
                Ok(()) => Reply::Done,
                Err(e) => Reply::failed(&format!("cannot remove {}", path.display()), &e),
            })?,
            AgentRequest::Unpack { blob, target, media_type, diff_id } => {
                let ids = self.ids;
                self.work(index, move || match unpack::layer(&blob, &target, &media_type, &diff_id, ids) {
                    Ok(bytes) => Reply::Unpacked(bytes),
                    Err(e) => Reply::failed("cannot unpack the layer", &e),
                })?
            }
        })
    }

    fn sandbox(&self, id: &str) -> io::Result<&Sandbox> {
        self.sandboxes.get(id).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }

    fn sockets(&self, sandbox: Option<&str>, udp: bool, ipv6: bool, count: usize) -> io::Result<Vec<OwnedFd>> {
        let domain = if ipv6 { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
        let kind = if udp { socket2::Type::DGRAM } else { socket2::Type::STREAM };
        let make = || -> io::Result<Vec<OwnedFd>> {
            (0..count).map(|_| Ok(Socket::new(domain, kind.nonblocking(), None)?.into())).collect()
        };
        match sandbox.map(|id| self.sandbox(id)).transpose()?.and_then(|s| s.net.as_ref()) {
            None => make(),
            Some(net) => {
                setns(net, CloneFlags::CLONE_NEWNET)?;
                let sockets = make();
                setns(&self.node_net, CloneFlags::CLONE_NEWNET)?;
                sockets
            }
        }
    }

    /// Forks; the child alone has the connection and answers on it.
    fn work(&mut self, index: usize, job: impl FnOnce() -> Reply) -> io::Result<Next> {
        let connection = self.connections[index].as_raw_fd();
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => Ok(Next::Delegated),
            ForkResult::Child => {
                close_all_but(&mut [connection]);
                let reply = job();
                // The daemon may have gone; there is nobody else to tell.
                let _ = wire::send(self.connections[index].as_fd(), &reply, &[]);
                exit_now(0)
            }
        }
    }

    fn start_shim(&mut self, sandbox: &str, directory: &Path, pid: Option<&OwnedFd>, index: usize) -> io::Result<Next> {
        let sandbox = self.sandbox(sandbox)?;
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => Ok(Next::Delegated),
            ForkResult::Child => {
                let connection = self.connections[index].as_fd();
                let outcome = sandbox.enter(pid).and_then(|()| {
                    close_all_but(&mut [connection.as_raw_fd()]);
                    shim::run(connection, directory, self.ids)
                });
                if let Err(e) = outcome {
                    // The daemon may have gone; there is nobody else to tell.
                    let _ = wire::send(connection, &Reply::failed("cannot start the container", &e), &[]);
                    exit_now(1);
                }
                exit_now(0)
            }
        }
    }
}

/// Ends a forked child without running destructors of what it shares with its parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor but stdin, stdout, stderr and those of `keep`.
pub fn close_all_but(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut first = 3_u32;
    for &fd in keep.iter().filter(|fd| **fd >= 3) {
        let fd = fd.unsigned_abs();
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

/// Closes a descriptor that belongs to the process this one was forked from.
pub fn close_one(fd: RawFd) {
    close_range(fd.unsigned_abs(), fd.unsigned_abs());
}

fn close_range(first: u32, last: u32) {
    // SAFETY: only called in a child that uses none of these descriptors any more.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
