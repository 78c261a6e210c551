//! Pod garbage collection: pods of nodes that are gone, and ended pods beyond a number.

use super::{
    Context,
    error::ControllerError,
    informer::ObjectKey,
    pod::{Pod, node_index},
    queue::{Requeue, WorkQueue},
};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time};
use kube::api::{Api, DeleteParams, Preconditions};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How often ended pods are counted while pods end.
const COUNT_EVERY: Duration = Duration::from_secs(20);

/// Queue of pods, fed by nodes that go and pods that end. The empty key counts ended pods.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let (own, nodes, quarantine) = (queue.clone(), context.nodes.clone(), context.config.pod_gc_quarantine);
    context.pods.on_change(move |old, new| {
        let Some(pod) = new else { return };
        if pod.is_finished() && !old.is_some_and(|p| p.is_finished()) {
            own.add_after(ObjectKey::new("", ""), COUNT_EVERY);
        }
        if pod.node().is_some_and(|n| nodes.get(&ObjectKey::new("", n)).is_none()) {
            // The node may only be unknown yet.
            own.add_after(ObjectKey::of(pod.as_ref()), quarantine);
        }
    });
    let (own, pods) = (queue.clone(), context.pods.clone());
    context.nodes.on_change(move |old, new| {
        if let (Some(node), None) = (old, new) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            pods.indexed(&node_index(name)).iter().for_each(|p| own.add_after(ObjectKey::of(p.as_ref()), quarantine));
        }
    });
    queue
}

/// Looks at one pod, or counts the ended ones.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    if key.name.is_empty() {
        for pod in surplus(context.pods.list(), context.config.terminated_pod_threshold) {
            remove(context, &pod).await?;
        }
        return Ok(None);
    }
    let Some(pod) = context.pods.get(&key) else { return Ok(None) };
    let Some(node) = pod.node() else { return Ok(None) };
    if context.nodes.get(&ObjectKey::new("", node)).is_some() {
        return Ok(None);
    }
    let live = Api::<Node>::all(context.client.clone()).get_metadata_opt(node).await;
    if live.map_err(ControllerError::api(format!("get Node {node}")))?.is_some() {
        return Ok(None);
    }
    if !pod.is_finished() {
        let why = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": "Failed", "conditions": [why]}});
        match context.pods.patch_strategic(Some("status"), &key, patch).await {
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(None),
            other => other?,
        };
    }
    remove(context, &pod).await?;
    Ok(None)
}

/// Nobody is left to end the pod gracefully.
async fn remove(context: &Context, pod: &Pod) -> Result<(), ControllerError> {
    let only = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams::default().grace_period(0).preconditions(only);
    match context.pods.delete(&ObjectKey::of(pod), &params).await {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// The oldest ended pods beyond `threshold`.
fn surplus(pods: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    let mut ended: Vec<Arc<Pod>> = pods.into_iter().filter(|p| p.is_finished() && !p.is_terminating()).collect();
    let count = ended.len().saturating_sub(threshold);
    ended.sort_by_key(|p| p.created());
    ended.truncate(count);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_pods_go() {
        let pod = |name: &str, phase: &str, hour: u8| -> Arc<Pod> {
            let created = format!("2026-01-01T{hour:02}:00:00Z");
            let value = json!({"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": phase}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let pods = vec![
            pod("new", "Succeeded", 9),
            pod("old", "Failed", 1),
            pod("older", "Succeeded", 0),
            pod("running", "Running", 0),
        ];
        let names: Vec<_> = surplus(pods.clone(), 1).iter().map(|p| p.name().to_owned()).collect();
        assert_eq!(names, ["older", "old"]);
        assert!(surplus(pods, 3).is_empty());
    }
}
