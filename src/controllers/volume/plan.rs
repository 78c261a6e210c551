//! Which volume a claim gets, and how both stand. Pure.

use aksim_model::quantity::Amount;
use k8s_openapi::{
    api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::core::{Selector, SelectorExt};
use std::{collections::BTreeMap, sync::Arc};

/// Annotation of a claim: its binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of claim and volume: the controller chose the other side.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation of a volume: the driver that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Annotation of a claim: the node that the scheduler chose for its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The class annotation of old.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// An annotation of an object.
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The class of a claim; empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let own = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&claim.metadata, CLASS_ANNOTATION).or(own).unwrap_or_default()
}

/// The class of a volume; empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let own = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&volume.metadata, CLASS_ANNOTATION).or(own).unwrap_or_default()
}

fn storage(amounts: Option<&BTreeMap<String, Quantity>>) -> Amount {
    amounts.and_then(|amounts| amounts.get("storage")).and_then(|q| Amount::parse(&q.0)).unwrap_or(Amount::ZERO)
}

/// What a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Amount {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

/// What a claim has by its status.
pub fn given(claim: &PersistentVolumeClaim) -> Amount {
    storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref()))
}

/// What a volume holds.
pub fn capacity(volume: &PersistentVolume) -> Amount {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// The claim that a volume is for.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume is for this claim, by name and, once known, by uid.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference
                .uid
                .as_ref()
                .filter(|uid| !uid.is_empty())
                .is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
    })
}

/// Whether a volume has what a claim asks for; the words are those of the event when it has not.
///
/// # Errors
/// What does not fit.
pub fn fits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), &'static str> {
    let (Some(wanted), Some(spec)) = (&claim.spec, &volume.spec) else { return Err("requested PV has no spec") };
    let mode = |mode: &Option<String>| mode.as_deref().unwrap_or("Filesystem").to_owned();
    if capacity(volume).nanos() < requested(claim).nanos() {
        return Err("requested PV is too small");
    }
    if class_of_claim(claim) != class_of_volume(volume) {
        return Err("storageClassName does not match");
    }
    if mode(&wanted.volume_mode) != mode(&spec.volume_mode) {
        return Err("incompatible volumeMode");
    }
    let offered = spec.access_modes.as_deref().unwrap_or_default();
    if !wanted.access_modes.iter().flatten().all(|mode| offered.contains(mode)) {
        return Err("incompatible accessMode");
    }
    Ok(())
}

/// Whether an unclaimed volume may be chosen for a claim.
pub fn is_candidate(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.clone());
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    // The API server has validated the selector; one it would refuse matches nothing.
    let selected = selector.is_none_or(|s| Selector::try_from(s).is_ok_and(|s| s.matches(&labels)));
    claim_ref(volume).is_none()
        && volume.metadata.deletion_timestamp.is_none()
        && selected
        && fits(claim, volume).is_ok()
}

/// The volume for a claim that names none: one that names the claim, else, unless the choice is
/// delayed, the smallest that fits.
pub fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let stays = |volume: &PersistentVolume| volume.metadata.deletion_timestamp.is_none();
    let prebound = volumes.iter().find(|v| is_for(v, claim) && stays(v) && fits(claim, v).is_ok());
    prebound.or_else(|| {
        let candidates = volumes.iter().filter(|volume| !delayed && is_candidate(claim, volume));
        candidates.min_by(|a, b| {
            let key = |v: &PersistentVolume| (capacity(v).nanos(), v.metadata.name.clone());
            key(a).cmp(&key(b))
        })
    })
}

/// Bytes as Azure makes them: whole gibibytes.
pub fn whole_gibibytes(amount: Amount) -> i64 {
    const GIB: i128 = 1 << 30;
    let bytes = (amount.milli() + 999).div_euclid(1000);
    i64::try_from((bytes + GIB - 1).div_euclid(GIB).max(1)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(spec: serde_json::Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn volume(name: &str, size: &str, spec: &serde_json::Value) -> Arc<PersistentVolume> {
        let mut value = json!({"metadata": {"name": name, "labels": {"tier": name}}, "spec": {"capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual"}});
        for (key, field) in spec.as_object().into_iter().flatten() {
            value["spec"][key] = field.clone();
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn wanted(size: &str) -> serde_json::Value {
        json!({"storageClassName": "manual", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}})
    }

    fn name(found: Option<&Arc<PersistentVolume>>) -> Option<&str> {
        found.and_then(|volume| volume.metadata.name.as_deref())
    }

    #[test]
    fn the_smallest_that_fits_is_taken() {
        let none = json!({});
        let volumes = [volume("big", "10Gi", &none), volume("small", "2Gi", &none), volume("tiny", "1Mi", &none)];
        assert_eq!(name(find(&claim(wanted("1Gi")), &volumes, false)), Some("small"));
        assert_eq!(name(find(&claim(wanted("1Gi")), &volumes, true)), None, "a delayed choice is the scheduler's");
        assert_eq!(name(find(&claim(wanted("11Gi")), &volumes, false)), None);
        let mut selecting = wanted("1Gi");
        selecting["selector"] = json!({"matchLabels": {"tier": "big"}});
        assert_eq!(name(find(&claim(selecting), &volumes, false)), Some("big"));
        let mut shared = wanted("1Gi");
        shared["accessModes"] = json!(["ReadWriteMany"]);
        assert_eq!(name(find(&claim(shared), &volumes, false)), None);
    }

    #[test]
    fn a_volume_that_names_the_claim_comes_first() {
        let volumes = [
            volume("free", "1Gi", &json!({})),
            volume("other", "1Gi", &json!({"claimRef": {"name": "c", "namespace": "n", "uid": "another"}})),
            volume("mine", "5Gi", &json!({"claimRef": {"name": "c", "namespace": "n"}})),
        ];
        assert_eq!(name(find(&claim(wanted("1Gi")), &volumes, true)), Some("mine"));
        assert!(!is_for(&volumes[1], &claim(wanted("1Gi"))));
    }

    #[test]
    fn sizes_are_whole_gibibytes() {
        for (text, gib) in [("1", 1), ("1Gi", 1), ("1Gi1", 0), ("1500Mi", 2), ("5G", 5), ("5Gi", 5)] {
            let Some(amount) = Amount::parse(text) else { continue };
            assert_eq!(whole_gibibytes(amount), gib, "{text}");
        }
    }
}
