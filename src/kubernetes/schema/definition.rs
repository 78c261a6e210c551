//! The type tree a kind is made of.
//!
//! Built-in definitions live in one static arena and refer to each other by number, so that
//! recursive types need no cycles.

use super::name::GroupVersionKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An object type: a structure with named fields.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Definition {
    /// `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Kinds whose objects are of this type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<GroupVersionKind>,
    /// Fields by JSON name.
    pub fields: BTreeMap<String, Field>,
    /// JSON names of fields that must be present, in the schema's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Whether unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    #[serde(skip_serializing_if = "is_false")]
    pub preserve_unknown: bool,
    /// Whether the object is a full resource embedded in another one
    /// (`x-kubernetes-embedded-resource`).
    #[serde(skip_serializing_if = "is_false")]
    pub embedded_resource: bool,
    /// Protobuf tag → where the value goes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<u32, TagTarget>,
}

/// Where the value of a protobuf tag goes in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TagTarget {
    /// The field of this JSON name.
    Field(String),
    /// A message whose fields belong to the surrounding object (Go's inline structs).
    Inline(BTreeMap<u32, TagTarget>),
    /// Known, but of a message type that has no generic JSON form.
    Unsupported(String),
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Definition {
    /// Name of the Go type, as error messages print it: `PodSpec`.
    pub fn go_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

/// A use of a type: in a field, as a list's item, or as a map's value.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Field {
    /// The type.
    pub shape: Shape,
    /// How server-side apply treats a list or map.
    #[serde(skip_serializing_if = "ListType::is_atomic")]
    pub list_type: ListType,
    /// Whether a map or structure is replaced as one value by server-side apply.
    #[serde(skip_serializing_if = "is_false")]
    pub atomic_map: bool,
    /// Strategic merge: merge the list or map rather than replace it.
    #[serde(skip_serializing_if = "is_false")]
    pub merge: bool,
    /// Strategic merge: keep only the keys the patch names (`retainKeys`).
    #[serde(skip_serializing_if = "is_false")]
    pub retain_keys: bool,
    /// Strategic merge: key of a list of objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_key: Option<String>,
    /// Whether an explicit zero (`0`, `false`, `""`, an empty structure) differs from absence (a
    /// pointer in Go).
    #[serde(skip_serializing_if = "is_false")]
    pub pointer: bool,
    /// Whether `null` is a value of its own (CRDs: `nullable: true`).
    #[serde(skip_serializing_if = "is_false")]
    pub nullable: bool,
}

/// The type of a value.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Shape {
    /// Any JSON value, kept as it is (`RawExtension`, `JSON`, `FieldsV1`).
    #[default]
    Any,
    /// Text.
    String,
    /// Whole number of at most 32 bits.
    Int32,
    /// Whole number of at most 64 bits.
    Int64,
    /// Number.
    Number,
    /// Truth value.
    Boolean,
    /// Base64 text.
    Bytes,
    /// Amount with a suffix, such as `500m` or `1Gi`.
    Quantity,
    /// Number or text.
    IntOrString,
    /// RFC 3339 time in seconds.
    Time,
    /// RFC 3339 time in microseconds.
    MicroTime,
    /// Go duration, such as `1m30s`.
    Duration,
    /// Object with named fields.
    Object(Reference),
    /// Object with free keys and values of one type.
    Map(Box<Field>),
    /// Array.
    List(Box<Field>),
}

/// How server-side apply treats a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListType {
    /// Replaced as one value.
    #[default]
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects identified by these fields.
    Map(Vec<String>),
}

/// A reference to a [`Definition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference(
    /// Number in the arena of definitions.
    pub u32,
);

impl ListType {
    fn is_atomic(&self) -> bool {
        *self == Self::Atomic
    }
}

impl Reference {
    /// The definition meant.
    pub fn get(self) -> &'static Definition {
        super::builtin::definition(self.0)
    }
}

impl Field {
    /// The structure of an object field; `None` for other shapes.
    pub fn definition(&self) -> Option<&Definition> {
        match &self.shape {
            Shape::Object(reference) => Some(reference.get()),
            _ => None,
        }
    }
    /// Type of a list's items or a map's values.
    pub fn element(&self) -> Option<&Field> {
        match &self.shape {
            Shape::List(element) | Shape::Map(element) => Some(element),
            _ => None,
        }
    }
}
