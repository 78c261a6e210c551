//! From a push to a run: which pipeline, and whether its trigger wants it.

use super::webhook::{Delivery, Inbox};
use crate::{
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
        let named = repository.split('/').count() == 2 && crate::agent::git::is_revision(&repository);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pipelines, PipelinesConfig, service::webhook::hmac, store::record::RunRecord};
    use aksim_runtime::{net::azure_http_client, pki::Pki};
    use axum::http::{HeaderMap, HeaderValue};
    use bytes::Bytes;
    use std::path::Path;

    const BATCHED: &str =
        "trigger:\n  batch: true\n  branches: {include: [main, release/*]}\nsteps:\n- bash: echo built\n";

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"];
        let output =
            std::process::Command::new("git").args(identity).args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(folder: &Path, text: &str) -> String {
        std::fs::write(folder.join("azure-pipelines.yml"), BATCHED).unwrap();
        std::fs::write(folder.join("text"), text).unwrap();
        git(folder, &["add", "-A"]);
        git(folder, &["commit", "--quiet", "-m", text]);
        git(folder, &["rev-parse", "HEAD"])
    }

    /// A delivery of a push, kept as the service keeps it.
    fn push(engine: &Engine, inbox: &Inbox, folder: &Path, branch: &str, commit: &str) -> Delivery {
        let payload = serde_json::json!({"ref": format!("refs/heads/{branch}"), "before": "0".repeat(40), "after": commit,
            "repository": {"full_name": "contoso/shop", "clone_url": folder}, "head_commit": {"message": commit}});
        let body = Bytes::from(payload.to_string());
        let signature = hex::encode(hmac(engine.webhook_secret.as_bytes(), &body));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json".to_owned()),
            ("x-github-event", "push".into()),
            ("x-github-delivery", format!("{branch}-{commit}").replace('/', "-")),
            ("x-hub-signature-256", format!("sha256={signature}")),
        ] {
            headers.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        inbox.take(&engine.webhook_secret, &headers, &body).unwrap()
    }

    fn runs(engine: &Engine) -> Vec<(String, Reason)> {
        let one = |r: RunRecord| (r.request.commit, r.request.reason);
        engine.store.list().into_iter().map(one).collect()
    }

    fn end(engine: &Engine, id: u64) {
        engine.store.change(id, |run| run.state = State::Completed).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pushes_during_a_batched_run_make_one_run_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shop");
        std::fs::create_dir(&folder).unwrap();
        git(&folder, &["init", "--quiet", "--initial-branch=main", "."]);
        let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
        let http = azure_http_client(&pki, &[]).unwrap();
        // Bound and not run: a run stays as it is queued, until the test ends it.
        let pipelines = Pipelines::bind(PipelinesConfig::new(dir.path().join("state"), pki, http)).await.unwrap();
        let engine = pipelines.engine();
        let inbox = Arc::new(Inbox::open(&engine.config.state_dir).unwrap());
        let mut commits = Vec::new();
        for text in ["first", "second", "third"] {
            let commit = commit(&folder, text);
            take(engine.clone(), inbox.clone(), push(&engine, &inbox, &folder, "main", &commit)).await;
            commits.push(commit);
        }
        assert_eq!(runs(&engine), [(commits[0].clone(), Reason::IndividualCI)]);
        assert_eq!(inbox.held().len(), 2);
        // Another branch waits for nobody.
        git(&folder, &["branch", "release/1"]);
        take(engine.clone(), inbox.clone(), push(&engine, &inbox, &folder, "release/1", &commits[2])).await;
        assert_eq!(runs(&engine)[0], (commits[2].clone(), Reason::IndividualCI));
        release(&engine, &inbox);
        assert_eq!(runs(&engine).len(), 2, "nothing is released while the run before is under way");
        end(&engine, 1);
        release(&engine, &inbox);
        assert_eq!(runs(&engine)[0], (commits[2].clone(), Reason::BatchedCI));
        assert_eq!((runs(&engine).len(), inbox.waiting().len()), (3, 0));
        // One push alone that waited is no batch.
        let fourth = commit(&folder, "fourth");
        take(engine.clone(), inbox.clone(), push(&engine, &inbox, &folder, "main", &fourth)).await;
        assert_eq!((runs(&engine).len(), inbox.held().len()), (3, 1));
        end(&engine, 3);
        release(&engine, &inbox);
        assert_eq!(runs(&engine)[0], (fourth, Reason::IndividualCI));
        assert_eq!(inbox.waiting().len(), 0);
    }
}
