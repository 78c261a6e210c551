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
