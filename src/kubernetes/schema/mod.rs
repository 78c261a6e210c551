//! What the API server knows about kinds: definitions, resources, defaults, documents, tables.
//!
//! | module | subject |
//! | - | - |
//! | [`name`] | group, version, kind, resource as map keys |
//! | [`builtin`] | the definitions of Kubernetes 1.36, from the blob |
//! | [`definition`] | the type tree a kind is made of; compiled from the blob or from a CRD |
//! | [`resource`] | one row of the resource table: routes, verbs, subresources, columns |
//! | [`registry`] | [`Schema`]: immutable snapshot of rows and definitions; [`SchemaHandle`]: swaps it |
//!
//! Everything is data: a kind is added by a row, never by code.
//!
//! Arriving next, with these signatures:
//! `discovery::{api_versions(addr), api_group_list(&Schema), api_group(&Schema, group) -> Option,
//! api_resource_list(&Schema, group, version) -> Option, aggregated(&Schema, Root::{Core, Groups})} -> Value`;
//! `openapi::v3_index(&Schema) -> Value`, `openapi::v3(&Schema, "apis/apps/v1") -> Option<Document{bytes: Bytes, hash}>`,
//! `openapi::v2(&Schema) -> Bytes`, `openapi::v2_protobuf(&Schema) -> Bytes` (cached in the `Schema`);
//! `defaults::apply(&Resource, &mut Value)`;
//! `fields::normalize(&Definition, &mut Value) -> Result<Vec<String> /* unknown field paths, removed */, TypeMismatch>`
//! (drops nulls, canonical quantities); strict error text: `fields::strict_error(&unknown, &duplicates) -> String`;
//! `table::table(&Resource, &[Value], &TableOptions { include: None|Metadata|Object, headers: bool, now }) -> Value`
//! (the caller sets list `metadata`), `table::partial_metadata(&Value) -> Value`;
//! `convert::convert(&mut Value, to: &GroupVersionKind) -> Result<(), SchemaError>` (HPA v1/v2, events);
//! `custom::rows(crd: &Value) -> Result<Vec<Resource>, SchemaError>`.

pub mod builtin;
pub mod defaults;
pub mod definition;
pub mod discovery;
pub mod document;
pub mod fields;
#[cfg(test)]
mod generate;
pub mod name;
pub mod quantity;
pub mod registry;
pub mod resource;
mod rows;
pub mod table;

pub use definition::{Definition, Field, ListType, Shape};
pub use name::{GroupVersion, GroupVersionKind, GroupVersionResource};
pub use registry::{Schema, SchemaHandle};
pub use resource::{Column, ColumnSource, Resource, Subresource, Verb};

/// Why a schema could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A row clashes with one that exists.
    #[error("{0} is served already")]
    Duplicate(GroupVersionResource),
    /// A custom resource's schema is not structural.
    #[error("{path}: {message}")]
    NotStructural {
        /// JSON path inside the `CustomResourceDefinition`.
        path: String,
        /// What is wrong there.
        message: String,
    },
}
