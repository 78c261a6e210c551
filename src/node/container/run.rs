//! `aksim __container-run --bundle DIR`: runs an OCI bundle in the foreground, as root or rootless.
//! The image builder runs `RUN` by it. Network, host name and IPC are shared unless
//! `config.json` asks for new ones.

use super::{
    agent::exit_now,
    launch::{Bundle, LaunchError, Streams, doing},
    shim::exit_code,
    userns,
    wire::IdMapping,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI32, Ordering},
};

/// Runs a bundle; the process's exit code, 125 when it could not be started (as `docker run`).
pub fn main(args: &[OsString]) -> i32 {
    let directory = match args {
        [flag, directory] if flag == "--bundle" => PathBuf::from(directory),
        _ => {
            eprintln!("usage: __container-run --bundle DIR");
            return 2;
        }
    };
    match run(&directory) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            125
        }
    }
}

fn run(directory: &Path) -> Result<i32, LaunchError> {
    let directory = directory.canonicalize().map_err(doing(format!("open {}", directory.display())))?;
    let gate = (!userns::is_capable_root()).then(userns::Gate::new).transpose().map_err(doing("make a pipe"))?;
    // SAFETY: hidden subcommands run before any thread exists.
    match unsafe { fork() }.map_err(doing("fork"))? {
        ForkResult::Child => match contain(&directory, gate) {
            Ok(code) => exit_now(code),
            Err(error) => {
                eprintln!("error: {error}");
                exit_now(125)
            }
        },
        ForkResult::Parent { child } => {
            if let Some(gate) = gate {
                gate.map(child).map_err(doing("map user ids"))?;
            }
            forward_and_wait(child)
        }
    }
}

/// In its namespaces: process 1 of the container, and its parent, which waits for it.
fn contain(directory: &Path, gate: Option<userns::Gate>) -> Result<i32, LaunchError> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(doing("tie to the caller"))?;
    let ids = match gate {
        None => IdMapping::Root,
        Some(gate) => {
            unshare(CloneFlags::CLONE_NEWUSER).map_err(doing("make a user namespace"))?;
            gate.wait_mapped().map_err(doing("map user ids"))?
        }
    };
    let bundle = Bundle::read(directory, ids)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).map_err(doing("make namespaces"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(doing("detach mounts"))?;
    // SAFETY: still one thread.
    match unsafe { fork() }.map_err(doing("fork"))? {
        ForkResult::Child => {
            let Err(error) = bundle.become_init(Streams::Inherit);
            eprintln!("error: {error}");
            exit_now(125)
        }
        ForkResult::Parent { child } => forward_and_wait(child),
    }
}

static CHILD: AtomicI32 = AtomicI32::new(0);

extern "C" fn forward(signal: libc::c_int) {
    // SAFETY: kill is async-signal-safe.
    unsafe { libc::kill(CHILD.load(Ordering::Relaxed), signal) };
}

/// Passes signals on to `child` and waits for its end.
fn forward_and_wait(child: Pid) -> Result<i32, LaunchError> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    CHILD.store(child.as_raw(), Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(forward), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: the handler only calls kill.
        unsafe { sigaction(signal, &action) }.map_err(doing("pass signals on"))?;
    }
    loop {
        match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => {
                // Nothing of it may stay behind.
                let _ = kill(child, Signal::SIGKILL);
                return Err(doing("wait for the container")(e));
            }
            Ok(status) => {
                if let Some(code) = exit_code(status) {
                    return Ok(code);
                }
            }
        }
    }
}
