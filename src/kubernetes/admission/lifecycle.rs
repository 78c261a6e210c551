//! Namespaces that exist and stay; the default ingress class.

use super::Change;
use crate::{
    request::{status::ApiError, target::Target},
    store::Key,
};
use serde_json::{Value, json};

/// Namespaces that cannot be removed.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Nothing is created in a namespace that is not there or is going.
pub fn namespace_lifecycle(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    let target = change.target;
    if change.old.is_some() || !target.resource.namespaced {
        return Ok(());
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let store = change.store;
    let found = store.get(store.table("namespaces"), &Key::new("", namespace));
    match found {
        None => Err(ApiError::not_found("namespaces", namespace)),
        Some(object) if object.header.deleting => {
            let name = value["metadata"]["name"].as_str().unwrap_or_default();
            let cause = format!("unable to create new content in namespace {namespace} because it is being terminated");
            Err(ApiError::forbidden(&target.resource.group_resource(), name, &cause).with_causes(&[json!({
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            })]))
        }
        Some(_) => Ok(()),
    }
}

/// The namespaces that the cluster needs stay.
pub fn keep_system_namespaces(target: &Target, key: &Key) -> Result<(), ApiError> {
    if target.table_name == "namespaces" && IMMORTAL.contains(&key.name()) {
        return Err(ApiError::forbidden("namespaces", key.name(), "this namespace may not be deleted"));
    }
    Ok(())
}

/// An ingress without class gets the default one.
pub fn default_ingress_class(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
    let annotated = !value["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null();
    if change.old.is_some() || annotated || !value["spec"]["ingressClassName"].is_null() {
        return Ok(());
    }
    let store = change.store;
    let state = store.snapshot();
    let classes = state.table(store.table("ingressclasses.networking.k8s.io")).range(None, None);
    let default = classes.map(|class| class.value()).find(|class| class["metadata"]["annotations"][DEFAULT] == "true");
    if let Some(class) = default {
        value["spec"]["ingressClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}
