//! What every pod gets: its service account and token, a priority, tolerations of failing nodes.

use super::Change;
use crate::{
    request::{names::generated_name, status::ApiError},
    store::Key,
};
use serde_json::{Value, json};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds a projected token is valid; the kubelet renews it (an hour, seven seconds for skew).
const TOKEN_SECONDS: u32 = 3607;
/// Annotation of a pod that a kubelet read from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The account `default` unless another is named, and its token mounted in every container.
pub fn service_account(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.old.is_some() || !value["metadata"]["annotations"][MIRROR].is_null() {
        return Ok(());
    }
    let spec = &value["spec"];
    let given = |field: &str| spec[field].as_str().filter(|name| !name.is_empty());
    let account = given("serviceAccountName").or_else(|| given("serviceAccount")).unwrap_or("default").to_owned();
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let store = change.store;
    let Some(found) = store.get(store.table("serviceaccounts"), &Key::new(namespace, &account)) else {
        let cause =
            format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found");
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        return Err(ApiError::forbidden("pods", name, &cause));
    };
    let found = found.value();
    let spec = &mut value["spec"];
    spec["serviceAccountName"] = account.as_str().into();
    spec["serviceAccount"] = account.as_str().into();
    let secrets = &found["imagePullSecrets"];
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && secrets.as_array().is_some_and(|s| !s.is_empty())
    {
        spec["imagePullSecrets"] = secrets.clone();
    }
    let mount = spec["automountServiceAccountToken"].as_bool();
    if mount.or(found["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount_token(spec);
    }
    Ok(())
}

fn mount_token(spec: &mut Value) {
    let known = spec["volumes"].as_array().into_iter().flatten().filter_map(|v| v["name"].as_str());
    let known = known.clone().find(|name| name.starts_with("kube-api-access-")).map(str::to_owned);
    let volume = known.clone().unwrap_or_else(|| generated_name("kube-api-access-"));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        // Looked up, not indexed: indexing would leave a null behind.
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = &mut container["volumeMounts"];
            if mounts.as_array().into_iter().flatten().any(|mount| mount["mountPath"] == TOKEN_PATH) {
                continue;
            }
            used = true;
            let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH});
            push(mounts, mount);
        }
    }
    if !used || known.is_some() {
        return;
    }
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]);
    push(&mut spec["volumes"], json!({"name": volume, "projected": {"sources": sources, "defaultMode": 420}}));
}

fn push(list: &mut Value, entry: Value) {
    match list.as_array_mut() {
        Some(entries) => entries.push(entry),
        None => *list = json!([entry]),
    }
}

/// The value of the pod's priority class, or of the default one, or zero.
pub fn priority(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.old.is_some() {
        return Ok(());
    }
    let store = change.store;
    let table = store.table("priorityclasses.scheduling.k8s.io");
    let class = match value["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            let found = store.get(table, &Key::new("", name)).ok_or_else(|| {
                let pod = value["metadata"]["name"].as_str().unwrap_or_default();
                let cause = format!("no PriorityClass with name {name} was found");
                ApiError::forbidden("pods", pod, &cause)
            })?;
            Some(found.value())
        }
        None => {
            let state = store.snapshot();
            let classes = state.table(table).range(None, None).map(|class| class.value());
            classes.filter(|class| class["globalDefault"] == true).max_by_key(|class| class["value"].as_i64())
        }
    };
    let spec = &mut value["spec"];
    match class {
        Some(class) => {
            spec["priorityClassName"] = class["metadata"]["name"].clone();
            spec["priority"] = class["value"].clone();
            spec["preemptionPolicy"] = match &class["preemptionPolicy"] {
                Value::Null => "PreemptLowerPriority".into(),
                policy => policy.clone(),
            };
        }
        None => {
            spec["priority"] = 0.into();
            spec["preemptionPolicy"] = "PreemptLowerPriority".into();
        }
    }
    Ok(())
}

/// Pods stay five minutes on a node that is not ready or not reachable.
pub fn default_tolerations(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.old.is_some() {
        return Ok(());
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerations = &mut value["spec"]["tolerations"];
        let covered = tolerations.as_array().into_iter().flatten().any(|toleration| {
            let all = toleration["key"].as_str().unwrap_or_default().is_empty();
            let effect = toleration["effect"].as_str().unwrap_or_default();
            (all || toleration["key"] == key) && (effect.is_empty() || effect == "NoExecute")
        });
        if !covered {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            push(tolerations, toleration);
        }
    }
    Ok(())
}
