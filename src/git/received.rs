//! After a push: which references changed, told to the webhooks and to the recorder.
//!
//! The references that have been told about are kept beside the repository. What differs from
//! them is new, whether its push ended just now or the host was killed in the middle of it.
//! Deliveries are written down before the references are: a change is told at least once.

use super::{
    GitError,
    access::Principal,
    history::{Commit, ZERO},
    host::Host,
    records,
    repository::{Refs, Repository},
    webhooks::payload::{self, Push},
};
use aksim_model::{
    event::{EventBody, FlowRow},
    ids::{JourneyId, ServiceName},
    journey::Hop,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pusher {
    pub login: String,
    pub name: String,
    pub email: String,
}

impl From<&Principal> for Pusher {
    fn from(principal: &Principal) -> Self {
        let Principal { login, name, email, .. } = principal.clone();
        Self { login, name, email }
    }
}

/// A reference that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefChange {
    /// Full name.
    pub name: String,
    /// What it pointed at; zeros when it did not exist.
    pub before: String,
    /// What it points at; zeros when it does not exist any more.
    pub after: String,
}

impl RefChange {
    /// The branch, if it is one that exists now.
    fn live_branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/").filter(|_| self.after != ZERO)
    }
}

fn announced_path(repository: &Repository) -> PathBuf {
    repository.data.join("announced.json")
}

fn pusher_path(repository: &Repository) -> PathBuf {
    repository.data.join("pusher.json")
}

/// Writes down whose push is taken in next.
pub(super) fn write_pusher(repository: &Repository, pusher: &Pusher) -> Result<(), GitError> {
    records::write(&pusher_path(repository), pusher)
}

/// Tells about every reference that differs from what was told last.
pub(super) async fn announce(host: &Host, repository: &Repository) -> Result<(), GitError> {
    let told: Refs = records::read(&announced_path(repository))?.unwrap_or_default();
    let now = host.repositories.refs(repository).await?;
    let changes = differences(&told, &now);
    if changes.is_empty() {
        return Ok(());
    }
    let at = Timestamp::now();
    let pusher: Pusher = records::read(&pusher_path(repository))?.unwrap_or_default();
    let changed = host.repositories.change(&repository.name, |record| record.pushed_at = at)?;
    let repository = changed.as_ref().unwrap_or(repository);
    let mut pushes = Vec::new();
    for change in changes {
        pushes.push(describe(host, repository, change, &told, &pusher).await?);
    }
    for push in &pushes {
        if host.webhooks.wants(repository, "push")? {
            host.webhooks.queue(repository, "push", &payload::push(host, repository, push))?;
        }
    }
    records::write(&announced_path(repository), &now)?;
    for push in &pushes {
        record(host, repository, push, at);
    }
    host.webhooks.wake();
    Ok(())
}

fn differences(told: &Refs, now: &Refs) -> Vec<RefChange> {
    let object = |refs: &Refs, name: &str| refs.get(name).cloned().unwrap_or_else(|| ZERO.to_owned());
    let mut names: Vec<&String> = told.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let change = |name: &String| RefChange { name: name.clone(), before: object(told, name), after: object(now, name) };
    names.into_iter().map(change).filter(|c| c.before != c.after).collect()
}

async fn describe(
    host: &Host,
    repository: &Repository,
    change: RefChange,
    told: &Refs,
    pusher: &Pusher,
) -> Result<Push, GitError> {
    let repositories = &host.repositories;
    let (mut commits, mut head, mut forced) = (Vec::new(), None, false);
    if change.after != ZERO {
        // An annotated tag is told by its own hash; its commit is the head.
        let commit = repositories.resolve(repository, &change.after).await?;
        if let Some(commit) = &commit {
            head = Some(repositories.commit(repository, commit).await?);
        }
        if change.name.starts_with("refs/heads/") {
            let others: Vec<String> =
                told.iter().filter(|(name, _)| name.starts_with("refs/heads/")).map(|(_, id)| id.clone()).collect();
            commits = repositories.pushed(repository, &change.before, &change.after, &others).await?;
            forced =
                change.before != ZERO && !repositories.is_ancestor(repository, &change.before, &change.after).await?;
        }
    }
    Ok(Push { change, commits, head, forced, pusher: pusher.clone() })
}

fn record(host: &Host, repository: &Repository, push: &Push, at: Timestamp) {
    let who = match push.pusher.login.as_str() {
        "" => "somebody",
        login => login,
    };
    let RefChange { name, after, .. } = &push.change;
    let short = name.trim_start_matches("refs/heads/").trim_start_matches("refs/");
    let what = match (after == ZERO, &push.head) {
        (true, _) => format!("{who} deleted {short} of {}", repository.name),
        (false, Some(head)) => {
            format!("{who} pushed {} to {short} of {}: {}", abbreviated(&head.id), repository.name, head.subject())
        }
        (false, None) => format!("{who} pushed {} to {short} of {}", abbreviated(after), repository.name),
    };
    host.recorder.record(EventBody::Flow { row: FlowRow::Commit, ok: true, message: what });
    let (Some(branch), Some(head)) = (push.change.live_branch(), &push.head) else { return };
    let journey = JourneyId::of_commit(&head.id);
    host.recorder.record(EventBody::JourneyStarted {
        journey: journey.clone(),
        service: ServiceName::from(repository.name.name()),
        cause: cause(head, who),
        started: at,
    });
    host.recorder.record(EventBody::JourneyHop {
        journey,
        hop: Hop::Committed,
        passed: at,
        detail: format!("{}@{branch} {}", repository.name, head.id),
    });
}

fn cause(head: &Commit, who: &str) -> String {
    format!("commit {} by {who}: {}", abbreviated(&head.id), head.subject())
}

/// The first seven digits of a hash.
pub(super) fn abbreviated(id: &str) -> &str {
    id.get(..7).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_compared_both_ways() {
        let refs = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, i)| ((*n).to_owned(), (*i).to_owned())).collect();
        let told: Refs = refs(&[("refs/heads/a", "1"), ("refs/heads/b", "2"), ("refs/heads/c", "3")]);
        let now: Refs = refs(&[("refs/heads/a", "1"), ("refs/heads/b", "9"), ("refs/tags/t", "4")]);
        let found: Vec<_> = differences(&told, &now).into_iter().map(|c| (c.name, c.before, c.after)).collect();
        let expected = [("refs/heads/b", "2", "9"), ("refs/heads/c", "3", ZERO), ("refs/tags/t", ZERO, "4")];
        assert_eq!(found, expected.map(|(n, b, a)| (n.to_owned(), b.to_owned(), a.to_owned())));
    }
}
