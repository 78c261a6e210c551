//! Uploads: in one request, in chunks, streamed, resumed, and mounts from other repositories.

use super::{Answer, ApiError, App, CONTENT_DIGEST, answer};
use crate::{
    auth::{Access, Action, AuthError, Fields},
    name::{Digest, RepositoryName},
    storage::{StorageError, UploadId, UploadSession},
};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use std::{borrow::Cow, time::Duration};
use tokio::sync::{OwnedMutexGuard, mpsc};

/// How long a client may send nothing in the middle of an upload.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request waits for another one of the same upload.
const TURN_DEADLINE: Duration = Duration::from_secs(30);
/// Chunks on their way from the network to the disk: bounds memory, keeps both busy.
const CHUNKS_UNDER_WAY: usize = 32;

type Guard = OwnedMutexGuard<UploadSession>;

fn location(name: &RepositoryName, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

fn progress(status: StatusCode, name: &RepositoryName, id: UploadId, size: u64) -> http::Response<Body> {
    let headers: [(HeaderName, Cow<str>); 4] = [
        (header::LOCATION, location(name, id).into()),
        (header::RANGE, format!("0-{}", size.saturating_sub(1)).into()),
        (header::CONTENT_LENGTH, "0".into()),
        (HeaderName::from_static("docker-upload-uuid"), id.to_string().into()),
    ];
    answer(status, headers, Body::empty())
}

fn created(name: &RepositoryName, digest: &Digest) -> http::Response<Body> {
    let headers: [(HeaderName, Cow<str>); 3] = [
        (header::LOCATION, format!("/v2/{name}/blobs/{digest}").into()),
        (header::CONTENT_LENGTH, "0".into()),
        (CONTENT_DIGEST, digest.to_string().into()),
    ];
    answer(StatusCode::CREATED, headers, Body::empty())
}

impl App {
    /// `POST /v2/NAME/blobs/uploads/`: a mount, an upload in this request (`digest`), or a session.
    pub(super) async fn begin_upload(&self, name: RepositoryName, query: &Fields, parts: &Parts, body: Body) -> Answer {
        if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) {
            let digest: Digest = digest.parse()?;
            let from: RepositoryName = from.parse()?;
            if self.may_pull(&from, parts).await? {
                let (into, wanted) = (name.clone(), digest.clone());
                if self.blocking(move |s| s.mount_blob(&from, &into, &wanted)).await? {
                    return Ok(created(&name, &digest));
                }
            }
        }
        let (uploads, repository) = (self.uploads.clone(), name.clone());
        let (id, session) = self.blocking(move |s| uploads.begin(s, &repository)).await?;
        match query.get("digest") {
            Some(digest) => {
                let digest: Digest = digest.parse()?;
                let guard = session.lock_owned().await;
                self.finish(name, id, guard, digest, body).await
            }
            None => Ok(progress(StatusCode::ACCEPTED, &name, id, 0)),
        }
    }

    /// Whether the request may read `from`, which its content is to be mounted from.
    async fn may_pull(&self, from: &RepositoryName, parts: &Parts) -> Result<bool, ApiError> {
        let access = Access::repository(from, [Action::Pull]);
        match self.auth.authorize(&parts.headers, &self.login_server, Some(&access), None).await {
            Ok(()) => Ok(true),
            // The specification: a mount that cannot be becomes an upload.
            Err(AuthError::InsufficientScope { .. } | AuthError::Denied { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The upload, once no other request works on it.
    async fn session(&self, name: &RepositoryName, id: UploadId) -> Result<Guard, ApiError> {
        let (uploads, repository) = (self.uploads.clone(), name.clone());
        let session = self.blocking(move |s| uploads.find(s, &repository, id)).await?;
        let session = session.ok_or(ApiError::BlobUploadUnknown)?;
        match tokio::time::timeout(TURN_DEADLINE, session.lock_owned()).await {
            Ok(guard) if guard.ended() => Err(ApiError::BlobUploadUnknown),
            Ok(guard) => Ok(guard),
            Err(_) => Err(ApiError::BlobUploadInvalid("another request works on this upload".into())),
        }
    }

    /// `PATCH …/uploads/ID`: a chunk, or a stream of unknown length.
    pub(super) async fn append_upload(&self, name: RepositoryName, id: UploadId, parts: &Parts, body: Body) -> Answer {
        let guard = self.session(&name, id).await?;
        let expected = check_order(&guard, parts, &location(&name, id))?;
        let before = guard.size();
        let guard = receive(guard, body).await?;
        if expected.is_some_and(|length| guard.size() - before != length) {
            return Err(ApiError::BlobUploadInvalid("the chunk is not as long as its Content-Range says".into()));
        }
        Ok(progress(StatusCode::ACCEPTED, &name, id, guard.size()))
    }

    /// `PUT …/uploads/ID?digest=`: the last chunk, perhaps empty, and the digest of all.
    pub(super) async fn complete_upload(
        &self,
        name: RepositoryName,
        id: UploadId,
        query: &Fields,
        parts: &Parts,
        body: Body,
    ) -> Answer {
        let digest = query.get("digest").ok_or_else(|| ApiError::BlobUploadInvalid("digest is missing".into()))?;
        let digest: Digest = digest.parse()?;
        let guard = self.session(&name, id).await?;
        check_order(&guard, parts, &location(&name, id))?;
        self.finish(name, id, guard, digest, body).await
    }

    async fn finish(&self, name: RepositoryName, id: UploadId, guard: Guard, digest: Digest, body: Body) -> Answer {
        let mut guard = receive(guard, body).await?;
        let wanted = digest.clone();
        let mismatch = self
            .blocking(move |storage| {
                let computed = guard.digest();
                if computed == wanted {
                    guard.complete(storage, &wanted)?;
                    return Ok(None);
                }
                // What does not match can never become right.
                guard.cancel()?;
                Ok(Some(computed))
            })
            .await?;
        self.uploads.forget(id);
        match mismatch {
            None => Ok(created(&name, &digest)),
            Some(computed) => Err(ApiError::DigestMismatch { given: digest, computed }),
        }
    }

    /// `GET …/uploads/ID`: how far it is.
    pub(super) async fn upload_status(&self, name: RepositoryName, id: UploadId) -> Answer {
        let guard = self.session(&name, id).await?;
        let mut response = progress(StatusCode::NO_CONTENT, &name, id, guard.size());
        response.headers_mut().remove(header::CONTENT_LENGTH);
        Ok(response)
    }

    /// `DELETE …/uploads/ID`.
    pub(super) async fn cancel_upload(&self, name: RepositoryName, id: UploadId) -> Answer {
        let mut guard = self.session(&name, id).await?;
        self.blocking(move |_| guard.cancel()).await?;
        self.uploads.forget(id);
        Ok(answer(StatusCode::NO_CONTENT, [], Body::empty()))
    }
}

/// Checks that a chunk with a `Content-Range` begins where the upload ends; its length, if it has one.
fn check_order(guard: &Guard, parts: &Parts, location: &str) -> Result<Option<u64>, ApiError> {
    let Some(value) = parts.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let invalid = || ApiError::BlobUploadInvalid("Content-Range is not START-END".into());
    let text = value.to_str().map_err(|_| invalid())?;
    // The specification has `0-99`; some clients send HTTP's `bytes 0-99/*`.
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let (first, last) = text.split('/').next().and_then(|r| r.split_once('-')).ok_or_else(invalid)?;
    let (first, last): (u64, u64) =
        (first.trim().parse().map_err(|_| invalid())?, last.trim().parse().map_err(|_| invalid())?);
    if first != guard.size() {
        return Err(ApiError::ChunkOutOfOrder { location: location.to_owned(), size: guard.size() });
    }
    // An empty last chunk cannot be written as a range: `100-99`.
    (last + 1).checked_sub(first).map(Some).ok_or_else(invalid)
}

/// Streams a body into the upload: one thread reads the network, another hashes and writes.
///
/// What arrived before a client went away, or a deadline passed, stays: the upload can be resumed.
async fn receive(mut guard: Guard, mut body: Body) -> Result<Guard, ApiError> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(CHUNKS_UNDER_WAY);
    let writer = tokio::task::spawn_blocking(move || -> Result<Guard, StorageError> {
        while let Some(chunk) = receiver.blocking_recv() {
            guard.append(&chunk)?;
        }
        Ok(guard)
    });
    let mut broken = None;
    loop {
        match tokio::time::timeout(IDLE_DEADLINE, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => {
                let Ok(chunk) = frame.into_data() else { continue };
                // The writer is gone: its error follows below.
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Ok(Some(Err(error))) => {
                broken = Some(format!("the request broke off: {error}"));
                break;
            }
            Err(_) => {
                broken = Some(format!("nothing received for {} s", IDLE_DEADLINE.as_secs()));
                break;
            }
        }
    }
    drop(sender);
    let guard = writer.await??;
    match broken {
        None => Ok(guard),
        Some(reason) => Err(ApiError::BlobUploadInvalid(reason)),
    }
}
