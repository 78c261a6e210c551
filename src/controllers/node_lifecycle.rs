//! Node lifecycle: a node that stops renewing its lease becomes `Unknown`; conditions become taints.

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    pod::node_index,
    queue::{Requeue, WorkQueue},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

const SOURCE: &str = "node-controller";
/// Namespace of the leases.
pub const LEASES: &str = "kube-node-lease";
/// Taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that says nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const CORDONED: &str = "node.kubernetes.io/unschedulable";
/// Conditions that the kubelet reports, of which nothing is known when it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that become a taint `NoSchedule` while true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// When a node was last heard of. The time is ours and does not run while the machine sleeps, so
/// that waking up is not mistaken for silence.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    told: (Option<Timestamp>, Option<Timestamp>),
    heard: Instant,
}

/// Last heartbeats by node.
pub type Heartbeats = parking_lot::Mutex<HashMap<Arc<str>, Heartbeat>>;

/// Queue of nodes, fed by the changes of them and of their leases.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.nodes.on_change(move |old, new| {
        if let Some(node) = new.or(old) {
            own.add(ObjectKey::of(node.as_ref()));
        }
    });
    let own = queue.clone();
    context.leases.on_change(move |_, new| {
        if let Some(lease) = new {
            own.add(ObjectKey::new("", lease.metadata.name.as_deref().unwrap_or_default()));
        }
    });
    queue
}

/// Looks at one node.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(node) = context.nodes.get(&key) else {
        context.heartbeats.lock().remove(&key.name);
        return Ok(None);
    };
    let lease = context.leases.get(&ObjectKey::new(LEASES, key.name.clone()));
    let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
    let silence = silence(&context.heartbeats, &key.name, (renewed, reported(&node)));
    let grace = context.config.node_monitor_grace;
    let node = if silence >= grace { declare_unknown(context, &key, node).await? } else { node };
    write_taints(context, &key, &node).await?;
    if condition(&node, "Ready").is_some_and(|c| c.status == "Unknown") {
        mark_pods_not_ready(context, &key.name).await?;
    }
    // At the grace period's end unless heard of before; nothing more to wait for once it is over.
    Ok((silence < grace).then(|| grace - silence))
}

fn reported(node: &Node) -> Option<Timestamp> {
    condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0)
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// How long nothing new was told.
fn silence(heartbeats: &Heartbeats, name: &Arc<str>, told: (Option<Timestamp>, Option<Timestamp>)) -> Duration {
    let mut heartbeats = heartbeats.lock();
    let fresh = Heartbeat { told, heard: Instant::now() };
    let known = heartbeats.entry(name.clone()).or_insert_with(|| fresh.clone());
    if known.told != told {
        *known = fresh;
    }
    known.heard.elapsed()
}

/// The conditions of a node that is silent; `None` when they say so already.
fn silent_conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let unknown: Vec<NodeCondition> = REPORTED
        .iter()
        .filter_map(|type_| {
            let current = condition(node, type_);
            if current.is_some_and(|c| c.status == "Unknown") {
                return None;
            }
            let (reason, message) = match current {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            Some(NodeCondition {
                type_: (*type_).into(),
                status: "Unknown".into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_heartbeat_time: current
                    .and_then(|c| c.last_heartbeat_time.clone())
                    .or_else(|| node.metadata.creation_timestamp.clone()),
                last_transition_time: Some(Time(now)),
            })
        })
        .collect();
    (!unknown.is_empty()).then_some(unknown)
}

async fn declare_unknown(context: &Context, key: &ObjectKey, node: Arc<Node>) -> Result<Arc<Node>, ControllerError> {
    let Some(conditions) = silent_conditions(&node, Timestamp::now()) else { return Ok(node) };
    let patch = json!({"status": {"conditions": conditions}});
    let updated = context.nodes.patch_strategic(Some("status"), key, patch).await?;
    if conditions.iter().any(|c| c.type_ == "Ready") {
        let message = format!("Node {} status is now: NodeNotReady", key.name);
        context.events.record(SOURCE, reference(node.as_ref()), EventKind::Normal, "NodeNotReady", message);
    }
    // The heartbeat times that we just copied are none.
    if let Some(heartbeat) = context.heartbeats.lock().get_mut(&key.name) {
        heartbeat.told.1 = reported(&updated);
    }
    Ok(updated)
}

/// The taints that follow from a node's conditions, with those that are others' business; `None`
/// when the node has them already.
pub fn wanted_taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let current = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let status = |type_: &str| condition(node, type_).map(|c| c.status.as_str());
    let mut ours: Vec<(&str, &str)> = Vec::new();
    match status("Ready") {
        Some("True") => {}
        Some("Unknown") => ours.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        // Nothing said yet: the kubelet is still starting.
        None => ours.push((NOT_READY, "NoSchedule")),
        Some(_) => ours.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    ours.extend(
        PRESSURES.iter().filter(|(type_, _)| status(type_) == Some("True")).map(|(_, key)| (*key, "NoSchedule")),
    );
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        ours.push((CORDONED, "NoSchedule"));
    }
    let managed = |key: &str| {
        [NOT_READY, UNREACHABLE, CORDONED].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    let mut wanted: Vec<Taint> = current.iter().filter(|t| !managed(&t.key)).cloned().collect();
    for (key, effect) in ours {
        let same = current.iter().find(|t| t.key == key && t.effect == effect).cloned();
        wanted.push(same.unwrap_or_else(|| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: Some(Time(now)),
        }));
    }
    let same = wanted.len() == current.len() && wanted.iter().all(|t| current.contains(t));
    (!same).then_some(wanted)
}

async fn write_taints(context: &Context, key: &ObjectKey, node: &Node) -> Result<(), ControllerError> {
    let Some(taints) = wanted_taints(node, Timestamp::now()) else { return Ok(()) };
    let taints = if taints.is_empty() { json!(null) } else { json!(taints) };
    let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
    context.nodes.patch(None, key, patch).await.map(|_| ())
}

/// Nobody can say that the pods of a silent node still serve.
async fn mark_pods_not_ready(context: &Context, node: &str) -> Result<(), ControllerError> {
    for pod in context.pods.indexed(&node_index(node)).into_iter().filter(|p| p.is_ready()) {
        let condition = json!({
            "type": "Ready", "status": "False", "reason": "NodeNotReady",
            "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        match context.pods.patch_strategic(Some("status"), &ObjectKey::of(pod.as_ref()), patch).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
            _ => {}
        }
        context.events.record(SOURCE, reference(pod.as_ref()), EventKind::Warning, "NodeNotReady", "Node is not ready");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: Option<&str>, spec: serde_json::Value) -> Node {
        let conditions: Vec<_> = ready.iter().map(|s| json!({"type": "Ready", "status": s})).collect();
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn taints(node: &Node) -> Option<Vec<(String, String)>> {
        let taints = wanted_taints(node, Timestamp::from_second(9).unwrap())?;
        Some(taints.into_iter().map(|t| (t.key, t.effect)).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, e)| ((*k).to_owned(), (*e).to_owned())).collect()
    }

    #[test]
    fn conditions_become_taints_and_foreign_taints_stay() {
        assert_eq!(taints(&node(Some("True"), json!({}))), None);
        let own = json!({"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}], "unschedulable": true});
        assert_eq!(
            taints(&node(Some("Unknown"), own)).unwrap(),
            pairs(&[
                ("sku", "NoSchedule"),
                (UNREACHABLE, "NoSchedule"),
                (UNREACHABLE, "NoExecute"),
                (CORDONED, "NoSchedule")
            ])
        );
        let recovered = json!({"taints": [{"key": NOT_READY, "effect": "NoExecute"}]});
        assert_eq!(taints(&node(Some("True"), recovered)).unwrap(), []);
        assert_eq!(taints(&node(None, json!({}))).unwrap(), pairs(&[(NOT_READY, "NoSchedule")]));
    }

    #[test]
    fn taints_that_are_there_keep_their_time() {
        let added =
            json!({"taints": [{"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]});
        let wanted = wanted_taints(&node(Some("Unknown"), added), Timestamp::from_second(9).unwrap()).unwrap();
        let kept = wanted.iter().find(|t| t.effect == "NoExecute").unwrap();
        assert_eq!(kept.time_added.as_ref().unwrap().0, "2026-01-01T00:00:00Z".parse().unwrap());
        let complete = node(Some("Unknown"), json!({"taints": wanted}));
        assert_eq!(taints(&complete), None);
    }

    #[test]
    fn a_silent_node_is_unknown_once() {
        let now = Timestamp::from_second(9).unwrap();
        let heard = silent_conditions(&node(Some("True"), json!({})), now).unwrap();
        assert_eq!(heard.len(), 4);
        assert_eq!(heard[0].reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(heard[1].reason.as_deref(), Some("NodeStatusNeverUpdated"));
        let mut silent = node(None, json!({}));
        silent.status.as_mut().unwrap().conditions = Some(heard);
        assert!(silent_conditions(&silent, now).is_none());
    }

    #[test]
    fn silence_ends_with_any_news() {
        let heartbeats = Heartbeats::default();
        let name: Arc<str> = "n".into();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        silence(&heartbeats, &name, (at(1), None));
        let past = Instant::now() - Duration::from_secs(100);
        heartbeats.lock().get_mut(&name).unwrap().heard = past;
        assert!(silence(&heartbeats, &name, (at(1), None)) >= Duration::from_secs(100));
        assert!(silence(&heartbeats, &name, (at(2), None)) < Duration::from_secs(100));
    }
}
