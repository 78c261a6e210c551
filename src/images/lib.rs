//! Dockerfile → OCI image: the builtin engine, its store and cache, push, pull and import.

mod archive;
mod build;
mod client;
mod copy;
pub mod dockerfile;
mod error;
mod files;
mod ignore_file;
mod import;
mod layer;
mod manifest;
mod plan;
mod pull;
mod push;
mod rootfs;
mod run;
mod stage;
mod store;
mod transfer;
mod tree;

#[cfg(test)]
mod tests;

pub use build::{BuildEvent, BuildRequest, BuiltImage, Stream};
pub use client::Credentials;
pub use error::BuildError;
pub use import::ImportedImage;
pub use layer::Layer;
pub use manifest::{Descriptor, ImageConfig, Platform};
pub use store::{ImageStore, Pruned, StoredImage};

use client::RegistryClient;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// What a builder is made from.
#[derive(Clone)]
pub struct ImageBuilderConfig {
    /// Folder for images, steps, unpacked layers and cache mounts; may be shared by environments.
    pub cache_dir: PathBuf,
    /// The aksim executable, which RUN starts containers with.
    pub exe: PathBuf,
    /// Client that reaches and trusts the registries.
    pub http: reqwest::Client,
    /// User names and passwords by registry host.
    pub credentials: Credentials,
}

/// Builds, stores, pulls and pushes images; clones share everything.
#[derive(Clone)]
pub struct ImageBuilder {
    inner: Arc<Inner>,
}

struct Inner {
    cache_dir: PathBuf,
    exe: PathBuf,
    store: ImageStore,
    client: RegistryClient,
    /// Registry and digest → a repository there that has it.
    origins: parking_lot::Mutex<std::collections::HashMap<(String, String), String>>,
}

impl ImageBuilder {
    /// Opens the store in the cache folder.
    ///
    /// # Errors
    /// [`BuildError::Io`] when folders cannot be made.
    pub fn new(config: ImageBuilderConfig) -> Result<Self, BuildError> {
        for folder in ["steps", "layers", "mounts", "work"] {
            let path = config.cache_dir.join(folder);
            aksim_runtime::files::create_private_dir(&path).map_err(error::io_error("make", &path))?;
        }
        let store = ImageStore::open(&config.cache_dir.join("images"))?;
        let client = RegistryClient::new(config.http, config.credentials);
        let (cache_dir, exe, origins) = (config.cache_dir, config.exe, Default::default());
        Ok(Self { inner: Arc::new(Inner { cache_dir, exe, store, client, origins }) })
    }

    /// The images on this machine.
    pub fn store(&self) -> &ImageStore {
        &self.inner.store
    }

    /// Images by name.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn list(&self) -> Result<Vec<StoredImage>, BuildError> {
        self.inner.store.list()
    }

    /// Removes what no named image needs and what is older than `age`: blobs, cached steps, unpacked layers.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn prune(&self, age: Duration) -> Result<Pruned, BuildError> {
        let mut pruned = self.inner.store.prune(age)?;
        for folder in ["steps", "layers"] {
            for entry in walkdir::WalkDir::new(self.inner.cache_dir.join(folder)).into_iter().flatten() {
                if entry.file_type().is_file() {
                    store::prune_file(entry.path(), age, &mut pruned)?;
                }
            }
        }
        Ok(pruned)
    }
}
