//! Evicting a pod, if its disruption budgets allow.

use crate::{
    request::{selector::Selector, status::ApiError, target::Target},
    server::{
        api::Call,
        response,
        verbs::delete::{self, DeleteOptions},
    },
    store::{Change, CommitError, Draft, Expect, Key, Object, Write},
};
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

const BUDGETS: &str = "poddisruptionbudgets.policy";
/// Seconds after which a budget that is being processed may be asked again. One that is used up names no time: clients
/// would repeat the request unseen, ten times, where `kubectl drain` says why it waits.
const BUSY: u64 = 10;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// Evictions of one budget that its controller has not seen take effect.
const MOST_DISRUPTED: usize = 2000;

/// Removes the pod, taking one disruption from its budget.
pub async fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let eviction = call.decode()?.value;
    let name = &call.info.name;
    if let Some(other) = eviction["metadata"]["name"].as_str().filter(|n| !n.is_empty() && n != name) {
        let text = format!("name in URL does not match name in Eviction object: {name:?} != {other:?}");
        return Err(ApiError::bad_request(text));
    }
    let mut options: DeleteOptions = match &eviction["deleteOptions"] {
        Value::Null => DeleteOptions::default(),
        value => serde_json::from_value(value.clone())
            .map_err(|error| ApiError::bad_request(format!("deleteOptions: {error}")))?,
    };
    if call.info.query.get("dryRun") == Some("All") {
        options.dry_run = vec!["All".into()];
    }
    let key = target.key(&call.info.namespace, name);
    let pod = call.api.store.get(target.table, &key).ok_or_else(|| target.not_found(name))?;
    let value = pod.value();
    let ended = matches!(value["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    let dry_run = !options.dry_run.is_empty();
    if !ended && !pod.header.deleting {
        disrupt(call, &pod, &value, dry_run).await?;
    }
    if !pod.header.deleting && !dry_run {
        note(call, target, &key, pod).await?;
    }
    delete::remove(call, target, &key, &options).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    response::value(&call.accept, StatusCode::CREATED, &done)
}

/// Says on the pod that it was evicted.
async fn note(call: &Call, target: &Target, key: &Key, mut pod: Arc<Object>) -> Result<(), ApiError> {
    const TYPE: &str = "DisruptionTarget";
    loop {
        let mut value = pod.value();
        let now = crate::server::strategy::metadata::shown(Timestamp::now());
        let condition = json!({"type": TYPE, "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now});
        let mut conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != TYPE);
        conditions.push(condition);
        value["status"]["conditions"] = conditions.into();
        let write = Write {
            table: target.table,
            key: key.clone(),
            expect: Expect::Revision(pod.revision),
            change: Change::Put(target.draft(&value)?),
        };
        match call.api.store.commit(write).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict) => {
                let name = key.name();
                pod = call.api.store.get(target.table, key).ok_or_else(|| target.not_found(name))?;
            }
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
}

/// The budget that covers a pod, if one does.
fn covering(call: &Call, pod: &Object) -> Result<Option<Arc<Object>>, ApiError> {
    let state = call.api.store.snapshot();
    let budgets = state.table(call.api.store.table(BUDGETS)).range(Some(pod.key.namespace()), None);
    let mut covering = budgets.filter(|budget| {
        let selector = &budget.value()["spec"]["selector"];
        !selector.is_null() && Selector::of_label_selector(selector).is_ok_and(|s| s.matches(&pod.header))
    });
    match (covering.next(), covering.next()) {
        (Some(_), Some(_)) => Err(ApiError::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
        (only, _) => Ok(only.cloned()),
    }
}

/// Whether a pod that is not ready goes without asking its budget.
fn goes_free(pod: &Value, budget: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    if conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
        return false;
    }
    let (have, need) = (number(budget, "currentHealthy"), number(budget, "desiredHealthy"));
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || (have >= need && need > 0)
}

fn number(budget: &Value, field: &str) -> i64 {
    budget["status"][field].as_i64().unwrap_or(0)
}

/// Why a budget does not allow a disruption now; `None` when it does.
fn refusal(budget: &Value) -> Option<ApiError> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |message: String| {
        Some(ApiError::too_many_requests(VIOLATES, vec![json!({"reason": "DisruptionBudget", "message": message})]))
    };
    if number(budget, "observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let refused = refuse(format!("The disruption budget {name} is still being processed by the server."));
        return refused.map(|error| error.with_retry_after(BUSY));
    }
    let disrupted = budget["status"]["disruptedPods"].as_object().map_or(0, serde_json::Map::len);
    if disrupted > MOST_DISRUPTED {
        let text = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Some(ApiError::forbidden("poddisruptionbudgets.policy", name, text));
    }
    if number(budget, "disruptionsAllowed") > 0 {
        return None;
    }
    let conditions = budget["status"]["conditions"].as_array().into_iter().flatten();
    let failed = conditions.into_iter().find(|c| c["type"] == "DisruptionAllowed" && c["reason"] == "SyncFailed");
    if let Some(failed) = failed {
        let why = failed["message"].as_str().unwrap_or_default();
        return refuse(format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}"
        ));
    }
    let (need, have) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
    refuse(format!("The disruption budget {name} needs {need} healthy pods and has {have} currently"))
}

/// Takes one disruption from the budget that covers the pod; of two at once one sees the other's.
async fn disrupt(call: &Call, pod: &Object, value: &Value, dry_run: bool) -> Result<(), ApiError> {
    let store = &call.api.store;
    loop {
        let Some(object) = covering(call, pod)? else { return Ok(()) };
        let mut budget = object.value();
        if goes_free(value, &budget) {
            return Ok(());
        }
        if let Some(error) = refusal(&budget) {
            return Err(error);
        }
        if dry_run {
            return Ok(());
        }
        budget["status"]["disruptionsAllowed"] = (number(&budget, "disruptionsAllowed") - 1).into();
        if !budget["status"]["disruptedPods"].is_object() {
            budget["status"]["disruptedPods"] = json!({});
        }
        budget["status"]["disruptedPods"][pod.key.name()] = crate::server::strategy::metadata::shown(Timestamp::now());
        let write = Write {
            table: store.table(BUDGETS),
            key: object.key.clone(),
            expect: Expect::Revision(object.revision),
            change: Change::Put(Draft::new(&budget, store.fields(BUDGETS))),
        };
        match store.commit(write).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict) => {}
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(spec: Value, status: Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 1}, "spec": spec, "status": status})
    }

    fn cause(budget: &Value) -> Option<String> {
        let status = refusal(budget)?.status();
        assert_eq!((&status["code"], &status["message"]), (&json!(429), &json!(VIOLATES)));
        status["details"]["causes"][0]["message"].as_str().map(str::to_owned)
    }

    #[test]
    fn a_budget_says_why_it_refuses() {
        let of = |status: Value| cause(&budget(json!({}), status));
        assert_eq!(of(json!({"observedGeneration": 1, "disruptionsAllowed": 1})), None);
        assert_eq!(
            of(json!({"observedGeneration": 1, "disruptionsAllowed": 0, "desiredHealthy": 2, "currentHealthy": 2})),
            Some("The disruption budget web needs 2 healthy pods and has 2 currently".into())
        );
        assert_eq!(
            of(json!({"disruptionsAllowed": 1})),
            Some("The disruption budget web is still being processed by the server.".into())
        );
        let failed = json!({"observedGeneration": 1, "conditions": [
            {"type": "DisruptionAllowed", "reason": "SyncFailed", "message": "no scale"}]});
        assert!(of(failed).unwrap().ends_with("because it failed sync: no scale"));
    }

    /// Clients repeat a request by themselves when the answer has the header.
    #[test]
    fn only_a_budget_that_is_being_processed_is_asked_again() {
        let header = |status: Value| {
            let answer = response::error(&refusal(&budget(json!({}), status)).unwrap(), None);
            answer.headers().get(http::header::RETRY_AFTER).map(|seconds| seconds.to_str().unwrap().to_owned())
        };
        assert_eq!(header(json!({"observedGeneration": 0})), Some("10".into()));
        assert_eq!(header(json!({"observedGeneration": 1, "disruptionsAllowed": 0})), None);
    }

    #[test]
    fn pods_that_are_not_ready_may_go_free() {
        let pod = |ready: &str| json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let enough = json!({"currentHealthy": 2, "desiredHealthy": 2});
        let short = json!({"currentHealthy": 1, "desiredHealthy": 2});
        let always = json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"});
        assert!(!goes_free(&pod("True"), &budget(always.clone(), enough.clone())));
        assert!(goes_free(&pod("False"), &budget(json!({}), enough)));
        assert!(!goes_free(&pod("False"), &budget(json!({}), short.clone())));
        assert!(goes_free(&pod("False"), &budget(always, short)));
        assert!(!goes_free(&pod("False"), &budget(json!({}), json!({}))));
    }
}
