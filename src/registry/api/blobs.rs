//! Blobs: read whole or in part, delete.

use super::{Answer, ApiError, App, CONTENT_DIGEST, answer};
use crate::name::{Digest, RepositoryName};
use axum::body::Body;
use http::{Method, StatusCode, header, request::Parts};
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// Bytes read from disk at once.
const READ_SIZE: usize = 256 << 10;

/// A part of a blob that was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// No (understandable) range: everything.
    Whole,
    /// First byte and number of bytes.
    Some(u64, u64),
    /// Outside the blob.
    Outside,
}

/// Reads a `Range` header (RFC 9110 §14.2). Several ranges, other units and nonsense mean everything.
fn part(range: Option<&str>, size: u64) -> Part {
    let Some(spec) = range.and_then(|r| r.strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Part::Whole };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Part::Whole,
        (Ok(first), Ok(_)) if first >= size => Part::Outside,
        (Ok(first), Ok(last)) => Part::Some(first, last.min(size - 1) - first + 1),
        (Ok(first), Err(_)) if !last.trim().is_empty() || spec.contains(',') => {
            tracing::trace!(first, "range not understood");
            Part::Whole
        }
        (Ok(first), Err(_)) if first >= size => Part::Outside,
        (Ok(first), Err(_)) => Part::Some(first, size - first),
        (Err(_), Ok(0)) if first.trim().is_empty() => Part::Outside,
        (Err(_), Ok(tail)) if first.trim().is_empty() && size > 0 => Part::Some(size - tail.min(size), tail.min(size)),
        _ => Part::Whole,
    }
}

impl App {
    /// `HEAD` and `GET /v2/NAME/blobs/DIGEST`.
    pub(super) async fn blob(&self, name: RepositoryName, digest: Digest, parts: &Parts) -> Answer {
        let unknown = || ApiError::BlobUnknown(digest.clone());
        let headers = |size: u64| {
            [
                (header::CONTENT_TYPE, "application/octet-stream".into()),
                (header::CONTENT_LENGTH, size.to_string().into()),
                (header::ACCEPT_RANGES, "bytes".into()),
                (header::ETAG, format!("\"{digest}\"").into()),
                (header::CACHE_CONTROL, "max-age=31536000".into()),
                (CONTENT_DIGEST, digest.to_string().into()),
            ]
        };
        let wanted = digest.clone();
        if parts.method == Method::HEAD {
            let size = self.blocking(move |s| s.blob_size(&name, &wanted)).await?.ok_or_else(unknown)?;
            return Ok(answer(StatusCode::OK, headers(size), Body::empty()));
        }
        let (file, size) = self.blocking(move |s| s.open_blob(&name, &wanted)).await?.ok_or_else(unknown)?;
        let mut file = tokio::fs::File::from_std(file);
        let range = parts.headers.get(header::RANGE).and_then(|r| r.to_str().ok());
        match part(range, size) {
            Part::Outside => Err(ApiError::RangeOutside { size }),
            Part::Whole => {
                let body = Body::from_stream(ReaderStream::with_capacity(file, READ_SIZE));
                Ok(answer(StatusCode::OK, headers(size), body))
            }
            Part::Some(first, count) => {
                file.seek(SeekFrom::Start(first))
                    .await
                    .map_err(crate::storage::io_error("seek in", std::path::Path::new(digest.hex())))?;
                let body = Body::from_stream(ReaderStream::with_capacity(file.take(count), READ_SIZE));
                let mut response = answer(StatusCode::PARTIAL_CONTENT, headers(count), body);
                let range = format!("bytes {first}-{}/{size}", first + count - 1);
                if let Ok(value) = range.parse() {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                Ok(response)
            }
        }
    }

    /// `DELETE /v2/NAME/blobs/DIGEST`: from this repository; content goes when nothing needs it.
    pub(super) async fn delete_blob(&self, name: RepositoryName, digest: Digest) -> Answer {
        let wanted = digest.clone();
        match self.blocking(move |s| s.unlink_blob(&name, &wanted)).await? {
            true => Ok(answer(StatusCode::ACCEPTED, [], Body::empty())),
            false => Err(ApiError::BlobUnknown(digest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (range, want) in [
            (None, Part::Whole),
            (Some("bytes=0-3"), Part::Some(0, 4)),
            (Some("bytes=4-"), Part::Some(4, 6)),
            (Some("bytes=-3"), Part::Some(7, 3)),
            (Some("bytes=-30"), Part::Some(0, 10)),
            (Some("bytes=8-99"), Part::Some(8, 2)),
            (Some("bytes=10-"), Part::Outside),
            (Some("bytes=10-12"), Part::Outside),
            (Some("bytes=-0"), Part::Outside),
            (Some("bytes=5-2"), Part::Whole),
            (Some("bytes=0-1,4-5"), Part::Whole),
            (Some("bytes=a-b"), Part::Whole),
            (Some("lines=1-2"), Part::Whole),
        ] {
            assert_eq!(part(range, 10), want, "{range:?}");
        }
        assert_eq!(part(Some("bytes=0-0"), 0), Part::Outside);
    }
}
