//! The container's file tree: mounts, devices, what is hidden or read-only, and `pivot_root`.

use super::{Bundle, LaunchError, doing, fd_path, overlay};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{stat::Mode, statvfs::statvfs},
};
use oci_spec::runtime::Mount;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

const NONE: Option<&str> = None;

/// Builds the tree and makes it the process's root.
pub(super) fn enter(bundle: &Bundle) -> Result<(), LaunchError> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).map_err(doing("detach mounts"))?;
    let root = match &bundle.launch.overlay {
        Some(layers) => overlay::mount_root(layers, &bundle.directory, bundle.ids)?,
        None => {
            let path = bundle.spec.root().as_ref().map_or(Path::new("rootfs"), |r| r.path().as_path());
            bundle.directory.join(path)
        }
    };
    // pivot_root wants a mount point; a bind mount is one whatever the root came from.
    if bundle.launch.overlay.as_ref().is_none_or(|o| o.copy) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&root), &root, NONE, flags, NONE).map_err(doing(format!("mount {}", root.display())))?;
    }
    let root_fd = OwnedFd::from(File::open(&root).map_err(doing("open the root"))?);
    for item in bundle.spec.mounts().as_deref().unwrap_or_default() {
        let what = || format!("mount {}", item.destination().display());
        mount_one(&root_fd, item).map_err(|e| doing(what())(e))?;
    }
    devices(&root_fd).map_err(doing("make devices"))?;
    pivot(&root)?;
    if let Some(linux) = bundle.spec.linux() {
        for (name, value) in linux.sysctl().iter().flatten() {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            std::fs::write(path, value).map_err(doing(format!("set sysctl {name}")))?;
        }
        for path in linux.readonly_paths().iter().flatten() {
            ignore_missing(bind_readonly(Path::new(path))).map_err(doing(format!("make {path} read-only")))?;
        }
        for path in linux.masked_paths().iter().flatten() {
            ignore_missing(mask(Path::new(path))).map_err(doing(format!("mask {path}")))?;
        }
    }
    if bundle.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false) {
        remount_readonly(Path::new("/")).map_err(doing("make the root read-only"))?;
    }
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn pivot(root: &Path) -> Result<(), LaunchError> {
    std::env::set_current_dir(root).map_err(doing("enter the root"))?;
    // Old and new root at one place: the old one is then on top and is taken away.
    nix::unistd::pivot_root(".", ".").map_err(doing("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(doing("leave the old root"))?;
    std::env::set_current_dir("/").map_err(doing("enter the root"))
}

/// Mount options of fstab(5) as flags, data, and whether the mount may fail.
struct Options {
    flags: MsFlags,
    data: Vec<String>,
}

fn options(item: &Mount) -> Options {
    let mut parsed = Options { flags: MsFlags::empty(), data: Vec::new() };
    for option in item.options().iter().flatten() {
        let (flag, on) = match option.as_str() {
            "ro" => (MsFlags::MS_RDONLY, true),
            "rw" => (MsFlags::MS_RDONLY, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "suid" => (MsFlags::MS_NOSUID, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "relatime" => (MsFlags::MS_RELATIME, true),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            "bind" => (MsFlags::MS_BIND, true),
            "rbind" => (MsFlags::MS_BIND | MsFlags::MS_REC, true),
            // Propagation: the whole tree is a slave of the node's already.
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "defaults" => continue,
            other => {
                parsed.data.push(other.to_owned());
                continue;
            }
        };
        parsed.flags.set(flag, on);
    }
    parsed
}

fn mount_one(root: &OwnedFd, item: &Mount) -> io::Result<()> {
    let Options { flags, data } = options(item);
    let kind = item.typ().as_deref().unwrap_or("none");
    let source = item.source().as_deref();
    if flags.contains(MsFlags::MS_BIND) || kind == "bind" {
        let source = source.ok_or(io::ErrorKind::InvalidInput)?;
        let is_dir = std::fs::metadata(source)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", source.display())))?
            .is_dir();
        let target = make_target(root, item.destination(), is_dir)?;
        mount(Some(source), &fd_path(&target), NONE, (flags & MsFlags::MS_REC) | MsFlags::MS_BIND, NONE)?;
        let rest = flags & !(MsFlags::MS_BIND | MsFlags::MS_REC);
        if !rest.is_empty() {
            // The target's descriptor is of what lies under the mount; open it again.
            let over = open_in(root, item.destination())?;
            remount(&fd_path(&over), rest)?;
        }
        return Ok(());
    }
    if kind == "cgroup" {
        return super::super::cgroup::mount_view(root, item.destination(), flags);
    }
    let target = make_target(root, item.destination(), true)?;
    let data = data.join(",");
    mount(source.or(Some(Path::new(kind))), &fd_path(&target), Some(kind), flags, Some(data.as_str()))?;
    Ok(())
}

/// Changes the flags of a mount, keeping those that a user namespace may not take away.
fn remount(path: &Path, flags: MsFlags) -> io::Result<()> {
    let locked = statvfs(path)?.flags();
    let keep = MsFlags::from_bits_truncate(locked.bits())
        & (MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME);
    mount(NONE, path, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | keep | flags, NONE)?;
    Ok(())
}

fn remount_readonly(path: &Path) -> io::Result<()> {
    remount(path, MsFlags::MS_RDONLY)
}

fn bind_readonly(path: &Path) -> io::Result<()> {
    mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    remount_readonly(path)
}

fn mask(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))?;
    } else {
        mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE)?;
    }
    Ok(())
}

/// Opens a path inside the container's tree; symbolic links cannot lead out of it.
pub fn open_in(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let relative = path.strip_prefix("/").unwrap_or(path);
    openat2(root, if relative.as_os_str().is_empty() { Path::new(".") } else { relative }, how)
}

/// Opens the place of a mount inside the tree, making folders (and an empty file) on the way.
pub fn make_target(root: &OwnedFd, path: &Path, folder: bool) -> io::Result<OwnedFd> {
    match open_in(root, path) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let names: Vec<&std::ffi::OsStr> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut so_far = PathBuf::from("/");
    for (index, name) in names.iter().enumerate() {
        let parent = open_in(root, &so_far)?;
        so_far.push(name);
        if open_in(root, &so_far).is_ok() {
            continue;
        }
        if index + 1 == names.len() && !folder {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            nix::fcntl::openat(parent.as_fd(), *name, flags, Mode::from_bits_truncate(0o644))?;
        } else {
            nix::sys::stat::mkdirat(parent.as_fd(), *name, Mode::from_bits_truncate(0o755))?;
        }
    }
    Ok(open_in(root, path)?)
}

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// The usual nodes, bound from the machine's: a user namespace cannot make any.
fn devices(root: &OwnedFd) -> io::Result<()> {
    for name in DEVICES {
        let target = make_target(root, &Path::new("/dev").join(name), false)?;
        mount(Some(&Path::new("/dev").join(name)), &fd_path(&target), NONE, MsFlags::MS_BIND, NONE)?;
    }
    let dev = open_in(root, Path::new("/dev"))?;
    for (to, name) in LINKS {
        match nix::unistd::symlinkat(to, dev.as_fd(), name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
