//! POST on a collection.

use super::options::{self, WriteOptions};
use crate::{
    admission::{self, Change, Part},
    auth::escalation,
    patch::apply::{self, Writer},
    request::{
        names::generated_name,
        status::{ApiError, Cause},
        target::Target,
    },
    schema::defaults,
    server::{api::Call, response, strategy},
    store::{self, CommitError, Expect, Object},
};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Tries to find a generated name that is free.
const NAME_TRIES: usize = 8;

/// What a write came to.
pub enum Outcome {
    /// The object as it is stored.
    Stored(Arc<Object>),
    /// The object as it would have been stored.
    DryRun(Value),
}

impl Outcome {
    /// The object.
    ///
    /// # Errors
    /// 500 when it cannot be converted.
    pub fn value(self, target: &Target) -> Result<Value, ApiError> {
        match self {
            Self::Stored(object) => target.decode(&object),
            Self::DryRun(value) => Ok(value),
        }
    }
    /// The answer to the write.
    ///
    /// # Errors
    /// As [`Outcome::value`].
    pub fn respond(self, call: &Call, code: StatusCode, target: &Target) -> Result<Response<Body>, ApiError> {
        match self {
            Self::Stored(object) if response::wants_stored_bytes(&call.accept) && target.is_stored_version() => {
                Ok(response::bytes(code, "application/json", object.bytes.clone()))
            }
            outcome => response::object(call, code, &target.resource, outcome.value(target)?),
        }
    }
}

/// Creates the object of the body.
pub async fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::of(call)?;
    let value = options::body(call, target, &options)?;
    create(call, target, value, &options, false).await?.respond(call, StatusCode::CREATED, target)
}

/// Creates an object; `owned` when its `managedFields` are already right (server-side apply).
///
/// # Errors
/// Whatever refuses it: 409, 422, 403 of admission.
pub async fn create(
    call: &Call,
    target: &Target,
    mut value: Value,
    options: &WriteOptions,
    owned: bool,
) -> Result<Outcome, ApiError> {
    identify(call, target, &mut value)?;
    strategy::metadata::begin(target, &mut value, options.now);
    if let Some(definition) = &target.resource.definition {
        defaults::apply(definition, &mut value);
    }
    if !owned {
        let writer = Writer { manager: &options.manager, subresource: "", now: options.now };
        apply::track_update(&target.resource, None, &mut value, writer).map_err(super::patch::patch_error)?;
    }
    let change = call.change(target, None, Part::Whole, options.dry_run);
    let generate = value["metadata"]["generateName"].as_str().is_some() && value["metadata"]["name"].is_null();
    if !generate {
        return attempt(call, &change, value).await;
    }
    for _ in 0..NAME_TRIES {
        let mut candidate = value.clone();
        let prefix = candidate["metadata"]["generateName"].as_str().unwrap_or_default();
        candidate["metadata"]["name"] = generated_name(prefix).into();
        match attempt(call, &change, candidate).await {
            Err(error) if error.reason() == "AlreadyExists" => {}
            done => return done,
        }
    }
    let prefix = value["metadata"]["generateName"].as_str().unwrap_or_default();
    Err(ApiError::already_exists(&target.resource.group_resource(), prefix))
}

async fn attempt(call: &Call, change: &Change<'_>, mut value: Value) -> Result<Outcome, ApiError> {
    let target = change.target;
    admission::mutate(change, &mut value)?;
    escalation::check(&call.api.authorizer, &call.user, &target.resource.name, &value)?;
    // Addresses taken here are given back when the write fails.
    let reserved = strategy::prepare(&call.api, change, &mut value)?;
    let causes = strategy::validate(change, &value);
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if !causes.is_empty() {
        return Err(ApiError::invalid(&target.group_kind(), &name, &causes));
    }
    // Held until the write is done; then it counts itself.
    let _room = admission::quota::reserve(&call.api.quota, change, &value)?;
    if change.dry_run {
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
        if call.api.store.get(target.table, &target.key(namespace, &name)).is_some() {
            return Err(ApiError::already_exists(&target.resource.group_resource(), &name));
        }
        return Ok(Outcome::DryRun(value));
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let write = store::Write {
        table: target.table,
        key: target.key(namespace, &name),
        expect: Expect::Absent,
        change: store::Change::Put(target.draft(&value)?),
    };
    let object = call.api.store.commit(write).await.map_err(|error| commit_error(target, &name, &error))?;
    reserved.keep();
    Ok(Outcome::Stored(object))
}

/// Sets name and namespace from the request, or refuses what does not fit.
fn identify(call: &Call, target: &Target, value: &mut Value) -> Result<(), ApiError> {
    let info = &call.info;
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    let metadata = &mut value["metadata"];
    if target.resource.namespaced {
        match metadata["namespace"].as_str().unwrap_or_default() {
            "" => metadata["namespace"] = info.namespace.as_str().into(),
            given if given == info.namespace => {}
            _ => {
                let text = "the namespace of the provided object does not match the namespace sent on the request";
                return Err(ApiError::bad_request(text));
            }
        }
    } else if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("namespace");
    }
    if metadata["name"] == ""
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.remove("name");
    }
    if metadata["name"].is_null() && metadata["generateName"].as_str().unwrap_or_default().is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(&target.group_kind(), "", &[cause]));
    }
    if !metadata["resourceVersion"].as_str().unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    Ok(())
}

/// A commit error as clients see it.
pub fn commit_error(target: &Target, name: &str, error: &CommitError) -> ApiError {
    let resource = target.resource.group_resource();
    match error {
        CommitError::Exists => ApiError::already_exists(&resource, name),
        CommitError::Conflict => ApiError::modified(&resource, name),
        CommitError::Log(_) => ApiError::internal(error),
        CommitError::Closed => ApiError::unavailable("the server is stopping"),
    }
}
