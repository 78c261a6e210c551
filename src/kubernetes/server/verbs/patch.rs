//! PATCH on an object or a part of it.

use super::{
    create::{self, Outcome},
    options::{self, WriteOptions},
    update::{self, Proposal},
};
use crate::{
    admission::Part,
    codec,
    patch::{self, PatchError, apply},
    request::{status::ApiError, target::Target},
    schema::PatchKind,
    server::api::{Call, codec_error},
};
use axum::body::Body;
use http::{Response, StatusCode, header};
use serde_json::{Value, json};

/// Applies the patch of the body.
pub async fn handle(call: &Call, target: &Target, part: Part) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::of(call)?;
    let patch = Patch::of(call)?;
    if patch.kind == PatchKind::Apply {
        return server_side_apply(call, target, part, &options, patch.body, patch.duplicates).await;
    }
    let outcome = update::change(call, target, part, &options, |live| {
        let mut value = patch.applied(target, live)?;
        options::check_kind(&mut value, &target.resource.gvk())?;
        options::normalize(call, target, &options, &mut value, &patch.duplicates)?;
        update::check_name(call, target, &value)?;
        Ok(Proposal { value, owned: false })
    })
    .await?;
    outcome.respond(call, StatusCode::OK, target)
}

/// The patch of a request.
pub struct Patch {
    /// What kind it is of.
    pub kind: PatchKind,
    /// The decoded body.
    pub body: Value,
    duplicates: Vec<String>,
}

impl Patch {
    /// Reads the patch out of a request.
    ///
    /// # Errors
    /// 400, 415.
    pub fn of(call: &Call) -> Result<Self, ApiError> {
        let kind = call.header(header::CONTENT_TYPE).and_then(PatchKind::from_content_type);
        let kind = kind.ok_or_else(|| ApiError::unsupported_patch(&PatchKind::CONTENT_TYPES))?;
        let media = if kind == PatchKind::Apply { "application/yaml" } else { "application/json" };
        let decoded = codec::decode(Some(media), &call.body).map_err(codec_error)?;
        Ok(Self { kind, body: decoded.value, duplicates: decoded.duplicates })
    }

    /// The live object with the patch applied.
    ///
    /// # Errors
    /// 400, 422.
    pub fn applied(&self, target: &Target, live: &Value) -> Result<Value, ApiError> {
        let mut value = live.clone();
        match (self.kind, target.resource.definition()) {
            (PatchKind::Json, _) => patch::json(&mut value, &self.body),
            (PatchKind::Strategic, Some(definition)) => patch::strategic(&mut value, &self.body, definition),
            _ => {
                patch::merge(&mut value, &self.body);
                Ok(())
            }
        }
        .map_err(patch_error)?;
        Ok(value)
    }
}

/// A patch error as clients see it.
pub fn patch_error(error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(text) => ApiError::bad_request(text),
        PatchError::Unprocessable(_) => ApiError::unprocessable(error.to_string()),
        PatchError::Conflict { message, causes } => {
            let causes = causes
                .into_iter()
                .map(|c| json!({"reason": "FieldManagerConflict", "message": c.message, "field": c.field}))
                .collect();
            ApiError::apply_conflict(&message, causes)
        }
    }
}

async fn server_side_apply(
    call: &Call,
    target: &Target,
    part: Part,
    options: &WriteOptions,
    mut body: Value,
    duplicates: Vec<String>,
) -> Result<Response<Body>, ApiError> {
    let manager = call.info.query.get("fieldManager").ok_or_else(|| {
        ApiError::unprocessable(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        )
    })?;
    let force = call.info.query.flag("force");
    let writer = apply::Writer { manager, subresource: &call.info.subresource, now: options.now };
    options::check_kind(&mut body, &target.resource.gvk())?;
    if body["metadata"]["name"].is_null() {
        body["metadata"]["name"] = call.info.name.as_str().into();
    }
    update::check_name(call, target, &body)?;
    options::normalize(call, target, options, &mut body, &duplicates)?;
    loop {
        let exists = call.api.store.get(target.table, &target.key(&call.info.namespace, &call.info.name)).is_some();
        let outcome = if exists {
            update::change(call, target, part, options, |live| {
                let value = apply::apply(&target.resource, Some(live), &body, writer, force).map_err(patch_error)?;
                Ok(Proposal { value, owned: true })
            })
            .await
        } else if part == Part::Whole {
            let value = apply::apply(&target.resource, None, &body, writer, force).map_err(patch_error)?;
            create::create(call, target, value, options, true).await
        } else {
            return Err(target.not_found(&call.info.name));
        };
        match outcome {
            // Created or removed by someone else in between: look again.
            Err(error) if matches!((exists, error.reason()), (false, "AlreadyExists") | (true, "NotFound")) => {}
            outcome => {
                let code = if exists { StatusCode::OK } else { StatusCode::CREATED };
                let outcome: Outcome = outcome?;
                return outcome.respond(call, code, target);
            }
        }
    }
}
