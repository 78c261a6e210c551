//! DaemonSet: one pod on every node that matches.

pub mod plan;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    history::{self, History, POD_REVISION, Subject, revision_of},
    informer::ObjectKey,
    ownership::{claim_all, pod_owners, selector, selects_all},
    pod::{Pod, orphan_index},
    queue::{Requeue, WorkQueue},
    replicaset::{create_from, delete_all, pod_from_template},
};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Node};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};
use parking_lot::Mutex;
use plan::{Plan, node_of};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

const SOURCE: &str = "daemonset-controller";
/// Annotation that counts the changes of the template, from before there were revisions.
const GENERATION: &str = "deprecated.daemonset.template.generation";
/// First delay before a failed pod is replaced; doubled with each that follows.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest delay.
const LONGEST_BACKOFF: Duration = Duration::from_secs(900);

/// When pods failed, by DaemonSet and node: the last time and the delay after it.
pub type Failures = Mutex<HashMap<(ObjectKey, String), (Instant, Duration)>>;

/// Queue of DaemonSets, fed by the changes of them, of their pods, and of what decides about nodes.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = pod_owners(&context.daemon_sets, &context.pods, |set, orphan| {
        let wanted = set.spec.as_ref().and_then(|s| selector(&ObjectKey::of(set), &s.selector).ok());
        wanted.is_some_and(|w| w.matches(&orphan.labels()))
    });
    let (own, sets) = (queue.clone(), context.daemon_sets.clone());
    context.nodes.on_change(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && same_to_daemons(old, new)
        {
            return;
        }
        sets.list().iter().for_each(|set| own.add(ObjectKey::of(set.as_ref())));
    });
    queue
}

/// Whether a change of a node is of no concern here, such as its heartbeat.
fn same_to_daemons(old: &Node, new: &Node) -> bool {
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone());
    old.metadata.labels == new.metadata.labels && old.metadata.uid == new.metadata.uid && taints(old) == taints(new)
}

/// One step of one DaemonSet; the change it makes brings the next step.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(set) = context.daemon_sets.get(&key) else {
        context.daemon_failures.lock().retain(|(set, _), _| *set != key);
        return Ok(None);
    };
    let Some(spec) = &set.spec else { return Ok(None) };
    if selects_all(&spec.selector) {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        context.events.record(SOURCE, reference(set.as_ref()), EventKind::Warning, "SelectingAll", message);
        return Ok(None);
    }
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let wanted = selector(&key, &spec.selector)?;
    let subject = Subject {
        owner: set.as_ref(),
        template: &spec.template,
        selector: &wanted,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
        hash_label: POD_REVISION,
    };
    let history = match subject.record(context, async || history::live_uid::<DaemonSet>(context, &key).await).await {
        Err(error) if error.is_namespace_terminating() => return Ok(None),
        other => other?,
    };
    let hash = history.newest.labels().get(POD_REVISION).cloned().unwrap_or_default();
    let pods = owned_pods(context, &set, &key, &wanted).await?;
    let nodes = context.nodes.list();
    let now = Timestamp::now();
    let mut done = apply(context, &set, &hash, plan::manage(&set, &nodes, &pods, &hash, now)).await;
    if done.is_ok() {
        // The store has taken what was just created and deleted.
        let pods = context.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
        let wait = done.unwrap_or(None);
        let step = plan::roll(&set, &nodes, &pods, &hash, now);
        done = apply(context, &set, &hash, step).await.map(|_| wait);
    }
    let requeue = write_status(context, &key, &set, &nodes, &history, &hash).await?;
    match done {
        Err(error) if error.is_namespace_terminating() => Ok(None),
        Err(error) => Err(error),
        Ok(wait) => Ok([wait, requeue].into_iter().flatten().min()),
    }
}

async fn owned_pods(
    context: &Context,
    set: &DaemonSet,
    key: &ObjectKey,
    wanted: &Selector,
) -> Result<Vec<Arc<Pod>>, ControllerError> {
    let mut candidates = context.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
    let orphans = context.pods.indexed(&orphan_index(&key.namespace));
    candidates.extend(orphans.into_iter().filter(|p| wanted.matches(&p.labels())));
    let live = async || history::live_uid::<DaemonSet>(context, key).await;
    claim_all(set, live, wanted, &context.pods, candidates).await
}

async fn apply(context: &Context, set: &DaemonSet, hash: &str, plan: Plan) -> Result<Requeue, ControllerError> {
    let mut delete = plan.delete;
    let mut wait: Requeue = None;
    for pod in plan.ended {
        let left = backoff(context, set, &pod);
        if left.is_zero() {
            let (name, node) = (pod.name(), node_of(&pod).unwrap_or_default());
            let (kind, why, how) = match pod.phase() {
                "Failed" => (EventKind::Warning, "FailedDaemonPod", "failed"),
                _ => (EventKind::Normal, "SucceededDaemonPod", "succeeded"),
            };
            let message =
                format!("Found {how} daemon pod {}/{name} on node {node}, will try to delete it", pod.namespace());
            context.events.record(SOURCE, reference(set), kind, why, message);
            delete.push(pod);
        } else {
            wait = Some(wait.map_or(left, |w| w.min(left)));
        }
    }
    let bodies: Vec<Value> = plan.create.iter().map(|node| pod_body(set, hash, node)).collect();
    let created = create_from(context, set, SOURCE, &bodies).await;
    delete_all(context, set, SOURCE, &delete).await?;
    created.map(|()| wait)
}

/// How long until a pod that has failed again on its node is replaced; a zero starts the next delay.
fn backoff(context: &Context, set: &DaemonSet, pod: &Pod) -> Duration {
    if pod.phase() != "Failed" {
        return Duration::ZERO;
    }
    let now = Instant::now();
    let mut failures = context.daemon_failures.lock();
    let key = (ObjectKey::of(set), node_of(pod).unwrap_or_default().to_owned());
    let (last, delay) = failures.get(&key).copied().unwrap_or((now, Duration::ZERO));
    let left = delay.saturating_sub(now - last);
    if left.is_zero() {
        // Quiet for twice the longest delay: it starts anew.
        let quiet = now - last > 2 * LONGEST_BACKOFF;
        let next = if delay.is_zero() || quiet { FIRST_BACKOFF } else { (2 * delay).min(LONGEST_BACKOFF) };
        failures.insert(key, (now, next));
    }
    left
}

/// The body of a pod for a node: the scheduler binds it, but to no other.
fn pod_body(set: &DaemonSet, hash: &str, node: &str) -> Value {
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut body = pod_from_template(set, &template);
    body["metadata"]["labels"][POD_REVISION] = json!(hash);
    if let Some(generation) = set.annotations().get(GENERATION) {
        body["metadata"]["labels"]["pod-template-generation"] = json!(generation);
    }
    body["spec"]["tolerations"] = json!(plan::tolerations(set));
    let name = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    if !body["spec"]["affinity"].is_object() {
        body["spec"]["affinity"] = json!({});
    }
    if !body["spec"]["affinity"]["nodeAffinity"].is_object() {
        body["spec"]["affinity"]["nodeAffinity"] = json!({});
    }
    body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [{"matchFields": [name]}]});
    body
}

async fn write_status(
    context: &Context,
    key: &ObjectKey,
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    history: &History,
    hash: &str,
) -> Result<Requeue, ControllerError> {
    let pods = context.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
    let (status, wait) = plan::status(set, nodes, &pods, hash, history.collisions, Timestamp::now());
    if set.status.as_ref() != Some(&status) {
        let mut updated = set.clone();
        updated.status = Some(status);
        match context.daemon_sets.replace(Some("status"), key, &updated).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
    }
    let hashes: HashSet<&str> = pods.iter().map(|p| revision_of(p)).chain([hash]).collect();
    let used = history.all.iter().filter(|r| r.labels().get(POD_REVISION).is_some_and(|h| hashes.contains(h.as_str())));
    let live: HashSet<String> = used.map(|r| r.name_any()).collect();
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
    history::truncate(context, &history.all, &live, limit).await?;
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_for_one_node_and_lives_with_its_troubles() {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "agent", "uid": "u", "annotations": {GENERATION: "3"}},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {
                "containers": [{"name": "c"}], "affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "pool", "operator": "Exists"}]}]}}}}}},
        }))
        .unwrap();
        let body = pod_body(&set, "abc", "n1");
        let pod: Pod = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(node_of(&pod), Some("n1"));
        assert_eq!(pod.spec.tolerations.len(), 6);
        let labels = json!({"app": "agent", POD_REVISION: "abc", "pod-template-generation": "3"});
        assert_eq!(body["metadata"]["labels"], labels);
        let terms = &body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(terms["nodeSelectorTerms"].as_array().unwrap().len(), 1);
        assert!(terms["nodeSelectorTerms"][0]["matchExpressions"].is_null());
    }
}
