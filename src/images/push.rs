//! Push: what the registry lacks, in parallel, then the manifest.

use super::{
    ImageBuilder, Inner,
    build::BuiltImage,
    error::{BuildError, io_error},
    manifest::{Descriptor, MANIFEST, Manifest},
};
use aksim_model::image_ref::ImageRef;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Body;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::io::ReaderStream;

/// Bytes read from disk at once.
const READ_SIZE: usize = 256 << 10;

impl ImageBuilder {
    /// Pushes a built image under a name; the digest that the registry knows it by.
    ///
    /// # Errors
    /// [`BuildError::Registry`] when the registry refuses or cannot be reached.
    pub async fn push(&self, image: &BuiltImage, reference: &ImageRef) -> Result<String, BuildError> {
        let manifest = Descriptor::new(MANIFEST, image.digest.clone(), image.manifest_size);
        self.push_manifest(&manifest, reference).await
    }

    /// Pushes an image of the store, by its own name, under another.
    ///
    /// # Errors
    /// [`BuildError::Image`] when the store has no such image, else as [`ImageBuilder::push`].
    pub async fn push_stored(&self, name: &ImageRef, reference: &ImageRef) -> Result<String, BuildError> {
        let manifest = self.inner.store.resolve(name)?.ok_or_else(|| BuildError::Image {
            image: name.to_string(),
            reason: "is not in the image store".to_owned(),
            hint: "see `aksim image list`".to_owned(),
        })?;
        self.push_manifest(&manifest, reference).await
    }

    async fn push_manifest(&self, descriptor: &Descriptor, reference: &ImageRef) -> Result<String, BuildError> {
        let inner = &self.inner;
        let path = inner.store.blob_path(&descriptor.digest)?;
        let content = tokio::fs::read(&path).await.map_err(io_error("read", &path))?;
        let manifest: Manifest =
            serde_json::from_slice(&content).map_err(|e| BuildError::malformed(&descriptor.digest, e))?;
        let mut uploads = JoinSet::new();
        let mut seen = std::collections::HashSet::new();
        for blob in manifest.layers.into_iter().chain([manifest.config]) {
            // The same layer twice (an empty one) is uploaded once.
            if seen.insert(blob.digest.clone()) {
                uploads.spawn(upload(inner.clone(), reference.clone(), blob));
            }
        }
        while let Some(uploaded) = uploads.join_next().await {
            uploaded??;
        }
        let mut headers = HeaderMap::new();
        let media_type = manifest.media_type.as_deref().unwrap_or(&descriptor.media_type);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_str(media_type).unwrap_or(HeaderValue::from_static(MANIFEST)),
        );
        let tag =
            reference.tag.as_deref().unwrap_or(if reference.digest.is_some() { &descriptor.digest } else { "latest" });
        let url = inner.client.url(reference, &format!("manifests/{tag}"));
        let body = || Some(Body::from(content.clone()));
        let response = inner.client.send(reference, true, Method::PUT, &url, headers, body).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK => Ok(descriptor.digest.clone()),
            _ => Err(inner.client.refused(&reference.registry, response).await),
        }
    }
}

/// Uploads a blob unless the registry has it.
async fn upload(inner: Arc<Inner>, image: ImageRef, blob: Descriptor) -> Result<(), BuildError> {
    let client = &inner.client;
    let path = inner.store.blob_path(&blob.digest)?;
    let url = client.url(&image, &format!("blobs/{}", blob.digest));
    let found = client.send(&image, true, Method::HEAD, &url, HeaderMap::new(), || None).await?;
    match found.status() {
        StatusCode::OK => return Ok(()),
        StatusCode::NOT_FOUND => {}
        _ => return Err(client.refused(&image.registry, found).await),
    }
    let mut begin = client.url(&image, "blobs/uploads/");
    // A base image that was pulled from the same registry is there already, in its own repository.
    if let Some(from) = inner.origin(&image.registry, &blob.digest) {
        begin = format!("{begin}?mount={}&from={from}", blob.digest);
    }
    let empty = || Some(Body::from(Vec::new()));
    let session = client.send(&image, true, Method::POST, &begin, HeaderMap::new(), empty).await?;
    let location = match session.status() {
        StatusCode::CREATED => return Ok(()),
        StatusCode::ACCEPTED => session.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()),
        _ => return Err(client.refused(&image.registry, session).await),
    };
    let base = session.url().clone();
    let mut location = location.and_then(|l| base.join(l).ok()).ok_or_else(|| BuildError::Registry {
        registry: image.registry.clone(),
        reason: "an upload without a location".to_owned(),
    })?;
    location.query_pairs_mut().append_pair("digest", &blob.digest);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(blob.size));
    // Opened before the request, so that a missing file is an error of its own.
    let file = std::fs::File::open(&path).map_err(io_error("open", &path))?;
    let body = || {
        let file = file.try_clone().and_then(|mut f| std::io::Seek::rewind(&mut f).map(|()| f)).ok()?;
        Some(Body::wrap_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), READ_SIZE)))
    };
    let done = client.send(&image, true, Method::PUT, location.as_str(), headers, body).await?;
    match done.status() {
        StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
        _ => Err(client.refused(&image.registry, done).await),
    }
}
