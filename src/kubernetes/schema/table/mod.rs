//! `meta.k8s.io/v1` Table: what `kubectl get` prints; and PartialObjectMetadata.

pub mod age;
mod cluster;
mod jsonpath;
mod network;
mod pods;
mod storage;
mod workloads;

use super::resource::{Column, ColumnSource, Resource};
use age::Age;
use jiff::Timestamp;
use jsonpath::JsonPath;
use serde_json::{Map, Value, json};

/// How much of each object a row carries (`includeObject` parameter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// From the parameter; `None` for an unknown value (answer 400).
    pub fn parse(parameter: Option<&str>) -> Option<Self> {
        match parameter {
            None | Some("" | "Metadata") => Some(Self::Metadata),
            Some("None") => Some(Self::None),
            Some("Object") => Some(Self::Object),
            Some(_) => None,
        }
    }
}

/// How to make a table.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// How much of each object a row carries.
    pub include: IncludeObject,
    /// Whether column definitions are given: in a watch only the first event has them.
    pub headers: bool,
    /// `v1` or `v1beta1` of `meta.k8s.io`.
    pub version: String,
    /// Ages are counted up to here.
    pub now: Timestamp,
}

/// A cell's function: the object and the present time to its text, number or truth value.
type Compute = fn(&Row<'_>) -> Value;

/// One object while its cells are made.
struct Row<'a> {
    object: &'a Value,
    now: Timestamp,
}

/// The table of these objects; the caller sets `metadata` (a list's `resourceVersion`,
/// `continue`, `remainingItemCount`).
pub fn table(resource: &Resource, objects: &[Value], options: &TableOptions) -> Value {
    let fallback;
    let columns: &[Column] = if resource.columns.is_empty() {
        fallback = default_columns();
        &fallback
    } else {
        &resource.columns
    };
    let sources: Vec<Source> = columns.iter().map(Source::of).collect();
    let rows: Vec<Value> = objects.iter().map(|object| row(&sources, object, options)).collect();
    let definitions: Vec<Value> = columns.iter().filter(|_| options.headers).map(definition).collect();
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", options.version),
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// The columns of a resource that has none of its own.
fn default_columns() -> [Column; 2] {
    let column = |name: &str, type_: &str, format: &str, source| Column {
        name: name.into(),
        type_: type_.into(),
        format: format.into(),
        priority: 0,
        description: String::new(),
        source,
    };
    [
        column("Name", "string", "name", ColumnSource::Path(".metadata.name".into())),
        column("Created At", "date", "", ColumnSource::Compute("created_at".into())),
    ]
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.type_,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

/// A column's source, ready to use.
enum Source {
    Path(JsonPath, bool),
    Compute(Compute),
}

impl Source {
    fn of(column: &Column) -> Self {
        match &column.source {
            // A path that cannot be read gives empty cells, as kube does.
            ColumnSource::Path(path) => Self::Path(JsonPath::parse(path).unwrap_or_default(), column.type_ == "date"),
            // A test looks up every name of the table.
            ColumnSource::Compute(name) => Self::Compute(compute(name).unwrap_or(|_| Value::Null)),
        }
    }
}

fn row(sources: &[Source], object: &Value, options: &TableOptions) -> Value {
    let row = Row { object, now: options.now };
    let cells: Vec<Value> = sources
        .iter()
        .map(|source| match source {
            Source::Path(path, false) => path.cell(object),
            Source::Path(path, true) => path.cell(object).as_str().map_or(Value::Null, |at| row.since(at).into()),
            Source::Compute(function) => function(&row),
        })
        .collect();
    let mut entry = json!({ "cells": cells });
    if let Some(conditions) = pods::row_conditions(object) {
        entry["conditions"] = conditions;
    }
    match options.include {
        IncludeObject::None => {}
        IncludeObject::Metadata => entry["object"] = partial_metadata(object, &options.version),
        IncludeObject::Object => entry["object"] = object.clone(),
    }
    entry
}

/// `PartialObjectMetadata` of an object; `version` is `v1` or `v1beta1`.
pub fn partial_metadata(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())),
    })
}

/// A cell's function by name.
fn compute(name: &str) -> Option<Compute> {
    let general: Option<Compute> = match name {
        "age" => Some(|row| row.since(row.text("/metadata/creationTimestamp")).into()),
        "created_at" => Some(|row| row.text("/metadata/creationTimestamp").into()),
        "data_count" => Some(|row| (row.count("/data") + row.count("/binaryData")).to_string().into()),
        "secret_count" => Some(|row| row.count("/secrets").to_string().into()),
        _ => None,
    };
    general
        .or_else(|| pods::compute(name))
        .or_else(|| workloads::compute(name))
        .or_else(|| network::compute(name))
        .or_else(|| storage::compute(name))
        .or_else(|| cluster::compute(name))
}

impl<'a> Row<'a> {
    /// Value at a JSON pointer; `Null` when absent.
    fn at(&self, pointer: &str) -> &'a Value {
        self.object.pointer(pointer).unwrap_or(&Value::Null)
    }
    /// Text at a JSON pointer; empty when absent.
    fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).as_str().unwrap_or_default()
    }
    /// Text, or `otherwise` when absent or empty.
    fn text_or(&self, pointer: &str, otherwise: &'a str) -> &'a str {
        Some(self.text(pointer)).filter(|text| !text.is_empty()).unwrap_or(otherwise)
    }
    /// Number; 0 when absent.
    fn number(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or_default()
    }
    /// List; empty when absent.
    fn list(&self, pointer: &str) -> &'a [Value] {
        self.at(pointer).as_array().map_or(&[], Vec::as_slice)
    }
    /// Entries of a list or map.
    fn count(&self, pointer: &str) -> usize {
        match self.at(pointer) {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }
    /// Age of a time in RFC 3339.
    fn since(&self, time: &str) -> String {
        Age::since(time, self.now).to_string()
    }
    /// Whether the condition of this type is `True`.
    fn condition(&self, type_: &str) -> bool {
        self.list("/status/conditions").iter().any(|c| c["type"] == type_ && c["status"] == "True")
    }
}

/// Number, text or truth value as kubectl prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `a=b,c=d`, or `<none>`.
fn labels(map: &Value) -> String {
    let entries: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", plain(value))).collect();
    none_if_empty(entries.join(","))
}

fn none_if_empty(text: String) -> String {
    if text.is_empty() { "<none>".into() } else { text }
}

/// The first three, then `+ N more...`.
fn first_three(items: &[String]) -> String {
    match items.len() {
        0..=3 => items.join(","),
        more => format!("{} + {} more...", items[..3].join(","), more - 3),
    }
}

#[cfg(test)]
mod tests;
