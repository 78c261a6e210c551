//! Manifests: read, push with checks, delete.

use super::{Answer, ApiError, App, CONTENT_DIGEST, answer};
use crate::{
    name::{Digest, Reference, RepositoryName},
    storage::{ManifestRecord, StoredManifest},
};
use aksim_model::event::{EventBody, FlowRow};
use axum::body::Body;
use http::{HeaderName, StatusCode, header, request::Parts};
use jiff::Timestamp;
use serde::Deserialize;
use std::borrow::Cow;

/// Largest manifest, bytes (the least that the specification demands, and ACR's limit).
const MAX_MANIFEST: usize = 4 << 20;
/// Media type of an OCI image manifest.
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What of a manifest, an index or an artifact the registry reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    schema_version: Option<u32>,
    media_type: Option<String>,
    pub(super) artifact_type: Option<String>,
    pub(super) config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    pub(super) manifests: Option<Vec<serde_json::Value>>,
    subject: Option<Descriptor>,
    pub(super) annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

impl Document {
    pub(super) fn parse(content: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(content).map_err(|e| ApiError::ManifestInvalid(e.to_string()))
    }

    /// Checks a manifest that is pushed and tells what the registry keeps of it.
    fn record(self, content: &[u8], content_type: &str) -> Result<ManifestRecord, ApiError> {
        let invalid = |reason: &str| Err(ApiError::ManifestInvalid(reason.to_owned()));
        if let Some(inside) = &self.media_type
            && inside != content_type
        {
            return invalid("its mediaType is not the Content-Type of the request");
        }
        if self.schema_version != Some(2)
            && self.media_type.as_deref() != Some("application/vnd.oci.artifact.manifest.v1+json")
        {
            return invalid("schemaVersion must be 2");
        }
        let mut needs = Vec::new();
        let mut image_size = content.len() as u64;
        for entry in self.manifests.into_iter().flatten() {
            let descriptor: Descriptor =
                serde_json::from_value(entry).map_err(|e| ApiError::ManifestInvalid(e.to_string()))?;
            needs.push(descriptor.digest);
        }
        let blobs =
            self.config.into_iter().chain(self.layers.into_iter().flatten()).chain(self.blobs.into_iter().flatten());
        for blob in blobs {
            image_size = image_size.saturating_add(blob.size);
            // A foreign layer is had from its own URL.
            let foreign = !blob.urls.is_empty()
                && (blob.media_type.contains("foreign") || blob.media_type.contains("nondistributable"));
            if !foreign {
                needs.push(blob.digest);
            }
        }
        needs.sort();
        needs.dedup();
        Ok(ManifestRecord {
            digest: Digest::of(content),
            media_type: content_type.to_owned(),
            size: content.len() as u64,
            subject: self.subject.map(|s| s.digest),
            needs,
            image_size,
            created: Timestamp::now(),
        })
    }
}

impl App {
    /// `HEAD` and `GET /v2/NAME/manifests/REFERENCE`.
    pub(super) async fn manifest(&self, name: RepositoryName, reference: Reference, parts: &Parts) -> Answer {
        let wanted = reference.clone();
        let found = self.blocking(move |s| s.manifest(&name, &wanted)).await?;
        let StoredManifest { record, content } =
            found.ok_or_else(|| ApiError::ManifestUnknown(reference.to_string()))?;
        let etag = format!("\"{}\"", record.digest);
        let unchanged = parts.headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
        let headers: [(HeaderName, Cow<str>); 4] = [
            (header::CONTENT_TYPE, record.media_type.into()),
            (header::CONTENT_LENGTH, record.size.to_string().into()),
            (header::ETAG, etag.into()),
            (CONTENT_DIGEST, record.digest.to_string().into()),
        ];
        if unchanged {
            return Ok(answer(StatusCode::NOT_MODIFIED, headers.into_iter().skip(2), Body::empty()));
        }
        Ok(answer(StatusCode::OK, headers, Body::from(content)))
    }

    /// `PUT /v2/NAME/manifests/REFERENCE`.
    pub(super) async fn put_manifest(
        &self,
        name: RepositoryName,
        reference: Reference,
        parts: &Parts,
        body: Body,
    ) -> Answer {
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let content_type = content_type
            .map(|v| v.split(';').next().unwrap_or(v).trim().to_owned())
            .ok_or_else(|| ApiError::ManifestInvalid("Content-Type is missing".into()))?;
        let content = axum::body::to_bytes(body, MAX_MANIFEST)
            .await
            .map_err(|_| ApiError::ManifestTooLarge { limit: MAX_MANIFEST })?;
        let record = Document::parse(&content)?.record(&content, &content_type)?;
        let (digest, subject) = (record.digest.clone(), record.subject.clone());
        let tag = match &reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(given) if *given == digest => None,
            Reference::Digest(given) => {
                return Err(ApiError::DigestMismatch { given: given.clone(), computed: digest });
            }
        };
        let repository = name.clone();
        let lacking = self.blocking(move |s| s.put_manifest(&repository, record, &content, tag.as_ref())).await?;
        if let Some(lacking) = lacking {
            return Err(ApiError::ManifestBlobUnknown(lacking));
        }
        if let Reference::Tag(tag) = &reference {
            let message = format!("{}/{name}:{tag} pushed ({})", self.login_server, &digest.as_str()[..19]);
            self.recorder.record(EventBody::Flow { row: FlowRow::Package, ok: true, message });
        }
        let mut headers: Vec<(HeaderName, Cow<str>)> = vec![
            (header::LOCATION, format!("/v2/{name}/manifests/{digest}").into()),
            (header::CONTENT_LENGTH, "0".into()),
            (CONTENT_DIGEST, digest.to_string().into()),
        ];
        if let Some(subject) = subject {
            headers.push((HeaderName::from_static("oci-subject"), subject.to_string().into()));
        }
        Ok(answer(StatusCode::CREATED, headers, Body::empty()))
    }

    /// `DELETE /v2/NAME/manifests/REFERENCE`: a tag alone, or a manifest with its tags.
    pub(super) async fn delete_manifest(&self, name: RepositoryName, reference: Reference) -> Answer {
        let wanted = reference.clone();
        let deleted = self
            .blocking(move |s| match &wanted {
                Reference::Tag(tag) => s.delete_tag(&name, tag),
                Reference::Digest(digest) => s.delete_manifest(&name, digest),
            })
            .await?;
        match deleted {
            true => Ok(answer(StatusCode::ACCEPTED, [], Body::empty())),
            false => Err(ApiError::ManifestUnknown(reference.to_string())),
        }
    }
}
