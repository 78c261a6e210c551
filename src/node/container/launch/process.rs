//! The last steps before `execve`: terminal, limits, user, capabilities.

use super::{Bundle, Inside, LaunchError, Streams, doing, user};
use crate::container::{userns, wire::IdMapping};
use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
    },
    unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid, setsid},
};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, PosixRlimitType, Process};
use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

/// Becomes the process; in a running container (`exec`) when `inside` is given.
pub(super) fn execute(
    bundle: &Bundle,
    inside: Option<(&Inside, &[String])>,
    streams: Streams,
) -> Result<Infallible, LaunchError> {
    let process =
        bundle.spec.process().as_ref().ok_or_else(|| {
            doing("read config.json")(io::Error::new(io::ErrorKind::InvalidInput, "it has no process"))
        })?;
    let args = inside.map_or_else(|| process.args().clone().unwrap_or_default(), |(_, command)| command.to_vec());
    let who = who(bundle, process)?;
    setsid().map_err(doing("start a session"))?;
    let terminal = matches!(streams, Streams::Terminal(_));
    connect(streams, inside.is_none(), &who)?;
    limits(process);
    let cwd = process.cwd();
    std::fs::create_dir_all(cwd).map_err(doing(format!("make working directory {}", cwd.display())))?;
    std::env::set_current_dir(cwd).map_err(doing(format!("enter working directory {}", cwd.display())))?;
    enter_user(bundle.ids, inside.and_then(|(i, _)| i.user.as_ref()), &who)?;
    become_user(process, &who, bundle.ids)?;
    default_signals()?;
    let environment = environment(process, &who, terminal);
    run(&args, &environment)
}

fn who(bundle: &Bundle, process: &Process) -> Result<user::ResolvedUser, LaunchError> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let Some(request) = &bundle.launch.user else {
        let spec = process.user();
        let request = user::UserRequest {
            uid: Some(spec.uid()),
            gid: Some(spec.gid()),
            groups: spec.additional_gids().clone().unwrap_or_default(),
            ..user::UserRequest::default()
        };
        let mut who = user::resolve(&request, &read("/etc/passwd"), "").map_err(doing("find the user"))?;
        who.groups = request.groups;
        return Ok(who);
    };
    user::resolve(request, &read("/etc/passwd"), &read("/etc/group")).map_err(doing("find the user"))
}

/// Standard streams; the first process of a container with a terminal gets it as `/dev/console` too.
fn connect(streams: Streams, first: bool, who: &user::ResolvedUser) -> Result<(), LaunchError> {
    let place = |stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd| {
        dup2_stdin(stdin)?;
        dup2_stdout(stdout)?;
        dup2_stderr(stderr)
    };
    match streams {
        Streams::Inherit => Ok(()),
        Streams::Pipes(stdin, stdout, stderr) => {
            for fd in [&stdin, &stdout, &stderr] {
                // Lets the process open /dev/stdout again; refused for files of others, which is no harm.
                let _ = nix::unistd::fchown(fd, Some(Uid::from_raw(who.uid)), Some(Gid::from_raw(who.gid)));
            }
            place(&stdin, &stdout, &stderr).map_err(doing("connect the streams"))
        }
        Streams::Terminal(send) => {
            let master = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOCTTY)
                .open("/dev/ptmx")
                .map_err(doing("open /dev/ptmx"))?;
            let slave = open_slave(&master).map_err(doing("open a terminal"))?;
            let _ = nix::unistd::fchown(&slave, Some(Uid::from_raw(who.uid)), None);
            if first {
                console(&slave).map_err(doing("make /dev/console"))?;
            }
            send(master.into()).map_err(doing("hand over the terminal"))?;
            place(&slave, &slave, &slave).map_err(doing("connect the terminal"))?;
            // SAFETY: TIOCSCTTY takes an integer.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })
                .map_err(doing("take the terminal as controlling terminal"))?;
            Ok(())
        }
    }
}

fn open_slave(master: &File) -> io::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags and gives a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn console(slave: &OwnedFd) -> io::Result<()> {
    let path = Path::new("/dev/console");
    File::create(path)?;
    mount(Some(&super::fd_path(slave)), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Sets what may be set; a process may not raise limits above its own or lower its OOM score.
fn limits(process: &Process) {
    for limit in process.rlimits().iter().flatten() {
        if let Some(resource) = resource(limit.typ())
            && let Ok((_, own_hard)) = getrlimit(resource)
            && setrlimit(resource, limit.soft(), limit.hard()).is_err()
        {
            let _ = setrlimit(resource, limit.soft().min(own_hard), limit.hard().min(own_hard));
        }
    }
    if let Some(score) = process.oom_score_adj() {
        let file = "/proc/self/oom_score_adj";
        let own = std::fs::read_to_string(file).ok().and_then(|t| t.trim().parse::<i32>().ok()).unwrap_or(0);
        if std::fs::write(file, score.to_string()).is_err() {
            let _ = std::fs::write(file, score.max(own).to_string());
        }
    }
}

fn resource(kind: PosixRlimitType) -> Option<Resource> {
    Some(match kind {
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        _ => return None,
    })
}

/// Where only one id exists, another user is a namespace in which that id has the user's number.
fn enter_user(ids: IdMapping, running: Option<&OwnedFd>, who: &user::ResolvedUser) -> Result<(), LaunchError> {
    match running {
        Some(namespace) => setns(namespace, CloneFlags::CLONE_NEWUSER).map_err(doing("enter the user namespace")),
        None if ids == IdMapping::Single && (who.uid, who.gid) != (0, 0) => {
            userns::become_id(who.uid, who.gid).map_err(doing("take the user's id"))
        }
        None => Ok(()),
    }
}

fn become_user(process: &Process, who: &user::ResolvedUser, ids: IdMapping) -> Result<(), LaunchError> {
    let groups: Vec<Gid> = who.groups.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&groups) {
        // A user namespace with a single id forbids it; said as a reduction.
        Err(Errno::EPERM) if ids == IdMapping::Single => {}
        other => other.map_err(doing("set supplementary groups"))?,
    }
    let wanted = process.capabilities().as_ref();
    if let Some(wanted) = wanted {
        bound(wanted).map_err(doing("limit capabilities"))?;
    }
    let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
    prctl::set_keepcaps(true).map_err(doing("keep capabilities"))?;
    setresgid(gid, gid, gid).map_err(doing(format!("become group {gid}")))?;
    setresuid(uid, uid, uid).map_err(doing(format!("become user {uid}")))?;
    prctl::set_keepcaps(false).map_err(doing("keep capabilities"))?;
    if let Some(wanted) = wanted {
        assume(wanted, uid.is_root()).map_err(doing("set capabilities"))?;
    }
    if process.no_new_privileges().unwrap_or(false) {
        prctl::set_no_new_privs().map_err(doing("set no_new_privs"))?;
    }
    // After the change of user, which clears it: the container ends with its shim.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(doing("tie to the shim"))
}

fn set_of(wanted: Option<&Capabilities>) -> CapsHashSet {
    // Names of OCI and of the `caps` crate are the same ones.
    wanted.into_iter().flatten().filter_map(|c| format!("CAP_{}", c).parse::<Capability>().ok()).collect()
}

fn failed(error: caps::errors::CapsError) -> io::Error {
    io::Error::other(error.to_string())
}

fn bound(wanted: &LinuxCapabilities) -> io::Result<()> {
    let keep = set_of(wanted.bounding().as_ref());
    for capability in caps::read(None, CapSet::Bounding).map_err(failed)? {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    Ok(())
}

fn assume(wanted: &LinuxCapabilities, root: bool) -> io::Result<()> {
    let have = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let ambient = set_of(wanted.ambient().as_ref());
    // Without ambient capabilities a user other than root has none after execve.
    let pick = |set: Option<&Capabilities>| -> CapsHashSet {
        set_of(set).into_iter().filter(|c| have.contains(c) && (root || ambient.contains(c))).collect()
    };
    let permitted = pick(wanted.permitted().as_ref());
    caps::set(None, CapSet::Effective, &pick(wanted.effective().as_ref())).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &permitted).map_err(failed)?;
    caps::set(None, CapSet::Inheritable, &pick(wanted.inheritable().as_ref())).map_err(failed)?;
    for capability in ambient.into_iter().filter(|c| permitted.contains(c)) {
        caps::raise(None, CapSet::Ambient, capability).map_err(failed)?;
    }
    Ok(())
}

/// Undoes what this program set for itself: ignored and blocked signals survive `execve`.
fn default_signals() -> Result<(), LaunchError> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action is always sound to install.
        unsafe { sigaction(signal, &default) }.map_err(doing("reset signals"))?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(doing("reset signals"))
}

fn environment(process: &Process, who: &user::ResolvedUser, terminal: bool) -> Vec<String> {
    let mut all = process.env().clone().unwrap_or_default();
    let mut add = |name: &str, value: &str| {
        if !all.iter().any(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
            all.push(format!("{name}={value}"));
        }
    };
    add("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    add("HOME", who.home.as_deref().unwrap_or("/"));
    if terminal {
        add("TERM", "xterm");
    }
    all
}

fn run(args: &[String], environment: &[String]) -> Result<Infallible, LaunchError> {
    let text = |items: &[String]| -> Result<Vec<CString>, LaunchError> {
        items
            .iter()
            .map(|item| CString::new(item.as_str()).map_err(|e| doing("read the command")(io::Error::from(e))))
            .collect()
    };
    let Some(program) = args.first() else {
        return Err(doing("start the process")(io::Error::new(io::ErrorKind::InvalidInput, "no command specified")));
    };
    let (argv, envp) = (text(args)?, text(environment)?);
    let path = environment.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
    };
    let mut last = Errno::ENOENT;
    for candidate in candidates {
        let file = CString::new(candidate).map_err(|e| doing("read the command")(io::Error::from(e)))?;
        let Err(error) = nix::unistd::execve(&file, &argv, &envp);
        if !matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
            last = error;
        }
    }
    let source = match last {
        Errno::ENOENT if !program.contains('/') => {
            io::Error::new(io::ErrorKind::NotFound, "executable file not found in $PATH")
        }
        other => io::Error::from(other),
    };
    Err(doing(format!("exec: {program:?}"))(source))
}
