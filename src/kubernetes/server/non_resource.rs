//! Paths that are no resources: version, health, discovery, OpenAPI, keys, metrics.

use super::{api::Api, response};
use crate::{
    auth::User,
    request::{info::RequestInfo, status::ApiError},
    schema::{
        Schema,
        discovery::{self, Root},
        openapi,
    },
};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// Version that is emulated.
pub const GIT_VERSION: &str = "v1.36.0-aksim";
/// Checks that `/livez`, `/readyz` and `/healthz` report.
const CHECKS: &[&str] = &["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles"];

/// Answers a request for such a path.
///
/// # Errors
/// 404, 405.
pub fn handle(
    api: &Arc<Api>,
    info: &RequestInfo,
    _user: &User,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if !matches!(info.verb.as_str(), "get" | "head") {
        return Err(ApiError::method_not_allowed());
    }
    let schema = &api.schema;
    let path = info.path.trim_end_matches('/');
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let ok = |value: &Value| Ok(response::json(StatusCode::OK, value));
    match parts.as_slice() {
        [] => ok(&json!({"paths": paths(schema)})),
        ["version"] => ok(&version()),
        ["livez" | "readyz" | "healthz", check @ ..] => health(parts[0], check, info),
        ["metrics"] => Ok(response::bytes(StatusCode::OK, "text/plain; version=0.0.4", metrics(api))),
        ["openid", "v1", "jwks"] => {
            Ok(response::bytes(StatusCode::OK, "application/jwk-set+json", api.tokens.key_set().to_string()))
        }
        [".well-known", "openid-configuration"] => ok(&api.tokens.discovery()),
        ["openapi", rest @ ..] => open_api(schema, rest, info, headers),
        ["api"] => root(api, schema, Root::Core, headers),
        ["apis"] => root(api, schema, Root::Groups, headers),
        ["api", version] => resources(schema, "", version),
        ["apis", group] => discovery::api_group(schema, group)
            .map(|group| response::json(StatusCode::OK, &group))
            .ok_or_else(ApiError::no_such_path),
        ["apis", group, version] => resources(schema, group, version),
        _ => Err(ApiError::no_such_path()),
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other }),
    })
}

fn paths(schema: &Schema) -> Vec<String> {
    let mut paths: Vec<String> = ["/api", "/api/v1", "/apis"].map(str::to_owned).to_vec();
    for (group, versions) in schema.groups() {
        if !group.is_empty() {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
        }
    }
    let others =
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"];
    paths.extend(others.map(str::to_owned));
    paths.push("/.well-known/openid-configuration".into());
    paths.sort();
    paths
}

fn health(endpoint: &str, check: &[&str], info: &RequestInfo) -> Result<Response<Body>, ApiError> {
    let text = |text: String| Ok(response::bytes(StatusCode::OK, "text/plain; charset=utf-8", text));
    if !check.is_empty() {
        let check = check.join("/");
        return if CHECKS.contains(&check.as_str()) { text("ok".into()) } else { Err(ApiError::no_such_path()) };
    }
    if !info.query.flag("verbose") {
        return text("ok".into());
    }
    let excluded: Vec<_> = info.query.all("exclude").collect();
    let mut lines = String::new();
    for check in CHECKS {
        let word = if excluded.contains(check) { "excluded: ok" } else { "ok" };
        lines.push_str(&format!("[+]{check} {word}\n"));
    }
    text(format!("{lines}{endpoint} check passed\n"))
}

fn metrics(api: &Api) -> String {
    let state = api.store.snapshot();
    let mut objects = Vec::new();
    for row in api.schema.resources().filter(|row| !row.computed && row.stored_as.is_none()) {
        let name = row.group_resource();
        let count = state.table(api.store.table(&name)).len();
        if count > 0 {
            objects.push((name, count));
        }
    }
    api.metrics.text(&objects)
}

fn root(api: &Api, schema: &Schema, root: Root, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    for entry in accept.split(',').filter(|entry| entry.contains("as=APIGroupDiscoveryList")) {
        let has = |part: &str| entry.split(';').any(|p| p.trim() == part);
        let Some(version) = ["v2", "v2beta1"].into_iter().find(|v| has(&format!("v={v}"))) else { continue };
        if !entry.trim().starts_with("application/json") {
            continue;
        }
        let document = discovery::aggregated(schema, root, version);
        let mut response = response::bytes(StatusCode::OK, "application/json", document.bytes.clone());
        if let Ok(kind) = HeaderValue::from_str(&discovery::aggregated_content_type(version)) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        return Ok(tagged(response, &document.hash));
    }
    match root {
        Root::Core => Ok(response::json(StatusCode::OK, &discovery::api_versions(&api.advertise))),
        Root::Groups => Ok(json_bytes(discovery::api_group_list(schema).bytes.clone())),
    }
}

fn tagged(mut response: Response<Body>, hash: &str) -> Response<Body> {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn json_bytes(bytes: Bytes) -> Response<Body> {
    response::bytes(StatusCode::OK, "application/json", bytes)
}

fn resources(schema: &Schema, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let list = discovery::api_resource_list(schema, group, version).ok_or_else(ApiError::no_such_path)?;
    Ok(json_bytes(list.bytes.clone()))
}

fn open_api(
    schema: &Schema,
    rest: &[&str],
    info: &RequestInfo,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match rest {
        ["v2"] if accept.contains("proto-openapi.spec.v2") || accept.contains("openapi.spec.v2@v1.0+protobuf") => {
            let document = openapi::v2_protobuf(schema);
            Ok(tagged(response::bytes(StatusCode::OK, openapi::V2_PROTOBUF, document.bytes.clone()), &document.hash))
        }
        ["v2"] => {
            let document = openapi::v2(schema);
            Ok(tagged(json_bytes(document.bytes.clone()), &document.hash))
        }
        ["v3"] => {
            let document = openapi::v3_index(schema);
            Ok(tagged(json_bytes(document.bytes.clone()), &document.hash))
        }
        ["v3", path @ ..] => {
            let document = openapi::v3(schema, &path.join("/")).ok_or_else(ApiError::no_such_path)?;
            let mut response = tagged(json_bytes(document.bytes.clone()), &document.hash);
            if info.query.get("hash") == Some(document.hash.as_str()) {
                let forever = HeaderValue::from_static("public, immutable");
                response.headers_mut().insert(header::CACHE_CONTROL, forever);
            }
            Ok(response)
        }
        _ => Err(ApiError::no_such_path()),
    }
}
