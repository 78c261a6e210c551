//! `autoscaling/v1 Scale` of whatever has replicas.

use crate::{
    admission::Part,
    request::{
        status::{ApiError, Cause},
        target::Target,
    },
    schema::{PatchKind, Resource, Verb, resource::ScalePaths},
    server::{
        api::Call,
        response,
        verbs::{
            options::WriteOptions,
            patch::Patch,
            update::{self, Proposal},
        },
    },
};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};

/// Reads or writes the scale.
pub async fn handle(call: &Call, target: &Target, paths: &ScalePaths, verb: Verb) -> Result<Response<Body>, ApiError> {
    let name = &call.info.name;
    if verb == Verb::Get {
        let key = target.key(&call.info.namespace, name);
        let object = call.api.store.get(target.table, &key).ok_or_else(|| target.not_found(name))?;
        return response::value(&call.accept, StatusCode::OK, &scale_of(paths, &target.decode(&object)?));
    }
    let options = WriteOptions::of(call)?;
    let patch = match verb {
        Verb::Patch => {
            let patch = Patch::of(call)?;
            if patch.kind == PatchKind::Apply {
                return Err(ApiError::not_emulated("server-side apply of the subresource scale"));
            }
            Some(patch)
        }
        _ => None,
    };
    let body = match &patch {
        None => call.decode()?.value,
        Some(_) => Value::Null,
    };
    let outcome = update::change(call, target, Part::Scale, &options, |live| {
        let before = scale_of(paths, live);
        let wanted = match &patch {
            Some(patch) if patch.kind == PatchKind::Json => patch.applied(target, &before)?,
            // Scale has no lists: strategic merge is merge.
            Some(patch) => {
                let mut merged = before.clone();
                crate::patch::merge(&mut merged, &patch.body);
                merged
            }
            None => body.clone(),
        };
        scaled(&target.resource, paths, live, &wanted)
    })
    .await?;
    response::value(&call.accept, StatusCode::OK, &scale_of(paths, &outcome.value(target)?))
}

/// The live object with the replicas that a scale wants.
fn scaled(resource: &Resource, paths: &ScalePaths, live: &Value, wanted: &Value) -> Result<Proposal, ApiError> {
    let name = live["metadata"]["name"].as_str().unwrap_or_default();
    let replicas = match &wanted["spec"]["replicas"] {
        Value::Null => 0,
        value => value.as_i64().ok_or_else(|| {
            ApiError::bad_request(format!(
                "Scale in version \"v1\" cannot be handled as a Scale: spec.replicas: {value}"
            ))
        })?,
    };
    if !(0..=i64::from(i32::MAX)).contains(&replicas) {
        let cause = Cause::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
        let kind = if resource.group.is_empty() { "Scale" } else { "Scale.autoscaling" };
        return Err(ApiError::invalid(kind, name, &[cause]));
    }
    let mut value = live.clone();
    set(&mut value, &paths.spec_replicas, replicas.into());
    // Preconditions are those of the scale that was sent.
    for field in ["resourceVersion", "uid"] {
        value["metadata"][field] = wanted["metadata"][field].clone();
    }
    Ok(Proposal { value, owned: false })
}

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.trim_start_matches('.').split('.').fold(value, |value, part| &value[part])
}

fn set(value: &mut Value, path: &str, new: Value) {
    let target = path.trim_start_matches('.').split('.').fold(value, |value, part| &mut value[part]);
    *target = new;
}

fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {},
        "status": {"replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0)},
    });
    if let Some(replicas) = at(object, &paths.spec_replicas).as_i64() {
        scale["spec"]["replicas"] = replicas.into();
    }
    if let Some(selector) = &paths.selector {
        scale["status"]["selector"] = selector_text(at(object, selector)).into();
    }
    scale
}

/// A selector as `a=b,c in (d,e)`.
fn selector_text(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let Some(fields) = selector.as_object() else { return text(selector) };
    let structured = fields.contains_key("matchLabels") || fields.contains_key("matchExpressions");
    let labels = if structured { &selector["matchLabels"] } else { selector };
    let mut terms: Vec<_> =
        labels.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = text(&expression["key"]);
        let values: Vec<_> = expression["values"].as_array().into_iter().flatten().map(text).collect();
        terms.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key,
            _ => format!("!{key}"),
        });
    }
    terms.join(",")
}
