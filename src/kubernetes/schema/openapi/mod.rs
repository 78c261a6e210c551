//! OpenAPI documents: v3, one per group and version, and v2 as JSON and as gnostic protobuf.
//!
//! kubectl reads from them which fields there are (`explain`), whether PATCH takes
//! `fieldValidation` (`apply`), and how lists merge.

mod gnostic;
mod paths;
mod schemas;

use super::document::{Document, hash};
use super::name::GroupVersion;
use super::registry::Schema;
use schemas::Schemas;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The two dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// A reference to a named schema.
    fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({ "$ref": format!("#/definitions/{name}") }),
            Self::V3 => json!({ "$ref": format!("#/components/schemas/{name}") }),
        }
    }
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": "v1.36.0" })
}

/// `/openapi/v3`: the documents there are, each with the hash of its content.
pub fn v3_index(schema: &Schema) -> Arc<Document> {
    schema.json_document("openapi v3", || {
        let mut paths = Map::new();
        for (group, versions) in schema.groups() {
            for version in versions {
                let path = GroupVersion::new(&*group, version).path();
                let url = format!("/openapi/v3/{path}?hash={}", rows_hash(schema, &path));
                paths.insert(path, json!({ "serverRelativeURL": url }));
            }
        }
        json!({ "paths": paths })
    })
}

/// Hash for `?hash=`: of the rows the document is made from, so that the index needs no document.
fn rows_hash(schema: &Schema, path: &str) -> String {
    let rows: Vec<_> = schema.resources().filter(|row| row.group_version().path() == path).collect();
    hash(format!("{} {rows:?}", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// `/openapi/v3/PATH` for `api/v1` or `apis/GROUP/VERSION`; `None` when that is not served.
pub fn v3(schema: &Schema, path: &str) -> Option<Arc<Document>> {
    let rows: Vec<_> = schema.resources().filter(|row| row.group_version().path() == path).cloned().collect();
    (!rows.is_empty()).then(|| {
        schema.json_document(&format!("openapi v3 {path}"), || {
            let mut schemas = Schemas::new(Dialect::V3);
            let mut paths = Map::new();
            rows.iter().for_each(|row| paths::add(row, Dialect::V3, &mut schemas, &mut paths));
            json!({ "openapi": "3.0.0", "info": info(), "paths": paths, "components": { "schemas": schemas.finish() } })
        })
    })
}

fn v2_value(schema: &Schema) -> Value {
    let mut schemas = Schemas::new(Dialect::V2);
    let mut paths = Map::new();
    schema.resources().for_each(|row| paths::add(row, Dialect::V2, &mut schemas, &mut paths));
    json!({ "swagger": "2.0", "info": info(), "paths": paths, "definitions": schemas.finish() })
}

/// `/openapi/v2` as JSON.
pub fn v2(schema: &Schema) -> Arc<Document> {
    schema.json_document("openapi v2", || v2_value(schema))
}

/// Content type of [`v2_protobuf`]; clients ask for it with `v2@v1.0` in place of `v2.v1.0`.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2` for clients that accept
/// `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf(schema: &Schema) -> Arc<Document> {
    schema.document("openapi v2 protobuf", || gnostic::document(&v2_value(schema)))
}

#[cfg(test)]
mod tests;
