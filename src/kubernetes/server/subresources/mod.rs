//! Paths below an object: parts of it, and actions on it.

pub mod binding;
mod eviction;
mod scale;
mod token;

use super::{
    api::{Api, Call},
    verbs,
};
use crate::{
    admission::Part,
    auth::User,
    request::{info::RequestInfo, status::ApiError, target::Target},
    schema::{Resource, Verb},
    stream,
};
use axum::body::Body;
use http::{Request, Response};
use std::sync::Arc;

/// Whether a request is passed on rather than answered here.
pub fn is_stream(info: &RequestInfo) -> bool {
    matches!(
        (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()),
        ("", "pods", "log" | "exec" | "attach" | "portforward") | ("", "pods" | "services" | "nodes", "proxy")
    )
}

/// Passes a request on to a kubelet, pod or service.
///
/// # Errors
/// 404, 400, 500, 503.
pub async fn stream(
    api: &Api,
    info: &RequestInfo,
    user: &User,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    if resource.subresource(&info.subresource).is_none() {
        return Err(ApiError::no_such_path());
    }
    tracing::debug!(user = %user.name, path = %info.path, "stream");
    match info.resource.as_str() {
        "nodes" => stream::node(&api.store, &api.upstream, info, request).await,
        "services" => stream::service(&api.store, &api.upstream, info, request).await,
        _ => stream::pod(&api.store, &api.upstream, info, request).await,
    }
}

/// Answers a request for a subresource.
///
/// # Errors
/// Whatever refuses it.
pub async fn handle(call: &Call, resource: &Arc<Resource>) -> Result<Response<Body>, ApiError> {
    let info = &call.info;
    let Some(subresource) = resource.subresource(&info.subresource) else { return Err(ApiError::no_such_path()) };
    let verb = match info.verb.as_str() {
        "get" => Verb::Get,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        _ => return Err(ApiError::method_not_allowed()),
    };
    if !subresource.verbs.contains(&verb) {
        return Err(ApiError::method_not_allowed());
    }
    let target = Target::new(&call.api.store, resource);
    let part = match (info.subresource.as_str(), &subresource.scale) {
        ("scale", Some(paths)) => return scale::handle(call, &target, paths, verb).await,
        ("status", _) => Part::Status,
        ("ephemeralcontainers", _) => Part::EphemeralContainers,
        ("finalize", _) => Part::Finalize,
        ("approval", _) => Part::Approval,
        ("resize", _) => Part::Resize,
        ("binding", _) => return binding::handle(call, &target).await,
        ("eviction", _) => return eviction::handle(call, &target).await,
        ("token", _) => return token::handle(call, &target),
        (other, _) => return Err(ApiError::not_emulated(&format!("the subresource {}/{other}", resource.name))),
    };
    match verb {
        Verb::Get => verbs::get::handle(call, &target),
        Verb::Update => verbs::update::handle(call, &target, part).await,
        Verb::Patch => verbs::patch::handle(call, &target, part).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}
