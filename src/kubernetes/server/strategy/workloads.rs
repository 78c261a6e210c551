//! Workloads: selectors, templates, jobs.

use super::{Change, metadata, pods};
use crate::request::{
    selector::Selector,
    status::{ApiError, Cause},
};
use serde_json::{Value, json};

pub(super) const IMMUTABLE: &str = "field is immutable";

/// A selector is there, does not change, and selects the template.
pub fn validate_selector(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let selector = &value["spec"]["selector"];
    let empty = |field: &str| selector[field].as_object().is_none_or(serde_json::Map::is_empty);
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
        return;
    }
    if empty("matchLabels") && selector["matchExpressions"].as_array().is_none_or(Vec::is_empty) {
        let detail = format!("empty selector is invalid for {}", change.target.resource.kind.to_lowercase());
        causes.push(Cause::invalid("spec.selector", selector, &detail));
    }
    // Of a StatefulSet most of the spec cannot change, which is said once for all of it.
    let fixed = change.target.table_name != "statefulsets.apps";
    if change.old.is_some_and(|old| fixed && old["spec"]["selector"] != *selector) {
        causes.push(Cause::invalid("spec.selector", selector, IMMUTABLE));
    }
    let labels = &value["spec"]["template"]["metadata"]["labels"];
    let matches =
        Selector::of_label_selector(selector).is_ok_and(|selector| selector.matches_by(|name| labels[name].as_str()));
    if !matches {
        let detail = "`selector` does not match template `labels`";
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        causes.push(Cause::invalid("spec.template.metadata.labels", &shown, detail));
    }
}

/// The pod template is a valid pod.
pub fn validate_template(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let template = &value["spec"]["template"];
    metadata::validate_labels("spec.template.metadata.labels", &template["metadata"]["labels"], causes);
    pods::validate_spec("spec.template.spec", &template["spec"], causes);
    let policy = template["spec"]["restartPolicy"].as_str();
    let always = !matches!(change.target.table_name.as_str(), "jobs.batch");
    if always && policy.is_some_and(|policy| policy != "Always" && matches!(policy, "OnFailure" | "Never")) {
        let field = "spec.template.spec.restartPolicy";
        causes.push(Cause::not_supported(field, &template["spec"]["restartPolicy"], &["Always"]));
    }
    if value["spec"]["replicas"].as_i64().is_some_and(|replicas| replicas < 0) {
        causes.push(Cause::invalid("spec.replicas", &value["spec"]["replicas"], "must be greater than or equal to 0"));
    }
}

/// A job selects its pods by its own uid unless it says otherwise.
pub fn prepare_job(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.old.is_some() || value["spec"]["manualSelector"] == true {
        return Ok(());
    }
    let (uid, name) = (value["metadata"]["uid"].clone(), value["metadata"]["name"].clone());
    let spec = &mut value["spec"];
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    if spec["template"]["metadata"].is_null() {
        spec["template"]["metadata"] = json!({});
    }
    let labels = &mut spec["template"]["metadata"]["labels"];
    for (key, value) in [("controller-uid", &uid), ("job-name", &name)] {
        labels[key] = value.clone();
        labels[format!("batch.kubernetes.io/{key}")] = value.clone();
    }
    Ok(())
}

/// A job's restart policy is its own, and its template does not change.
pub fn validate_job(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let template = &value["spec"]["template"];
    let policy = &template["spec"]["restartPolicy"];
    if !matches!(policy.as_str(), Some("OnFailure" | "Never")) {
        let field = "spec.template.spec.restartPolicy";
        causes.push(Cause {
            message: "Required value: valid values: \"OnFailure\", \"Never\"".into(),
            ..Cause::required(field, "")
        });
    }
    let Some(old) = change.old else { return };
    for field in ["selector", "template", "completions"] {
        let suspended = field == "template" && old["spec"]["suspend"] == true;
        let elastic = field == "completions" && value["spec"]["completionMode"] == "Indexed";
        if old["spec"][field] != value["spec"][field] && !suspended && !elastic {
            causes.push(Cause::invalid(format!("spec.{field}"), &value["spec"][field], IMMUTABLE));
        }
    }
}
