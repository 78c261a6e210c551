//! Answers: objects and lists as the client wants them, errors, warnings, compression.

use super::api::Call;
use crate::{
    codec::{self, MediaType, Negotiated, Representation},
    request::status::ApiError,
    schema::{
        Resource,
        table::{self, IncludeObject, TableOptions},
    },
};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use std::io::Write;

/// Answers smaller than this are not worth compressing (kube-apiserver's own bound).
const GZIP_FROM: usize = 128 << 10;

/// `deployments.apps`, or `pods` for the core group.
pub fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// An answer of bytes.
pub fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer of JSON, whatever the client prefers.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    bytes(code, "application/json", value.to_string())
}

/// Encodes a value that is no stored object (discovery, statuses, reviews).
pub fn value(accept: &Negotiated, code: StatusCode, value: &Value) -> Result<Response<Body>, ApiError> {
    let encoded = codec::encode(accept.media, value, accept.pretty).map_err(super::api::codec_error)?;
    Ok(bytes(code, accept.media.as_str(), encoded))
}

/// An answer of one object, in the representation asked for.
pub fn object(call: &Call, code: StatusCode, resource: &Resource, object: Value) -> Result<Response<Body>, ApiError> {
    let shaped = match &call.accept.representation {
        Representation::Object => object,
        Representation::Table { version } => {
            let mut table = table_of(call, resource, std::slice::from_ref(&object), version, true);
            table["metadata"] = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table
        }
        Representation::PartialObjectMetadata { version } => table::partial_metadata(&object, version),
        // Discovery documents are asked for on other paths.
        Representation::Discovery { .. } => object,
    };
    value(&call.accept, code, &shaped)
}

/// Objects as a table.
pub fn table_of(call: &Call, resource: &Resource, objects: &[Value], version: &str, headers: bool) -> Value {
    let include = IncludeObject::parse(call.info.query.get("includeObject")).unwrap_or_default();
    table::table(
        resource,
        objects,
        &TableOptions { include, headers, now: jiff::Timestamp::now(), version: version.to_owned() },
    )
}

/// Whether the client wants plain JSON objects, which the store's bytes are.
pub fn wants_stored_bytes(accept: &Negotiated) -> bool {
    accept.media == MediaType::Json && accept.representation == Representation::Object && !accept.pretty
}

/// An answer of JSON, compressed when it is large and the client can.
pub fn large(call: &Call, content_type: &'static str, body: Bytes) -> Response<Body> {
    let accepts = call.header(header::ACCEPT_ENCODING).is_some_and(|encodings| encodings.contains("gzip"));
    if !accepts || body.len() < GZIP_FROM {
        return bytes(StatusCode::OK, content_type, body);
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(compressed) => {
            let mut response = bytes(StatusCode::OK, content_type, compressed);
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            response
        }
        // Compressing to memory does not fail; plain is right all the same.
        Err(_) => bytes(StatusCode::OK, content_type, body),
    }
}

/// An error as the client wants it; JSON when it accepts nothing that is served.
pub fn error(error: &ApiError, accept: Option<&str>) -> Response<Body> {
    let accept = codec::accept::negotiate(accept).ok();
    let media = accept.as_ref().map_or(MediaType::Json, |accept| accept.media);
    let status = error.status();
    let mut response = match codec::encode(media, &status, false) {
        Ok(encoded) => bytes(error.code(), media.as_str(), encoded),
        Err(_) => json(error.code(), &status),
    };
    if let Some(seconds) = error.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Adds `Warning` headers (RFC 7234 §5.5, code 299).
pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text: String =
            warning.replace('\\', "\\\\").replace('"', "\\\"").chars().filter(|c| !c.is_control()).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// A fresh `Audit-ID`.
pub fn audit_id() -> HeaderValue {
    // Hex digits and dashes are a valid header value.
    HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static(""))
}
