//! PersistentVolumeClaims of a StatefulSet: what they are called, and who owns them by the
//! retention policy. Pure.

use super::plan::{ordinal, ordinals};
use crate::{
    ownership::{controlled_by, controller_of},
    pod::Pod,
};
use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// `TEMPLATE-SET-ORDINAL`.
fn name(template: &PersistentVolumeClaim, set: &str, ordinal: i32) -> String {
    format!("{}-{set}-{ordinal}", template.metadata.name.as_deref().unwrap_or_default())
}

/// The claims of one ordinal, each with the name of its volume.
pub fn wanted(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let templates = spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut labels = template.metadata.labels.clone().unwrap_or_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            let claim = PersistentVolumeClaim {
                metadata: ObjectMeta {
                    name: Some(name(template, set_name, ordinal)),
                    namespace: set.metadata.namespace.clone(),
                    labels: Some(labels),
                    annotations: template.metadata.annotations.clone(),
                    owner_references: deleted_with_set(set).then(|| vec![controlled_by(set)]),
                    ..ObjectMeta::default()
                },
                spec: template.spec.clone(),
                status: None,
            };
            (template.metadata.name.clone().unwrap_or_default(), claim)
        })
        .collect()
}

fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.clone()).unwrap_or_default();
    let deletes = |value: Option<String>| value.as_deref() == Some("Delete");
    (deletes(policy.when_deleted), deletes(policy.when_scaled))
}

fn deleted_with_set(set: &StatefulSet) -> bool {
    policy(set).0
}

/// The owners that a claim of this pod should have; `None` when it has them, or when another
/// controller has the claim.
pub fn owners(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> Option<Vec<OwnerReference>> {
    let (when_deleted, when_scaled) = policy(set);
    let (first, end) = ordinals(set);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let surplus = ordinal(name, pod.name()).is_some_and(|o| !(first..end).contains(&o));
    let own = [set.metadata.uid.as_deref().unwrap_or_default(), pod.uid()];
    if controller_of(&claim.metadata).is_some_and(|c| !own.contains(&c.uid.as_str())) {
        return None;
    }
    let owner = match (when_deleted, when_scaled && surplus) {
        (_, true) => Some(controlled_by(pod)),
        (true, false) => Some(controlled_by(set)),
        (false, false) => None,
    };
    let before = claim.metadata.owner_references.clone().unwrap_or_default();
    let mut after: Vec<OwnerReference> = before.iter().filter(|o| !own.contains(&o.uid.as_str())).cloned().collect();
    match owner {
        Some(owner) if before.iter().any(|o| o.uid == owner.uid) && after.len() + 1 == before.len() => return None,
        None if after.len() == before.len() => return None,
        owner => after.extend(owner),
    }
    Some(after)
}

/// Whether a claim goes soon, so that a new pod may not use it: it is being deleted, or belongs to
/// a pod of that name that is no more.
pub fn is_stale(claim: &PersistentVolumeClaim, pod_name: &str, pod_uid: Option<&str>) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    let of_another = |o: &OwnerReference| o.kind == "Pod" && o.name == pod_name && Some(o.uid.as_str()) != pod_uid;
    claim.metadata.deletion_timestamp.is_some() || owners.into_iter().any(of_another)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(policy: Value) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "set"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "db"}}, "template": {},
                "persistentVolumeClaimRetentionPolicy": policy,
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"tier": "disk"}},
                    "spec": {"storageClassName": "managed-csi", "accessModes": ["ReadWriteOnce"]}}]},
        }))
        .unwrap()
    }

    fn pod(ordinal: i32) -> Pod {
        let name = format!("db-{ordinal}");
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop", "uid": name}})).unwrap()
    }

    #[test]
    fn claims_are_named_by_template_set_and_ordinal() {
        let claims = wanted(&set(json!({})), 1);
        let (volume, claim) = &claims[0];
        assert_eq!((volume.as_str(), claim.metadata.name.as_deref()), ("data", Some("data-db-1")));
        assert_eq!(json!(claim.metadata.labels), json!({"app": "db", "tier": "disk"}));
        assert_eq!(claim.metadata.owner_references, None);
        assert_eq!(claim.spec.as_ref().unwrap().storage_class_name.as_deref(), Some("managed-csi"));
    }

    #[test]
    fn the_retention_policy_decides_who_owns_them() {
        let owner_of = |policy: &Value, ordinal: i32| {
            let set = set(policy.clone());
            let (_, claim) = wanted(&set, ordinal).remove(0);
            let owners = owners(&set, &pod(ordinal), &claim).or(claim.metadata.owner_references);
            owners.into_iter().flatten().map(|o| o.uid).collect::<Vec<_>>()
        };
        let (keep, delete) = ("Retain", "Delete");
        for (deleted, scaled, inside, outside) in [
            (keep, keep, vec![], vec![]),
            (delete, keep, vec!["set"], vec!["set"]),
            (keep, delete, vec![], vec!["db-7"]),
            (delete, delete, vec!["set"], vec!["db-7"]),
        ] {
            let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
            assert_eq!(owner_of(&policy, 1), inside, "{policy}");
            assert_eq!(owner_of(&policy, 7), outside, "{policy}");
        }
    }

    #[test]
    fn a_claim_of_another_controller_is_left_alone_and_a_change_of_policy_lets_go() {
        let delete = set(json!({"whenDeleted": "Delete"}));
        let (_, mut claim) = wanted(&delete, 0).remove(0);
        assert_eq!(owners(&delete, &pod(0), &claim), None, "it is right already");
        assert_eq!(owners(&set(json!({})), &pod(0), &claim), Some(vec![]));
        claim.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
        assert_eq!(owners(&delete, &pod(0), &claim), None);
    }

    #[test]
    fn a_claim_that_goes_with_an_earlier_pod_is_stale() {
        let set = set(json!({"whenScaled": "Delete"}));
        let (_, mut claim) = wanted(&set, 7).remove(0);
        assert!(!is_stale(&claim, "db-7", None));
        claim.metadata.owner_references = owners(&set, &pod(7), &claim);
        assert!(is_stale(&claim, "db-7", None) && !is_stale(&claim, "db-7", Some("db-7")));
    }
}
