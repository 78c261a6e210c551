//! One volume: available, bound, released, reclaimed.

use super::{
    SOURCE, VOLUME_PROTECTION, claim_key, phase_of_volume,
    plan::{self, BOUND_BY_CONTROLLER, annotation},
    provision::{self, PROVISIONER_FINALIZER},
    volume_name, without_finalizer,
};
use crate::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

/// Brings one volume a step closer.
pub async fn volume(context: &Context, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), ControllerError> {
    let Some(reference) = plan::claim_ref(volume) else {
        if volume.metadata.deletion_timestamp.is_some() {
            return let_go(context, key, volume).await;
        }
        return context.set_volume_phase(key, volume, "Available", "").await;
    };
    let uid = reference.uid.clone().filter(|uid| !uid.is_empty());
    let Some(uid) = uid else {
        // Set aside for a claim that may come.
        if volume.metadata.deletion_timestamp.is_some() {
            return let_go(context, key, volume).await;
        }
        return context.set_volume_phase(key, volume, "Available", "").await;
    };
    let claim_key = claim_key(reference);
    let claim = context.claims.get(&claim_key).filter(|claim| claim.metadata.uid.as_ref() == Some(&uid));
    let Some(claim) = claim else {
        // The cache may not have heard of the claim yet.
        return match live_claim(context, &claim_key).await?.is_some_and(|c| c.metadata.uid.as_ref() == Some(&uid)) {
            true => Ok(()),
            false => release(context, key, volume).await,
        };
    };
    match volume_name(&claim) {
        Some(name) if name == &*key.name => context.set_volume_phase(key, volume, "Bound", "").await,
        // The claim's own turn makes it name this volume.
        None => Ok(()),
        Some(_) => give_up(context, key, volume).await,
    }
}

async fn live_claim(context: &Context, key: &ObjectKey) -> Result<Option<PersistentVolumeClaim>, ControllerError> {
    let api = kube::Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), &key.namespace);
    api.get_opt(&key.name).await.map_err(ControllerError::api(format!("get PersistentVolumeClaim {key}")))
}

/// The claim has got another volume: this one is free again, or was made for nothing.
async fn give_up(context: &Context, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), ControllerError> {
    if annotation(&volume.metadata, plan::PROVISIONED_BY).is_some() {
        return release(context, key, volume).await;
    }
    if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        let metadata = json!({"annotations": {BOUND_BY_CONTROLLER: null}});
        context.volumes.patch(None, key, json!({"metadata": metadata, "spec": {"claimRef": null}})).await?;
    } else {
        // The author set it aside for the claim; keep that wish without the uid.
        let reference = json!({"uid": null, "resourceVersion": null});
        context.volumes.patch(None, key, json!({"spec": {"claimRef": reference}})).await?;
    }
    Ok(())
}

/// The claim is gone: reclaims the volume by its policy.
async fn release(context: &Context, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), ControllerError> {
    let phase = phase_of_volume(volume);
    if phase != "Released" && phase != "Failed" {
        context.set_volume_phase(key, volume, "Released", "").await?;
    }
    if volume.metadata.deletion_timestamp.is_some() {
        return let_go(context, key, volume).await;
    }
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    match (policy.unwrap_or("Retain"), provision::served(volume)) {
        ("Delete", Some(_)) => {
            let only = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
            context.volumes.delete(key, &DeleteParams::default().preconditions(only)).await
        }
        // A driver of somebody else removes its own.
        ("Delete", None) if volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some()) => Ok(()),
        ("Delete", None) => {
            let why = format!(
                "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched",
                key.name
            );
            fail(context, key, volume, "VolumeFailedDelete", &why).await
        }
        ("Recycle", _) => {
            let why = format!("No recycler plugin found for the volume {}!", key.name);
            fail(context, key, volume, "VolumeFailedRecycle", &why).await
        }
        _ => Ok(()),
    }
}

async fn fail(
    context: &Context,
    key: &ObjectKey,
    volume: &PersistentVolume,
    reason: &'static str,
    why: &str,
) -> Result<(), ControllerError> {
    if phase_of_volume(volume) != "Failed" {
        context.events.record(SOURCE, reference(volume), EventKind::Warning, reason, why);
    }
    context.set_volume_phase(key, volume, "Failed", why).await
}

/// A volume being deleted that no claim has: its data goes when it is of ours and to be deleted,
/// then the object.
async fn let_go(context: &Context, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), ControllerError> {
    let finalizers = volume.metadata.finalizers.as_ref();
    let Some(kept) = without_finalizer(finalizers, &[VOLUME_PROTECTION, PROVISIONER_FINALIZER]) else { return Ok(()) };
    let delete = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) == Some("Delete");
    if let Some((driver, handle)) = provision::served(volume).filter(|_| delete)
        && let Err(error) = remove(context, handle).await
    {
        let why = format!("rpc error: code = Internal desc = {error}");
        context.events.record(driver, reference(volume), EventKind::Warning, "VolumeFailedDelete", why.clone());
        return Err(ControllerError::NotYet(why));
    }
    let metadata = json!({"finalizers": kept, "resourceVersion": volume.metadata.resource_version});
    context.volumes.patch(None, key, json!({"metadata": metadata})).await.map(drop)
}

async fn remove(context: &Context, handle: &str) -> std::io::Result<()> {
    let (folders, handle) = (context.config.volumes.clone(), handle.to_owned());
    // Much data takes a while.
    tokio::task::spawn_blocking(move || folders.remove(&handle)).await.map_err(std::io::Error::other)?
}
