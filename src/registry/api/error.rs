//! Errors as the distribution specification words them: a code, a message, JSON.

use crate::{
    auth::AuthError,
    name::{Digest, NameError},
    storage::StorageError,
};
use axum::{body::Body, response::IntoResponse};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// Why a request was refused (distribution specification 1.1, "Error Codes").
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// `BLOB_UNKNOWN`.
    #[error("blob {0} unknown to registry")]
    BlobUnknown(Digest),
    /// `BLOB_UPLOAD_INVALID`.
    #[error("blob upload invalid: {0}")]
    BlobUploadInvalid(String),
    /// `BLOB_UPLOAD_UNKNOWN`.
    #[error("blob upload unknown to registry")]
    BlobUploadUnknown,
    /// A chunk that does not begin where the upload ends.
    #[error("the chunk does not begin at byte {size}, where the upload ends")]
    ChunkOutOfOrder {
        /// The upload's URL.
        location: String,
        /// Bytes received.
        size: u64,
    },
    /// A range outside the blob.
    #[error("the range is outside the blob of {size} bytes")]
    RangeOutside {
        /// Bytes of the blob.
        size: u64,
    },
    /// `DIGEST_INVALID`.
    #[error("provided digest {given} did not match uploaded content {computed}")]
    DigestMismatch {
        /// As the client says.
        given: Digest,
        /// As it is.
        computed: Digest,
    },
    /// `MANIFEST_BLOB_UNKNOWN`.
    #[error("manifest references {0}, which is unknown to the repository")]
    ManifestBlobUnknown(Digest),
    /// `MANIFEST_INVALID`.
    #[error("manifest invalid: {0}")]
    ManifestInvalid(String),
    /// A manifest beyond the limit.
    #[error("manifest is larger than {limit} bytes")]
    ManifestTooLarge {
        /// The limit.
        limit: usize,
    },
    /// `MANIFEST_UNKNOWN`.
    #[error("manifest tagged by \"{0}\" is not found")]
    ManifestUnknown(String),
    /// `NAME_INVALID`, `TAG_INVALID`, `DIGEST_INVALID`.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `NAME_UNKNOWN`.
    #[error("repository \"{0}\" is not found")]
    NameUnknown(String),
    /// `UNSUPPORTED`: a path or query that has no meaning here.
    #[error("{0}")]
    Unsupported(String),
    /// A path that is none of the registry's.
    #[error("the page is not found")]
    NotFound,
    /// The method has no meaning for the path.
    #[error("the operation is unsupported")]
    MethodNotAllowed,
    /// `UNAUTHORIZED` or `DENIED`.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The disk failed, or is full.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A worker thread failed.
    #[error("internal error: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BlobUnknown(_) => (S::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::BlobUploadInvalid(_) => (S::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::BlobUploadUnknown => (S::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::ChunkOutOfOrder { .. } => (S::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::RangeOutside { .. } => (S::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::DigestMismatch { .. } | Self::Name(NameError::Digest(_)) => (S::BAD_REQUEST, "DIGEST_INVALID"),
            Self::ManifestBlobUnknown(_) => (S::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::ManifestInvalid(_) => (S::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
            Self::ManifestUnknown(_) => (S::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::Name(NameError::Repository(_)) => (S::BAD_REQUEST, "NAME_INVALID"),
            Self::Name(NameError::Tag(_)) => (S::BAD_REQUEST, "TAG_INVALID"),
            Self::NameUnknown(_) => (S::NOT_FOUND, "NAME_UNKNOWN"),
            Self::Unsupported(_) => (S::BAD_REQUEST, "UNSUPPORTED"),
            Self::NotFound => (S::NOT_FOUND, "NOT_FOUND"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Auth(error) => error.status_and_code(),
            Self::Storage(StorageError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull
                    || source.kind() == std::io::ErrorKind::QuotaExceeded =>
            {
                (S::INSUFFICIENT_STORAGE, "UNKNOWN")
            }
            Self::Storage(_) | Self::Worker(_) => (S::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let (status, code) = self.status_and_code();
        if status.is_server_error() {
            tracing::error!(target: "registry", error = %self, "request failed");
        }
        let detail = match &self {
            Self::Auth(error) => error.detail(),
            _ => serde_json::Value::Null,
        };
        let body = json!({ "errors": [{ "code": code, "message": self.to_string(), "detail": detail }] });
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Auth(error) => {
                if let Some(challenge) = error.challenge() {
                    headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
                }
            }
            Self::ChunkOutOfOrder { location, size } => {
                let range = format!("0-{}", size.saturating_sub(1));
                for (name, value) in [(header::LOCATION, location), (header::RANGE, &range)] {
                    if let Ok(value) = HeaderValue::from_str(value) {
                        headers.insert(name, value);
                    }
                }
            }
            Self::RangeOutside { size } => {
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            _ => {}
        }
        response
    }
}
