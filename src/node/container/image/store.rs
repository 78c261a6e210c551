//! Images of this environment over the blobs and layers that all environments share.

use crate::{
    container::{
        client::{AgentClient, io_error},
        config::ContainerRuntimeConfig,
        launch::overlay::Overlay,
        record,
        wire::{AgentRequest, IdMapping, Reply},
    },
    runtime::{ImageStatus, RegistryCredentials, RuntimeError},
};
use aksim_model::{endpoint::AzureName, image_ref::ImageRef};
use aksim_runtime::files::{self, create_private_dir};
use async_trait::async_trait;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::registry::RegistryClient;

/// Largest manifest or configuration, bytes (the registries' own bound).
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;

/// An image known to this environment: `images.json`, by reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    /// Digest of the configuration.
    id: String,
    /// Digest of the manifest, and of the index it was chosen from.
    digests: Vec<String>,
    size: u64,
    user: String,
}

/// Where blobs come from: a registry or a layout.
#[async_trait]
pub(super) trait BlobSource: Send + Sync {
    /// Writes the blob to the new file `to`; the caller has not checked its digest.
    async fn fetch(&self, blob: &Descriptor, to: &Path) -> Result<(), String>;
}

/// Images on the node.
pub struct ImageStore {
    cache: PathBuf,
    layers: PathBuf,
    file: PathBuf,
    agent: Arc<AgentClient>,
    known: Mutex<BTreeMap<String, Known>>,
    /// One at a time for each layer.
    unpacking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    registries: RegistryClient,
}

fn pull_error(image: &str, message: impl Into<String>) -> RuntimeError {
    RuntimeError::Pull { image: image.to_owned(), message: message.into() }
}

/// `sha256:…` of bytes.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The hex digits of a well-formed digest: nothing else may become part of a path.
fn digits(digest: &str) -> Result<&str, String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let fine = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if fine { Ok(hex) } else { Err(format!("unusable digest {digest:?}")) }
}

impl ImageStore {
    pub(in crate::container) fn open(
        config: &ContainerRuntimeConfig,
        agent: Arc<AgentClient>,
    ) -> Result<Self, RuntimeError> {
        // Owners and whiteouts differ by how ids are mapped.
        let kind = match agent.ids() {
            IdMapping::Root => "root",
            IdMapping::Mapped => "mapped",
            IdMapping::Single => "single",
        };
        let layers = config.cache_dir.join("layers").join(kind);
        let blobs = config.cache_dir.join("blobs/sha256");
        for folder in [&layers, &blobs, &layers.join(EMPTY_LAYER)] {
            create_private_dir(folder).map_err(io_error(&format!("make {}", folder.display())))?;
        }
        let file = config.state_dir.join("images.json");
        let known = match record::read(&file) {
            Ok(known) => known,
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(io_error("read images.json")(e)),
        };
        Ok(Self {
            cache: config.cache_dir.clone(),
            layers,
            file,
            agent,
            known: Mutex::new(known),
            unpacking: Mutex::default(),
            registries: RegistryClient::new(config),
        })
    }

    pub(in crate::container) fn set_azure_names(&self, names: Vec<AzureName>) {
        self.registries.set_azure_names(names);
    }

    pub(in crate::container) fn set_credentials(&self, registry: &str, credentials: RegistryCredentials) {
        self.registries.set_credentials(registry, credentials);
    }

    fn blob(&self, digest: &str) -> Result<PathBuf, String> {
        Ok(self.cache.join("blobs/sha256").join(digits(digest)?))
    }

    /// Folder name of a layer: 32 digits, so that many fit into one mount call.
    fn layer_name(diff_id: &str) -> Result<String, String> {
        Ok(digits(diff_id)?[..32].to_owned())
    }

    fn status(&self, id: &str) -> Option<ImageStatus> {
        let known = self.known.lock();
        let mut status: Option<ImageStatus> = None;
        for (name, found) in known.iter().filter(|(_, k)| k.id == id) {
            let status = status.get_or_insert_with(|| ImageStatus {
                id: found.id.clone(),
                repo_digests: vec![],
                repo_tags: vec![],
                size: found.size,
                user: found.user.clone(),
            });
            let Ok(reference) = name.parse::<ImageRef>() else { continue };
            if reference.tag.is_some() && reference.digest.is_none() {
                status.repo_tags.push(name.clone());
            }
            status.repo_digests.extend(found.digests.iter().map(|d| reference.with_digest(d).to_string()));
        }
        let mut status = status?;
        status.repo_digests.sort();
        status.repo_digests.dedup();
        Some(status)
    }

    /// An image by reference (or by id, `sha256:…`, given as a digest of any repository).
    pub fn find(&self, image: &ImageRef) -> Option<ImageStatus> {
        let wanted = key(image);
        let id = {
            let known = self.known.lock();
            match &image.digest {
                Some(digest) => known.values().find(|k| k.digests.contains(digest) || k.id == *digest)?.id.clone(),
                None => known.get(&wanted)?.id.clone(),
            }
        };
        self.status(&id)
    }

    /// All images.
    pub fn list(&self) -> Vec<ImageStatus> {
        let mut ids: Vec<String> = self.known.lock().values().map(|k| k.id.clone()).collect();
        ids.sort();
        ids.dedup();
        ids.iter().filter_map(|id| self.status(id)).collect()
    }

    /// Configuration and layers of an image by id.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when it is not on the node.
    pub fn open_image(&self, id: &str) -> Result<(ImageConfiguration, Overlay), RuntimeError> {
        let missing = || RuntimeError::NotFound { kind: "image", id: id.to_owned() };
        let path = self.blob(id).map_err(|_| missing())?;
        let config: ImageConfiguration = record::read(&path).map_err(|_| missing())?;
        let mut layers = Vec::new();
        for diff_id in config.rootfs().diff_ids() {
            let name = Self::layer_name(diff_id).map_err(|_| missing())?;
            if !self.layers.join(&name).is_dir() {
                return Err(missing());
            }
            layers.push(name);
        }
        if layers.is_empty() {
            layers.push(EMPTY_LAYER.to_owned());
        }
        Ok((config, Overlay { layers_dir: self.layers.clone(), layers, copy: !self.agent.overlay() }))
    }

    /// Pulls an image, unless the registry's is the one that is here.
    ///
    /// # Errors
    /// [`RuntimeError::Pull`].
    pub async fn pull(&self, image: &ImageRef, credentials: &RegistryCredentials) -> Result<ImageStatus, RuntimeError> {
        let name = image.to_string();
        let fail = |message: String| pull_error(&name, message);
        let session = self.registries.session(image, credentials).map_err(fail)?;
        let (digest, manifest, index) = session.manifest().await.map_err(fail)?;
        let mut digests = vec![digest];
        digests.extend(index);
        let status = self.add(&key(image), digests, &manifest, &session).await.map_err(fail)?;
        Ok(status)
    }

    /// Brings an OCI layout in.
    ///
    /// # Errors
    /// [`RuntimeError::Pull`].
    pub async fn import(&self, path: &Path, name: Option<&ImageRef>) -> Result<Vec<ImageStatus>, RuntimeError> {
        let shown = path.display().to_string();
        let fail = |message: String| pull_error(&shown, message);
        let layout = super::layout::Layout::open(path).await.map_err(fail)?;
        let mut all = Vec::new();
        for image in layout.images().map_err(fail)? {
            let names = match name {
                Some(name) => vec![key(name)],
                None => image.names.iter().map(key).collect(),
            };
            if names.is_empty() {
                return Err(fail("the image has no name in its layout; give it one".into()));
            }
            for name in names {
                let digests = vec![image.digest.clone()];
                all.push(self.add(&name, digests, &image.manifest, &layout).await.map_err(fail)?);
            }
        }
        Ok(all)
    }

    async fn add(
        &self,
        name: &str,
        digests: Vec<String>,
        manifest: &ImageManifest,
        source: &dyn BlobSource,
    ) -> Result<ImageStatus, String> {
        let id = manifest.config().digest().to_string();
        let config_path = self.blob(&id)?;
        if !config_path.exists() {
            if manifest.config().size() > MAX_DOCUMENT {
                return Err("the image's configuration is too large".into());
            }
            let partial = self.download(manifest.config(), source).await?;
            std::fs::rename(&partial, &config_path).map_err(|e| format!("keep the configuration: {e}"))?;
        }
        let config: ImageConfiguration =
            record::read(&config_path).map_err(|e| format!("the image's configuration does not parse: {e}"))?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            return Err("manifest and configuration differ in the number of layers".into());
        }
        let jobs = manifest.layers().iter().zip(diff_ids).map(|(blob, diff_id)| self.layer(blob, diff_id, source));
        let size = futures::future::try_join_all(jobs).await?.into_iter().sum();
        let user = config.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default();
        let found = Known { id: id.clone(), digests, size, user };
        let text = {
            let mut known = self.known.lock();
            let changed = known.insert(name.to_owned(), found.clone()) != Some(found);
            changed.then(|| serde_json::to_vec(&*known))
        };
        if let Some(text) = text {
            let text = text.map_err(|e| e.to_string())?;
            files::write_atomic(&self.file, &text, files::PRIVATE).map_err(|e| format!("write images.json: {e}"))?;
        }
        self.status(&id).ok_or_else(|| "the image is gone".to_owned())
    }

    /// Makes sure that a layer is unpacked; its size in bytes.
    async fn layer(&self, blob: &Descriptor, diff_id: &str, source: &dyn BlobSource) -> Result<u64, String> {
        let target = self.layers.join(Self::layer_name(diff_id)?);
        let gate = self.unpacking.lock().entry(diff_id.to_owned()).or_default().clone();
        let _turn = gate.lock().await;
        let size_file = target.with_extension("size");
        if target.is_dir() {
            let text = std::fs::read_to_string(&size_file).unwrap_or_default();
            return Ok(text.parse().unwrap_or(blob.size()));
        }
        let partial = self.download(blob, source).await?;
        let request = AgentRequest::Unpack {
            blob: partial.clone(),
            target,
            media_type: blob.media_type().to_string(),
            diff_id: diff_id.to_owned(),
        };
        let unpacked = self.agent.call(&request).await;
        // Kept unpacked only; a blob left behind is swept with the cache.
        let _ = std::fs::remove_file(&partial);
        match unpacked {
            Ok((Reply::Unpacked(bytes), _)) => {
                std::fs::write(&size_file, bytes.to_string()).map_err(|e| format!("keep the layer's size: {e}"))?;
                Ok(bytes)
            }
            Ok(_) => Err("the agent did not unpack the layer".into()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Fetches a blob to a temporary file and checks it.
    async fn download(&self, blob: &Descriptor, source: &dyn BlobSource) -> Result<PathBuf, String> {
        let digest = blob.digest().to_string();
        let path = self.blob(&digest)?.with_extension(format!("{:08x}.partial", rand::random::<u32>()));
        let fetched = source.fetch(blob, &path).await;
        if let Err(message) = fetched {
            // The first error is the one that matters.
            let _ = std::fs::remove_file(&path);
            return Err(message);
        }
        Ok(path)
    }
}

/// Name of the layer of images that have none: overlayfs wants one.
const EMPTY_LAYER: &str = "empty";

/// A reference as key: `registry/repository:tag`, or by digest.
fn key(image: &ImageRef) -> String {
    match (&image.tag, &image.digest) {
        (_, Some(digest)) => image.with_digest(digest).to_string(),
        (Some(_), None) => image.to_string(),
        (None, None) => image.with_tag("latest").to_string(),
    }
}
