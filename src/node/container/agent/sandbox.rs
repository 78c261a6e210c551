//! A pod's namespaces and its end of the network.

use super::{Agent, exit_now};
use crate::container::{
    netlink::{Netlink, VethPeer},
    wire::SandboxSetup,
};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, sethostname},
};
use std::{
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Namespaces of a pod, held open here so that they outlive its containers.
pub struct Sandbox {
    /// Network namespace; the node's when `None`.
    pub net: Option<File>,
    ipc: File,
    uts: File,
    /// First process and namespace of a shared PID namespace.
    pid: Option<(Pid, File)>,
    veth: Option<(String, IpAddr)>,
}

const POD_NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWIPC.union(CloneFlags::CLONE_NEWUTS);

fn own(kind: &str) -> io::Result<File> {
    File::open(Path::new("/proc/self/ns").join(kind))
}

impl Sandbox {
    /// Moves the calling process into the pod's namespaces; children are made in the pod's PID
    /// namespace where it has one, in `pid` of another container where one is targeted, or in a
    /// new one.
    pub fn enter(&self, pid: Option<&OwnedFd>) -> io::Result<()> {
        setns(&self.ipc, CloneFlags::CLONE_NEWIPC)?;
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        if let Some(net) = &self.net {
            setns(net, CloneFlags::CLONE_NEWNET)?;
        }
        match (&self.pid, pid) {
            (Some((_, namespace)), _) => setns(namespace, CloneFlags::CLONE_NEWPID)?,
            (None, Some(namespace)) => setns(namespace, CloneFlags::CLONE_NEWPID)?,
            (None, None) => unshare(CloneFlags::CLONE_NEWPID)?,
        }
        Ok(())
    }
}

impl Agent {
    pub(super) fn create_sandbox(&mut self, setup: &SandboxSetup) -> io::Result<Sandbox> {
        let (ipc, uts) = (own("ipc")?, own("uts")?);
        let made = self.make(setup);
        // The agent goes back to its own namespaces whatever happened.
        setns(&ipc, CloneFlags::CLONE_NEWIPC)?;
        setns(&uts, CloneFlags::CLONE_NEWUTS)?;
        setns(&self.node_net, CloneFlags::CLONE_NEWNET)?;
        let mut sandbox = made?;
        if setup.share_pid {
            sandbox.pid = Some(pause()?);
        }
        Ok(sandbox)
    }

    fn make(&mut self, setup: &SandboxSetup) -> io::Result<Sandbox> {
        let net = if setup.host_network { CloneFlags::empty() } else { CloneFlags::CLONE_NEWNET };
        unshare(POD_NAMESPACES | net)?;
        sethostname(&setup.hostname)?;
        let mut sandbox = Sandbox { net: None, ipc: own("ipc")?, uts: own("uts")?, pid: None, veth: None };
        if !setup.host_network {
            let net = own("net")?;
            let veth = format!("veth{}", setup.id.get(..10).unwrap_or(&setup.id));
            if let IpAddr::V4(ip) = setup.ip {
                self.netlink.set_reachable(ip)?;
            }
            let peer = VethPeer { name: "eth0", namespace: net.as_fd(), ip: setup.ip };
            self.netlink.add_veth(&veth, &peer, self.bridge)?;
            sandbox.veth = Some((veth, setup.ip));
            sandbox.net = Some(net);
            let mut inside = Netlink::open()?;
            let loopback = inside.index("lo")?;
            inside.up(loopback)?;
            let eth0 = inside.index("eth0")?;
            inside.add_address(eth0, setup.ip, self.config.pod_prefix)?;
            inside.up(eth0)?;
            inside.add_default_route(self.config.gateway)?;
            unprivileged_network()?;
        }
        for (name, value) in &setup.sysctls {
            write_sysctl(name, value).map_err(|e| io::Error::new(e.kind(), format!("sysctl {name}={value}: {e}")))?;
        }
        Ok(sandbox)
    }

    pub(super) fn remove_sandbox(&mut self, sandbox: Sandbox) -> io::Result<()> {
        if let Some((pid, _)) = sandbox.pid {
            // It may be gone already; then there is nothing to wait for either.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
        let Some((veth, ip)) = sandbox.veth else { return Ok(()) };
        // Before the link goes: whoever connects in between is refused, not kept waiting.
        let unreachable = match ip {
            IpAddr::V4(ip) => self.netlink.set_unreachable(ip),
            IpAddr::V6(_) => Ok(()),
        };
        self.netlink.remove(&veth).and(unreachable)
    }
}

/// Lets processes without privilege listen below 1024 and ping, as AKS nodes do.
pub fn unprivileged_network() -> io::Result<()> {
    write_sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
    // Refused where group ids are not mapped (rootless): then ping needs CAP_NET_RAW, which root has.
    let _ = write_sysctl("net.ipv4.ping_group_range", "0 2147483647");
    Ok(())
}

/// Sets a kernel parameter of the calling process's namespaces.
pub fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    let relative = name.replace('.', "/");
    if relative.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    std::fs::write(Path::new("/proc/sys").join(relative), value)
}

/// Process 1 of a shared PID namespace: it only reaps.
fn pause() -> io::Result<(Pid, File)> {
    let own_pid = own("pid")?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread.
    let forked = unsafe { fork() };
    if matches!(forked, Ok(ForkResult::Child)) {
        super::close_all_but(&mut []);
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&mask), None);
        let _ = nix::sys::prctl::set_name(c"pause");
        loop {
            if waitpid(None::<Pid>, None).is_err() {
                nix::unistd::pause();
            }
        }
    }
    setns(own_pid, CloneFlags::CLONE_NEWPID)?;
    match forked? {
        ForkResult::Parent { child } => Ok((child, File::open(format!("/proc/{child}/ns/pid"))?)),
        ForkResult::Child => exit_now(0),
    }
}
