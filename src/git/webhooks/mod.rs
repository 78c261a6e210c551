//! Webhooks as GitHub sends them: who is told, what is to be sent, and what came of it.
//!
//! Differs from GitHub on purpose: a delivery that fails for a reason that may pass (no
//! connection, time out, 408, 429, 5xx) is tried again with growing pauses; each attempt is in
//! the delivery's log. Only certificates of the environment's own authority are trusted.

mod delivery;
pub(super) mod payload;
pub(super) mod sender;
pub mod signature;

pub use delivery::{Attempt, Delivery, DeliveryState};
pub use sender::RetryPolicy;

use super::{GitError, records, repository::Repository};
use delivery::Deliveries;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::sync::Notify;
use uuid::Uuid;

/// Events that are sent.
pub(super) const EVENTS: [&str; 2] = ["push", "ping"];
/// Most webhooks of one repository (GitHub's number for an event).
const MAX_HOOKS: usize = 20;
/// Largest payload, bytes (GitHub's cap).
const MAX_PAYLOAD: usize = 25 << 20;

/// Form of a webhook's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentType {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded` with the JSON as `payload`; GitHub's default.
    #[default]
    Form,
}

/// A webhook of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Id.
    pub id: u64,
    /// Where it is sent.
    pub url: String,
    /// Form of the body.
    pub content_type: ContentType,
    /// Key of the signatures.
    pub secret: Option<String>,
    /// Always false: see [`HookSpec::check`].
    pub insecure_ssl: bool,
    /// Events it is sent for; `*` for all.
    pub events: Vec<String>,
    /// Whether it is sent at all.
    pub active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Hook {
    fn wants(&self, event: &str) -> bool {
        self.active && self.events.iter().any(|e| e == "*" || e == event)
    }
}

/// What a webhook is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSpec {
    /// Where it is sent: `http` or `https`, without a password in it.
    pub url: String,
    /// Form of the body.
    pub content_type: ContentType,
    /// Key of the signatures.
    pub secret: Option<String>,
    /// Events it is sent for.
    pub events: Vec<String>,
    /// Whether it is sent at all.
    pub active: bool,
}

impl HookSpec {
    /// A webhook for pushes, JSON, signed.
    pub fn push(url: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            content_type: ContentType::Json,
            secret: Some(secret.into()),
            events: vec!["push".to_owned()],
            active: true,
        }
    }

    /// Whether it can be.
    ///
    /// # Errors
    /// [`GitError::Invalid`].
    pub fn check(&self) -> Result<(), GitError> {
        let url = url::Url::parse(&self.url).map_err(|e| GitError::invalid("url", e.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) || url.password().is_some() {
            return Err(GitError::invalid("url", "must be http or https, without a password"));
        }
        if self.events.is_empty() {
            return Err(GitError::invalid("events", "at least one event is needed"));
        }
        match self.events.iter().find(|e| *e != "*" && !EVENTS.contains(&e.as_str())) {
            Some(event) => Err(GitError::invalid("events", format!("{event:?} is not sent here: push and ping are"))),
            None => Ok(()),
        }
    }
}

/// All webhooks with their deliveries.
pub(super) struct Webhooks {
    ids: records::Ids,
    changes: parking_lot::Mutex<()>,
    deliveries: Deliveries,
    changed: Notify,
}

fn path(repository: &Repository) -> PathBuf {
    repository.data.join("hooks.json")
}

impl Webhooks {
    /// Those of a state folder, with the deliveries that are still to be made.
    pub(super) fn open(state_dir: &Path) -> Result<Self, GitError> {
        Ok(Self {
            ids: records::Ids::default(),
            changes: parking_lot::Mutex::default(),
            deliveries: Deliveries::open(&state_dir.join("deliveries"))?,
            changed: Notify::new(),
        })
    }

    /// Webhooks of a repository, oldest first.
    pub(super) fn hooks(&self, repository: &Repository) -> Result<Vec<Hook>, GitError> {
        Ok(records::read(&path(repository))?.unwrap_or_default())
    }

    /// A webhook by id.
    pub(super) fn hook(&self, repository: &Repository, id: u64) -> Result<Option<Hook>, GitError> {
        Ok(self.hooks(repository)?.into_iter().find(|h| h.id == id))
    }

    /// Whether anybody is told about an event.
    pub(super) fn wants(&self, repository: &Repository, event: &str) -> Result<bool, GitError> {
        Ok(self.hooks(repository)?.iter().any(|h| h.wants(event)))
    }

    /// Adds a webhook.
    pub(super) fn add(&self, repository: &Repository, spec: HookSpec) -> Result<Hook, GitError> {
        spec.check()?;
        self.replace(repository, |hooks| {
            if hooks.iter().any(|h| h.url == spec.url && h.content_type == spec.content_type) {
                return Err(GitError::invalid("url", "Hook already exists on this repository"));
            }
            self.push(hooks, spec)
        })
    }

    /// Makes a webhook be: the one with its URL is changed, or a new one made.
    pub(super) fn ensure(&self, repository: &Repository, spec: HookSpec) -> Result<Hook, GitError> {
        spec.check()?;
        self.replace(repository, |hooks| match hooks.iter_mut().find(|h| h.url == spec.url) {
            Some(hook) => {
                assign(hook, spec);
                Ok(hook.clone())
            }
            None => self.push(hooks, spec),
        })
    }

    /// Changes a webhook; `None` when there is none of this id.
    pub(super) fn edit(
        &self,
        repository: &Repository,
        id: u64,
        change: impl FnOnce(&mut HookSpec),
    ) -> Result<Option<Hook>, GitError> {
        self.replace(repository, |hooks| {
            let Some(hook) = hooks.iter_mut().find(|h| h.id == id) else { return Ok(None) };
            let mut spec = HookSpec {
                url: hook.url.clone(),
                content_type: hook.content_type,
                secret: hook.secret.clone(),
                events: hook.events.clone(),
                active: hook.active,
            };
            change(&mut spec);
            spec.check()?;
            assign(hook, spec);
            Ok(Some(hook.clone()))
        })
    }

    /// Removes a webhook; `false` when there is none of this id.
    pub(super) fn remove(&self, repository: &Repository, id: u64) -> Result<bool, GitError> {
        self.replace(repository, |hooks| {
            let before = hooks.len();
            hooks.retain(|h| h.id != id);
            Ok(hooks.len() != before)
        })
    }

    fn push(&self, hooks: &mut Vec<Hook>, spec: HookSpec) -> Result<Hook, GitError> {
        if hooks.len() >= MAX_HOOKS {
            return Err(GitError::invalid("hooks", format!("a repository has at most {MAX_HOOKS} webhooks")));
        }
        let now = Timestamp::now();
        let mut hook = Hook {
            id: self.ids.next(),
            url: String::new(),
            content_type: spec.content_type,
            secret: None,
            insecure_ssl: false,
            events: Vec::new(),
            active: true,
            created_at: now,
            updated_at: now,
        };
        assign(&mut hook, spec);
        hooks.push(hook.clone());
        Ok(hook)
    }

    fn replace<T>(
        &self,
        repository: &Repository,
        change: impl FnOnce(&mut Vec<Hook>) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let _one = self.changes.lock();
        let mut hooks = self.hooks(repository)?;
        let before = hooks.clone();
        let result = change(&mut hooks)?;
        if hooks != before {
            records::write(&path(repository), &hooks)?;
        }
        Ok(result)
    }

    /// Writes down an event for every webhook that wants it. Call [`Webhooks::wake`] afterwards.
    pub(super) fn queue(&self, repository: &Repository, event: &str, payload: &Value) -> Result<(), GitError> {
        let hooks = self.hooks(repository)?;
        for hook in hooks.iter().filter(|h| h.wants(event)) {
            self.queue_for(repository, hook, event, payload)?;
        }
        Ok(())
    }

    /// Writes down an event for one webhook, whether it wants it or not.
    pub(super) fn queue_for(
        &self,
        repository: &Repository,
        hook: &Hook,
        event: &str,
        payload: &Value,
    ) -> Result<(), GitError> {
        // A value of strings, numbers and lists always has a JSON form.
        let body = serde_json::to_vec(payload).unwrap_or_default();
        if body.len() > MAX_PAYLOAD {
            tracing::warn!(target: "git", repository = %repository.name, "a push is too large for webhooks");
            return Ok(());
        }
        let delivery = Delivery::new(repository.name.to_string(), hook, event, Uuid::new_v4(), false);
        self.deliveries.insert(delivery, &body).map(drop)
    }

    /// Sends a delivery again: under the same guid, with another id, as GitHub does.
    pub(super) fn redeliver(&self, hook: &Hook, of: &Delivery) -> Result<Delivery, GitError> {
        let payload = self.deliveries.payload(of.id)?;
        let again = Delivery::new(of.repository.clone(), hook, &of.event, of.guid, true);
        let again = self.deliveries.insert(again, &payload)?;
        self.wake();
        Ok(again)
    }

    /// Has the sender look for deliveries.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Deliveries of a webhook, newest first.
    pub(super) fn deliveries(&self, hook: u64) -> Vec<Delivery> {
        self.deliveries.of_hook(hook)
    }

    /// What a delivery carries.
    pub(super) fn payload(&self, delivery: u64) -> Result<Vec<u8>, GitError> {
        self.deliveries.payload(delivery)
    }
}

fn assign(hook: &mut Hook, spec: HookSpec) {
    let before = hook.clone();
    let HookSpec { url, content_type, secret, events, active } = spec;
    (hook.url, hook.content_type, hook.secret, hook.events, hook.active) = (url, content_type, secret, events, active);
    if *hook != before {
        hook.updated_at = Timestamp::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_that_cannot_be_sent_are_refused() {
        let with = |url: &str, event: &str| HookSpec { events: vec![event.into()], ..HookSpec::push(url, "s") };
        assert!(with("https://127.0.0.1:1/hook", "push").check().is_ok());
        assert!(with("http://localhost:8080/github-webhook/", "*").check().is_ok());
        for (url, event) in [("ftp://x/", "push"), ("x", "push"), ("http://a:b@x/", "push"), ("http://x/", "issues")] {
            assert!(with(url, event).check().is_err(), "{url} {event}");
        }
        assert!(HookSpec { events: vec![], ..HookSpec::push("http://x/", "s") }.check().is_err());
    }
}
