//! Objects in the shape that GitHub's REST API gives them, as far as CI systems read them.

use super::{
    history::{Commit, Signature},
    host::Host,
    repository::Repository,
    statuses::{self, CommitStatus},
    tokens::TokenRecord,
    webhooks::{Delivery, Hook},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What stands for a secret in answers.
const MASK: &str = "********";

/// A number that stays for a name, as GitHub has ids where aksim has names alone.
fn stable_id(kind: &str, name: &str) -> u32 {
    let digest = Sha256::digest(format!("{kind}/{}", name.to_ascii_lowercase()));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 1
}

pub(super) fn user(host: &Host, login: &str) -> Value {
    owner(host, login, "User")
}

fn owner(host: &Host, login: &str, kind: &str) -> Value {
    let url = &host.url;
    json!({
        "login": login,
        "id": stable_id(kind, login),
        "node_id": format!("{}_{}", kind.chars().next().unwrap_or('U'), stable_id(kind, login)),
        "avatar_url": "",
        "url": format!("{url}/api/v3/users/{login}"),
        "html_url": format!("{url}/{login}"),
        "type": kind,
        "site_admin": false,
    })
}

pub(super) fn organization(host: &Host, login: &str) -> Value {
    json!({
        "login": login,
        "id": stable_id("Organization", login),
        "url": format!("{}/api/v3/orgs/{login}", host.url),
        "repos_url": format!("{}/api/v3/orgs/{login}/repos", host.url),
    })
}

pub(super) fn repository(host: &Host, repository: &Repository) -> Value {
    let (name, record) = (&repository.name, &repository.record);
    let (html, api) = (host.html_url(name), host.api_url(name));
    json!({
        "id": record.id,
        "node_id": format!("R_{}", record.id),
        "name": name.name(),
        "full_name": name.to_string(),
        "private": true,
        "owner": owner(host, name.organization(), "Organization"),
        "html_url": html,
        "description": record.description,
        "fork": false,
        "url": api,
        "hooks_url": format!("{api}/hooks"),
        "commits_url": format!("{api}/commits{{/sha}}"),
        "branches_url": format!("{api}/branches{{/branch}}"),
        "statuses_url": format!("{api}/statuses/{{sha}}"),
        "clone_url": format!("{html}.git"),
        "created_at": record.created_at.to_string(),
        "updated_at": record.pushed_at.to_string(),
        "pushed_at": record.pushed_at.to_string(),
        "default_branch": record.default_branch,
        "master_branch": record.default_branch,
        "archived": false,
        "disabled": false,
        "visibility": "private",
    })
}

pub(super) fn hook(host: &Host, repository: &Repository, hook: &Hook) -> Value {
    let url = format!("{}/hooks/{}", host.api_url(&repository.name), hook.id);
    let mut config = json!({
        "url": hook.url,
        "content_type": hook.content_type,
        "insecure_ssl": if hook.insecure_ssl { "1" } else { "0" },
    });
    if hook.secret.is_some() {
        config["secret"] = MASK.into();
    }
    let last = host.webhooks.deliveries(hook.id).into_iter().next();
    json!({
        "type": "Repository",
        "id": hook.id,
        "name": "web",
        "active": hook.active,
        "events": hook.events,
        "config": config,
        "created_at": hook.created_at.to_string(),
        "updated_at": hook.updated_at.to_string(),
        "url": url,
        "test_url": format!("{url}/test"),
        "ping_url": format!("{url}/pings"),
        "deliveries_url": format!("{url}/deliveries"),
        "last_response": match last.and_then(|d| d.attempts.last().cloned()) {
            Some(attempt) => json!({"code": attempt.status_code, "status": attempt.status, "message": attempt.status}),
            None => json!({"code": null, "status": "unused", "message": null}),
        },
    })
}

/// A delivery without its bodies. `attempts` is aksim's own: GitHub does not try again by itself.
pub(super) fn delivery(repository: &Repository, delivery: &Delivery) -> Value {
    let last = delivery.attempts.last();
    let at = last.map_or(delivery.queued_at, |a| a.at);
    json!({
        "id": delivery.id,
        "guid": delivery.guid,
        "delivered_at": at.to_string(),
        "redelivery": delivery.redelivery,
        "duration": last.map_or(0.0, |a| a.duration_ms as f64 / 1000.0),
        "status": last.map_or("pending", |a| a.status.as_str()),
        "status_code": last.and_then(|a| a.status_code).unwrap_or(0),
        "event": delivery.event,
        "action": null,
        "installation_id": null,
        "repository_id": repository.record.id,
        "throttled_at": null,
        "state": delivery.state,
        "attempts": delivery.attempts.iter().map(|a| json!({
            "at": a.at.to_string(), "status": a.status, "status_code": a.status_code, "duration": a.duration_ms as f64 / 1000.0,
        })).collect::<Vec<_>>(),
    })
}

/// A delivery with request and response.
pub(super) fn delivery_detail(repository: &Repository, of: &Delivery, payload: &[u8]) -> Value {
    let mut value = delivery(repository, of);
    let payload = serde_json::from_slice(payload).unwrap_or(Value::Null);
    value["url"] = of.url.clone().into();
    value["request"] = json!({"headers": of.request_headers, "payload": payload});
    value["response"] = match of.attempts.last() {
        Some(attempt) => json!({"headers": attempt.response_headers, "payload": attempt.response_body}),
        None => json!({"headers": null, "payload": null}),
    };
    value
}

fn signature(of: &Signature) -> Value {
    json!({"name": of.name, "email": of.email, "date": of.date})
}

pub(super) fn commit(host: &Host, repository: &Repository, commit: &Commit) -> Value {
    let (api, html) = (host.api_url(&repository.name), host.html_url(&repository.name));
    let file = |status: &'static str| move |path: &String| json!({"filename": path, "status": status});
    let added = commit.added.iter().map(file("added"));
    let removed = commit.removed.iter().map(file("removed"));
    let modified = commit.modified.iter().map(file("modified"));
    json!({
        "sha": commit.id,
        "url": format!("{api}/commits/{}", commit.id),
        "html_url": format!("{html}/commit/{}", commit.id),
        "commit": {
            "author": signature(&commit.author),
            "committer": signature(&commit.committer),
            "message": commit.message,
            "tree": {"sha": commit.tree},
        },
        "parents": commit.parents.iter().map(|p| json!({"sha": p, "url": format!("{api}/commits/{p}")})).collect::<Vec<_>>(),
        "files": added.chain(removed).chain(modified).collect::<Vec<_>>(),
    })
}

pub(super) fn status(host: &Host, repository: &Repository, sha: &str, status: &CommitStatus) -> Value {
    json!({
        "id": status.id,
        "url": format!("{}/statuses/{sha}", host.api_url(&repository.name)),
        "state": status.state,
        "description": status.description,
        "target_url": status.target_url,
        "context": status.context,
        "created_at": status.created_at.to_string(),
        "updated_at": status.created_at.to_string(),
        "creator": user(host, &status.creator),
    })
}

pub(super) fn combined_status(host: &Host, repository: &Repository, sha: &str, all: &[CommitStatus]) -> Value {
    let (state, newest) = statuses::combined(all);
    json!({
        "state": state,
        "sha": sha,
        "total_count": newest.len(),
        "statuses": newest.iter().map(|s| self::status(host, repository, sha, s)).collect::<Vec<_>>(),
        "repository": self::repository(host, repository),
        "commit_url": format!("{}/commits/{sha}", host.api_url(&repository.name)),
        "url": format!("{}/commits/{sha}/status", host.api_url(&repository.name)),
    })
}

pub(super) fn token(record: &TokenRecord) -> Value {
    json!({
        "id": record.id,
        "note": record.note,
        "user": record.user,
        "access": record.access,
        "created_at": record.created_at.to_string(),
        "expires_at": record.expires_at.map(|e| e.to_string()),
    })
}
