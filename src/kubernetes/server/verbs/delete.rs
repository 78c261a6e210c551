//! DELETE on an object or a collection: preconditions, grace, finalizers, propagation.

use super::{
    create::{Outcome, commit_error},
    list, update,
};
use crate::{
    request::{
        status::{self, ApiError},
        target::Target,
    },
    server::{
        api::Call,
        response,
        strategy::{self, deletion},
    },
    store::{CommitError, Key, Object},
};
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// Seconds the object may take; `None` for its own default.
    pub grace_period_seconds: Option<i64>,
    /// What must hold.
    pub preconditions: Option<Preconditions>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<String>,
    /// The older way to say `Orphan`.
    pub orphan_dependents: Option<bool>,
    /// `["All"]` to do everything but write.
    pub dry_run: Vec<String>,
}

/// What must hold for a removal.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// Uid of the object.
    pub uid: Option<String>,
    /// Its resource version.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// The options of a request: its body, else its parameters.
    ///
    /// # Errors
    /// 400, 415, 422.
    pub fn of(call: &Call) -> Result<Self, ApiError> {
        let body = call.decode()?.value;
        let mut options: Self = if body.is_null() {
            Self::default()
        } else {
            serde_json::from_value(body).map_err(|error| ApiError::bad_request(format!("DeleteOptions: {error}")))?
        };
        let query = &call.info.query;
        if let Some(seconds) = query.number("gracePeriodSeconds")? {
            options.grace_period_seconds = i64::try_from(seconds).ok();
        }
        if let Some(policy) = query.get("propagationPolicy") {
            options.propagation_policy = Some(policy.to_owned());
        }
        if query.get("dryRun").is_some() {
            options.dry_run = query.all("dryRun").map(str::to_owned).collect();
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), ApiError> {
        let invalid =
            |text: String| ApiError::unprocessable(format!("DeleteOptions.meta.k8s.io \"\" is invalid: {text}"));
        if let Some(policy) = &self.propagation_policy
            && !matches!(policy.as_str(), "Background" | "Foreground" | "Orphan")
        {
            return Err(invalid(format!(
                "propagationPolicy: Unsupported value: \"{policy}\": supported values: \"Background\", \
                 \"Foreground\", \"Orphan\""
            )));
        }
        if let Some(other) = self.dry_run.iter().find(|value| *value != "All") {
            return Err(invalid(format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\"")));
        }
        Ok(())
    }

    fn holds(&self, target: &Target, object: &Object) -> Result<(), ApiError> {
        let Some(wanted) = &self.preconditions else { return Ok(()) };
        let name = object.key.name();
        let conflict = |what: &str, wanted: &str, found: &str| {
            let cause = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). \
                 The object might have been deleted and then recreated"
            );
            Err(ApiError::conflict(&target.resource.group_resource(), name, &cause))
        };
        if let Some(uid) = &wanted.uid
            && **uid != *object.header.uid
        {
            return conflict("UID", uid, &object.header.uid);
        }
        let revision = object.revision.to_string();
        match &wanted.resource_version {
            Some(wanted) if *wanted != revision => conflict("ResourceVersion", wanted, &revision),
            _ => Ok(()),
        }
    }
}

/// What became of an object that was to be removed.
pub enum Removal {
    /// It is gone; this was its last state.
    Gone(Arc<Object>),
    /// It waits for its grace period or finalizers.
    Pending(Outcome),
}

/// Removes the object, or begins to.
pub async fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let options = DeleteOptions::of(call)?;
    let key = target.key(&call.info.namespace, &call.info.name);
    match remove(call, target, &key, &options).await? {
        Removal::Gone(object) if deletion::returns_object(&target.table_name) => {
            Outcome::Stored(object).respond(call, StatusCode::OK, target)
        }
        Removal::Gone(object) => {
            let status = status::deleted(&target.resource.group_resource(), &call.info.name, &object.header.uid);
            response::value(&call.accept, StatusCode::OK, &status)
        }
        Removal::Pending(outcome) => {
            let code = match options.propagation_policy.as_deref() {
                Some("Foreground") => StatusCode::ACCEPTED,
                _ => StatusCode::OK,
            };
            outcome.respond(call, code, target)
        }
    }
}

/// Removes an object by the rules of its strategy.
///
/// # Errors
/// 404, 409, 403 of admission.
pub async fn remove(call: &Call, target: &Target, key: &Key, options: &DeleteOptions) -> Result<Removal, ApiError> {
    let name = key.name();
    loop {
        let object = call.api.store.get(target.table, key).ok_or_else(|| target.not_found(name))?;
        options.holds(target, &object)?;
        crate::admission::delete(target, key)?;
        let live = target.decode(&object)?;
        let Some(value) = deletion::begin(&target.table_name, &live, options, Timestamp::now()) else {
            // It is being removed already, and nothing about that changes.
            return Ok(Removal::Pending(Outcome::Stored(object)));
        };
        let gone = strategy::metadata::is_finished(&value);
        if !options.dry_run.is_empty() {
            return Ok(if gone { Removal::Gone(object) } else { Removal::Pending(Outcome::DryRun(value)) });
        }
        let last: &Value = if gone { &live } else { &value };
        let committed = if gone {
            let write = crate::store::Write {
                table: target.table,
                key: key.clone(),
                expect: crate::store::Expect::Revision(object.revision),
                change: crate::store::Change::Delete(target.draft(last)?),
            };
            call.api.store.commit(write).await
        } else {
            update::commit(call, target, &object, last).await
        };
        match committed {
            Ok(object) if gone => {
                strategy::removed(&call.api, target, &live);
                return Ok(Removal::Gone(object));
            }
            Ok(object) => return Ok(Removal::Pending(Outcome::Stored(object))),
            Err(CommitError::Conflict) => {}
            Err(error) => return Err(commit_error(target, name, &error)),
        }
    }
}

/// Removes what the selectors of the request pick; answers with the objects as they were.
pub async fn collection(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let options = DeleteOptions::of(call)?;
    let selection = list::selection(call, target)?;
    let state = call.api.store.snapshot();
    let picked: Vec<_> = state
        .table(target.table)
        .range(selection.namespace.as_deref(), None)
        .filter(|object| selection.matches(object))
        .cloned()
        .collect();
    let mut removed = Vec::with_capacity(picked.len());
    for object in picked {
        match remove(call, target, &object.key, &options).await {
            Ok(Removal::Gone(last)) => removed.push(target.decode(&last)?),
            Ok(Removal::Pending(outcome)) => removed.push(outcome.value(target)?),
            Err(error) if error.reason() == "NotFound" => {}
            Err(error) => return Err(error),
        }
    }
    let metadata = serde_json::json!({"resourceVersion": call.api.store.snapshot().revision.to_string()});
    list::shaped(call, &target.resource, removed, metadata)
}
