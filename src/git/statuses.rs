//! Commit statuses, as GitHub keeps them: a list a commit, the newest of each context counts.

use super::{GitError, records};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Most statuses of one commit and context (GitHub's number).
const MAX_STATUSES: usize = 1000;
/// Longest description, characters (GitHub's number).
const MAX_DESCRIPTION: usize = 140;
/// Context of a status that names none.
pub(super) const DEFAULT_CONTEXT: &str = "default";

/// State of one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusState {
    /// It could not be found out.
    Error,
    /// It is not good.
    Failure,
    /// It is being found out.
    Pending,
    /// It is good.
    Success,
}

/// One status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStatus {
    /// Id.
    pub id: u64,
    /// State.
    pub state: StatusState,
    /// What it is about: `ci/build`.
    pub context: String,
    /// For people.
    pub description: Option<String>,
    /// Where there is more.
    pub target_url: Option<String>,
    /// Who set it.
    pub creator: String,
    /// When.
    pub created_at: Timestamp,
}

/// What is asked for when a status is set.
#[derive(Clone, Debug, Deserialize)]
pub struct NewStatus {
    /// State.
    pub state: StatusState,
    /// What it is about; `default` when absent.
    pub context: Option<String>,
    /// For people, at most 140 characters.
    pub description: Option<String>,
    /// Where there is more.
    pub target_url: Option<String>,
}

/// The statuses of all commits of one repository, in a folder.
pub(super) struct Statuses {
    ids: records::Ids,
    changes: parking_lot::Mutex<()>,
}

/// Folder of the statuses of a repository whose records are in `data`.
pub(super) fn folder(data: &Path) -> PathBuf {
    data.join("statuses")
}

fn path(folder: &Path, sha: &str) -> Result<PathBuf, GitError> {
    // The hash becomes a file name.
    if !(40..=64).contains(&sha.len()) || !sha.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(GitError::invalid("sha", format!("{sha:?} is not the hash of a commit")));
    }
    Ok(folder.join(format!("{}.json", sha.to_ascii_lowercase())))
}

/// Every status of a commit, oldest first.
pub(super) fn of_commit(folder: &Path, sha: &str) -> Result<Vec<CommitStatus>, GitError> {
    Ok(records::read(&path(folder, sha)?)?.unwrap_or_default())
}

/// State of the newest status of a context.
pub(super) fn newest(folder: &Path, sha: &str, context: &str) -> Result<Option<StatusState>, GitError> {
    Ok(of_commit(folder, sha)?.iter().rev().find(|s| s.context == context).map(|s| s.state))
}

/// The newest status of each context, oldest first, and the state they make together.
pub(super) fn combined(statuses: &[CommitStatus]) -> (StatusState, Vec<&CommitStatus>) {
    let superseded =
        |index: usize, status: &CommitStatus| statuses[index + 1..].iter().any(|later| later.context == status.context);
    let newest: Vec<&CommitStatus> =
        statuses.iter().enumerate().filter(|(index, s)| !superseded(*index, s)).map(|(_, s)| s).collect();
    let any = |state| newest.iter().any(|s| s.state == state);
    let state = if any(StatusState::Error) || any(StatusState::Failure) {
        StatusState::Failure
    } else if newest.is_empty() || any(StatusState::Pending) {
        StatusState::Pending
    } else {
        StatusState::Success
    };
    (state, newest)
}

impl Statuses {
    pub(super) fn new() -> Self {
        Self { ids: records::Ids::default(), changes: parking_lot::Mutex::default() }
    }

    /// Adds a status to a commit.
    ///
    /// # Errors
    /// [`GitError::Invalid`] for what GitHub refuses; [`GitError::File`].
    pub(super) fn add(
        &self,
        folder: &Path,
        sha: &str,
        new: NewStatus,
        creator: &str,
    ) -> Result<CommitStatus, GitError> {
        let path = path(folder, sha)?;
        if new.description.as_ref().is_some_and(|d| d.chars().count() > MAX_DESCRIPTION) {
            return Err(GitError::invalid("description", "description is too long (maximum is 140 characters)"));
        }
        if let Some(url) = &new.target_url
            && !url::Url::parse(url).is_ok_and(|u| ["http", "https"].contains(&u.scheme()))
        {
            return Err(GitError::invalid("target_url", "target_url must use http(s) scheme"));
        }
        let status = CommitStatus {
            id: self.ids.next(),
            state: new.state,
            context: new.context.filter(|c| !c.is_empty()).unwrap_or_else(|| DEFAULT_CONTEXT.to_owned()),
            description: new.description,
            target_url: new.target_url,
            creator: creator.to_owned(),
            created_at: Timestamp::now(),
        };
        let _one = self.changes.lock();
        let mut statuses = of_commit(folder, sha)?;
        if statuses.iter().filter(|s| s.context == status.context).count() >= MAX_STATUSES {
            let why = "This SHA and context has reached the maximum number of statuses.";
            return Err(GitError::invalid("context", why));
        }
        statuses.push(status.clone());
        records::write(&path, &statuses)?;
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_context_counts() {
        let dir = tempfile::tempdir().unwrap();
        let sha = "a".repeat(40);
        let statuses = Statuses::new();
        let state_after = |context: &str, state| {
            let new = NewStatus { state, context: Some(context.into()), description: None, target_url: None };
            statuses.add(dir.path(), &sha, new, "ada").unwrap();
            combined(&of_commit(dir.path(), &sha).unwrap()).0
        };
        assert_eq!(combined(&[]).0, StatusState::Pending);
        assert_eq!(state_after("build", StatusState::Failure), StatusState::Failure);
        assert_eq!(state_after("test", StatusState::Success), StatusState::Failure);
        assert_eq!(state_after("build", StatusState::Pending), StatusState::Pending);
        assert_eq!(state_after("build", StatusState::Success), StatusState::Success);
        assert_eq!(newest(dir.path(), &sha, "none").unwrap(), None);
    }

    #[test]
    fn a_hash_is_no_path() {
        let dir = tempfile::tempdir().unwrap();
        assert!(of_commit(dir.path(), "../../../etc/passwd").is_err());
    }
}
