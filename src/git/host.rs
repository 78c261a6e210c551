//! What every request of the host works with.

use super::{
    GitError,
    access::{Authenticator, Principal},
    name::RepositoryName,
    received,
    repository::{Repositories, Repository},
    statuses::Statuses,
    webhooks::Webhooks,
};
use aksim_runtime::recorder::Recorder;
use http::HeaderValue;
use parking_lot::Mutex;
use std::{collections::HashMap, path::PathBuf, sync::Arc};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// `WWW-Authenticate` of a refusal.
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"aksim Git\", charset=\"UTF-8\"");

pub(super) struct Host {
    /// `https://127.0.0.1:PORT`, without a slash at the end.
    pub url: String,
    pub organization: String,
    pub repositories: Repositories,
    pub auth: Authenticator,
    pub webhooks: Webhooks,
    pub statuses: Statuses,
    pub recorder: Recorder,
    pub max_push_bytes: u64,
    pub hooks_dir: PathBuf,
    /// Programs that answer requests; joined when the host stops.
    pub work: TaskTracker,
    pub stopping: CancellationToken,
    pub turns: Mutex<HashMap<RepositoryName, Arc<Semaphore>>>,
}

impl Host {
    /// Pushes to one repository take turns, so that each one's changes can be told.
    pub(super) fn turns(&self, name: &RepositoryName) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        turns.entry(name.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// Writes down who is about to change references, for a host that is killed meanwhile.
    pub(super) fn before_push(&self, repository: &Repository, principal: &Principal) -> Result<(), GitError> {
        received::write_pusher(repository, &principal.into())
    }

    /// Finds what changed since the last time, and sees to it that it is told.
    pub(super) async fn after_push(&self, repository: &Repository) -> Result<(), GitError> {
        received::announce(self, repository).await
    }

    /// Address of a repository's pages.
    pub(super) fn html_url(&self, name: &RepositoryName) -> String {
        format!("{}/{name}", self.url)
    }

    /// Address of a repository in the API.
    pub(super) fn api_url(&self, name: &RepositoryName) -> String {
        format!("{}/api/v3/repos/{name}", self.url)
    }
}
