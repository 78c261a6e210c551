//! One claim: found a volume, provisioned, bound, grown, let go.

use super::{
    CLAIM_PROTECTION, SOURCE, in_use, phase_of_claim,
    plan::{self, BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, annotation},
    provision::{self, Place},
    volume_name, without_finalizer,
};
use crate::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    pod::claim_index,
};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use serde_json::json;
use std::sync::Arc;

/// Annotations of a claim that say which driver makes its volume.
const STORAGE_PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// Provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Brings one claim a step closer.
pub async fn claim(context: &Context, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<(), ControllerError> {
    if claim.metadata.deletion_timestamp.is_some() {
        return let_go(context, key, claim).await;
    }
    match volume_name(claim) {
        Some(name) => named(context, key, claim, name).await,
        None => unbound(context, key, claim).await,
    }
}

/// A claim being deleted goes when no pod on a node uses it.
async fn let_go(context: &Context, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<(), ControllerError> {
    if in_use(context, key, true) {
        return Ok(());
    }
    let Some(kept) = without_finalizer(claim.metadata.finalizers.as_ref(), &[CLAIM_PROTECTION]) else { return Ok(()) };
    // The revision keeps a finalizer that someone adds meanwhile.
    let metadata = json!({"finalizers": kept, "resourceVersion": claim.metadata.resource_version});
    context.claims.patch(None, key, json!({"metadata": metadata})).await.map(drop)
}

/// A claim that names its volume, by its author's choice or ours.
async fn named(
    context: &Context,
    key: &ObjectKey,
    claim: &PersistentVolumeClaim,
    name: &str,
) -> Result<(), ControllerError> {
    let complete = annotation(&claim.metadata, BIND_COMPLETED).is_some();
    let say = |kind, reason, message: String| context.events.record(SOURCE, reference(claim), kind, reason, message);
    let Some(volume) = context.volumes.get(&ObjectKey::new("", name)) else {
        let lost = phase_of_claim(claim) == "Lost";
        if complete && !lost && live_volume(context, name).await?.is_none() {
            say(
                EventKind::Warning,
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!".into(),
            );
            return context.claims.patch(Some("status"), key, json!({"status": {"phase": "Lost"}})).await.map(drop);
        }
        return Ok(());
    };
    if plan::is_for(&volume, claim) {
        return bind(context, key, claim, &volume).await;
    }
    if plan::claim_ref(&volume).is_some() {
        if complete && phase_of_claim(claim) != "Lost" {
            say(
                EventKind::Warning,
                "ClaimMisbound",
                "Two claims are bound to the same volume, this one is bound incorrectly".into(),
            );
            return context.claims.patch(Some("status"), key, json!({"status": {"phase": "Lost"}})).await.map(drop);
        }
        say(EventKind::Warning, "FailedBinding", format!("volume \"{name}\" already bound to a different claim."));
        return Ok(());
    }
    match plan::fits(claim, &volume) {
        Ok(()) => bind(context, key, claim, &volume).await,
        Err(why) => {
            let message = format!("Cannot bind to requested volume \"{name}\": {why}");
            say(EventKind::Warning, "VolumeMismatch", message);
            Ok(())
        }
    }
}

async fn live_volume(context: &Context, name: &str) -> Result<Option<PersistentVolume>, ControllerError> {
    let api = kube::Api::<PersistentVolume>::all(context.client.clone());
    api.get_opt(name).await.map_err(ControllerError::api(format!("get PersistentVolume {name}")))
}

/// Makes both sides name each other, then the claim bound.
async fn bind(
    context: &Context,
    key: &ObjectKey,
    claim: &PersistentVolumeClaim,
    volume: &Arc<PersistentVolume>,
) -> Result<(), ControllerError> {
    let volume_key = ObjectKey::of(volume.as_ref());
    let uid = claim.metadata.uid.as_deref();
    let known = plan::claim_ref(volume).and_then(|reference| reference.uid.as_deref());
    if known != uid || uid.is_none() {
        let chosen = plan::claim_ref(volume).is_none();
        let claim_ref = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": &*key.namespace,
            "name": &*key.name, "uid": uid, "resourceVersion": claim.metadata.resource_version});
        let mut metadata = json!({"resourceVersion": volume.metadata.resource_version});
        if chosen {
            metadata["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
        }
        let patch = json!({"metadata": metadata, "spec": {"claimRef": claim_ref}});
        context.volumes.patch(None, &volume_key, patch).await?;
    }
    context.set_volume_phase(&volume_key, volume, "Bound", "").await?;
    let complete = annotation(&claim.metadata, BIND_COMPLETED).is_some();
    if !complete || volume_name(claim).is_none() {
        let mut annotations = json!({BIND_COMPLETED: "yes"});
        if volume_name(claim).is_none() {
            annotations[BOUND_BY_CONTROLLER] = "yes".into();
        }
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume.metadata.name}});
        context.claims.patch(None, key, patch).await?;
    }
    let size = grow(context, claim, volume, &volume_key).await?;
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.clone());
    let status = claim.status.as_ref();
    let current =
        status.is_some_and(|status| status.access_modes == modes) && plan::given(claim).nanos() == size.nanos();
    if phase_of_claim(claim) != "Bound" || !current {
        let status = json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": size.to_string()}});
        context.claims.patch(Some("status"), key, json!({"status": status})).await?;
    }
    Ok(())
}

/// Grows a volume of ours to what its claim asks for; its size then.
async fn grow(
    context: &Context,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    volume_key: &ObjectKey,
) -> Result<aksim_model::quantity::Amount, ControllerError> {
    let (has, wants) = (plan::capacity(volume), plan::requested(claim));
    let Some((driver, _)) = provision::served(volume).filter(|_| wants.nanos() > has.nanos()) else { return Ok(has) };
    let name = &volume_key.name;
    let say =
        |reason, message: String| context.events.record(driver, reference(claim), EventKind::Normal, reason, message);
    say("Resizing", format!("External resizer is resizing volume {name}"));
    let size = format!("{}Gi", plan::whole_gibibytes(wants));
    context.volumes.patch(None, volume_key, json!({"spec": {"capacity": {"storage": size}}})).await?;
    say("VolumeResizeSuccessful", "Resize volume succeeded".into());
    Ok(aksim_model::quantity::Amount::parse(&size).unwrap_or(wants))
}

/// A claim without volume: finds one, waits for its pod, or has one made.
async fn unbound(context: &Context, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<(), ControllerError> {
    let class_name = plan::class_of_claim(claim);
    let class = context.storage_classes.get(&ObjectKey::new("", class_name));
    let delayed = class.as_ref().is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let volumes = context.volumes.list();
    if let Some(volume) = plan::find(claim, &volumes, delayed) {
        return bind(context, key, claim, volume).await;
    }
    let say = |kind, reason, message: String| context.events.record(SOURCE, reference(claim), kind, reason, message);
    let selected = annotation(&claim.metadata, SELECTED_NODE);
    if delayed && selected.is_none() {
        let pods = context.pods.indexed(&claim_index(&key.namespace, &key.name));
        match pods.iter().find(|pod| !pod.is_finished()) {
            None => {
                let message = "waiting for first consumer to be created before binding".into();
                say(EventKind::Normal, "WaitForFirstConsumer", message);
            }
            Some(pod) => {
                let message = format!("waiting for pod {} to be scheduled", pod.name());
                say(EventKind::Normal, "WaitForPodScheduled", message);
            }
        }
        return Ok(());
    }
    match class {
        Some(class) => provision(context, claim, &class, selected).await,
        None if class_name.is_empty() => {
            let message = "no persistent volumes available for this claim and no storage class is set".into();
            say(EventKind::Normal, "FailedBinding", message);
            Ok(())
        }
        None => {
            let message = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
            say(EventKind::Warning, "ProvisioningFailed", message);
            Ok(())
        }
    }
}

/// Has the class's driver make a volume.
async fn provision(
    context: &Context,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    selected: Option<&str>,
) -> Result<(), ControllerError> {
    let key = ObjectKey::of(claim);
    let provisioner = class.provisioner.as_str();
    if provisioner == NO_PROVISIONER {
        let message = "no persistent volumes available for this claim and its storage class makes none".to_owned();
        context.events.record(SOURCE, reference(claim), EventKind::Normal, "FailedBinding", message);
        return Ok(());
    }
    if annotation(&claim.metadata, STORAGE_PROVISIONER[1]) != Some(provisioner) {
        let annotations = STORAGE_PROVISIONER.map(|name| (name.to_owned(), provisioner.to_owned()));
        let annotations = serde_json::Map::from_iter(annotations.map(|(name, value)| (name, value.into())));
        context.claims.patch(None, &key, json!({"metadata": {"annotations": annotations}})).await?;
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        context.events.record(SOURCE, reference(claim), EventKind::Normal, "ExternalProvisioning", message);
    }
    // Somebody else's driver makes its own volumes.
    let Some(driver) = provision::driver(provisioner) else { return Ok(()) };
    let say = |kind, reason, message: String| context.events.record(driver, reference(claim), kind, reason, message);
    if let Some(why) = provision::refusal(claim, class) {
        say(EventKind::Warning, "ProvisioningFailed", why);
        return Ok(());
    }
    say(
        EventKind::Normal,
        "Provisioning",
        format!("External provisioner is provisioning volume for claim \"{}/{}\"", key.namespace, key.name),
    );
    let node = selected.and_then(|name| context.nodes.get(&ObjectKey::new("", name)));
    let zone = node.as_ref().and_then(|node| provision::zone(node));
    let made = provision::volume(claim, class, &place(context), zone);
    let handle = made["spec"]["csi"]["volumeHandle"].as_str().unwrap_or_default();
    let folder = context.config.volumes.create(driver, handle);
    if let Err(error) = folder {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let message = format!("failed to provision volume with StorageClass \"{name}\": {error}");
        say(EventKind::Warning, "ProvisioningFailed", message.clone());
        return Err(ControllerError::NotYet(message));
    }
    let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match context.volumes.create("", &made).await {
        // Made by an earlier try; the watch brings it.
        Err(error) if error.is_already_exists() => return Ok(()),
        other => other?,
    };
    say(EventKind::Normal, "ProvisioningSucceeded", format!("Successfully provisioned volume {name}"));
    Ok(())
}

/// Where the nodes say the cluster lies.
fn place(context: &Context) -> Place {
    let nodes = context.nodes.list();
    let ids = nodes.iter().filter_map(|node| node.spec.as_ref()?.provider_id.as_deref());
    let mut places = ids.filter_map(Place::of_provider_id);
    places.next().unwrap_or_else(|| Place { subscription: "local".into(), resource_group: "local".into() })
}
