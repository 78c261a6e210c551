//! Evicting a pod, if its disruption budgets allow.

use crate::kubernetes::{
    server::{
        api::Call,
        response,
        selector::Selector,
        status::ApiError,
        target::Target,
        verbs::delete::{self, DeleteOptions},
    },
    store::{Change, Draft, Expect, Key, Object, Write},
};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// Removes the pod, taking one disruption from its budget.
pub async fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let eviction = call.decode()?.value;
    let mut options: DeleteOptions = match &eviction["deleteOptions"] {
        Value::Null => DeleteOptions::default(),
        value => serde_json::from_value(value.clone())
            .map_err(|error| ApiError::bad_request(format!("deleteOptions: {error}")))?,
    };
    if call.info.query.get("dryRun") == Some("All") {
        options.dry_run = vec!["All".into()];
    }
    let key = target.key(&call.info.namespace, &call.info.name);
    let pod = call.api.store.get(target.table, &key).ok_or_else(|| target.not_found(&call.info.name))?;
    let value = pod.value();
    let ended = matches!(value["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    if !ended && !pod.header.deleting {
        disrupt(call, &pod, !options.dry_run.is_empty()).await?;
    }
    delete::remove(call, target, &key, &options).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    response::value(&call.accept, StatusCode::CREATED, &done)
}

/// Takes one disruption from the budget that covers the pod.
async fn disrupt(call: &Call, pod: &Object, dry_run: bool) -> Result<(), ApiError> {
    let store = &call.api.store;
    let table = store.table(BUDGETS);
    loop {
        let state = store.snapshot();
        let budgets = state.table(table).range(Some(pod.key.namespace()), None);
        let covering: Vec<(Arc<Object>, Value)> = budgets
            .map(|budget| (budget.clone(), budget.value()))
            .filter(|(_, budget)| {
                let selector = &budget["spec"]["selector"];
                !selector.is_null() && Selector::of_label_selector(selector).is_ok_and(|s| s.matches(&pod.header))
            })
            .collect();
        let (object, mut budget) = match <[_; 1]>::try_from(covering) {
            Ok([only]) => only,
            Err(none) if none.is_empty() => return Ok(()),
            Err(_) => {
                return Err(ApiError::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let name = budget["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        if budget["status"]["observedGeneration"].as_i64() < budget["metadata"]["generation"].as_i64() || allowed <= 0 {
            let (need, have) = (&budget["status"]["desiredHealthy"], &budget["status"]["currentHealthy"]);
            let cause = json!({"reason": "DisruptionBudget", "message":
                format!("The disruption budget {name} needs {need} healthy pods and has {have} currently")});
            let text = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(ApiError::too_many_requests(text, vec![cause]));
        }
        if dry_run {
            return Ok(());
        }
        budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
        budget["status"]["disruptedPods"][pod.key.name()] =
            crate::kubernetes::server::strategy::metadata::shown(jiff::Timestamp::now());
        let write = Write {
            table,
            key: Key::new(pod.key.namespace(), &name),
            expect: Expect::Revision(object.revision),
            change: Change::Put(Draft::new(&budget, store.fields(BUDGETS))),
        };
        match store.commit(write).await {
            Ok(_) => return Ok(()),
            Err(crate::kubernetes::store::CommitError::Conflict) => {}
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
}
