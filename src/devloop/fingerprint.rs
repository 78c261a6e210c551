//! Whether a service's inputs are as they were at its last build, so that `up` can skip it.
//!
//! By path, size, time of change and inode of each input, as make and cargo do; content is
//! looked at by the image builder, which is asked whenever this says "changed".

use aksim_config::ServiceConfig;
use aksim_model::image_ref::ImageRef;
use aksim_runtime::files::{PUBLIC, write_atomic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The last good build of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBuild {
    /// Fingerprint of its inputs.
    pub inputs: String,
    /// Image it gave.
    pub image: ImageRef,
}

/// Fingerprint of the service's inputs as they are now.
pub fn of(service: &ServiceConfig) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{:?}{:?}{:?}", service.build, service.build_args, service.image));
    let paths = service.watch.iter().chain(service.sync.iter().map(|(from, _)| from)).chain([&service.dockerfile]);
    for path in paths {
        for entry in
            walkdir::WalkDir::new(path).sort_by_file_name().into_iter().filter_entry(|e| !is_output(e)).flatten()
        {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                let line = format!(
                    "{}\0{}\0{}.{}\0{}\n",
                    entry.path().display(),
                    metadata.len(),
                    metadata.mtime(),
                    metadata.mtime_nsec(),
                    metadata.ino()
                );
                hasher.update(line);
            }
        }
    }
    hex::encode(hasher.finalize())
}

fn is_output(entry: &walkdir::DirEntry) -> bool {
    entry.depth() > 0
        && entry.file_type().is_dir()
        && ["target", ".git", "node_modules"].iter().any(|n| entry.file_name() == *n)
}

/// The last good build, if it is known.
pub fn load(folder: &Path, service: &ServiceConfig) -> Option<LastBuild> {
    serde_json::from_slice(&std::fs::read(file(folder, service)).ok()?).ok()
}

/// Keeps a good build.
///
/// # Errors
/// Any error of writing.
pub fn store(folder: &Path, service: &ServiceConfig, build: &LastBuild) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    write_atomic(&file(folder, service), &serde_json::to_vec(build)?, PUBLIC)
}

fn file(folder: &Path, service: &ServiceConfig) -> PathBuf {
    folder.join(format!("{}.json", service.name))
}
