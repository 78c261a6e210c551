//! From an OCI `config.json` to a running process: what happens in the child between `fork` and
//! `execve`. Runs in a single-threaded process only.

pub mod overlay;
mod process;
mod rootfs;
pub mod user;

pub use rootfs::{make_target, open_in};

use crate::container::wire::IdMapping;
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::Pid,
};
use oci_spec::runtime::Spec;
use overlay::Overlay;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// What a container needs beyond its `config.json`; `launch.json` beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Root file system to mount; the bundle's `rootfs` as it is when `None`.
    pub overlay: Option<Overlay>,
    /// Whom to run as; the numbers in `config.json` when `None`.
    pub user: Option<user::UserRequest>,
    /// Log file in CRI format.
    pub log_path: PathBuf,
    /// Keep stdin open for attach.
    pub stdin: bool,
    /// Close stdin when the first attach ends.
    pub stdin_once: bool,
    /// Files of control groups (`cgroup.procs`, `tasks`) to enter by.
    pub cgroup_procs: Vec<PathBuf>,
    /// File that counts kills for lack of memory (`memory.events`, `memory.oom_control`).
    pub oom_events: Option<PathBuf>,
}

/// A bundle as read from disk.
pub struct Bundle {
    /// Folder.
    pub directory: PathBuf,
    /// `config.json`.
    pub spec: Spec,
    /// `launch.json`.
    pub launch: Launch,
    /// How ids are mapped here.
    pub ids: IdMapping,
}

/// An error of the launch with what was tried, for the pod's status.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct LaunchError {
    /// What was tried.
    pub doing: String,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// Names what was tried.
pub fn doing<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> LaunchError {
    move |e| LaunchError { doing: what.into(), source: e.into() }
}

/// Where the process's standard streams come from.
pub enum Streams {
    /// Inherit the caller's.
    Inherit,
    /// These three.
    Pipes(OwnedFd, OwnedFd, OwnedFd),
    /// A new terminal in the container; its master is given to `send`.
    Terminal(Box<dyn FnOnce(OwnedFd) -> io::Result<()>>),
}

impl Bundle {
    /// Reads a bundle; without `launch.json` it is a plain OCI bundle.
    ///
    /// # Errors
    /// A file that cannot be read or does not parse.
    pub fn read(directory: &Path, ids: IdMapping) -> Result<Self, LaunchError> {
        let config = directory.join("config.json");
        let text = std::fs::read(&config).map_err(doing(format!("read {}", config.display())))?;
        let spec = serde_json::from_slice(&text)
            .map_err(|e| doing(format!("read {}", config.display()))(io::Error::from(e)))?;
        let launch = match std::fs::read(directory.join("launch.json")) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| doing("read launch.json")(io::Error::from(e)))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Launch::default(),
            Err(e) => return Err(doing("read launch.json")(e)),
        };
        Ok(Self { directory: directory.to_owned(), spec, launch, ids })
    }

    /// Whether the container's process has a terminal.
    pub fn terminal(&self) -> bool {
        self.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false)
    }

    /// Becomes the container's first process. Returns only when it could not.
    ///
    /// # Errors
    /// What failed.
    pub fn become_init(&self, streams: Streams) -> Result<std::convert::Infallible, LaunchError> {
        self.enter_cgroups()?;
        self.enter_namespaces()?;
        rootfs::enter(self)?;
        process::execute(self, None, streams)
    }

    /// Becomes a further process in a running container whose namespaces are `inside`.
    ///
    /// # Errors
    /// What failed.
    pub fn become_exec(
        &self,
        inside: &Inside,
        command: &[String],
        streams: Streams,
    ) -> Result<std::convert::Infallible, LaunchError> {
        self.enter_cgroups()?;
        if let Some(cgroup) = &inside.cgroup {
            setns(cgroup, CloneFlags::CLONE_NEWCGROUP).map_err(doing("enter the cgroup namespace"))?;
        }
        setns(&inside.mount, CloneFlags::CLONE_NEWNS).map_err(doing("enter the mount namespace"))?;
        process::execute(self, Some((inside, command)), streams)
    }

    fn enter_cgroups(&self) -> Result<(), LaunchError> {
        for file in &self.launch.cgroup_procs {
            OpenOptions::new()
                .write(true)
                .open(file)
                .and_then(|mut f| f.write_all(b"0"))
                .map_err(doing(format!("enter cgroup {}", file.display())))?;
        }
        Ok(())
    }

    fn enter_namespaces(&self) -> Result<(), LaunchError> {
        use oci_spec::runtime::LinuxNamespaceType as Kind;
        let mut new = CloneFlags::CLONE_NEWNS;
        let namespaces = self.spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
        for namespace in namespaces {
            let flag = match namespace.typ() {
                Kind::Mount | Kind::Pid | Kind::User => continue, // made by the parent, or below
                Kind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
                Kind::Uts => CloneFlags::CLONE_NEWUTS,
                Kind::Ipc => CloneFlags::CLONE_NEWIPC,
                Kind::Network => CloneFlags::CLONE_NEWNET,
                Kind::Time => return Err(doing("make a time namespace")(io::Error::from(io::ErrorKind::Unsupported))),
            };
            match namespace.path() {
                None => new |= flag,
                Some(path) => {
                    let file = File::open(path).map_err(doing(format!("open namespace {}", path.display())))?;
                    setns(file, flag).map_err(doing(format!("enter namespace {}", path.display())))?;
                }
            }
        }
        unshare(new).map_err(doing("make the container's namespaces"))?;
        if new.contains(CloneFlags::CLONE_NEWUTS)
            && let Some(name) = self.spec.hostname()
        {
            nix::unistd::sethostname(name).map_err(doing("set the host name"))?;
        }
        Ok(())
    }
}

/// Namespaces of a running container that are not its pod's.
pub struct Inside {
    mount: OwnedFd,
    cgroup: Option<OwnedFd>,
    user: Option<OwnedFd>,
}

impl Inside {
    /// Opens the namespaces of the container's first process.
    ///
    /// # Errors
    /// Errors of opening them.
    pub fn of(pid: Pid, ids: IdMapping) -> io::Result<Self> {
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
        let same_user = || -> io::Result<bool> {
            Ok(std::fs::read_link(format!("/proc/{pid}/ns/user"))? == std::fs::read_link("/proc/self/ns/user")?)
        };
        Ok(Self {
            mount: open("mnt")?,
            cgroup: (ids == IdMapping::Root).then(|| open("cgroup")).transpose()?,
            user: if same_user()? { None } else { Some(open("user")?) },
        })
    }
}

/// A descriptor's path, for calls that want one.
pub fn fd_path(fd: &impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(fd.as_fd().as_raw_fd().to_string())
}
