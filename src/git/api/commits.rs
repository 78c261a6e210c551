//! Commits and their statuses.

use super::{
    super::{
        access::Access,
        repository::Repository,
        shapes,
        statuses::{self, NewStatus},
    },
    Answer, ApiError, Caller, json, parse,
};
use axum::{body::Bytes, extract::Path};
use http::StatusCode;

type RevisionPath = Path<(String, String, String)>;

/// `REF`, `REF/status` or `REF/statuses`; a reference may hold slashes.
pub(super) async fn show(caller: Caller, Path((organization, name, revision)): RevisionPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Read)?;
    let host = &caller.host;
    if let Some(revision) = revision.strip_suffix("/statuses") {
        return listed(&caller, &repository, revision).await;
    }
    if let Some(revision) = revision.strip_suffix("/status") {
        let sha = resolve(&caller, &repository, revision).await?;
        let all = statuses::of_commit(&statuses::folder(&repository.data), &sha)?;
        return json(StatusCode::OK, shapes::combined_status(host, &repository, &sha, &all));
    }
    let sha = resolve(&caller, &repository, &revision).await?;
    let commit = host.repositories.commit(&repository, &sha).await?;
    json(StatusCode::OK, shapes::commit(host, &repository, &commit))
}

/// Every status of a commit.
pub(super) async fn statuses(caller: Caller, Path((organization, name, revision)): RevisionPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Read)?;
    listed(&caller, &repository, &revision).await
}

async fn listed(caller: &Caller, repository: &Repository, revision: &str) -> Answer {
    let sha = resolve(caller, repository, revision).await?;
    let all = statuses::of_commit(&statuses::folder(&repository.data), &sha)?;
    let newest_first = all.iter().rev().map(|s| shapes::status(&caller.host, repository, &sha, s));
    json(StatusCode::OK, newest_first.collect())
}

async fn resolve(caller: &Caller, repository: &Repository, revision: &str) -> Result<String, ApiError> {
    let none = || ApiError::Unprocessable(format!("No commit found for SHA: {revision}"));
    caller.host.repositories.resolve(repository, revision).await?.ok_or_else(none)
}

pub(super) async fn set_status(caller: Caller, Path((organization, name, sha)): RevisionPath, body: Bytes) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Write)?;
    let new: NewStatus = parse(&body)?;
    let known = resolve(&caller, &repository, &sha).await?;
    if !known.eq_ignore_ascii_case(&sha) {
        return Err(ApiError::Unprocessable(format!("No commit found for SHA: {sha}")));
    }
    let folder = statuses::folder(&repository.data);
    let status = caller.host.statuses.add(&folder, &known, new, &caller.principal.login)?;
    json(StatusCode::CREATED, shapes::status(&caller.host, &repository, &known, &status))
}
