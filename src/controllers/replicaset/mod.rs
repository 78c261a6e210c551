//! ReplicaSet: keeps as many pods of a template as wanted.

pub mod plan;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    ownership::{claim_all, controlled_by, controller_key, controller_of, selector},
    pod::{Pod, orphan_index},
    queue::{Requeue, WorkQueue},
};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::PodTemplateSpec};
use kube::{
    Resource,
    api::{Api, DeleteParams, Preconditions},
    core::SelectorExt,
};
use plan::Action;
use serde_json::json;
use std::{collections::HashMap, sync::Arc};

const SOURCE: &str = "replicaset-controller";

/// Queue of ReplicaSets, fed by the changes of them and of their pods.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let sets = queue.clone();
    context.replica_sets.on_change(move |old, new| {
        if let Some(set) = new.or(old) {
            sets.add(ObjectKey::of(set.as_ref()));
        }
    });
    let (pods, replica_sets) = (queue.clone(), context.replica_sets.clone());
    context.pods.on_change(move |old, new| {
        let before = old.and_then(|p| controller_key::<ReplicaSet>(&p.metadata));
        let after = new.and_then(|p| controller_key::<ReplicaSet>(&p.metadata));
        if before != after {
            before.into_iter().for_each(|key| pods.add(key));
        }
        match (after, new) {
            (Some(key), _) => pods.add(key),
            (None, Some(pod)) if controller_of(&pod.metadata).is_none() => {
                for set in replica_sets.in_namespace(pod.namespace()) {
                    if selects(&set, pod) {
                        pods.add(ObjectKey::of(set.as_ref()));
                    }
                }
            }
            _ => {}
        }
        if let (Some(pod), None) = (old, new) {
            controller_key::<ReplicaSet>(&pod.metadata).into_iter().for_each(|key| pods.add(key));
        }
    });
    queue
}

fn selects(set: &ReplicaSet, pod: &Pod) -> bool {
    let Some(spec) = &set.spec else { return false };
    selector(&ObjectKey::of(set), &spec.selector).is_ok_and(|s| s.matches(&pod.labels()))
}

/// Brings the pods of one ReplicaSet to what its spec says, and its status to what its pods are.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(set) = context.replica_sets.get(&key) else { return Ok(None) };
    let pods = owned_pods(context, &set, &key).await?;
    let mut failure = None;
    let mut failed = None;
    if set.metadata.deletion_timestamp.is_none() {
        let wanted = usize::try_from(set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)).unwrap_or(0);
        let active = pods.iter().filter(|p| p.is_active()).cloned().collect();
        let action = plan::scale(active, wanted, &related_pods(context, &set), Timestamp::now());
        let (reason, result) = match action {
            Action::Nothing => ("", Ok(())),
            Action::Create(count) => ("FailedCreate", create_pods(context, &set, count).await),
            Action::Delete(pods) => ("FailedDelete", delete_pods(context, &set, &pods).await),
        };
        if let Err(error) = result {
            failure = Some((reason, error.server_message()));
            failed = Some(error);
        }
    }
    let uid = set.metadata.uid.clone().unwrap_or_default();
    // The store has taken what was just created and deleted.
    let pods = context.pods.indexed(&uid);
    let set = context.replica_sets.get(&key).unwrap_or(set);
    let (status, wait) = plan::status(&set, &pods, failure, Timestamp::now());
    if set.status.as_ref() != Some(&status) && set.metadata.uid.as_deref() == Some(uid.as_str()) {
        let mut updated = set.as_ref().clone();
        updated.status = Some(status);
        match context.replica_sets.replace(Some("status"), &key, &updated).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    match failed {
        Some(error) if error.is_namespace_terminating() => Ok(None),
        Some(error) => Err(error),
        None => Ok(wait),
    }
}

async fn owned_pods(context: &Context, set: &ReplicaSet, key: &ObjectKey) -> Result<Vec<Arc<Pod>>, ControllerError> {
    let Some(spec) = &set.spec else { return Ok(Vec::new()) };
    let wanted = selector(key, &spec.selector)?;
    let mut candidates = context.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
    let orphans = context.pods.indexed(&orphan_index(&key.namespace));
    candidates.extend(orphans.into_iter().filter(|p| !p.is_finished() && wanted.matches(&p.labels())));
    let live = async || {
        let api: Api<ReplicaSet> = Api::namespaced(context.client.clone(), &key.namespace);
        let found =
            api.get_metadata_opt(&key.name).await.map_err(ControllerError::api(format!("get ReplicaSet {key}")))?;
        Ok(found.and_then(|f| f.metadata.uid))
    };
    claim_all(set, live, &wanted, &context.pods, candidates).await
}

/// Active pods of the same workload (all ReplicaSets of one Deployment) by node.
fn related_pods(context: &Context, set: &ReplicaSet) -> HashMap<String, usize> {
    let mut uids: Vec<String> = match controller_of(&set.metadata) {
        Some(owner) => {
            let sets = context.replica_sets.indexed(&owner.uid);
            sets.iter().filter_map(|s| s.metadata.uid.clone()).collect()
        }
        None => Vec::new(),
    };
    if uids.is_empty() {
        uids.extend(set.metadata.uid.clone());
    }
    let mut by_node = HashMap::new();
    for pod in uids.iter().flat_map(|uid| context.pods.indexed(uid)).filter(|p| p.is_active()) {
        if let Some(node) = pod.node() {
            *by_node.entry(node.to_owned()).or_insert(0) += 1;
        }
    }
    by_node
}

/// The body of a new pod of a template, controlled by `owner`.
pub fn pod_from_template<K: Resource<DynamicType = ()>>(owner: &K, template: &PodTemplateSpec) -> serde_json::Value {
    let meta = template.metadata.clone().unwrap_or_default();
    let prefix = format!("{}-", owner.meta().name.as_deref().unwrap_or_default());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": prefix,
            "namespace": owner.meta().namespace,
            "labels": meta.labels.unwrap_or_default(),
            "annotations": meta.annotations.unwrap_or_default(),
            "finalizers": meta.finalizers.unwrap_or_default(),
            "ownerReferences": [controlled_by(owner)],
        },
        "spec": template.spec,
    })
}

async fn create_pods(context: &Context, set: &ReplicaSet, count: usize) -> Result<(), ControllerError> {
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let body = pod_from_template(set, &template);
    create_from(context, set, SOURCE, &vec![body; count]).await
}

/// Creates pods in doubling batches and records each; stops after a batch with a failure.
pub async fn create_from<K: Resource<DynamicType = ()>>(
    context: &Context,
    owner: &K,
    source: &'static str,
    bodies: &[serde_json::Value],
) -> Result<(), ControllerError> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let mut done = 0;
    for size in plan::slow_start(bodies.len()) {
        let batch = bodies[done..done + size].iter().map(|body| context.pods.create(namespace, body));
        done += size;
        let mut failed = None;
        for result in futures::future::join_all(batch).await {
            match result {
                Ok(pod) => {
                    let message = format!("Created pod: {}", pod.name());
                    context.events.record(source, reference(owner), EventKind::Normal, "SuccessfulCreate", message);
                }
                Err(error) => {
                    if !error.is_namespace_terminating() {
                        let message = format!("Error creating: {}", error.server_message());
                        context.events.record(source, reference(owner), EventKind::Warning, "FailedCreate", message);
                    }
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

async fn delete_pods(context: &Context, set: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), ControllerError> {
    delete_all(context, set, SOURCE, pods).await
}

/// Deletes pods at once and records each.
pub async fn delete_all<K: Resource<DynamicType = ()>>(
    context: &Context,
    owner: &K,
    source: &'static str,
    pods: &[Arc<Pod>],
) -> Result<(), ControllerError> {
    let deletions = pods.iter().map(async |pod| {
        let only = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let result =
            context.pods.delete(&ObjectKey::of(pod.as_ref()), &DeleteParams::default().preconditions(only)).await;
        (pod, result)
    });
    let mut failed = Ok(());
    for (pod, result) in futures::future::join_all(deletions).await {
        match result {
            Ok(()) => {
                let message = format!("Deleted pod: {}", pod.name());
                context.events.record(source, reference(owner), EventKind::Normal, "SuccessfulDelete", message);
            }
            // Another pod has the name by now: ours is gone.
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                let message = format!("Error deleting: {}", error.server_message());
                context.events.record(source, reference(owner), EventKind::Warning, "FailedDelete", message);
                failed = Err(error);
            }
        }
    }
    failed
}
