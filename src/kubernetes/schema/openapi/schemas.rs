//! Definitions as named JSON schemas.

use super::Dialect;
use crate::schema::builtin;
use crate::schema::definition::{Definition, Field, ListType, Reference, Shape};
use serde_json::{Map, Value, json};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// Named schemas, with all they refer to.
pub(super) struct Schemas {
    dialect: Dialect,
    named: Map<String, Value>,
}

impl Schemas {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, named: Map::new() }
    }

    pub(super) fn finish(self) -> Value {
        Value::Object(self.named)
    }

    /// A reference to a definition, which is added.
    pub(super) fn reference(&mut self, reference: &Reference) -> Value {
        let definition = reference.get();
        self.add(&definition.name, |schemas| schemas.structure(definition));
        self.dialect.reference(&definition.name)
    }

    /// A reference to the body of a patch.
    pub(super) fn patch(&mut self) -> Value {
        self.add(PATCH, |_| json!({ "description": "A patch of the object, by its content type.", "type": "object" }));
        self.dialect.reference(PATCH)
    }

    fn add(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) {
        if !self.named.contains_key(name) {
            // A place holder ends the recursion of types that hold themselves.
            self.named.insert(name.to_owned(), Value::Null);
            let mut schema = make(self);
            if let Some(text) = description(name, "") {
                schema["description"] = text.into();
            }
            self.named.insert(name.to_owned(), schema);
        }
    }

    fn structure(&mut self, definition: &Definition) -> Value {
        let mut properties = Map::new();
        for (name, field) in &definition.fields {
            let text = description(&definition.name, name);
            properties.insert(name.clone(), self.field(field, text));
        }
        let mut schema = json!({ "type": "object" });
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        if !definition.required.is_empty() {
            schema["required"] = json!(definition.required);
        }
        if definition.preserve_unknown {
            schema["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        let kinds: Vec<Value> = definition
            .kinds
            .iter()
            .map(|kind| json!({ "group": kind.group, "kind": kind.kind, "version": kind.version }))
            .collect();
        if !kinds.is_empty() {
            schema["x-kubernetes-group-version-kind"] = kinds.into();
        }
        schema
    }

    fn field(&mut self, field: &Field, description: Option<&str>) -> Value {
        let mut schema = self.shape(&field.shape);
        // Beside a reference v3 allows nothing: the rest stands around it.
        if self.dialect == Dialect::V3 && schema.get("$ref").is_some() && description.is_some() {
            schema = json!({ "allOf": [schema] });
        }
        if let Some(text) = description {
            schema["description"] = text.into();
        }
        extensions(field, &mut schema);
        schema
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        let string = |format: &str| json!({ "type": "string", "format": format });
        match shape {
            Shape::Any => json!({ "type": "object" }),
            Shape::String | Shape::Duration => json!({ "type": "string" }),
            Shape::Int32 => json!({ "type": "integer", "format": "int32" }),
            Shape::Int64 => json!({ "type": "integer", "format": "int64" }),
            Shape::Number => json!({ "type": "number", "format": "double" }),
            Shape::Boolean => json!({ "type": "boolean" }),
            Shape::Bytes => string("byte"),
            Shape::Quantity => self.scalar(
                QUANTITY,
                json!({ "type": "string" }),
                json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
            ),
            Shape::IntOrString => self.scalar(
                INT_OR_STRING,
                string("int-or-string"),
                json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] }),
            ),
            Shape::Time => self.scalar(TIME, string("date-time"), string("date-time")),
            Shape::MicroTime => self.scalar(MICRO_TIME, string("date-time"), string("date-time")),
            Shape::Object(reference) => self.reference(reference),
            Shape::Map(element) => json!({ "type": "object", "additionalProperties": self.field(element, None) }),
            Shape::List(element) => json!({ "type": "array", "items": self.field(element, None) }),
        }
    }

    /// A named schema that differs between the dialects.
    fn scalar(&mut self, name: &str, v2: Value, v3: Value) -> Value {
        let dialect = self.dialect;
        self.add(name, |_| if dialect == Dialect::V2 { v2 } else { v3 });
        dialect.reference(name)
    }
}

fn description(definition: &str, field: &str) -> Option<&'static str> {
    builtin::descriptions().get(definition)?.get(field).map(String::as_str)
}

fn extensions(field: &Field, schema: &mut Value) {
    match (&field.shape, &field.list_type) {
        (Shape::List(_), ListType::Atomic) if !field.merge => schema["x-kubernetes-list-type"] = "atomic".into(),
        (_, ListType::Set) => schema["x-kubernetes-list-type"] = "set".into(),
        (_, ListType::Map(keys)) => {
            schema["x-kubernetes-list-type"] = "map".into();
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
        _ => {}
    }
    if field.atomic_map {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    let strategies: Vec<&str> =
        [("merge", field.merge), ("retainKeys", field.retain_keys)].into_iter().filter(|s| s.1).map(|s| s.0).collect();
    if !strategies.is_empty() {
        schema["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    if let Some(key) = &field.merge_key {
        schema["x-kubernetes-patch-merge-key"] = key.clone().into();
    }
}
