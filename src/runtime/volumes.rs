//! Disks and file shares of the environment: a folder each, in its state, shared by all nodes.
//!
//! The folder is named by the volume handle, as the disk or share is in Azure, so that a volume
//! that is kept (`Retain`) is found again by a new PersistentVolume with the same handle.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Driver of managed disks.
pub const DISK_DRIVER: &str = "disk.csi.azure.com";
/// Driver of file shares.
pub const FILE_DRIVER: &str = "file.csi.azure.com";

/// Why a handle names no volume here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("volumeHandle {0:?} does not end in the name of a disk or share (letters, digits, '-', '_', '.')")]
pub struct HandleError(String);

/// Where the folders are.
#[derive(Clone, Debug, Default)]
pub struct VolumeFolders {
    root: PathBuf,
}

/// The last part of a disk's resource id, or the share in `GROUP#ACCOUNT#SHARE#…`.
fn name_of(handle: &str) -> Option<&str> {
    let name = match handle.split('#').collect::<Vec<_>>().as_slice() {
        [_, _, share, ..] => *share,
        _ => handle.rsplit('/').next()?,
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let named = !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(legal);
    named.then_some(name)
}

impl VolumeFolders {
    /// Folders below `root`, made when the first volume is.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder of a volume.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn folder(&self, handle: &str) -> Result<PathBuf, HandleError> {
        name_of(handle).map(|name| self.root.join(name)).ok_or_else(|| HandleError(handle.to_owned()))
    }

    /// Makes the folder of a volume unless it is there. A share is everyone's, as AKS mounts it
    /// (`dir_mode=0777`); a disk has the root folder of a new file system, root's alone to write.
    ///
    /// # Errors
    /// An illegal handle (`InvalidInput`); any error of the file system.
    pub fn create(&self, driver: &str, handle: &str) -> io::Result<PathBuf> {
        let folder = self.folder(handle).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if self.root.as_os_str().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no folder for volumes is configured"));
        }
        if folder.is_dir() {
            return Ok(folder);
        }
        if !self.root.is_dir() {
            std::fs::create_dir_all(&self.root)?;
            // Data of workloads is the user's alone.
            std::fs::set_permissions(&self.root, std::fs::Permissions::from_mode(0o700))?;
        }
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mode = if driver == FILE_DRIVER { 0o777 } else { 0o755 };
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode))?;
        Ok(folder)
    }

    /// Removes a volume with its data; one that is gone is no error.
    ///
    /// # Errors
    /// As [`VolumeFolders::create`].
    pub fn remove(&self, handle: &str) -> io::Result<()> {
        let folder = self.folder(handle).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Where the folders are.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_name_folders_and_never_others() {
        let disk = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/pvc-1";
        assert_eq!(name_of(disk), Some("pvc-1"));
        assert_eq!(name_of("group#account#share-2###default"), Some("share-2"));
        assert_eq!(name_of("plain"), Some("plain"));
        for bad in ["", "/", "a/..", "g#a#../x", ".hidden", "a b", "g#a#"] {
            assert_eq!(name_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn folders_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let folders = VolumeFolders::new(dir.path().join("volumes"));
        let disk = folders.create(DISK_DRIVER, "a/d").unwrap();
        let share = folders.create(FILE_DRIVER, "g#a#s").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&disk), mode(&share), mode(folders.root())), (0o755, 0o777, 0o700));
        std::fs::write(disk.join("kept"), "x").unwrap();
        folders.create(DISK_DRIVER, "a/d").unwrap();
        assert!(disk.join("kept").exists());
        folders.remove("a/d").unwrap();
        folders.remove("a/d").unwrap();
        assert!(!disk.exists() && share.exists());
        assert!(folders.create(DISK_DRIVER, "..").is_err());
    }
}
