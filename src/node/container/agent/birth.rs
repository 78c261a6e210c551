//! How the agent comes to be: namespaces, user mapping, detaching from whoever started it.

use super::{Agent, AgentConfig, Birth, exit_now};
use crate::container::{userns, wire::IdMapping};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, fork, pipe2, setsid},
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// An error and what was tried.
struct Failure {
    doing: &'static str,
    source: io::Error,
}

fn doing<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |e| Failure { doing: what, source: e.into() }
}

/// `aksim __node-agent --state DIR`: starts the agent and ends when it listens, having said
/// [`Birth`] on its standard output. Exit code 0 when it listens.
pub fn main(args: &[OsString]) -> i32 {
    let state = match args {
        [flag, state] if flag == "--state" => PathBuf::from(state),
        _ => return 2,
    };
    let birth = match start(&state) {
        Ok(birth) => birth,
        Err(Failure { doing, source }) => Birth::Failed { doing: doing.to_owned(), message: source.to_string() },
    };
    let code = i32::from(!matches!(birth, Birth::Ready));
    match serde_json::to_string(&birth) {
        Ok(line) => println!("{line}"),
        Err(_) => return 70,
    }
    code
}

fn start(state: &Path) -> Result<Birth, Failure> {
    let text = std::fs::read(state.join("agent.json")).map_err(doing("read agent.json"))?;
    let config: AgentConfig =
        serde_json::from_slice(&text).map_err(|e| Failure { doing: "read agent.json", source: e.into() })?;
    let state = state.canonicalize().map_err(doing("find the state folder"))?;
    let (mut birth, report) = {
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(doing("make a pipe"))?;
        (File::from(read), write)
    };
    let rootless = !userns::is_capable_root();
    let gate = rootless.then(userns::Gate::new).transpose().map_err(doing("make a pipe"))?;
    // SAFETY: hidden subcommands run before any thread exists.
    match unsafe { fork() }.map_err(doing("fork"))? {
        ForkResult::Child => {
            let Err(failure) = middle(&state, config, gate, &report);
            tell(&report, &failure);
            exit_now(1)
        }
        ForkResult::Parent { child } => {
            drop(report);
            if let Some(gate) = gate {
                gate.map(child).map_err(doing("map user ids"))?;
            }
            let _ = waitpid(child, None);
            let mut line = Vec::new();
            birth.read_to_end(&mut line).map_err(doing("hear from the agent"))?;
            serde_json::from_slice(&line).map_err(|e| Failure { doing: "hear from the agent", source: e.into() })
        }
    }
}

fn tell(report: &OwnedFd, failure: &Failure) {
    let birth = Birth::Failed { doing: failure.doing.to_owned(), message: failure.source.to_string() };
    if let (Ok(line), Ok(copy)) = (serde_json::to_vec(&birth), report.try_clone()) {
        // The starter may have gone; there is nobody else to tell.
        let _ = File::from(copy).write_all(&line);
    }
}

/// The system says "no space left on device" of a limit that is reached.
fn not_allowed(errno: nix::errno::Errno) -> io::Error {
    match errno {
        nix::errno::Errno::ENOSPC | nix::errno::Errno::EUSERS => {
            io::Error::other("as many as allowed exist already (user.max_user_namespaces)")
        }
        other => other.into(),
    }
}

/// Makes the namespaces, then the process that lives in them.
fn middle(
    state: &Path,
    config: AgentConfig,
    gate: Option<userns::Gate>,
    report: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    setsid().map_err(doing("start a session"))?;
    let ids = match gate {
        None => IdMapping::Root,
        Some(gate) => {
            unshare(CloneFlags::CLONE_NEWUSER).map_err(not_allowed).map_err(doing("make a user namespace"))?;
            gate.wait_mapped().map_err(doing("map user ids"))?
        }
    };
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .map_err(doing("make the node's namespaces"))?;
    // SAFETY: still one thread.
    match unsafe { fork() }.map_err(doing("fork"))? {
        ForkResult::Parent { .. } => exit_now(0),
        ForkResult::Child => {
            let agent = settle(state, config, ids, report)?;
            let line = serde_json::to_vec(&Birth::Ready).unwrap_or_default();
            if let Ok(copy) = report.try_clone() {
                // Written before the streams are given up; a starter that has gone does not matter.
                let _ = File::from(copy).write_all(&line);
            }
            super::close_one(report.as_raw_fd());
            agent.run().map_err(doing("serve"))?;
            exit_now(0)
        }
    }
}

/// In the new namespaces: file systems, streams, sockets.
fn settle(state: &Path, config: AgentConfig, ids: IdMapping, report: &OwnedFd) -> Result<Agent, Failure> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(doing("detach mounts"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).map_err(doing("mount proc"))?;
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(state.join("agent.log"))
        .map_err(doing("open agent.log"))?;
    let null = File::open("/dev/null").map_err(doing("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(doing("give up stdin"))?;
    nix::unistd::dup2_stdout(&log).map_err(doing("give up stdout"))?;
    nix::unistd::dup2_stderr(&log).map_err(doing("give up stderr"))?;
    super::close_all_but(&mut [report.as_raw_fd(), log.as_raw_fd(), null.as_raw_fd()]);
    std::env::set_current_dir("/").map_err(doing("leave the working folder"))?;
    let _ = nix::sys::prctl::set_name(c"aksim-node");
    // SAFETY: umask has no preconditions.
    unsafe { libc::umask(0o022) };
    Agent::new(state, config, ids).map_err(doing("set up the node network"))
}
