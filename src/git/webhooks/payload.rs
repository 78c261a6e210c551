//! Payloads of webhooks in GitHub's shape (docs.github.com, "Webhook events and payloads").

use super::super::{
    history::{Commit, Signature, ZERO},
    host::Host,
    received::{Pusher, RefChange},
    repository::Repository,
    shapes,
};
use super::Hook;
use serde_json::{Value, json};

/// A reference that was pushed, with what it brought.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub change: RefChange,
    /// New commits, oldest first.
    pub commits: Vec<Commit>,
    /// The commit that the reference names now.
    pub head: Option<Commit>,
    /// Whether commits were taken off the branch.
    pub forced: bool,
    pub pusher: Pusher,
}

/// The event `push`.
pub(crate) fn push(host: &Host, repository: &Repository, push: &Push) -> Value {
    let RefChange { name, before, after } = &push.change;
    let commit = |c: &Commit| commit(host, repository, c);
    json!({
        "ref": name,
        "before": before,
        "after": after,
        "repository": shapes::repository(host, repository),
        "pusher": {"name": push.pusher.login, "email": push.pusher.email},
        "organization": shapes::organization(host, repository.name.organization()),
        "sender": shapes::user(host, &push.pusher.login),
        "created": before == ZERO,
        "deleted": after == ZERO,
        "forced": push.forced,
        "base_ref": null,
        "compare": compare(host, repository, before, after),
        "commits": push.commits.iter().map(commit).collect::<Vec<_>>(),
        "head_commit": push.head.as_ref().map(commit),
    })
}

fn compare(host: &Host, repository: &Repository, before: &str, after: &str) -> String {
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    let range = match (before == ZERO, after == ZERO) {
        (false, false) => format!("{}...{}", short(before), short(after)),
        (true, _) => short(after),
        (_, true) => short(before),
    };
    format!("{}/compare/{range}", host.html_url(&repository.name))
}

fn commit(host: &Host, repository: &Repository, commit: &Commit) -> Value {
    let person = |s: &Signature| {
        let known = host.auth.accounts.iter().find(|a| a.email.eq_ignore_ascii_case(&s.email));
        let mut person = json!({"name": s.name, "email": s.email, "date": s.date});
        if let Some(account) = known {
            person["username"] = account.login.clone().into();
        }
        person
    };
    json!({
        "id": commit.id,
        "tree_id": commit.tree,
        "distinct": true,
        "message": commit.message,
        "timestamp": commit.committer.date,
        "url": format!("{}/commit/{}", host.html_url(&repository.name), commit.id),
        "author": person(&commit.author),
        "committer": person(&commit.committer),
        "added": commit.added,
        "removed": commit.removed,
        "modified": commit.modified,
    })
}

/// The event `ping`.
pub(crate) fn ping(host: &Host, repository: &Repository, hook: &Hook, sender: &str) -> Value {
    json!({
        "zen": "Practicality beats purity.",
        "hook_id": hook.id,
        "hook": shapes::hook(host, repository, hook),
        "repository": shapes::repository(host, repository),
        "organization": shapes::organization(host, repository.name.organization()),
        "sender": shapes::user(host, sender),
    })
}
