//! What the API server knows about kinds: definitions, resources, defaults, documents, tables.
//!
//! | module | subject |
//! | - | - |
//! | [`name`] | group, version, kind, resource as map keys |
//! | [`builtin`] | the definitions of Kubernetes 1.36, from the blob |
//! | [`definition`] | the type tree a kind is made of; compiled from the blob or from a CRD |
//! | [`defaults`] | what the API server sets when it is absent |
//! | [`fields`] | unknown fields, wrong types, canonical forms |
//! | [`convert`] | versions of one kind: autoscaling v1 and v2, events of both groups |
//! | [`resource`] | one row of the resource table: routes, verbs, subresources, columns |
//! | [`registry`] | [`Schema`]: rows and definitions, immutable |
//! | [`discovery`], [`openapi`] | documents for clients, made once a snapshot |
//! | [`PatchKind`] | kinds of patch by content type |
//! | [`table`] | what `kubectl get` prints |
//!
//! Everything is data: a kind is added by a row, never by code.

pub mod builtin;
pub mod convert;
pub mod defaults;
pub mod definition;
pub mod discovery;
pub mod document;
pub mod fields;
#[cfg(test)]
mod generate;
pub mod name;
pub mod openapi;
mod patch_kind;
pub mod registry;
pub mod resource;
mod rows;
pub mod table;

pub use definition::{Definition, Field, ListType, Shape};
pub use name::{GroupVersion, GroupVersionKind, GroupVersionResource};
pub use patch_kind::PatchKind;
pub use registry::Schema;
pub use resource::{Resource, Verb};

/// Why a schema could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A row clashes with one that exists.
    #[error("{0} is served already")]
    Duplicate(GroupVersionResource),
    /// There is no way from one kind to the other.
    #[error("cannot convert {from} to {to}")]
    NotConvertible {
        /// What the object is.
        from: Box<GroupVersionKind>,
        /// What was asked for.
        to: Box<GroupVersionKind>,
    },
}
