//! User namespaces: who the user is outside, and which ids exist inside.

use crate::container::wire::IdMapping;
use nix::unistd::{Pid, getegid, geteuid, pipe2};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// Whether this process is root with the power to make namespaces (root in a plain Docker
/// container is not).
pub fn is_capable_root() -> bool {
    geteuid().is_root()
        && caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap_or(false)
}

/// A process in a new user namespace waits here until another has mapped its ids.
pub struct Gate {
    unshared: (File, File),
    mapped: (File, File),
}

fn pipe() -> io::Result<(File, File)> {
    let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}

const MAPPED: u8 = b'm';
const SINGLE: u8 = b's';

impl Gate {
    /// Makes one; call before `fork`.
    ///
    /// # Errors
    /// Errors of `pipe(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { unshared: pipe()?, mapped: pipe()? })
    }

    /// In the process outside: waits until `child` has its namespace, then maps its ids.
    ///
    /// # Errors
    /// Errors of writing the map; nothing when the child has ended (it says why itself).
    pub fn map(self, child: Pid) -> io::Result<()> {
        let (mut unshared, closed) = self.unshared;
        drop(closed);
        let (unused, mut mapped) = self.mapped;
        drop(unused);
        let mut byte = [0];
        if unshared.read(&mut byte)? == 0 {
            return Ok(());
        }
        let kind = match Subordinate::find() {
            Some(subordinate) if subordinate.map(child) => MAPPED,
            _ => {
                map_single(child)?;
                SINGLE
            }
        };
        mapped.write_all(&[kind])
    }

    /// In the process inside: says that the namespace is there and waits for the ids.
    ///
    /// # Errors
    /// When the process outside has failed.
    pub fn wait_mapped(self) -> io::Result<IdMapping> {
        let (unused, mut unshared) = self.unshared;
        drop(unused);
        let (mut mapped, closed) = self.mapped;
        drop(closed);
        unshared.write_all(&[0])?;
        let mut byte = [0];
        mapped.read_exact(&mut byte)?;
        Ok(if byte[0] == MAPPED { IdMapping::Mapped } else { IdMapping::Single })
    }
}

fn map_single(child: Pid) -> io::Result<()> {
    let folder = PathBuf::from(format!("/proc/{child}"));
    std::fs::write(folder.join("setgroups"), "deny")?;
    std::fs::write(folder.join("uid_map"), format!("0 {} 1", geteuid()))?;
    std::fs::write(folder.join("gid_map"), format!("0 {} 1", getegid()))
}

/// Subordinate ids of the user, and the programs that map them.
struct Subordinate {
    uids: (u32, u32),
    gids: (u32, u32),
}

impl Subordinate {
    fn find() -> Option<Self> {
        let id = geteuid();
        let name = nix::unistd::User::from_uid(id).ok().flatten().map(|u| u.name);
        let range = |file: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            subordinate_range(&text, name.as_deref(), id.as_raw())
        };
        Some(Self { uids: range("/etc/subuid")?, gids: range("/etc/subgid")? })
    }

    /// False when the programs are missing or refuse.
    fn map(&self, child: Pid) -> bool {
        let run = |program: &str, own: u32, (first, count): (u32, u32)| {
            let count = count.min(65_535);
            let numbers = [0, own, 1, 1, first, count].map(|n| n.to_string());
            let output = Command::new(program).arg(child.to_string()).args(numbers).output();
            output.is_ok_and(|o| o.status.success())
        };
        run("newuidmap", geteuid().as_raw(), self.uids) && run("newgidmap", getegid().as_raw(), self.gids)
    }
}

/// First range of `/etc/subuid` that belongs to a user by name or number.
fn subordinate_range(text: &str, name: Option<&str>, id: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut parts = line.trim().split(':');
        let owner = parts.next()?;
        let range = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (Some(owner) == name || owner.parse() == Ok(id)).then_some(range)
    })
}

/// In the calling process, which has the only id 0 of a [`IdMapping::Single`] namespace: a
/// namespace within it where that id is `uid` and `gid`.
///
/// # Errors
/// Errors of `unshare(2)` and of writing the maps.
pub fn become_id(uid: u32, gid: u32) -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?;
    let own = Path::new("/proc/self");
    std::fs::write(own.join("setgroups"), "deny")?;
    std::fs::write(own.join("uid_map"), format!("{uid} 0 1"))?;
    std::fs::write(own.join("gid_map"), format!("{gid} 0 1"))
}

/// How a user gets more ids than his own.
pub fn subordinate_hint() -> String {
    let missing = ["newuidmap", "newgidmap"].iter().any(|p| !in_path(p));
    let user = nix::unistd::User::from_uid(geteuid()).ok().flatten().map_or("USER".to_owned(), |u| u.name);
    let ids = format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}");
    if missing { format!("install the package uidmap, then, as root: {ids}") } else { format!("as root: {ids}") }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_subordinate_ids_by_name_or_number() {
        let text = "root:1:2\nada:100000:65536\n1001:165536:65536\nbad\n";
        assert_eq!(subordinate_range(text, Some("ada"), 1000), Some((100_000, 65_536)));
        assert_eq!(subordinate_range(text, None, 1001), Some((165_536, 65_536)));
        assert_eq!(subordinate_range(text, Some("eve"), 1002), None);
    }
}
