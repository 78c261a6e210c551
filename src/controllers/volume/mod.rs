//! Persistent volumes: binds claims to volumes, makes and removes dynamic ones as the CSI drivers
//! of AKS do, keeps what is in use.
//!
//! kube-controller-manager's `persistentvolume-binder`, `pvc-protection` and `pv-protection`, and
//! the external provisioner and resizer of `disk.csi.azure.com` and `file.csi.azure.com`. One queue
//! holds both kinds: a key without namespace is a volume.

mod claim;
pub mod plan;
mod provision;
mod reclaim;

use super::{
    Context,
    error::ControllerError,
    informer::ObjectKey,
    pod::claim_index,
    queue::{Requeue, WorkQueue},
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};
use std::sync::Arc;

/// Source of the binder's events.
const SOURCE: &str = "persistentvolume-controller";
/// Finalizer of claims.
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Finalizer of volumes.
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// Queue of claims and volumes, fed by their changes, by classes and by pods that come and end.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let (own, volumes) = (queue.clone(), context.volumes.clone());
    context.claims.on_change(move |old, new| {
        let Some(claim) = new.or(old) else { return };
        own.add(ObjectKey::of(claim.as_ref()));
        if let Some(name) = volume_name(claim) {
            own.add(ObjectKey::new("", name));
        }
        if new.is_none() {
            // Whatever was to be this claim's is free or to be reclaimed.
            let theirs = volumes.list().into_iter().filter(|volume| plan::is_for(volume, claim));
            theirs.for_each(|volume| own.add(ObjectKey::of(volume.as_ref())));
        }
    });
    let (own, claims) = (queue.clone(), context.claims.clone());
    context.volumes.on_change(move |old, new| {
        let Some(volume) = new.or(old) else { return };
        own.add(ObjectKey::of(volume.as_ref()));
        match plan::claim_ref(volume) {
            Some(claim) => own.add(claim_key(claim)),
            // It may be what a claim waits for.
            None => add_unbound(&own, &claims.list()),
        }
    });
    let (own, claims) = (queue.clone(), context.claims.clone());
    context.storage_classes.on_change(move |_, _| add_unbound(&own, &claims.list()));
    let own = queue.clone();
    context.pods.on_change(move |old, new| {
        // A pod that ends lets its claims go; one that comes is what an event may name.
        let was = old.is_some_and(|pod| !pod.is_finished());
        let is = new.is_some_and(|pod| !pod.is_finished());
        if was == is {
            return;
        }
        let Some(pod) = new.or(old) else { return };
        pod.claim_names().for_each(|name| own.add(ObjectKey::new(pod.namespace(), &*name)));
    });
    queue
}

fn add_unbound(queue: &WorkQueue<ObjectKey>, claims: &[Arc<PersistentVolumeClaim>]) {
    let unbound = claims.iter().filter(|claim| phase_of_claim(claim) != "Bound");
    unbound.for_each(|claim| queue.add(ObjectKey::of(claim.as_ref())));
}

fn claim_key(reference: &k8s_openapi::api::core::v1::ObjectReference) -> ObjectKey {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    ObjectKey::new(text(&reference.namespace), text(&reference.name))
}

/// The volume that a claim names.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

fn phase_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn phase_of_volume(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether a claim is bound, both sides agreeing, and to which volume.
pub fn bound_volume(context: &Context, claim: &PersistentVolumeClaim) -> Option<Arc<PersistentVolume>> {
    let volume = context.volumes.get(&ObjectKey::new("", volume_name(claim)?))?;
    let done = plan::annotation(&claim.metadata, plan::BIND_COMPLETED).is_some() || phase_of_claim(claim) == "Bound";
    (done && plan::is_for(&volume, claim)).then_some(volume)
}

/// Brings one claim or volume a step closer.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let done = if key.namespace.is_empty() {
        match context.volumes.get(&key) {
            Some(volume) => reclaim::volume(context, &key, &volume).await,
            None => Ok(()),
        }
    } else {
        match context.claims.get(&key) {
            Some(claim) => claim::claim(context, &key, &claim).await,
            None => Ok(()),
        }
    };
    match done {
        // Gone meanwhile, or changed: the watch brings the news.
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(|()| None),
    }
}

/// Whether a pod that has not ended uses a claim; `scheduled` counts those on a node alone.
fn in_use(context: &Context, key: &ObjectKey, scheduled: bool) -> bool {
    let pods = context.pods.indexed(&claim_index(&key.namespace, &key.name));
    pods.iter().any(|pod| !pod.is_finished() && (!scheduled || pod.node().is_some()))
}

/// Finalizers without one; `None` when it is not there.
fn without_finalizer(finalizers: Option<&Vec<String>>, gone: &[&str]) -> Option<Value> {
    let finalizers = finalizers?;
    let kept: Vec<&String> = finalizers.iter().filter(|name| !gone.contains(&name.as_str())).collect();
    (kept.len() < finalizers.len()).then(|| json!(kept))
}

impl Context {
    /// Writes the phase of a volume, and why it has it, unless it is so already.
    async fn set_volume_phase(
        &self,
        key: &ObjectKey,
        volume: &PersistentVolume,
        phase: &str,
        message: &str,
    ) -> Result<(), ControllerError> {
        let known = volume.status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default();
        if phase_of_volume(volume) == phase && known == message {
            return Ok(());
        }
        let message = if message.is_empty() { Value::Null } else { message.into() };
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = json!({"phase": phase, "message": message, "lastPhaseTransitionTime": now});
        self.volumes.patch(Some("status"), key, json!({"status": status})).await.map(drop)
    }
}
