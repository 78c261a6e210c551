//! PUT on an object or a part of it, and what every change of an existing object shares.

use super::{
    create::{Outcome, commit_error},
    options::{self, WriteOptions},
};
use crate::{
    admission::{self, Change, Part},
    auth::escalation,
    patch::apply::{self, Writer},
    request::{status::ApiError, target::Target},
    schema::defaults,
    server::{api::Call, strategy},
    store::{self, CommitError, Expect, Object},
};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;
use std::sync::Arc;

/// Replaces the object, or the part of it that a subresource is, by the body.
pub async fn handle(call: &Call, target: &Target, part: Part) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::of(call)?;
    let body = options::body(call, target, &options)?;
    check_name(call, target, &body)?;
    let outcome = change(call, target, part, &options, |_| Ok(Proposal { value: body.clone(), owned: false })).await?;
    outcome.respond(call, StatusCode::OK, target)
}

/// Checks that the body is about the object of the path.
///
/// # Errors
/// 400.
pub fn check_name(call: &Call, target: &Target, body: &Value) -> Result<(), ApiError> {
    let metadata = &body["metadata"];
    let (name, namespace) = (metadata["name"].as_str().unwrap_or_default(), metadata["namespace"].as_str());
    let info = &call.info;
    if name != info.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", info.name);
        return Err(ApiError::bad_request(text));
    }
    if target.resource.namespaced && namespace.is_some_and(|given| !given.is_empty() && given != info.namespace) {
        let text = format!(
            "the namespace of the object ({}) does not match the namespace on the request ({})",
            namespace.unwrap_or_default(),
            info.namespace
        );
        return Err(ApiError::bad_request(text));
    }
    Ok(())
}

/// What an object is to become.
pub struct Proposal {
    /// The object.
    pub value: Value,
    /// Whether its `managedFields` are already right (server-side apply).
    pub owned: bool,
}

/// Changes the object of the request: what `propose` makes of the live one, by the rules of its
/// strategy. Tries again when another write came between, unless the proposal names a revision.
///
/// # Errors
/// 404, 409, 422, those of admission and of `propose`.
pub async fn change(
    call: &Call,
    target: &Target,
    part: Part,
    options: &WriteOptions,
    mut propose: impl FnMut(&Value) -> Result<Proposal, ApiError>,
) -> Result<Outcome, ApiError> {
    let name = &call.info.name;
    let key = target.key(&call.info.namespace, name);
    loop {
        let object = call.api.store.get(target.table, &key).ok_or_else(|| target.not_found(name))?;
        let live = target.decode(&object)?;
        let proposal = propose(&live)?;
        check_preconditions(target, name, &live, &proposal.value)?;
        let change = call.change(target, Some(&live), part, options.dry_run);
        let (value, reserved) = finish(call, &change, proposal, options)?;
        if value == live {
            return Ok(Outcome::Stored(object));
        }
        let _room = admission::quota::reserve(&call.api.quota, &change, &value)?;
        if options.dry_run {
            return Ok(Outcome::DryRun(value));
        }
        match commit(call, target, &object, &value).await {
            Ok(object) => {
                reserved.keep();
                strategy::replaced(&call.api, &change, &value);
                return Ok(Outcome::Stored(object));
            }
            Err(CommitError::Conflict) => {}
            Err(error) => return Err(commit_error(target, name, &error)),
        }
    }
}

fn check_preconditions(target: &Target, name: &str, live: &Value, new: &Value) -> Result<(), ApiError> {
    let (live, new) = (&live["metadata"], &new["metadata"]);
    let given = |field: &str| new[field].as_str().filter(|value| !value.is_empty());
    if given("uid").is_some_and(|uid| live["uid"] != uid) {
        let cause = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            given("uid").unwrap_or_default(),
            live["uid"].as_str().unwrap_or_default()
        );
        return Err(ApiError::conflict(&target.resource.group_resource(), name, &cause));
    }
    match given("resourceVersion") {
        Some(revision) if live["resourceVersion"] != revision => {
            Err(ApiError::modified(&target.resource.group_resource(), name))
        }
        _ => Ok(()),
    }
}

/// Takes a proposal through strategy, ownership, admission and validation.
fn finish(
    call: &Call,
    change: &Change<'_>,
    proposal: Proposal,
    options: &WriteOptions,
) -> Result<(Value, strategy::Reserved), ApiError> {
    let target = change.target;
    let Some(live) = change.old else { return Ok((proposal.value, strategy::Reserved::default())) };
    let mut value = strategy::metadata::merge(change, live, proposal.value);
    if let Some(definition) = &target.resource.definition {
        defaults::apply(definition, &mut value);
    }
    if !proposal.owned {
        let writer = Writer { manager: &options.manager, subresource: &call.info.subresource, now: options.now };
        apply::track_update(&target.resource, Some(live), &mut value, writer).map_err(super::patch::patch_error)?;
    }
    admission::mutate(change, &mut value)?;
    if target.resource.group == "rbac.authorization.k8s.io" && value["rules"] != live["rules"] {
        escalation::check(&call.api.authorizer, &call.user, &target.resource.name, &value)?;
    }
    let reserved = strategy::prepare(&call.api, change, &mut value)?;
    strategy::metadata::generation(change, live, &mut value);
    let causes = strategy::validate(change, &value);
    if !causes.is_empty() {
        return Err(ApiError::invalid(&target.group_kind(), &call.info.name, &causes));
    }
    Ok((value, reserved))
}

/// Writes a changed object; removes it when this change took away the last thing it waited for.
///
/// # Errors
/// [`CommitError`].
pub async fn commit(call: &Call, target: &Target, old: &Object, value: &Value) -> Result<Arc<Object>, CommitError> {
    let draft = target.draft(value).map_err(|error| CommitError::Log(Arc::new(std::io::Error::other(error))))?;
    let gone = strategy::metadata::is_finished(value);
    let write = store::Write {
        table: target.table,
        key: old.key.clone(),
        expect: Expect::Revision(old.revision),
        change: if gone { store::Change::Delete(draft) } else { store::Change::Put(draft) },
    };
    let object = call.api.store.commit(write).await?;
    if gone {
        strategy::removed(&call.api, target, value);
    }
    Ok(object)
}
