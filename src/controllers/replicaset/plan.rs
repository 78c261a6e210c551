//! What a ReplicaSet does next, from its spec and its pods alone.

use crate::pod::{DELETION_COST, Pod};
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use std::{cmp::Ordering, collections::HashMap, sync::Arc, time::Duration};

/// Most pods created or deleted in one reconciliation.
pub const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Clone, Debug)]
pub enum Action {
    /// As many as wanted.
    Nothing,
    /// Create this many.
    Create(usize),
    /// Delete these.
    Delete(Vec<Arc<Pod>>),
}

/// Compares what is wanted with the active pods. `related` counts the active pods of the same
/// workload on each node, so that doubled-up ones go first.
pub fn scale(active: Vec<Arc<Pod>>, wanted: usize, related: &HashMap<String, usize>, now: Timestamp) -> Action {
    match active.len().cmp(&wanted) {
        Ordering::Equal => Action::Nothing,
        Ordering::Less => Action::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(BURST);
            let mut ranked = active;
            ranked.sort_by(|a, b| deletion_order(a, b, related, now));
            ranked.truncate(surplus);
            Action::Delete(ranked)
        }
    }
}

/// Sizes of the batches in which pods are created, so that one that cannot be created does not
/// cost a request for each of a thousand.
pub fn slow_start(count: usize) -> Vec<usize> {
    let (mut left, mut next, mut batches) = (count, 1, Vec::new());
    while left > 0 {
        let size = next.min(left);
        batches.push(size);
        left -= size;
        next = size * 2;
    }
    batches
}

/// Whether `a` is deleted before `b` (`Less`) when there are too many.
pub fn deletion_order(a: &Pod, b: &Pod, related: &HashMap<String, usize>, now: Timestamp) -> Ordering {
    let phase = |p: &Pod| match p.phase() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |p: &Pod| p.annotation(DELETION_COST).and_then(|c| c.parse::<i32>().ok()).unwrap_or(0);
    let doubled = |p: &Pod| p.node().and_then(|n| related.get(n)).copied().unwrap_or(0);
    a.node()
        .is_some()
        .cmp(&b.node().is_some())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| doubled(b).cmp(&doubled(a)))
        .then_with(|| younger_first(a.ready_since(), b.ready_since(), now))
        .then_with(|| b.restarts().cmp(&a.restarts()))
        .then_with(|| younger_first(a.created(), b.created(), now))
        .then_with(|| a.uid().cmp(b.uid()))
}

/// The younger first; ages count on a logarithmic scale, an unknown one is the youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let rank = |t: Option<Timestamp>| {
        t.map_or(-1, |t| now.duration_since(t).as_secs().max(0).checked_ilog2().map_or(0, |log| i64::from(log) + 1))
    };
    rank(a).cmp(&rank(b))
}

/// The status of a ReplicaSet and, when a pod becomes available only by waiting, for how long.
pub fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<(&'static str, String)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|p| p.is_active()).collect();
    let labelled = |p: &Pod| template_labels.iter().all(|(k, v)| p.labels().get(k) == Some(v));
    let count = |holds: &dyn Fn(&Pod) -> bool| to_i32(active.iter().filter(|p| holds(p)).count());
    let (ready, available) = (count(&Pod::is_ready), count(&|p| p.is_available(min_ready, now)));
    let wait = active.iter().filter_map(|p| available_in(p, min_ready, now)).min();
    let before = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: to_i32(active.len()),
        fully_labeled_replicas: Some(count(&labelled)),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        terminating_replicas: Some(to_i32(pods.iter().filter(|p| p.is_terminating() && !p.is_finished()).count())),
        observed_generation: set.metadata.generation,
        conditions: conditions(before.conditions.unwrap_or_default(), failure, now),
    };
    (status, wait)
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// How long until a ready pod counts as available.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if !pod.is_ready() || pod.is_available(min_ready_seconds, now) {
        return None;
    }
    let due = pod.ready_since()? + jiff::SignedDuration::from_secs(i64::from(min_ready_seconds));
    Some(Duration::try_from(due.duration_since(now)).unwrap_or_default() + Duration::from_millis(1))
}

fn conditions(
    before: Vec<ReplicaSetCondition>,
    failure: Option<(&'static str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let (old, mut kept): (Vec<_>, Vec<_>) = before.into_iter().partition(|c| c.type_ == "ReplicaFailure");
    if let Some((reason, message)) = failure {
        let same = old.into_iter().find(|c| c.status == "True" && c.reason.as_deref() == Some(reason));
        kept.push(same.unwrap_or(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }));
    }
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-06-01T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn pod(name: &str, node: &str, phase: &str, ready_since: Option<&str>, more: Value) -> Arc<Pod> {
        let mut conditions = vec![];
        if let Some(since) = ready_since {
            conditions.push(json!({"type": "Ready", "status": "True", "lastTransitionTime": since}));
        }
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-06-01T10:00:00Z"},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": conditions},
        });
        json_patch::merge(&mut value, &more);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn names(action: Action) -> Vec<String> {
        match action {
            Action::Delete(pods) => pods.iter().map(|p| p.name().to_owned()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let old = Some("2026-06-01T10:00:00Z");
        let pods = vec![
            pod("best", "a", "Running", old, json!({})),
            pod("restarted", "a", "Running", old, json!({"status": {"containerStatuses": [{"restartCount": 3}]}})),
            pod("fresh", "a", "Running", Some("2026-06-01T11:59:00Z"), json!({})),
            pod("doubled", "b", "Running", old, json!({})),
            pod("cheap", "a", "Running", old, json!({"metadata": {"annotations": {DELETION_COST: "-5"}}})),
            pod("unready", "a", "Running", None, json!({})),
            pod("pending", "a", "Pending", None, json!({})),
            pod("unassigned", "", "Pending", None, json!({})),
        ];
        let related = HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        let order = names(scale(pods, 0, &related, now()));
        assert_eq!(order, ["unassigned", "pending", "unready", "cheap", "doubled", "fresh", "restarted", "best"]);
    }

    #[test]
    fn creates_what_is_missing_up_to_the_burst() {
        assert!(matches!(scale(vec![], 3, &HashMap::new(), now()), Action::Create(3)));
        assert!(matches!(scale(vec![], 5000, &HashMap::new(), now()), Action::Create(BURST)));
        assert!(matches!(scale(vec![], 0, &HashMap::new(), now()), Action::Nothing));
    }

    #[test]
    fn batches_double() {
        assert_eq!(slow_start(10), [1, 2, 4, 3]);
        assert_eq!(slow_start(1), [1]);
        assert!(slow_start(0).is_empty());
    }

    #[test]
    fn counts_ready_available_and_terminating() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 4},
            "spec": {"replicas": 3, "minReadySeconds": 60, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}}},
        }))
        .unwrap();
        let labels = json!({"metadata": {"labels": {"app": "web"}}});
        let pods = vec![
            pod("available", "a", "Running", Some("2026-06-01T11:00:00Z"), labels.clone()),
            pod("ready", "a", "Running", Some("2026-06-01T11:59:30Z"), labels),
            pod("plain", "a", "Pending", None, json!({})),
            pod("failed", "a", "Failed", None, json!({})),
            pod("leaving", "a", "Running", None, json!({"metadata": {"deletionTimestamp": NOW}})),
        ];
        let (status, wait) = status(&set, &pods, None, now());
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas, status.fully_labeled_replicas),
            (3, Some(2), Some(1), Some(2))
        );
        assert_eq!((status.terminating_replicas, status.observed_generation), (Some(1), Some(4)));
        assert_eq!(wait.unwrap().as_secs(), 30);
    }
}
