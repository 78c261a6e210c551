//! Revisions of a Deployment: which ReplicaSet is the newest, what it is called, and the
//! annotations that `kubectl rollout history` and `undo` read.

use super::plan::{self, DESIRED_ANNOTATION, MAX_ANNOTATION};
use crate::ownership::controlled_by;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use std::{collections::BTreeMap, sync::Arc};

/// Label with the hash of the pod template.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotation with the revision number.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with the revisions that a ReplicaSet was before, comma separated.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Bytes that the history may take.
const HISTORY_BYTES: usize = 2000;
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 5] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED_ANNOTATION, MAX_ANNOTATION];

/// The revision of a ReplicaSet; 0 when it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The ReplicaSet that has the Deployment's template: the oldest, if there are several.
pub fn find_new<'a>(deployment: &Deployment, sets: &'a [Arc<ReplicaSet>]) -> Option<&'a Arc<ReplicaSet>> {
    let wanted = &deployment.spec.as_ref()?.template;
    let mut same: Vec<_> = sets
        .iter()
        .filter(|s| s.spec.as_ref().and_then(|s| s.template.as_ref()).is_some_and(|t| same_template(t, wanted)))
        .collect();
    same.sort_by_key(|s| (s.metadata.creation_timestamp.clone(), s.metadata.name.clone()));
    same.first().copied()
}

/// Whether two templates are the same but for the hash label.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let mut meta = template.metadata.take().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.filter(|l| !l.is_empty());
    meta.annotations = meta.annotations.filter(|a| !a.is_empty());
    meta.creation_timestamp = None;
    template.metadata = (meta != ObjectMeta::default()).then_some(meta);
    template
}

/// Hash of a pod template in the alphabet of generated names; `collisions` makes it another one.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // Serialising an API type into memory cannot fail.
    let bytes = serde_json::to_vec(&without_hash(template)).unwrap_or_default();
    let mut hash: u32 = 0x811c_9dc5;
    let salt = if collisions > 0 { collisions.to_le_bytes().to_vec() } else { Vec::new() };
    for byte in bytes.into_iter().chain(salt) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// The next revision number, given the old ReplicaSets.
pub fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|s| revision(s)).max().unwrap_or(0) + 1
}

/// A new ReplicaSet for the Deployment's template.
pub fn new_set(deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector: LabelSelector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let mut annotations = BTreeMap::new();
    inherit(deployment, &mut annotations);
    annotations.insert(REVISION.into(), next_revision(old).to_string());
    let (wanted, surge) = (plan::desired(deployment), plan::fenceposts(deployment).0);
    annotations.insert(DESIRED_ANNOTATION.into(), wanted.to_string());
    annotations.insert(MAX_ANNOTATION.into(), (wanted + surge).to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controlled_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(plan::new_replicas(deployment, old, 0)),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn inherit(deployment: &Deployment, annotations: &mut BTreeMap<String, String>) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_INHERITED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
}

/// Annotations that the newest ReplicaSet should have: those of the Deployment, and the newest
/// revision number, with the one it had before in the history (after `kubectl rollout undo`).
pub fn current_annotations(deployment: &Deployment, set: &ReplicaSet, newest: i64) -> BTreeMap<String, String> {
    let mut annotations = set.metadata.annotations.clone().unwrap_or_default();
    inherit(deployment, &mut annotations);
    let before = revision(set);
    if before < newest {
        annotations.insert(REVISION.into(), newest.to_string());
        if before > 0 {
            let history = annotations.get(HISTORY).map_or(before.to_string(), |h| format!("{h},{before}"));
            annotations.insert(HISTORY.into(), trimmed(history));
        }
    }
    annotations
}

/// Drops the oldest revisions until the history fits.
fn trimmed(mut history: String) -> String {
    while history.len() > HISTORY_BYTES {
        match history.split_once(',') {
            Some((_, rest)) => history = rest.to_owned(),
            None => break,
        }
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "annotations": {
                "kubernetes.io/change-cause": "image", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_new_set_is_found_again_by_its_template() {
        let (one, two) = (deployment("web:1"), deployment("web:2"));
        let sets = vec![Arc::new(new_set(&one, &[]))];
        assert_eq!(find_new(&one, &sets).unwrap().metadata.name, sets[0].metadata.name);
        assert!(find_new(&two, &sets).is_none());
        let second = new_set(&two, &sets);
        assert_ne!(second.metadata.name, sets[0].metadata.name);
        assert_eq!((revision(&sets[0]), revision(&second)), (1, 2));
    }

    #[test]
    fn a_new_set_has_hash_owner_and_inherited_annotations() {
        let set = new_set(&deployment("web:1"), &[]);
        let hash = set.metadata.labels.as_ref().unwrap()[HASH_LABEL].clone();
        assert_eq!(set.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
        let spec = set.spec.unwrap();
        assert_eq!(spec.selector.match_labels.unwrap()[HASH_LABEL], hash);
        assert_eq!(spec.template.unwrap().metadata.unwrap().labels.unwrap()[HASH_LABEL], hash);
        assert_eq!(spec.replicas, Some(3));
        let annotations = set.metadata.annotations.unwrap();
        let keys: Vec<&str> = annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, [DESIRED_ANNOTATION, MAX_ANNOTATION, REVISION, "kubernetes.io/change-cause"]);
        assert_eq!(annotations[MAX_ANNOTATION], "4");
    }

    #[test]
    fn a_collision_gives_another_name() {
        let template = deployment("web:1").spec.unwrap().template;
        assert_ne!(template_hash(&template, 0), template_hash(&template, 1));
        assert_eq!(template_hash(&template, 1), template_hash(&template, 1));
    }

    #[test]
    fn undo_moves_the_set_to_the_newest_revision_and_remembers_the_old() {
        let one = deployment("web:1");
        let mut set = new_set(&one, &[]);
        for (newest, revision, history) in [(3, "3", Some("1")), (3, "3", Some("1")), (5, "5", Some("1,3"))] {
            let annotations = current_annotations(&one, &set, newest);
            assert_eq!(annotations[REVISION], revision);
            assert_eq!(annotations.get(HISTORY).map(String::as_str), history);
            set.metadata.annotations = Some(annotations);
        }
    }
}
