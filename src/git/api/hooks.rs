//! Webhooks and their deliveries.

use super::{
    super::{
        access::Access,
        repository::Repository,
        shapes,
        webhooks::{ContentType, Delivery, Hook, HookSpec, payload},
    },
    Answer, ApiError, Caller, empty, json, parse,
};
use axum::{
    body::Bytes,
    extract::{Path, Query},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// Deliveries of a page when nothing is asked for, and at most (GitHub's numbers).
const PAGE: usize = 30;
const LARGEST_PAGE: usize = 100;

#[derive(Deserialize)]
struct HookConfig {
    url: Option<String>,
    content_type: Option<ContentType>,
    secret: Option<String>,
    insecure_ssl: Option<Value>,
}

#[derive(Deserialize)]
struct NewHook {
    name: Option<String>,
    config: HookConfig,
    events: Option<Vec<String>>,
    active: Option<bool>,
}

#[derive(Deserialize)]
struct HookChange {
    config: Option<HookConfig>,
    events: Option<Vec<String>>,
    add_events: Option<Vec<String>>,
    remove_events: Option<Vec<String>>,
    active: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct Page {
    per_page: Option<usize>,
}

impl HookConfig {
    /// GitHub takes `"1"` and `1`.
    fn check(&self) -> Result<(), ApiError> {
        match &self.insecure_ssl {
            None => Ok(()),
            Some(Value::String(text)) if text == "0" => Ok(()),
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(()),
            Some(_) => Err(ApiError::Unprocessable(
                "insecure_ssl is not supported: give the receiver a certificate of the environment, or use http".into(),
            )),
        }
    }
}

fn hook(caller: &Caller, repository: &Repository, id: u64) -> Result<Hook, ApiError> {
    caller.host.webhooks.hook(repository, id)?.ok_or(ApiError::NotFound)
}

fn find_delivery(caller: &Caller, hook: &Hook, id: u64) -> Result<Delivery, ApiError> {
    caller.host.webhooks.deliveries(hook.id).into_iter().find(|d| d.id == id).ok_or(ApiError::NotFound)
}

pub(super) async fn list(caller: Caller, Path((organization, name)): Path<(String, String)>) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let hooks = caller.host.webhooks.hooks(&repository)?;
    json(StatusCode::OK, hooks.iter().map(|h| shapes::hook(&caller.host, &repository, h)).collect())
}

pub(super) async fn create(caller: Caller, Path((organization, name)): Path<(String, String)>, body: Bytes) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let new: NewHook = parse(&body)?;
    if new.name.is_some_and(|n| n != "web") {
        return Err(ApiError::Unprocessable("name must be web".into()));
    }
    new.config.check()?;
    let spec = HookSpec {
        url: new.config.url.ok_or_else(|| ApiError::Unprocessable("url is required".into()))?,
        content_type: new.config.content_type.unwrap_or_default(),
        secret: new.config.secret.filter(|s| !s.is_empty()),
        events: new.events.unwrap_or_else(|| vec!["push".to_owned()]),
        active: new.active.unwrap_or(true),
    };
    let host = &caller.host;
    let hook = host.webhooks.add(&repository, spec)?;
    send_ping(&caller, &repository, &hook)?;
    json(StatusCode::CREATED, shapes::hook(host, &repository, &hook))
}

/// As GitHub greets every new webhook, whatever its events.
fn send_ping(caller: &Caller, repository: &Repository, hook: &Hook) -> Result<(), ApiError> {
    if hook.active {
        let payload = payload::ping(&caller.host, repository, hook, &caller.principal.login);
        caller.host.webhooks.queue_for(repository, hook, "ping", &payload)?;
        caller.host.webhooks.wake();
    }
    Ok(())
}

type HookPath = Path<(String, String, u64)>;
type DeliveryPath = Path<(String, String, u64, u64)>;

pub(super) async fn show(caller: Caller, Path((organization, name, id)): HookPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let hook = hook(&caller, &repository, id)?;
    json(StatusCode::OK, shapes::hook(&caller.host, &repository, &hook))
}

pub(super) async fn edit(caller: Caller, Path((organization, name, id)): HookPath, body: Bytes) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let change: HookChange = parse(&body)?;
    if let Some(config) = &change.config {
        config.check()?;
    }
    let edited = caller.host.webhooks.edit(&repository, id, |spec| apply(spec, change))?;
    let hook = edited.ok_or(ApiError::NotFound)?;
    json(StatusCode::OK, shapes::hook(&caller.host, &repository, &hook))
}

fn apply(spec: &mut HookSpec, change: HookChange) {
    if let Some(config) = change.config {
        spec.url = config.url.unwrap_or_else(|| spec.url.clone());
        spec.content_type = config.content_type.unwrap_or(spec.content_type);
        // A config without secret takes the secret away, as at GitHub.
        spec.secret = config.secret.filter(|s| !s.is_empty());
    }
    if let Some(events) = change.events {
        spec.events = events;
    }
    let removed = change.remove_events.unwrap_or_default();
    spec.events.retain(|e| !removed.contains(e));
    for added in change.add_events.unwrap_or_default() {
        if !spec.events.contains(&added) {
            spec.events.push(added);
        }
    }
    spec.active = change.active.unwrap_or(spec.active);
}

pub(super) async fn remove(caller: Caller, Path((organization, name, id)): HookPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    match caller.host.webhooks.remove(&repository, id)? {
        true => empty(StatusCode::NO_CONTENT),
        false => Err(ApiError::NotFound),
    }
}

pub(super) async fn ping(caller: Caller, Path((organization, name, id)): HookPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let hook = hook(&caller, &repository, id)?;
    send_ping(&caller, &repository, &hook)?;
    empty(StatusCode::NO_CONTENT)
}

pub(super) async fn deliveries(
    caller: Caller,
    Path((organization, name, id)): HookPath,
    Query(page): Query<Page>,
) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let hook = hook(&caller, &repository, id)?;
    let newest = caller.host.webhooks.deliveries(hook.id);
    let count = page.per_page.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
    json(StatusCode::OK, newest.iter().take(count).map(|d| shapes::delivery(&repository, d)).collect())
}

pub(super) async fn delivery(caller: Caller, Path((organization, name, id, delivery)): DeliveryPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let hook = hook(&caller, &repository, id)?;
    let delivery = find_delivery(&caller, &hook, delivery)?;
    let payload = caller.host.webhooks.payload(delivery.id)?;
    json(StatusCode::OK, shapes::delivery_detail(&repository, &delivery, &payload))
}

pub(super) async fn redeliver(caller: Caller, Path((organization, name, id, delivery)): DeliveryPath) -> Answer {
    let repository = caller.repository(&organization, &name, Access::Admin)?;
    let hook = hook(&caller, &repository, id)?;
    let delivery = find_delivery(&caller, &hook, delivery)?;
    caller.host.webhooks.redeliver(&hook, &delivery)?;
    json(StatusCode::ACCEPTED, serde_json::json!({}))
}
