//! Files of a volume replaced all at once, by Kubernetes' scheme: a folder named by time, the link
//! `..data` to it swapped by rename, and a link of each file to `..data/FILE`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Relative paths with their files.
pub type Payload = BTreeMap<String, File>;

/// Makes the volume hold exactly `payload`; returns whether anything changed.
///
/// # Errors
/// `InvalidInput` for a path that leaves the volume; else any error of the file system, and the
/// volume then shows its old content.
pub fn write(volume: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    std::fs::create_dir_all(volume)?;
    let old = std::fs::read_link(volume.join(DATA)).ok();
    if let Some(old) = &old
        && read(&volume.join(old)).is_ok_and(|held| held == *payload)
    {
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S");
    let fresh = volume.join(format!("{stamp}.{:09}", rand::random::<u32>() % 1_000_000_000));
    std::fs::create_dir(&fresh)?;
    let filled = fill(&fresh, payload, group).and_then(|()| swap(volume, &fresh));
    if let Err(error) = filled {
        // The old content stays; what is left of the new is rubbish.
        let _ = std::fs::remove_dir_all(&fresh);
        return Err(error);
    }
    link(volume, payload)?;
    if let Some(old) = old {
        let _ = std::fs::remove_dir_all(volume.join(old));
    }
    Ok(true)
}

fn check(path: &str) -> io::Result<()> {
    let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !inside || path.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?} in a volume")));
    }
    Ok(())
}

fn fill(folder: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.data)?;
        // Group readable when a group is to read it, as the kubelet's ownership pass does.
        let mode = if group.is_some() { file.mode | (file.mode & 0o400) >> 3 } else { file.mode };
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
        super::ownership::give(&target, group);
    }
    Ok(())
}

fn swap(volume: &Path, fresh: &Path) -> io::Result<()> {
    let name = fresh.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let new = volume.join(DATA_NEW);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &new)?;
    std::fs::rename(&new, volume.join(DATA))
}

/// Links the first component of each path, and removes links that nothing needs any more.
fn link(volume: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &wanted {
        let link = volume.join(name);
        if link.symlink_metadata().is_err() {
            symlink(PathBuf::from(DATA).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&*name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What a data folder holds, to see whether it must change.
fn read(folder: &Path) -> io::Result<Payload> {
    let mut payload = Payload::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.map_err(io::Error::other)?;
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(folder).map_err(io::Error::other)?;
            let mode = entry.metadata().map_err(io::Error::other)?.permissions().mode() & 0o7777;
            let data = std::fs::read(entry.path())?;
            payload.insert(path.to_string_lossy().into_owned(), File { data, mode });
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |d: &str| File { data: d.as_bytes().to_vec(), mode: 0o644 };
        files.iter().map(|(p, d)| ((*p).to_owned(), file(d))).collect()
    }

    #[test]
    fn files_change_together() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        assert!(write(&volume, &payload(&[("a", "1"), ("sub/b", "2"), ("gone", "x")]), None).unwrap());
        assert!(!write(&volume, &payload(&[("a", "1"), ("sub/b", "2"), ("gone", "x")]), None).unwrap());
        let before = std::fs::read_link(volume.join("..data")).unwrap();
        assert!(write(&volume, &payload(&[("a", "3"), ("sub/b", "2")]), None).unwrap());
        assert_ne!(before, std::fs::read_link(volume.join("..data")).unwrap());
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert_eq!(std::fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
        assert!(volume.join("gone").symlink_metadata().is_err());
        assert!(!volume.join(before).exists());
    }

    #[test]
    fn a_path_cannot_leave() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/etc/x", "a/../../x", "..data", ""] {
            assert!(write(dir.path(), &payload(&[(bad, "x")]), None).is_err(), "{bad}");
        }
    }
}
