//! Pull: manifest by platform, layers in parallel, every digest verified.

use super::{
    ImageBuilder, Inner, archive,
    error::{BuildError, io_error},
    layer::{Content, Layer},
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, Index, MANIFEST, Manifest, Platform},
    store::digest_of,
};
use aksim_model::image_ref::ImageRef;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::{io::Write, path::PathBuf, sync::Arc};
use tokio::task::JoinSet;

/// Largest manifest that is read, bytes.
const MAX_MANIFEST: usize = 4 << 20;

impl ImageBuilder {
    /// Pulls an image into the store, whether or not it is there.
    ///
    /// # Errors
    /// [`BuildError`] when it cannot be had.
    pub async fn pull(&self, image: &ImageRef, platform: &Platform) -> Result<Descriptor, BuildError> {
        self.inner.pull(image, platform).await
    }
}

fn unavailable(image: &ImageRef, reason: impl std::fmt::Display) -> BuildError {
    BuildError::Image {
        image: image.to_string(),
        reason: reason.to_string(),
        hint: "without a network, bring it in with `aksim image import FILE` (an OCI or docker archive)".to_owned(),
    }
}

impl Inner {
    /// The image of the store, pulled if it is not there.
    pub(super) async fn ensure(
        self: &Arc<Self>,
        image: &ImageRef,
        platform: &Platform,
    ) -> Result<Descriptor, BuildError> {
        if let Some(found) = self.store.resolve(image)? {
            let (_, config) = self.store.image(&found)?;
            if platform.fits(&config.platform) {
                return Ok(found);
            }
        }
        self.pull(image, platform).await.map_err(|e| match e {
            BuildError::Registry { registry, reason } => unavailable(image, format!("{registry}: {reason}")),
            other => other,
        })
    }

    async fn pull(self: &Arc<Self>, image: &ImageRef, platform: &Platform) -> Result<Descriptor, BuildError> {
        let mut wanted = image.manifest_reference().to_owned();
        // An index names the manifest; an index in an index does not.
        for _ in 0..2 {
            let (media_type, content) = self.fetch_manifest(image, &wanted).await?;
            if wanted.starts_with("sha256:") && digest_of(&content) != wanted {
                return Err(unavailable(image, format!("the registry sent other content for {wanted}")));
            }
            let malformed = |e: serde_json::Error| BuildError::malformed(format!("manifest of {image}"), e);
            if media_type == INDEX || media_type == DOCKER_LIST {
                let index: Index = serde_json::from_slice(&content).map_err(malformed)?;
                let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| platform.fits(p));
                let found = index.manifests.iter().find(fits);
                wanted = found.ok_or_else(|| unavailable(image, format!("has no {platform} variant")))?.digest.clone();
                continue;
            }
            let manifest: Manifest = serde_json::from_slice(&content).map_err(malformed)?;
            self.fetch_blobs(image, &manifest).await?;
            let descriptor = self.store.put(&content, &media_type)?;
            self.store.tag(image, &descriptor)?;
            return Ok(descriptor);
        }
        Err(unavailable(image, "an index that names another index"))
    }

    async fn fetch_manifest(&self, image: &ImageRef, reference: &str) -> Result<(String, Vec<u8>), BuildError> {
        let url = self.client.url(image, &format!("manifests/{reference}"));
        let mut headers = HeaderMap::new();
        for accepted in [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
            headers.append(header::ACCEPT, HeaderValue::from_static(accepted));
        }
        let response = self.client.send(image, false, Method::GET, &url, headers, || None).await?;
        if response.status() != StatusCode::OK {
            return Err(self.client.refused(&image.registry, response).await);
        }
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(MANIFEST);
        let media_type = media_type.split(';').next().unwrap_or(media_type).to_owned();
        let mut content = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            content.extend_from_slice(&chunk.map_err(|e| self.client.failed(&image.registry, e))?);
            if content.len() > MAX_MANIFEST {
                return Err(unavailable(image, "its manifest is larger than 4 MiB"));
            }
        }
        Ok((media_type, content))
    }

    async fn fetch_blobs(self: &Arc<Self>, image: &ImageRef, manifest: &Manifest) -> Result<(), BuildError> {
        let mut downloads = JoinSet::new();
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if !self.store.has(&blob.digest)? {
                let (inner, image, blob) = (self.clone(), image.clone(), blob.clone());
                downloads.spawn(async move { inner.fetch_blob(&image, &blob).await });
            }
            self.remember_origin(&image.registry, &image.repository, &blob.digest);
        }
        while let Some(downloaded) = downloads.join_next().await {
            downloaded??;
        }
        Ok(())
    }

    async fn fetch_blob(&self, image: &ImageRef, blob: &Descriptor) -> Result<(), BuildError> {
        let url = self.client.url(image, &format!("blobs/{}", blob.digest));
        // The body may take as long as it takes; the build's own deadline bounds it.
        let response =
            self.client.send(image, false, Method::GET, &url, HeaderMap::new(), || Some(Vec::new().into())).await?;
        if response.status() != StatusCode::OK {
            return Err(self.client.refused(&image.registry, response).await);
        }
        let mut writer = self.store.writer()?;
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| self.client.failed(&image.registry, e))?;
            if writer.size() + chunk.len() as u64 > blob.size {
                return Err(unavailable(image, format!("{} is larger than its manifest says", blob.digest)));
            }
            writer.write_all(&chunk).map_err(io_error("write blob", self.store.root()))?;
        }
        let (digest, _) = writer.finish()?;
        match digest == blob.digest {
            true => Ok(()),
            false => Err(unavailable(image, format!("the registry sent other content for {}", blob.digest))),
        }
    }

    /// Notes which repository of a registry has a blob, so that a push can mount it.
    fn remember_origin(&self, registry: &str, repository: &str, digest: &str) {
        self.origins.lock().insert((registry.to_owned(), digest.to_owned()), repository.to_owned());
    }

    /// A repository of the registry that has the blob, if one is known.
    pub(super) fn origin(&self, registry: &str, digest: &str) -> Option<String> {
        self.origins.lock().get(&(registry.to_owned(), digest.to_owned())).cloned()
    }

    /// The layer as an uncompressed file: the blob itself, or unpacked once and kept.
    pub(super) fn unpacked(&self, layer: &Layer) -> Result<PathBuf, BuildError> {
        let blob = self.store.blob_path(&layer.digest)?;
        if layer.digest == layer.diff_id {
            return Ok(blob);
        }
        // The digest's check keeps a config from naming a path.
        let name = self.store.blob_path(&layer.diff_id)?;
        let path = self.cache_dir.join("layers").join(name.file_name().unwrap_or_default());
        if path.exists() {
            return Ok(path);
        }
        let size = blob.metadata().map_err(io_error("stat", &blob))?.len();
        let content = Content::Disk { path: blob.clone(), offset: 0, size };
        let packing = archive::packing(&content).map_err(io_error("read", &blob))?;
        let temporary = self.cache_dir.join("layers").join(format!(".{:016x}.tmp", rand::random::<u64>()));
        let unpacked = archive::unpack(&blob, packing, &temporary).and_then(|digest| match digest == layer.diff_id {
            true => std::fs::rename(&temporary, &path).map_err(io_error("move into place", &path)),
            false => Err(BuildError::malformed(&layer.digest, "its content is not what the image's config says")),
        });
        if let Err(error) = unpacked {
            // The error that matters is the first.
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(path)
    }
}
