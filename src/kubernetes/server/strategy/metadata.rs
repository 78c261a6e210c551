//! Metadata, status and generation: rules that all kinds share.

use super::{Change, Part, names};
use crate::request::{status::Cause, target::Target};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Tables whose objects count their generations.
const GENERATIONS: &[&str] = &[
    "pods",
    "replicationcontrollers",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "jobs.batch",
    "cronjobs.batch",
    "ingresses.networking.k8s.io",
    "networkpolicies.networking.k8s.io",
    "ingressclasses.networking.k8s.io",
    "poddisruptionbudgets.policy",
    "priorityclasses.scheduling.k8s.io",
    "endpointslices.discovery.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
];
/// Tables whose clients may give a status on create: a kubelet registers its node with one.
const STATUS_ON_CREATE: &[&str] = &["nodes"];
/// Metadata that only the server sets.
const SYSTEM: &[&str] =
    &["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

fn counts_generations(target: &Target) -> bool {
    GENERATIONS.contains(&target.table_name.as_str())
}

/// A time as metadata shows it, in seconds.
pub fn shown(time: Timestamp) -> Value {
    jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", time).map_or(Value::Null, Value::String)
}

/// Gives a new object its identity and resets what the client has no say in.
pub fn begin(target: &Target, value: &mut Value, now: Timestamp) {
    if let Some(metadata) = value["metadata"].as_object_mut() {
        SYSTEM.iter().for_each(|field| {
            metadata.remove(*field);
        });
        metadata.remove("resourceVersion");
        metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".into(), shown(now));
        if counts_generations(target) {
            metadata.insert("generation".into(), 1.into());
        }
    }
    if target.resource.has_status() && !STATUS_ON_CREATE.contains(&target.table_name.as_str()) {
        reset_status(value);
    }
}

fn reset_status(value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    object.insert("status".into(), json!({}));
}

/// The live object with the part that may change taken from the proposal.
pub fn merge(change: &Change<'_>, live: &Value, new: Value) -> Value {
    let mut merged = match change.part {
        Part::Whole => {
            let mut merged = new;
            if change.target.resource.has_status() {
                copy(&mut merged, live, "status");
            }
            merged
        }
        Part::Status => {
            let mut merged = live.clone();
            copy(&mut merged, &new, "status");
            merged["metadata"] = new["metadata"].clone();
            // Status writers do not take owners or the like away.
            copy_metadata(&mut merged, live, &["ownerReferences", "finalizers"]);
            merged
        }
        Part::EphemeralContainers => with(live, &new, &["spec"], "ephemeralContainers"),
        Part::Finalize => with(live, &new, &["spec"], "finalizers"),
        Part::Approval => with(live, &new, &["status"], "conditions"),
        Part::Resize => {
            let mut merged = live.clone();
            merge_resources(&mut merged, &new);
            merged
        }
        Part::Scale | Part::Binding => new,
    };
    copy_metadata(&mut merged, live, SYSTEM);
    copy_metadata(&mut merged, live, &["name", "namespace", "resourceVersion", "generateName"]);
    merged
}

/// `base` with `parents.field` and the managed fields of `new`.
fn with(base: &Value, new: &Value, parents: &[&str], field: &str) -> Value {
    let mut merged = base.clone();
    let from = parents.iter().fold(new, |value, parent| &value[*parent]);
    let to = parents.iter().fold(&mut merged, |value, parent| &mut value[*parent]);
    copy(to, from, field);
    copy_metadata(&mut merged, new, &["managedFields"]);
    merged
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match (from.get(field), to.as_object_mut()) {
        (Some(value), Some(to)) => {
            to.insert(field.into(), value.clone());
        }
        (None, Some(to)) => {
            to.remove(field);
        }
        (Some(value), None) => *to = json!({field: value}),
        (None, None) => {}
    }
}

fn copy_metadata(to: &mut Value, from: &Value, fields: &[&str]) {
    for field in fields {
        copy(&mut to["metadata"], &from["metadata"], field);
    }
}

fn merge_resources(merged: &mut Value, new: &Value) {
    for list in ["containers", "initContainers"] {
        let containers = merged["spec"].get_mut(list).and_then(Value::as_array_mut);
        let Some(containers) = containers else { continue };
        for container in containers {
            let same = new["spec"][list].as_array().into_iter().flatten().find(|c| c["name"] == container["name"]);
            if let Some(same) = same {
                copy(container, same, "resources");
                copy(container, same, "resizePolicy");
            }
        }
    }
    copy_metadata(merged, new, &["managedFields"]);
}

/// Counts the generation when what is wanted has changed.
pub fn generation(change: &Change<'_>, live: &Value, value: &mut Value) {
    if !counts_generations(change.target) || matches!(change.part, Part::Status | Part::Binding) {
        return;
    }
    let empty = Map::new();
    let fields = |value: &'_ Value| value.as_object().cloned().unwrap_or_else(|| empty.clone());
    let (before, after) = (fields(live), fields(value));
    let wanted = |name: &&String| !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    let changed = before.keys().chain(after.keys()).filter(wanted).any(|name| before.get(name) != after.get(name));
    if changed {
        let generation = live["metadata"]["generation"].as_i64().unwrap_or(0);
        value["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Whether an object that is being removed waits for nothing any more.
pub fn is_finished(value: &Value) -> bool {
    let metadata = &value["metadata"];
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let namespace_is_empty = value["kind"] != "Namespace" || none(&value["spec"]["finalizers"]);
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && none(&metadata["finalizers"])
        && namespace_is_empty
}

/// Validates names, labels, annotations, owners and finalizers.
pub fn validate(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let metadata = &value["metadata"];
    if change.old.is_none() {
        let name = &metadata["name"];
        if let Some(problem) = names::problem(&change.target.table_name, name.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid("metadata.name", name, &problem));
        }
    }
    validate_labels("metadata.labels", &metadata["labels"], causes);
    for (key, _) in metadata["annotations"].as_object().into_iter().flatten() {
        if !names::is_qualified_name(&key.to_ascii_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), QUALIFIED_NAME));
        }
    }
    for (index, owner) in metadata["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let field = format!("metadata.ownerReferences[{index}].{field}");
                causes.push(Cause::invalid(field, &"".into(), "must not be empty"));
            }
        }
    }
    if let Some(old) = change.old.filter(|old| !old["metadata"]["deletionTimestamp"].is_null()) {
        let before: Vec<_> = old["metadata"]["finalizers"].as_array().into_iter().flatten().collect();
        let added = metadata["finalizers"].as_array().into_iter().flatten().find(|f| !before.contains(f));
        if let Some(added) = added {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added}}}"
            );
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
        }
    }
}

const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Validates a map of labels at `path`.
pub fn validate_labels(path: &str, labels: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if !names::is_qualified_name(key) {
            causes.push(Cause::invalid(path, &key.as_str().into(), QUALIFIED_NAME));
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            causes.push(Cause::invalid(path, value, "must be no more than 63 bytes"));
        } else if !names::is_label_value(text) {
            causes.push(Cause::invalid(path, value, LABEL_VALUE));
        }
    }
}
