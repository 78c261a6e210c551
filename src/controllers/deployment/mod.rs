//! Deployment: rolls a template out over ReplicaSets.

pub mod plan;
pub mod revision;
pub mod status;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    ownership::{claim_all, controller_key, controller_of, selector, selects_all},
    queue::{Requeue, WorkQueue},
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::{
    api::{Api, DeleteParams, Preconditions},
    core::SelectorExt,
};
use plan::Scale;
use serde_json::json;
use std::sync::Arc;

const SOURCE: &str = "deployment-controller";

/// Queue of Deployments, fed by the changes of them, of their ReplicaSets, and by pods that end.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.deployments.on_change(move |old, new| {
        if let Some(deployment) = new.or(old) {
            own.add(ObjectKey::of(deployment.as_ref()));
        }
    });
    let (sets, deployments) = (queue.clone(), context.deployments.clone());
    context.replica_sets.on_change(move |old, new| {
        let before = old.and_then(|s| controller_key::<Deployment>(&s.metadata));
        let after = new.and_then(|s| controller_key::<Deployment>(&s.metadata));
        if before.is_some() || after.is_some() {
            before.into_iter().chain(after).for_each(|key| sets.add(key));
        } else if let Some(set) = new.filter(|s| controller_of(&s.metadata).is_none()) {
            let labels = set.metadata.labels.clone().unwrap_or_default();
            for deployment in deployments.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default()) {
                let key = ObjectKey::of(deployment.as_ref());
                let wanted = deployment.spec.as_ref().and_then(|s| selector(&key, &s.selector).ok());
                if wanted.is_some_and(|w| w.matches(&labels)) {
                    sets.add(key);
                }
            }
        }
    });
    let (pods, replica_sets) = (queue.clone(), context.replica_sets.clone());
    context.pods.on_change(move |old, new| {
        // Strategy Recreate waits for the last pod to be gone.
        if let (Some(pod), None) = (old, new) {
            let set = controller_key::<ReplicaSet>(&pod.metadata).and_then(|key| replica_sets.get(&key));
            let owner = set.and_then(|s| controller_key::<Deployment>(&s.metadata));
            owner.into_iter().for_each(|key| pods.add(key));
        }
    });
    queue
}

/// The ReplicaSets of a Deployment.
struct Sets {
    /// All but the newest.
    old: Vec<Arc<ReplicaSet>>,
    /// The one with the current template.
    newest: Option<Arc<ReplicaSet>>,
}

impl Sets {
    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.newest).cloned().collect()
    }
}

/// One step of one Deployment; the change it makes brings the next step.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(deployment) = context.deployments.get(&key) else { return Ok(None) };
    let Some(spec) = &deployment.spec else { return Ok(None) };
    if selects_all(&spec.selector) {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        context.events.record(SOURCE, reference(deployment.as_ref()), EventKind::Warning, "SelectingAll", message);
        return Ok(None);
    }
    let owned = owned_sets(context, &deployment, &key).await?;
    let mut sets = split(&deployment, owned);
    if deployment.metadata.deletion_timestamp.is_some() {
        let status = status::calculate(&deployment, &sets.all(), sets.newest.as_ref(), Timestamp::now());
        return write_status(context, &deployment, status).await;
    }
    let deployment = mark_paused(context, deployment).await?;
    let paused = deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
    if paused || was_scaled(&deployment, &sets) {
        refresh_newest(context, &deployment, &mut sets).await?;
        let scales = plan::scale(&deployment, sets.newest.as_ref(), &sets.old);
        apply(context, &deployment, &sets, scales).await?;
        refresh_annotations(context, &deployment, &sets).await?;
        if paused {
            cleanup(context, &deployment, &sets).await?;
        }
        let sets = reread(context, &deployment);
        let status = status::calculate(&deployment, &sets.all(), sets.newest.as_ref(), Timestamp::now());
        return write_status(context, &deployment, status).await;
    }
    if plan::is_rolling(&deployment) {
        roll(context, deployment, sets).await
    } else {
        recreate(context, deployment, sets).await
    }
}

async fn owned_sets(
    context: &Context,
    deployment: &Arc<Deployment>,
    key: &ObjectKey,
) -> Result<Vec<Arc<ReplicaSet>>, ControllerError> {
    let Some(spec) = &deployment.spec else { return Ok(Vec::new()) };
    let wanted = selector(key, &spec.selector)?;
    let live = async || {
        let api: Api<Deployment> = Api::namespaced(context.client.clone(), &key.namespace);
        let found =
            api.get_metadata_opt(&key.name).await.map_err(ControllerError::api(format!("get Deployment {key}")))?;
        Ok(found.and_then(|f| f.metadata.uid))
    };
    let candidates = context.replica_sets.in_namespace(&key.namespace);
    claim_all(deployment.as_ref(), live, &wanted, &context.replica_sets, candidates).await
}

fn split(deployment: &Deployment, owned: Vec<Arc<ReplicaSet>>) -> Sets {
    let newest = revision::find_new(deployment, &owned).cloned();
    let uid = newest.as_ref().and_then(|s| s.metadata.uid.clone());
    Sets { old: owned.into_iter().filter(|s| s.metadata.uid != uid).collect(), newest }
}

/// The ReplicaSets as the store has them after our own writes.
fn reread(context: &Context, deployment: &Deployment) -> Sets {
    split(deployment, context.replica_sets.indexed(deployment.metadata.uid.as_deref().unwrap_or_default()))
}

/// Whether the replicas were changed since the ReplicaSets were last scaled.
fn was_scaled(deployment: &Deployment, sets: &Sets) -> bool {
    let wanted = plan::desired(deployment);
    let active = sets.old.iter().chain(&sets.newest).filter(|s| plan::replicas(s) > 0);
    active.filter_map(|s| plan::annotation(s, plan::DESIRED_ANNOTATION)).any(|told| told != wanted)
}

async fn roll(context: &Context, deployment: Arc<Deployment>, mut sets: Sets) -> Result<Requeue, ControllerError> {
    let deployment = ensure_newest(context, deployment, &mut sets).await?;
    let Some(newest) = sets.newest.clone() else { return Ok(None) };
    let name = newest.metadata.name.clone().unwrap_or_default();
    let scales = match plan::reconcile_new(&deployment, &sets.all(), &newest) {
        Some(replicas) => vec![Scale { name, replicas }],
        None => plan::reconcile_old(&deployment, &sets.old, &newest),
    };
    let settled = scales.is_empty();
    apply(context, &deployment, &sets, scales).await?;
    if settled && status::is_complete(&deployment, &deployment.status.clone().unwrap_or_default()) {
        cleanup(context, &deployment, &sets).await?;
    }
    write_rollout_status(context, &deployment).await
}

async fn recreate(context: &Context, deployment: Arc<Deployment>, mut sets: Sets) -> Result<Requeue, ControllerError> {
    refresh_newest(context, &deployment, &mut sets).await?;
    let down: Vec<Scale> = sets
        .old
        .iter()
        .filter(|s| plan::replicas(s) > 0)
        .map(|s| Scale { name: s.metadata.name.clone().unwrap_or_default(), replicas: 0 })
        .collect();
    if !down.is_empty() {
        apply(context, &deployment, &sets, down).await?;
        return write_rollout_status(context, &deployment).await;
    }
    let running = |set: &Arc<ReplicaSet>| {
        let pods = context.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
        pods.iter().any(|p| !p.is_finished())
    };
    if sets.old.iter().any(running) {
        return write_rollout_status(context, &deployment).await;
    }
    let deployment = ensure_newest(context, deployment, &mut sets).await?;
    let scales: Vec<Scale> = sets
        .newest
        .iter()
        .filter(|s| plan::replicas(s) != plan::desired(&deployment))
        .map(|s| Scale { name: s.metadata.name.clone().unwrap_or_default(), replicas: plan::desired(&deployment) })
        .collect();
    apply(context, &deployment, &sets, scales).await?;
    if status::is_complete(&deployment, &deployment.status.clone().unwrap_or_default()) {
        cleanup(context, &deployment, &sets).await?;
    }
    write_rollout_status(context, &deployment).await
}

/// Makes sure that there is a ReplicaSet with the current template and that its annotations and
/// the Deployment's revision are current. Returns the Deployment as it then is.
async fn ensure_newest(
    context: &Context,
    deployment: Arc<Deployment>,
    sets: &mut Sets,
) -> Result<Arc<Deployment>, ControllerError> {
    if sets.newest.is_some() {
        refresh_newest(context, &deployment, sets).await?;
        let name = sets.newest.as_ref().and_then(|s| s.metadata.name.clone()).unwrap_or_default();
        return note_progress(
            context,
            deployment,
            "FoundNewReplicaSet",
            format!("Found new replica set {name:?}"),
            false,
        )
        .await;
    }
    let body = revision::new_set(&deployment, &sets.old);
    let namespace = body.metadata.namespace.clone().unwrap_or_default();
    let name = body.metadata.name.clone().unwrap_or_default();
    match context.replica_sets.create(&namespace, &body).await {
        Ok(created) => {
            let count = plan::replicas(&created);
            sets.newest = Some(created);
            if count > 0 {
                let message = format!("Scaled up replica set {name} from 0 to {count}");
                let object = reference(deployment.as_ref());
                context.events.record(SOURCE, object, EventKind::Normal, "ScalingReplicaSet", message);
            }
        }
        Err(error) if error.is_already_exists() => {
            return resolve_collision(context, deployment, sets, &body).await;
        }
        Err(error) if error.is_namespace_terminating() => return Ok(deployment),
        Err(error) => {
            let message = format!("Failed to create new replica set {name:?}: {}", error.server_message());
            let object = reference(deployment.as_ref());
            context.events.record(SOURCE, object, EventKind::Warning, "ReplicaSetCreateError", message.clone());
            fail_progress(context, &deployment, message).await?;
            return Err(error);
        }
    }
    let deployment = mark_revision(context, deployment, &sets.old).await?;
    note_progress(context, deployment, "NewReplicaSetCreated", format!("Created new replica set {name:?}"), true).await
}

/// A ReplicaSet of the wanted name exists: ours that the cache has not shown yet, or one with
/// another template whose hash is the same.
async fn resolve_collision(
    context: &Context,
    deployment: Arc<Deployment>,
    sets: &mut Sets,
    body: &ReplicaSet,
) -> Result<Arc<Deployment>, ControllerError> {
    let key = ObjectKey::of(body);
    let api: Api<ReplicaSet> = Api::namespaced(context.client.clone(), &key.namespace);
    let found = api.get(&key.name).await.map_err(ControllerError::api(format!("get ReplicaSet {key}")))?;
    let ours = controller_of(&found.metadata).is_some_and(|o| Some(&o.uid) == deployment.metadata.uid.as_ref());
    let template = |s: &ReplicaSet| s.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    if ours && revision::same_template(&template(&found), &template(body)) {
        sets.newest = Some(Arc::new(found));
        return Ok(deployment);
    }
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    write_status(context, &deployment, status).await?;
    Err(ControllerError::NotYet(format!("ReplicaSet {key} belongs to another template; trying another name")))
}

/// Gives the newest ReplicaSet its current annotations and `minReadySeconds`.
async fn refresh_newest(context: &Context, deployment: &Deployment, sets: &mut Sets) -> Result<(), ControllerError> {
    let Some(newest) = &sets.newest else { return Ok(()) };
    let wanted = revision::current_annotations(deployment, newest, revision::next_revision(&sets.old));
    let min_ready = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
    let same = newest.metadata.annotations.as_ref() == Some(&wanted)
        && newest.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0) == min_ready.unwrap_or(0);
    if !same {
        let patch = json!({
            "metadata": {"resourceVersion": newest.metadata.resource_version, "annotations": wanted},
            "spec": {"minReadySeconds": min_ready.unwrap_or(0)},
        });
        sets.newest = Some(context.replica_sets.patch(None, &ObjectKey::of(newest.as_ref()), patch).await?);
    }
    mark_revision_of(context, deployment, sets).await
}

async fn mark_revision_of(context: &Context, deployment: &Deployment, sets: &Sets) -> Result<(), ControllerError> {
    let Some(number) = sets.newest.as_ref().map(|s| revision::revision(s).to_string()) else { return Ok(()) };
    let told = deployment.metadata.annotations.as_ref().and_then(|a| a.get(revision::REVISION));
    if told != Some(&number) {
        let patch = json!({"metadata": {"annotations": {revision::REVISION: number}}});
        context.deployments.patch(None, &ObjectKey::of(deployment), patch).await?;
    }
    Ok(())
}

async fn mark_revision(
    context: &Context,
    deployment: Arc<Deployment>,
    old: &[Arc<ReplicaSet>],
) -> Result<Arc<Deployment>, ControllerError> {
    let number = revision::next_revision(old).to_string();
    let patch = json!({"metadata": {"annotations": {revision::REVISION: number}}});
    context.deployments.patch(None, &ObjectKey::of(deployment.as_ref()), patch).await
}

/// Says in the `Progressing` condition that the rollout has a ReplicaSet: always when it is new,
/// else only when nothing was said yet.
async fn note_progress(
    context: &Context,
    deployment: Arc<Deployment>,
    reason: &'static str,
    message: String,
    always: bool,
) -> Result<Arc<Deployment>, ControllerError> {
    let mut new = deployment.status.clone().unwrap_or_default();
    if status::progress_deadline(&deployment).is_none() || (!always && status::find(&new, "Progressing").is_some()) {
        return Ok(deployment);
    }
    status::set(&mut new, status::condition("Progressing", "True", reason, message, Timestamp::now()));
    replace_status(context, &deployment, new).await
}

async fn fail_progress(context: &Context, deployment: &Deployment, message: String) -> Result<(), ControllerError> {
    if status::progress_deadline(deployment).is_none() {
        return Ok(());
    }
    let mut new = deployment.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    status::set(&mut new, status::condition("Progressing", "False", "ReplicaSetCreateError", message, now));
    replace_status(context, deployment, new).await.map(|_| ())
}

/// Says in the `Progressing` condition that the Deployment was paused or resumed.
async fn mark_paused(context: &Context, deployment: Arc<Deployment>) -> Result<Arc<Deployment>, ControllerError> {
    if status::progress_deadline(&deployment).is_none() {
        return Ok(deployment);
    }
    let mut new = deployment.status.clone().unwrap_or_default();
    let reason = status::find(&new, "Progressing").and_then(|c| c.reason.clone());
    if reason.as_deref() == Some(status::DEADLINE_EXCEEDED) {
        return Ok(deployment);
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
    let was_paused = reason.as_deref() == Some(status::PAUSED);
    let (reason, message) = match (paused, was_paused) {
        (true, false) => (status::PAUSED, "Deployment is paused"),
        (false, true) => (status::RESUMED, "Deployment is resumed"),
        _ => return Ok(deployment),
    };
    status::set(&mut new, status::condition("Progressing", "Unknown", reason, message.into(), Timestamp::now()));
    replace_status(context, &deployment, new).await
}

async fn apply(
    context: &Context,
    deployment: &Deployment,
    sets: &Sets,
    scales: Vec<Scale>,
) -> Result<(), ControllerError> {
    for scale in scales {
        let all = sets.all();
        let Some(set) = all.iter().find(|s| s.metadata.name.as_ref() == Some(&scale.name)) else { continue };
        let patch = json!({
            "metadata": {"resourceVersion": set.metadata.resource_version, "annotations": scale_annotations(deployment)},
            "spec": {"replicas": scale.replicas},
        });
        let before = plan::replicas(set);
        context.replica_sets.patch(None, &ObjectKey::of(set.as_ref()), patch).await?;
        let direction = if scale.replicas > before { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {before} to {}", scale.name, scale.replicas);
        context.events.record(SOURCE, reference(deployment), EventKind::Normal, "ScalingReplicaSet", message);
    }
    Ok(())
}

fn scale_annotations(deployment: &Deployment) -> serde_json::Value {
    let (wanted, surge) = (plan::desired(deployment), plan::fenceposts(deployment).0);
    json!({plan::DESIRED_ANNOTATION: wanted.to_string(), plan::MAX_ANNOTATION: (wanted + surge).to_string()})
}

/// Tells every ReplicaSet with pods what it was last scaled for, also when its size stayed.
async fn refresh_annotations(context: &Context, deployment: &Deployment, sets: &Sets) -> Result<(), ControllerError> {
    let wanted = plan::desired(deployment);
    for set in sets.all() {
        let Some(current) = context.replica_sets.get(&ObjectKey::of(set.as_ref())) else { continue };
        if plan::replicas(&current) > 0 && plan::annotation(&current, plan::DESIRED_ANNOTATION) != Some(wanted) {
            let patch = json!({"metadata": {"annotations": scale_annotations(deployment)}});
            context.replica_sets.patch(None, &ObjectKey::of(current.as_ref()), patch).await?;
        }
    }
    Ok(())
}

async fn cleanup(context: &Context, deployment: &Deployment, sets: &Sets) -> Result<(), ControllerError> {
    let Some(limit) = deployment.spec.as_ref().and_then(|s| s.revision_history_limit) else { return Ok(()) };
    for name in plan::cleanup(&sets.old, limit, revision::revision) {
        let Some(set) = sets.old.iter().find(|s| s.metadata.name.as_ref() == Some(&name)) else { continue };
        let only = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::background().preconditions(only);
        context.replica_sets.delete(&ObjectKey::of(set.as_ref()), &params).await?;
    }
    Ok(())
}

async fn write_rollout_status(context: &Context, deployment: &Arc<Deployment>) -> Result<Requeue, ControllerError> {
    let sets = reread(context, deployment);
    let status = status::rollout(deployment, &sets.all(), sets.newest.as_ref(), Timestamp::now());
    write_status(context, deployment, status).await
}

async fn write_status(
    context: &Context,
    deployment: &Arc<Deployment>,
    status: DeploymentStatus,
) -> Result<Requeue, ControllerError> {
    let wait = status::deadline_in(deployment, &status, Timestamp::now());
    if deployment.status.as_ref() != Some(&status) {
        replace_status(context, deployment, status).await?;
    }
    Ok(wait)
}

async fn replace_status(
    context: &Context,
    deployment: &Deployment,
    status: DeploymentStatus,
) -> Result<Arc<Deployment>, ControllerError> {
    let mut updated = deployment.clone();
    updated.status = Some(status);
    context.deployments.replace(Some("status"), &ObjectKey::of(deployment), &updated).await
}
