//! Claims of `ephemeral` volumes: one for each such volume of a pod, owned by the pod.

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    queue::{Requeue, WorkQueue},
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use serde_json::json;
use std::sync::Arc;

/// Source of events.
const SOURCE: &str = "ephemeral_volume";

/// Queue of pods with `ephemeral` volumes, fed by their changes and those of the claims.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.pods.on_change(move |_, new| {
        if let Some(pod) = new.filter(|pod| pod.is_active() && pod.spec.claims.iter().any(|volume| volume.ephemeral)) {
            own.add(ObjectKey::of(pod.as_ref()));
        }
    });
    let own = queue.clone();
    context.claims.on_change(move |old, new| {
        // One that is gone is made anew.
        if let (Some(claim), None) = (old, new) {
            let owners = claim.metadata.owner_references.iter().flatten().filter(|owner| owner.kind == "Pod");
            let namespace = claim.metadata.namespace.clone().unwrap_or_default();
            owners.for_each(|owner| own.add(ObjectKey::new(namespace.clone(), owner.name.clone())));
        }
    });
    queue
}

/// Makes the claims of one pod that are missing.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(pod) = context.pods.get(&key).filter(|pod| pod.is_active()) else { return Ok(None) };
    let missing = |volume: &&super::pod::ClaimVolume| {
        volume.ephemeral
            && context.claims.get(&ObjectKey::new(&*key.namespace, &*volume.claim_of(pod.name()))).is_none()
    };
    if !pod.spec.claims.iter().any(|volume| missing(&volume)) {
        return Ok(None);
    }
    // The cache does not keep the templates.
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let whole = api.get_opt(&key.name).await.map_err(ControllerError::api(format!("get Pod {key}")))?;
    let Some(whole) = whole.filter(|whole| whole.metadata.uid == pod.metadata.uid) else { return Ok(None) };
    for volume in whole.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else { continue };
        let name = format!("{}-{}", pod.name(), volume.name);
        if let Some(claim) = context.claims.get(&ObjectKey::new(&*key.namespace, &*name)) {
            if !is_owned(&claim, pod.uid()) {
                let message = format!("PVC {}/{name} was not created for pod {key} (pod is not owner)", key.namespace);
                context.events.record(SOURCE, reference(pod.as_ref()), EventKind::Warning, "FailedBinding", message);
            }
            continue;
        }
        let meta = template.metadata.clone().unwrap_or_default();
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid(),
            "controller": true, "blockOwnerDeletion": true});
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "labels": meta.labels, "annotations": meta.annotations, "ownerReferences": [owner]},
            "spec": template.spec});
        match context.claims.create(&key.namespace, &claim).await {
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
            Err(error) => {
                let message = format!("ephemeral volume controller: {}", error.server_message());
                context.events.record(SOURCE, reference(pod.as_ref()), EventKind::Warning, "FailedCreate", message);
                return Err(error);
            }
            Ok(_) => {}
        }
    }
    Ok(None)
}

/// Whether a claim was made for the pod with this uid.
fn is_owned(claim: &PersistentVolumeClaim, uid: &str) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid && owner.controller == Some(true))
}
