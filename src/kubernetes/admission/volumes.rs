//! The default storage class.

use crate::kubernetes::server::{status::ApiError, strategy::Change};
use serde_json::Value;

/// A claim without class gets the newest default one.
pub fn default_storage_class(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    if change.old.is_some() || !value["spec"]["storageClassName"].is_null() {
        return Ok(());
    }
    let store = &change.call.api.store;
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
