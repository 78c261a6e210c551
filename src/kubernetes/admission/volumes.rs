//! Volumes and claims: the default storage class, protection while in use, growing.

use super::Change;
use crate::{request::status::ApiError, store::Key};
use aksim_model::quantity::Amount;
use serde_json::{Value, json};

/// A claim without class gets the newest default one.
pub fn default_storage_class(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    if change.old.is_some() || !value["spec"]["storageClassName"].is_null() {
        return Ok(());
    }
    let store = change.store;
    let state = store.snapshot();
    let classes = state.table(store.table("storageclasses.storage.k8s.io")).range(None, None);
    let created = |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let default = classes
        .map(|class| class.value())
        .filter(|class| class["metadata"]["annotations"][DEFAULT] == "true")
        .max_by_key(created);
    if let Some(class) = default {
        value["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}

/// A claim or volume in use is not removed: its controller takes the finalizer off.
pub fn protect(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.old.is_some() {
        return Ok(());
    }
    let finalizer = match change.target.table_name.as_str() {
        "persistentvolumes" => "kubernetes.io/pv-protection",
        _ => "kubernetes.io/pvc-protection",
    };
    let finalizers = &mut value["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|known| known == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => *finalizers = json!([finalizer]),
    }
    Ok(())
}

/// Only a bound claim of a class that allows it grows.
pub fn resize(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    let Some(old) = change.old else { return Ok(()) };
    let size = |claim: &Value| Amount::of(&claim["spec"]["resources"]["requests"]["storage"]).map(Amount::nanos);
    if size(value) <= size(old) {
        return Ok(());
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |cause: &str| Err(ApiError::forbidden("persistentvolumeclaims", name, cause));
    if old["status"]["phase"] != "Bound" {
        return refuse("Only bound persistent volume claims can be expanded");
    }
    let store = change.store;
    let class = value["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = store.get(store.table("storageclasses.storage.k8s.io"), &Key::new("", class));
    if class.is_some_and(|class| class.value()["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    refuse(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}
