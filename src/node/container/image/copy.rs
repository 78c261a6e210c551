//! Layers laid over each other by copying, where overlayfs cannot be mounted.

use nix::sys::stat::{Mode, SFlag, mknod};
use std::{
    ffi::CString,
    fs::Metadata,
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink},
    },
    path::Path,
};

/// Copies an unpacked layer over `root`, obeying its whiteouts.
///
/// # Errors
/// Errors of the file system.
pub fn layer(from: &Path, root: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), root.join(entry.file_name()));
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            clear(&target)?;
        } else if kind.is_dir() {
            if is_opaque(&source) || !target.symlink_metadata().is_ok_and(|m| m.is_dir()) {
                clear(&target)?;
                std::fs::create_dir(&target)?;
            }
            attributes(&target, &metadata)?;
            layer(&source, &target)?;
        } else {
            clear(&target)?;
            if kind.is_symlink() {
                symlink(std::fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                std::fs::copy(&source, &target)?;
            } else {
                let kind = SFlag::from_bits_truncate(metadata.mode()) & SFlag::S_IFMT;
                mknod(&target, kind, Mode::from_bits_truncate(metadata.mode()), metadata.rdev())?;
            }
            attributes(&target, &metadata)?;
        }
    }
    Ok(())
}

fn clear(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(m) if m.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn attributes(path: &Path, metadata: &Metadata) -> io::Result<()> {
    lchown(path, Some(metadata.uid()), Some(metadata.gid()))?;
    if !metadata.file_type().is_symlink() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    Ok(())
}

fn is_opaque(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    [c"trusted.overlay.opaque", c"user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0_u8; 1];
        // SAFETY: the pointers are to strings and a byte that live until the call returns.
        let count = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), 1) };
        count == 1 && value[0] == b'y'
    })
}
