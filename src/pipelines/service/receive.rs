//! From a push to a run: which pipeline, and whether its trigger wants it.

use super::webhook::{Delivery, Inbox};
use crate::pipelines::{
    agent::git::{Mirrors, Snapshot},
    engine::Engine,
    plan::Plan,
    run,
    store::record::{Reason, RunRequest, State, branch_name},
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// A commit hash of zeros: a branch that was made or removed.
fn is_null(hash: &str) -> bool {
    hash.is_empty() || hash.bytes().all(|b| b == b'0')
}

/// Decides about a delivery; it is done with when its run is queued, or there is none.
pub async fn take(engine: Arc<Engine>, inbox: Arc<Inbox>, delivery: Delivery) {
    let done = match delivery.event.as_str() {
        "push" => push(&engine, &delivery).await,
        _ => true,
    };
    match done {
        true => inbox.done(&delivery.id),
        false => {
            inbox.hold(&delivery.id);
            // The run before it may have ended meanwhile.
            release(&engine, &inbox);
        }
    }
}

/// Whether the delivery is done with: a batched one waits for the run before it.
async fn push(engine: &Arc<Engine>, delivery: &Delivery) -> bool {
    let Some(push) = Push::read(engine, &delivery.payload) else {
        tracing::info!(delivery = delivery.id, "a push that builds nothing");
        return true;
    };
    let mirrors = Mirrors::new(engine.config.state_dir.join("mirrors"), engine.config.git.clone());
    let fetched = mirrors.fetch(&push.request.clone_url, &push.request.reference).await;
    let mut snapshot = match fetched {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!(%error, repository = push.request.repository, "a pushed commit cannot be fetched");
            return true;
        }
    };
    // A newer push may have moved the branch; this delivery is about its own commit.
    snapshot.commit.clone_from(&push.request.commit);
    if snapshot.read_file(&push.request.file).is_err() {
        tracing::info!(
            repository = push.request.repository,
            file = push.request.file,
            "no pipeline at the pushed commit"
        );
        return true;
    }
    let plan = match run::plan_of(engine, &push.request).await {
        Ok(plan) => plan,
        // A run that fails says what is wrong where the author looks.
        Err(_) => return queued(engine, push.request),
    };
    if !wanted(&plan, &push, &snapshot).await {
        tracing::info!(repository = push.request.repository, reference = push.request.reference, "not triggered");
        return true;
    }
    if plan.trigger.batch && busy(engine, &push.request) {
        return false;
    }
    queued(engine, push.request)
}

fn queued(engine: &Arc<Engine>, request: RunRequest) -> bool {
    if let Err(error) = engine.queue_unchecked(request) {
        tracing::error!(%error, "a triggered run could not be queued");
    }
    true
}

async fn wanted(plan: &Plan, push: &Push, snapshot: &Snapshot) -> bool {
    if plan.trigger.none || push.skip_ci() {
        return false;
    }
    let changed = match snapshot.changed_since(push.before.as_deref()).await {
        Ok(changed) => changed,
        Err(error) => {
            tracing::warn!(%error, "changed paths are not known; the trigger's paths are not asked");
            Vec::new()
        }
    };
    plan.trigger.matches(&push.request.reference, &changed)
}

fn busy(engine: &Engine, request: &RunRequest) -> bool {
    let same = |r: &RunRequest| r.pipeline == request.pipeline && r.reference == request.reference;
    engine.store.list().iter().any(|r| r.state != State::Completed && same(&r.request))
}

/// After a run of a batched pipeline: of each branch the newest push that waited is run, the others with it.
pub fn release(engine: &Arc<Engine>, inbox: &Inbox) {
    // Two ends at the same moment release it once.
    let _turn = inbox.turn();
    let mut branches: BTreeMap<(String, String), Vec<(Delivery, RunRequest)>> = BTreeMap::new();
    for delivery in inbox.held() {
        let Some(push) = Push::read(engine, &delivery.payload) else { continue };
        let branch = (push.request.pipeline.clone(), push.request.reference.clone());
        branches.entry(branch).or_default().push((delivery, push.request));
    }
    for waiting in branches.into_values() {
        let Some((_, newest)) = waiting.last().cloned().filter(|(_, newest)| !busy(engine, newest)) else { continue };
        let reason = if waiting.len() > 1 { Reason::BatchedCI } else { newest.reason };
        if queued(engine, RunRequest { reason, ..newest }) {
            waiting.iter().for_each(|(delivery, _)| inbox.done(&delivery.id));
        }
    }
}

/// A push event.
struct Push {
    request: RunRequest,
    before: Option<String>,
}

impl Push {
    fn read(engine: &Engine, payload: &Value) -> Option<Self> {
        let text = |pointer: &str| payload.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (reference, commit) = (text("/ref"), text("/after"));
        let deleted = payload.get("deleted").and_then(Value::as_bool).unwrap_or(false);
        if deleted || is_null(&commit) || !(reference.starts_with("refs/heads/") || reference.starts_with("refs/tags/"))
        {
            return None;
        }
        let repository = text("/repository/full_name");
        // Where the host is configured its word counts, not the payload's.
        let clone_url = match &engine.config.git {
            Some(host) => format!("{}/{repository}", host.url),
            None => text("/repository/clone_url"),
        };
        let hash = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        let named = repository.split('/').count() == 2 && crate::pipelines::agent::git::is_revision(&repository);
        if !hash || !named || clone_url.is_empty() {
            return None;
        }
        let message = text("/head_commit/message");
        let who = [text("/pusher/name"), text("/sender/login"), text("/head_commit/author/name")];
        let before = text("/before");
        let request = RunRequest {
            pipeline: repository.rsplit('/').next().unwrap_or(&repository).to_owned(),
            repository,
            clone_url,
            reference,
            commit,
            message: message.lines().next().unwrap_or_default().to_owned(),
            reason: Reason::IndividualCI,
            requested_for: who.into_iter().find(|w| !w.is_empty()).unwrap_or_default(),
            file: engine.config.file.clone(),
            parameters: Default::default(),
            variables: Default::default(),
            stages_to_skip: Vec::new(),
            skip_unsupported: false,
        };
        Some(Self { request, before: (!is_null(&before)).then_some(before) })
    }

    /// `[skip ci]` and its spellings, which Azure documents, in the commit's message.
    fn skip_ci(&self) -> bool {
        let message = self.request.message.to_lowercase();
        let spellings = [
            "[skip ci]",
            "[ci skip]",
            "skip-checks: true",
            "skip-checks:true",
            "[skip azurepipelines]",
            "[azurepipelines skip]",
            "[skip azpipelines]",
            "[azpipelines skip]",
            "[skip azp]",
            "[azp skip]",
            "***no_ci***",
        ];
        let branch = branch_name(&self.request.reference);
        !branch.is_empty() && spellings.iter().any(|s| message.contains(s))
    }
}
