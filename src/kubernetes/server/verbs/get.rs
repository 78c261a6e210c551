//! GET on an object.

use crate::{
    request::{status::ApiError, target::Target},
    server::{api::Call, response},
};
use axum::body::Body;
use http::{Response, StatusCode};

/// Answers with the object; with the store's own bytes when that is what the client wants.
pub fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let name = &call.info.name;
    let object = call
        .api
        .store
        .get(target.table, &target.key(&call.info.namespace, name))
        .ok_or_else(|| target.not_found(name))?;
    if response::wants_stored_bytes(&call.accept) && target.is_stored_version() {
        return Ok(response::bytes(StatusCode::OK, "application/json", object.bytes.clone()));
    }
    response::object(call, StatusCode::OK, &target.resource, target.decode(&object)?)
}
