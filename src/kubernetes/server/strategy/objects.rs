//! Smaller kinds: namespaces, secrets, config maps, bindings, volumes, signing requests, events.

use super::{Change, Part};
use crate::request::status::{ApiError, Cause};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A namespace has its finalizer, its phase, and a label with its name.
pub fn prepare_namespace(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.part == Part::Whole {
        let name = value["metadata"]["name"].clone();
        value["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    }
    if change.old.is_none() {
        let finalizers = &mut value["spec"]["finalizers"];
        if finalizers.as_array().is_none_or(|list| !list.contains(&"kubernetes".into())) {
            *finalizers = json!(["kubernetes"]);
        }
        value["status"] = json!({"phase": "Active"});
    } else if change.part == Part::Whole
        && let Some(old) = change.old
    {
        // Finalizers go by the subresource `finalize` only.
        value["spec"]["finalizers"] = old["spec"]["finalizers"].clone();
        if value["spec"]["finalizers"].is_null() {
            value["spec"] = json!({});
        }
    }
    Ok(())
}

/// `stringData` becomes `data`.
pub fn prepare_secret(_change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    let Some(strings) = value.as_object_mut().and_then(|secret| secret.remove("stringData")) else { return Ok(()) };
    for (key, text) in strings.as_object().into_iter().flatten() {
        value["data"][key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
    Ok(())
}

fn validate_keys(value: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    for field in fields {
        for key in value[*field].as_object().into_iter().flatten().map(|(key, _)| key) {
            let legal = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !legal || key.is_empty() || key.len() > 253 || key == "." || key == ".." {
                let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
                     'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{field}[{key}]"), &key.as_str().into(), detail));
            }
        }
    }
}

fn validate_immutable(change: &Change<'_>, value: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = change.old.filter(|old| old["immutable"] == true) else { return };
    if value["immutable"] != true {
        causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields.iter().filter(|field| old[**field] != value[**field]) {
        causes.push(Cause::forbidden(*field, "field is immutable when `immutable` is set"));
    }
}

/// Required keys of secret types.
const SECRET_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
];

/// Keys, base64, the type that does not change, keys that the type requires.
pub fn validate_secret(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    validate_keys(value, &["data"], causes);
    validate_immutable(change, value, &["data"], causes);
    let kind = value["type"].as_str().unwrap_or("Opaque");
    for key in SECRET_KEYS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| keys) {
        if value["data"][*key].is_null() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    if change.old.is_some_and(|old| old["type"] != value["type"]) {
        causes.push(Cause::invalid("type", &value["type"], "field is immutable"));
    }
}

/// Keys, and the immutable ones.
pub fn validate_config_map(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    validate_keys(value, &["data", "binaryData"], causes);
    validate_immutable(change, value, &["data", "binaryData"], causes);
}

/// API groups of the references in a role binding.
pub fn prepare_binding(_change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if value["roleRef"]["apiGroup"].as_str().unwrap_or_default().is_empty() {
        value["roleRef"]["apiGroup"] = GROUP.into();
    }
    for subject in value.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        let people = matches!(subject["kind"].as_str(), Some("User" | "Group"));
        if people && subject["apiGroup"].as_str().unwrap_or_default().is_empty() {
            subject["apiGroup"] = GROUP.into();
        }
    }
    Ok(())
}

/// A binding keeps its role.
pub fn validate_role_ref(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let role = &value["roleRef"];
    let kinds = ["Role", "ClusterRole"];
    if !role["kind"].as_str().is_some_and(|kind| kinds.contains(&kind)) {
        causes.push(Cause::not_supported("roleRef.kind", &role["kind"], &kinds));
    }
    if role["name"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    if change.old.is_some_and(|old| old["roleRef"] != *role) {
        causes.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
    }
}

/// A new volume or claim is pending.
pub fn prepare_volume(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.old.is_none() {
        value["status"] = json!({"phase": "Pending"});
    }
    Ok(())
}

/// A signing request says who asked.
pub fn prepare_signing_request(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    let user = change.user;
    match change.old {
        None => {
            value["spec"]["username"] = user.name.as_str().into();
            value["spec"]["groups"] = user.groups.clone().into();
            if !user.uid.is_empty() {
                value["spec"]["uid"] = user.uid.as_str().into();
            }
        }
        Some(old) => value["spec"] = old["spec"].clone(),
    }
    Ok(())
}

/// An event lies where its object does.
pub fn validate_event(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let (about, namespace) = (&value["involvedObject"]["namespace"], &value["metadata"]["namespace"]);
    let about = if about.is_null() { &value["regarding"]["namespace"] } else { about };
    let home = about.as_str().unwrap_or_default();
    let fits = home == namespace.as_str().unwrap_or_default() || (home.is_empty() && *namespace == "default");
    if change.old.is_none() && !fits {
        causes.push(Cause::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
}

/// A priority keeps its value.
pub fn validate_priority_class(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    if change.old.is_some_and(|old| old["value"] != value["value"]) {
        causes.push(Cause::forbidden("value", "may not be changed in an update."));
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let system = matches!(name, "system-node-critical" | "system-cluster-critical");
    if !system && value["value"].as_i64().is_some_and(|value| value > 1_000_000_000) {
        let detail = "maximum allowed value of a user defined priority is 1000000000";
        causes.push(Cause::forbidden("value", detail));
    }
}
