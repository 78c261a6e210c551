//! Taint-based eviction: deletes the pods of a node with a `NoExecute` taint that they do not
//! tolerate, or no longer tolerate.

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    pod::{Pod, node_index},
    queue::{Requeue, WorkQueue},
    scheduler::filter::tolerates,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;
use std::{collections::HashMap, sync::Arc, time::Duration};

const SOURCE: &str = "taint-eviction-controller";

/// When taints without a date of their own (`kubectl taint`) were first seen, by node and key.
pub type FirstSeen = parking_lot::Mutex<HashMap<(String, String), Timestamp>>;

/// Queue of pods, fed by the changes of them and of the taints of their nodes.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.pods.on_change(move |old, new| {
        let node = |p: Option<&Arc<Pod>>| p.and_then(|p| p.node().map(str::to_owned));
        let tolerations = |p: Option<&Arc<Pod>>| p.map(|p| p.spec.tolerations.clone());
        if let Some(pod) = new.filter(|p| p.node().is_some())
            && (node(old) != node(new) || tolerations(old) != tolerations(new))
        {
            own.add(ObjectKey::of(pod.as_ref()));
        }
    });
    let (own, pods) = (queue.clone(), context.pods.clone());
    context.nodes.on_change(move |old, new| {
        let Some(node) = new else { return };
        if old.map(|o| no_execute(o)) != Some(no_execute(node)) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            pods.indexed(&node_index(name)).iter().for_each(|p| own.add(ObjectKey::of(p.as_ref())));
        }
    });
    queue
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    taints.into_iter().filter(|t| t.effect == "NoExecute").collect()
}

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stays,
    /// It goes when this much time has passed; zero is now.
    Goes(Duration),
}

/// Decides about a pod from its node's `NoExecute` taints, each with the date it was put on.
pub fn fate(taints: &[(Taint, Timestamp)], tolerations: &[Toleration], now: Timestamp) -> Fate {
    let mut due: Option<Timestamp> = None;
    for (taint, added) in taints {
        let using: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if using.is_empty() {
            return Fate::Goes(Duration::ZERO);
        }
        if let Some(seconds) = using.iter().filter_map(|t| t.toleration_seconds).min() {
            let ends = added.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
            due = Some(due.map_or(ends, |d| d.min(ends)));
        }
    }
    match due {
        None => Fate::Stays,
        Some(due) => Fate::Goes(Duration::try_from(due.duration_since(now)).unwrap_or_default()),
    }
}

/// Looks at one pod.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(pod) = context.pods.get(&key).filter(|p| p.is_active()) else { return Ok(None) };
    let Some(name) = pod.node() else { return Ok(None) };
    let Some(node) = context.nodes.get(&ObjectKey::new("", name)) else { return Ok(None) };
    let now = Timestamp::now();
    let taints = dated(&context.first_seen, name, no_execute(&node), now);
    match fate(&taints, &pod.spec.tolerations, now) {
        Fate::Stays => Ok(None),
        Fate::Goes(wait) if !wait.is_zero() => Ok(Some(wait)),
        Fate::Goes(_) => evict(context, &key, &pod).await,
    }
}

fn dated(seen: &FirstSeen, node: &str, taints: Vec<Taint>, now: Timestamp) -> Vec<(Taint, Timestamp)> {
    let mut seen = seen.lock();
    // Taints taken off and put on again start anew.
    seen.retain(|(n, key), _| n != node || taints.iter().any(|t| t.key == *key));
    taints
        .into_iter()
        .map(|taint| {
            let told = taint.time_added.as_ref().map(|t| t.0);
            let date = told.unwrap_or_else(|| *seen.entry((node.to_owned(), taint.key.clone())).or_insert(now));
            (taint, date)
        })
        .collect()
}

async fn evict(context: &Context, key: &ObjectKey, pod: &Pod) -> Result<Requeue, ControllerError> {
    let message = format!("Marking for deletion Pod {key}");
    context.events.record(SOURCE, reference(pod), EventKind::Normal, "TaintManagerEviction", message);
    let why = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(Timestamp::now()),
    });
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [why]}});
    match context.pods.patch_strategic(Some("status"), key, patch).await {
        Err(error) if error.is_not_found() || error.is_conflict() => return Ok(None),
        other => other?,
    };
    let only = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    match context.pods.delete(key, &DeleteParams::default().preconditions(only)).await {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn taint(key: &str) -> (Taint, Timestamp) {
        (Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() }, at(100))
    }

    fn tolerates_for(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    #[test]
    fn pods_go_when_their_tolerance_ends() {
        assert_eq!(fate(&[], &[], at(0)), Fate::Stays);
        assert_eq!(fate(&[taint("a")], &[], at(100)), Fate::Goes(Duration::ZERO));
        assert_eq!(fate(&[taint("a")], &[tolerates_for("a", None)], at(900)), Fate::Stays);
        let patient = [tolerates_for("a", Some(300)), tolerates_for("b", Some(30))];
        assert_eq!(fate(&[taint("a")], &patient, at(150)), Fate::Goes(Duration::from_secs(250)));
        assert_eq!(fate(&[taint("a"), taint("b")], &patient, at(110)), Fate::Goes(Duration::from_secs(20)));
        assert_eq!(fate(&[taint("a")], &patient, at(500)), Fate::Goes(Duration::ZERO));
        assert_eq!(fate(&[taint("a"), taint("c")], &patient, at(100)), Fate::Goes(Duration::ZERO));
    }

    #[test]
    fn undated_taints_count_from_when_they_were_seen() {
        let seen = FirstSeen::default();
        let plain = || vec![taint("a").0];
        assert_eq!(dated(&seen, "n", plain(), at(5))[0].1, at(5));
        assert_eq!(dated(&seen, "n", plain(), at(9))[0].1, at(5));
        dated(&seen, "n", vec![], at(10));
        assert_eq!(dated(&seen, "n", plain(), at(11))[0].1, at(11));
    }
}
