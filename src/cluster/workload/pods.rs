//! Which pods are of a workload's template as it is now.

use super::{Kind, Membership};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

/// Label of a pod with its revision; of a DaemonSet's ControllerRevision as well.
const REVISION_LABEL: &str = "controller-revision-hash";
/// Label that the Deployment controller adds to the template of a ReplicaSet.
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// Pods of the workload that are not going away: those of the template as it is now first, older ones second.
/// `histories` are the ReplicaSets and ControllerRevisions of its namespace.
pub fn by_template<'p>(
    kind: &Kind,
    object: &Value,
    histories: &[&Value],
    pods: impl Iterator<Item = &'p Pod>,
) -> (Vec<&'p Pod>, Vec<&'p Pod>) {
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let history: Vec<&Value> = histories.iter().copied().filter(|h| value_controlled_by(h, uid)).collect();
    let is_ours = |pod: &Pod| match kind.membership {
        Membership::ReplicaSet => history.iter().any(|set| is_controlled_by(pod, uid_of(set))),
        Membership::Itself => pod.uid().as_deref() == Some(uid),
        Membership::Nobody => false,
        _ => is_controlled_by(pod, uid),
    };
    let newest = newest(kind, object, &history);
    let is_new = |pod: &Pod| match kind.membership {
        Membership::ReplicaSet => newest.is_some_and(|set| is_controlled_by(pod, uid_of(set))),
        Membership::ControllerRevision => {
            let hash = newest.and_then(|revision| revision["metadata"]["labels"][REVISION_LABEL].as_str());
            hash.is_some_and(|hash| pod.labels().get(REVISION_LABEL).is_some_and(|label| label == hash))
        }
        Membership::UpdateRevision => {
            // Until the spec has been observed, the revision is that of the spec before.
            let observed = object["status"]["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
            let revision = object["status"]["updateRevision"].as_str().filter(|_| observed);
            revision.is_some_and(|wanted| pod.labels().get(REVISION_LABEL).is_some_and(|label| label == wanted))
        }
        _ => true,
    };
    pods.filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ours(pod)).partition(|pod| is_new(pod))
}

fn is_controlled_by(pod: &Pod, uid: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

fn value_controlled_by(object: &Value, uid: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| owner["controller"] == true && owner["uid"] == uid)
}

fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// The object of the history that has the workload's template: as controllers find it, by comparing.
fn newest<'h>(kind: &Kind, object: &Value, history: &[&'h Value]) -> Option<&'h Value> {
    let pointer = match kind.membership {
        Membership::ReplicaSet => "/spec/template",
        Membership::ControllerRevision => "/data/spec/template",
        _ => return None,
    };
    let wanted = comparable(object.pointer("/spec/template")?);
    let same = |h: &&&Value| h.pointer(pointer).is_some_and(|template| comparable(template) == wanted);
    history.iter().filter(same).min_by_key(|h| h["metadata"]["creationTimestamp"].as_str()).copied()
}

/// A template without what controllers add to it where they keep it.
fn comparable(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH_LABEL);
    }
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    without_nothing(&mut template);
    template
}

/// Takes out nulls and empty maps: who writes them and who leaves them out mean the same.
fn without_nothing(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_nothing);
            map.retain(|_, value| !value.is_null());
            // `emptyDir: {}` says which volume it is.
            if map.get("metadata").is_some_and(|metadata| *metadata == json!({})) {
                map.remove("metadata");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_nothing),
        _ => {}
    }
}
