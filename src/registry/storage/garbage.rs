//! Garbage collection: content that no manifest needs and that nobody is about to use.

use super::{Storage, StorageError, io_error, names_in, present, remove};
use crate::name::Digest;
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Uploads that nobody continued.
    pub uploads: u64,
}

/// An upload that nobody continued for this long is given up.
const UPLOAD_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

impl Storage {
    /// Removes content that no manifest of any repository needs, and that nobody has uploaded,
    /// mounted or asked for within `grace`.
    ///
    /// Safe beside pushes: `grace` protects what a client has uploaded, or has been told is
    /// there, before it pushes the manifest; the manifest's own checks and links happen under
    /// the lock that the sweep of one blob excludes.
    ///
    /// # Errors
    /// [`StorageError`]; what was removed until then stays removed.
    pub fn collect_garbage(&self, grace: Duration) -> Result<Collected, StorageError> {
        let started = SystemTime::now();
        let old = |modified: SystemTime, age: Duration| started.duration_since(modified).is_ok_and(|a| a >= age);
        let mut collected = Collected::default();
        let needed = self.needed()?;
        let blobs = self.root.join("blobs");
        for prefix in names_in(&blobs)? {
            let dir = blobs.join(&prefix);
            for hex in names_in(&dir)? {
                let Some(digest) = Digest::from_hex(&hex) else { continue };
                if needed.contains(&digest) {
                    continue;
                }
                let path = dir.join(&hex);
                // A push waits for the removal of one blob at most.
                let _exclusive = self.sweep.write();
                let Some(metadata) = present(path.metadata()).map_err(io_error("stat", &path))? else { continue };
                let modified = metadata.modified().map_err(io_error("stat", &path))?;
                // A manifest pushed after `needed` was read has renewed its blobs.
                if modified >= started || !old(modified, grace) {
                    continue;
                }
                self.unlink_everywhere(&digest)?;
                if remove(&path)? {
                    collected.blobs += 1;
                    collected.bytes += metadata.len();
                }
            }
        }
        collected.uploads = self.give_up_uploads(&old)?;
        Ok(collected)
    }

    /// Every digest that a manifest of any repository is, or names.
    fn needed(&self) -> Result<HashSet<Digest>, StorageError> {
        let mut needed = HashSet::new();
        for name in self.repositories()? {
            for record in self.manifest_records(&name)? {
                needed.extend(record.needs);
                needed.insert(record.digest);
            }
        }
        Ok(needed)
    }

    fn unlink_everywhere(&self, digest: &Digest) -> Result<(), StorageError> {
        for name in self.all_repositories()? {
            remove(&self.link_path(&name, digest))?;
        }
        Ok(())
    }

    fn give_up_uploads(&self, old: &dyn Fn(SystemTime, Duration) -> bool) -> Result<u64, StorageError> {
        let uploads = self.root.join("uploads");
        let mut given_up = 0;
        for id in names_in(&uploads)? {
            let dir = uploads.join(&id);
            let touched =
                ["data", "repository"].iter().filter_map(|f| dir.join(f).metadata().ok()?.modified().ok()).max();
            // Without files it is what a crash left between the last rename and the removal.
            if touched.is_none_or(|at| old(at, UPLOAD_LIFETIME)) && old_folder(&dir, old) {
                present(std::fs::remove_dir_all(&dir)).map_err(io_error("remove", &dir))?;
                given_up += 1;
            }
        }
        Ok(given_up)
    }
}

/// Whether the folder itself is past the lifetime of an empty upload, so that one being made is left alone.
fn old_folder(dir: &std::path::Path, old: &dyn Fn(SystemTime, Duration) -> bool) -> bool {
    dir.metadata().and_then(|m| m.modified()).is_ok_and(|at| old(at, Duration::from_secs(3600)))
}
