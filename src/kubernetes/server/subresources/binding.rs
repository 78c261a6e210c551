//! Binding a pod to a node.

use crate::{
    admission::Part,
    request::{status::ApiError, target::Target},
    server::{
        api::Call,
        response,
        strategy::metadata,
        verbs::{
            options::WriteOptions,
            update::{self, Proposal},
        },
    },
};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};

/// Sets the node of a pod that has none.
pub async fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::of(call)?;
    let binding = call.decode()?.value;
    let node = binding["target"]["name"].as_str().filter(|name| !name.is_empty());
    let node = node.ok_or_else(|| ApiError::unprocessable("Binding \"\" is invalid: target.name: Required value"))?;
    if !matches!(binding["target"]["kind"].as_str(), None | Some("" | "Node")) {
        return Err(ApiError::unprocessable(
            "Binding is invalid: target.kind: Unsupported value: supported values: \"Node\"",
        ));
    }
    let now = options.now;
    update::change(call, target, Part::Binding, &options, |live| {
        let name = call.info.name.as_str();
        let conflict = |cause: String| Err(ApiError::conflict("pods/binding", name, &cause));
        if !live["metadata"]["deletionTimestamp"].is_null() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        if let Some(have) = live["spec"]["nodeName"].as_str().filter(|have| !have.is_empty()) {
            return conflict(format!("pod {name} is already assigned to node \"{have}\""));
        }
        if live["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let mut value = live.clone();
        value["spec"]["nodeName"] = node.into();
        for (key, annotation) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
            value["metadata"]["annotations"][key] = annotation.clone();
        }
        value["metadata"]["uid"] = match &binding["metadata"]["uid"] {
            Value::String(uid) if !uid.is_empty() => uid.as_str().into(),
            _ => live["metadata"]["uid"].clone(),
        };
        set_scheduled(&mut value, now);
        Ok(Proposal { value, owned: false })
    })
    .await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    response::value(&call.accept, StatusCode::CREATED, &done)
}

fn set_scheduled(pod: &mut Value, now: jiff::Timestamp) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": metadata::shown(now)});
    match pod["status"]["conditions"].as_array_mut() {
        Some(conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(condition);
        }
        None => pod["status"]["conditions"] = json!([condition]),
    }
}
