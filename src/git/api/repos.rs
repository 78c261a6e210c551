//! Repositories and branches.

use super::{
    super::{
        access::Access,
        name::RepositoryName,
        protection::BranchRule,
        repository::{Repository, check_branch},
        shapes,
    },
    Answer, ApiError, Caller, empty, json, parse,
};
use axum::{body::Bytes, extract::Path};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json as value};

#[derive(Deserialize)]
struct NewRepository {
    name: String,
    description: Option<String>,
    /// Of aksim: GitHub has it as a setting of the organization.
    default_branch: Option<String>,
}

#[derive(Deserialize)]
struct Protection {
    required_status_checks: Option<RequiredChecks>,
    allow_force_pushes: Option<bool>,
    allow_deletions: Option<bool>,
}

#[derive(Deserialize)]
struct RequiredChecks {
    #[serde(default)]
    contexts: Vec<String>,
}

pub(super) async fn list(caller: Caller, Path(organization): Path<String>) -> Answer {
    caller.must(Access::Read)?;
    let host = &caller.host;
    let all = host.repositories.list()?;
    let own = all.iter().filter(|r| r.name.organization() == organization);
    json(StatusCode::OK, own.map(|r| shapes::repository(host, r)).collect())
}

pub(super) async fn create(caller: Caller, Path(organization): Path<String>, body: Bytes) -> Answer {
    caller.must(Access::Admin)?;
    let host = &caller.host;
    if organization != host.organization {
        return Err(ApiError::NotFound);
    }
    let new: NewRepository = parse(&body)?;
    let name = RepositoryName::new(&organization, &new.name).map_err(|e| ApiError::Unprocessable(e.to_string()))?;
    let branch = new.default_branch.as_deref().unwrap_or("main");
    let description = new.description.unwrap_or_default();
    let (repository, created) = host.repositories.create(&name, branch, &description).await?;
    match created {
        true => json(StatusCode::CREATED, shapes::repository(host, &repository)),
        false => Err(ApiError::Unprocessable("name already exists on this account".into())),
    }
}

type RepositoryPath = Path<(String, String)>;
type BranchPath = Path<(String, String, String)>;

pub(super) async fn show(caller: Caller, Path((organization, name)): RepositoryPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Read)?;
    json(StatusCode::OK, shapes::repository(&caller.host, &repository))
}

pub(super) async fn branches(caller: Caller, Path((organization, name)): RepositoryPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Read)?;
    let refs = caller.host.repositories.refs(&repository).await?;
    let branch = |(name, id): (&String, &String)| {
        let name = name.strip_prefix("refs/heads/")?;
        Some(value!({
            "name": name,
            "commit": {"sha": id, "url": format!("{}/commits/{id}", caller.host.api_url(&repository.name))},
            "protected": is_protected(&repository, name),
        }))
    };
    json(StatusCode::OK, refs.iter().filter_map(branch).collect())
}

fn is_protected(repository: &Repository, branch: &str) -> bool {
    repository.record.protected.iter().any(|rule| rule.covers(branch))
}

/// A branch, or its protection.
pub(super) async fn branch(caller: Caller, Path((organization, name, branch)): BranchPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Read)?;
    if let Some(branch) = branch.strip_suffix("/protection") {
        return match repository.record.protected.iter().find(|rule| rule.covers(branch)) {
            Some(rule) => json(StatusCode::OK, protection(rule)),
            None => Err(ApiError::NotFound),
        };
    }
    let refs = caller.host.repositories.refs(&repository).await?;
    let id = refs.get(&format!("refs/heads/{branch}")).ok_or(ApiError::NotFound)?;
    let commit = caller.host.repositories.commit(&repository, id).await?;
    let shown = value!({
        "name": branch,
        "commit": shapes::commit(&caller.host, &repository, &commit),
        "protected": is_protected(&repository, &branch),
    });
    json(StatusCode::OK, shown)
}

fn protection(rule: &BranchRule) -> Value {
    value!({
        "pattern": rule.pattern,
        "required_status_checks": {"strict": false, "contexts": rule.required_contexts},
        "allow_force_pushes": {"enabled": false},
        "allow_deletions": {"enabled": false},
    })
}

pub(super) async fn protect(caller: Caller, Path((organization, name, branch)): BranchPath, body: Bytes) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let branch = branch.strip_suffix("/protection").ok_or(ApiError::NotFound)?;
    check_branch(&branch.replace('*', "x"))?;
    let asked: Protection = parse(&body)?;
    if asked.allow_force_pushes == Some(true) || asked.allow_deletions == Some(true) {
        let why = "a protected branch takes no forced pushes and no deletion here";
        return Err(ApiError::Unprocessable(why.into()));
    }
    let contexts = asked.required_status_checks.map(|c| c.contexts).unwrap_or_default();
    let rule = BranchRule { pattern: branch.to_owned(), required_contexts: contexts };
    let shown = protection(&rule);
    caller.host.repositories.change(&repository.name, |record| {
        record.protected.retain(|r| r.pattern != rule.pattern);
        record.protected.push(rule);
    })?;
    json(StatusCode::OK, shown)
}

pub(super) async fn unprotect(caller: Caller, Path((organization, name, branch)): BranchPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let branch = branch.strip_suffix("/protection").ok_or(ApiError::NotFound)?;
    if !repository.record.protected.iter().any(|rule| rule.pattern == branch) {
        return Err(ApiError::NotFound);
    }
    caller.host.repositories.change(&repository.name, |record| record.protected.retain(|r| r.pattern != branch))?;
    empty(StatusCode::NO_CONTENT)
}
