//! `fsGroup`: who may use a volume's files.

use std::{os::unix::fs::PermissionsExt, path::Path};

/// Gives a file to a group. Without root that is possible only for the user's own groups; the
/// file then stays the user's, which is root inside a rootless container.
pub(super) fn give(path: &Path, group: Option<u32>) {
    let Some(group) = group else { return };
    if let Err(error) = std::os::unix::fs::lchown(path, None, Some(group)) {
        tracing::debug!(%error, path = %path.display(), group, "fsGroup not applied");
    }
}

/// Makes a folder usable by a group, and what is made in it too.
pub(super) fn share(folder: &Path, group: Option<u32>) -> std::io::Result<()> {
    // As the kubelet does for emptyDir: everyone in the pod may write, whatever user it runs as.
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    give(folder, group);
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
}

/// Gives a whole tree to a group: its folders keep the group for what is made in them, its files
/// may be written by it. Unless `always`, a tree whose root is right already is left alone.
pub(super) fn give_tree(root: &Path, group: u32, always: bool) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(root)?;
    if !always && found.gid() == group && found.mode() & 0o2770 == 0o2770 {
        return Ok(());
    }
    // Contents first: a root that is right says that all of it is.
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.map_err(std::io::Error::other)?;
        give(entry.path(), Some(group));
        if entry.path_is_symlink() {
            continue;
        }
        let mode = entry.metadata().map_err(std::io::Error::other)?.permissions().mode();
        let more = if entry.file_type().is_dir() { 0o2770 } else { 0o660 };
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode & 0o7777 | more))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_given_to_a_group() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("d"), dir.path().join("d/f"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        let outside = std::fs::metadata("/etc/passwd").unwrap().permissions();
        let group = nix::unistd::getegid().as_raw();
        give_tree(dir.path(), group, true).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&file), mode(&folder) & 0o2770), (0o660, 0o2770));
        assert_eq!(std::fs::metadata("/etc/passwd").unwrap().permissions(), outside);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        give_tree(dir.path(), group, false).unwrap();
        assert_eq!(mode(&file), 0o600, "a root that is right is believed");
    }
}
