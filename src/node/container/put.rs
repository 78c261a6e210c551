//! `aksim __container-put --pid PID --path PATH [--remove]`: puts standard input at a path of a
//! running container, for live sync.
//!
//! The file is written from inside a copy of the container's mount namespace: links of the
//! container are followed as the container would follow them and never out of it, and a root
//! that the container has read-only is writable in the copy alone.

use super::launch::{LaunchError, doing};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Largest file that is taken, bytes.
const MAX_FILE: u64 = 1 << 30;

/// Puts a file; 0, or 1 with the error on standard error.
pub fn main(args: &[OsString]) -> i32 {
    let parsed = match args {
        [pid_flag, pid, path_flag, path, rest @ ..] if pid_flag == "--pid" && path_flag == "--path" => {
            pid.to_str().and_then(|p| p.parse::<i32>().ok()).map(|pid| (pid, PathBuf::from(path), rest))
        }
        _ => None,
    };
    let Some((pid, path, rest)) = parsed else {
        eprintln!("usage: __container-put --pid PID --path PATH [--remove]");
        return 2;
    };
    let remove = rest.first().is_some_and(|flag| flag == "--remove");
    match run(pid, &path, remove) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn run(pid: i32, path: &Path, remove: bool) -> Result<(), LaunchError> {
    let mut content = Vec::new();
    if !remove {
        io::stdin().lock().take(MAX_FILE).read_to_end(&mut content).map_err(doing("read standard input"))?;
    }
    enter(pid)?;
    let path = Path::new("/").join(path);
    if remove {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(doing(format!("remove {}", path.display()))(error))
            }
            _ => Ok(()),
        };
    }
    write(&path, &content).map_err(doing(format!("write {}", path.display())))
}

/// Joins a copy of the mount namespace of `pid`, with a writable root.
fn enter(pid: i32) -> Result<(), LaunchError> {
    let mounts = File::open(format!("/proc/{pid}/ns/mnt")).map_err(doing(format!("open the mounts of {pid}")))?;
    let owner = owner_of(&mounts).map_err(doing("find the owner of the container's mounts"))?;
    let own = std::fs::metadata("/proc/self/ns/user").map_err(doing("look at our user namespace"))?;
    let theirs = owner.metadata().map_err(doing("look at the owner of the container's mounts"))?;
    if (own.dev(), own.ino()) != (theirs.dev(), theirs.ino()) {
        setns(&owner, CloneFlags::CLONE_NEWUSER).map_err(doing("join the owner of the container's mounts"))?;
    }
    setns(&mounts, CloneFlags::CLONE_NEWNS).map_err(doing("join the container's mounts"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(doing("copy the container's mounts"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(doing("make the copy private"))?;
    let flags = nix::sys::statvfs::statvfs("/").map_err(doing("look at the container's root"))?.flags();
    let kept = [
        (nix::sys::statvfs::FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (nix::sys::statvfs::FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (nix::sys::statvfs::FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ];
    if flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
        let kept =
            kept.iter().filter(|(is, _)| flags.contains(*is)).fold(MsFlags::empty(), |all, (_, flag)| all | *flag);
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | kept;
        mount(none, "/", none, remount, none).map_err(doing("make the container's root writable in the copy"))?;
    }
    Ok(())
}

/// The user namespace that a namespace belongs to. It is not that of the process in it where a
/// container has a user namespace of its own for its only id.
fn owner_of(namespace: &File) -> io::Result<File> {
    // SAFETY: the request takes no argument and gives a new descriptor, or -1.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Whole or not at all; mode and owner of a file that was there stay.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let before = std::fs::metadata(path).ok();
    let temporary = parent.join(format!(".{}.{:08x}.sync", name.to_string_lossy(), rand::random::<u32>()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(content)?;
        if let Some(before) = &before {
            file.set_permissions(std::fs::Permissions::from_mode(before.mode() & 0o7777))?;
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first error is the one that matters.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
