//! Decoding an object against its definition: unknown fields, types, canonical forms.
//!
//! What Go's typed decoding does on the way in: fields that are not in the schema vanish (and are
//! reported for `fieldValidation`), `null` means absent, quantities take their canonical form, a
//! value of the wrong type is an error.

use super::definition::{Definition, Field, Shape};
use aksim_model::quantity;
use serde_json::{Map, Value};
use std::fmt;

/// A value of the wrong type: 400 `BadRequest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeMismatch {
    /// `spec.replicas`
    pub path: String,
    message: String,
}

impl fmt::Display for TypeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TypeMismatch {}

/// Normalizes `object` and gives the paths of unknown fields, which are removed.
///
/// # Errors
/// [`TypeMismatch`]; the object may then be half normalized.
pub fn normalize(definition: &Definition, object: &mut Value) -> Result<Vec<String>, TypeMismatch> {
    let mut walk = Walk { unknown: Vec::new(), path: Vec::new() };
    let Value::Object(map) = object else {
        return Err(walk.mismatch(object, definition.go_name(), definition.go_name()));
    };
    walk.structure(definition, map)?;
    Ok(walk.unknown)
}

/// `strict decoding error: unknown field "spec.foo", duplicate field "spec.replicas"`, or `None`
/// when there is nothing to complain about. kube wraps it as `GROUP/VERSION KIND in version
/// "VERSION" cannot be handled as a KIND: strict decoding error: …`.
pub fn strict_error(unknown: &[String], duplicates: &[String]) -> Option<String> {
    let complaints = warnings(unknown, duplicates);
    (!complaints.is_empty()).then(|| format!("strict decoding error: {}", complaints.join(", ")))
}

/// One `unknown field "…"` or `duplicate field "…"` each: the texts of `Warning` headers.
pub fn warnings(unknown: &[String], duplicates: &[String]) -> Vec<String> {
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    unknown.iter().map(|path| format!("unknown field {path:?}")).chain(duplicates).collect()
}

enum Step {
    Key(String),
    Index(usize),
}

struct Walk {
    unknown: Vec<String>,
    path: Vec<Step>,
}

impl Walk {
    fn path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => {
                    text.push('.');
                    text.push_str(key);
                }
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }

    /// As Go's JSON decoder words it.
    fn mismatch(&self, value: &Value, owner: &str, wanted: &str) -> TypeMismatch {
        let got = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if matches!(wanted, "int32" | "int64") => format!("number {n}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        // Go names fields only, without indices.
        let keys: Vec<&str> =
            self.path.iter().filter_map(|s| if let Step::Key(k) = s { Some(k.as_str()) } else { None }).collect();
        let target =
            if keys.is_empty() { "value".to_owned() } else { format!("struct field {owner}.{}", keys.join(".")) };
        TypeMismatch {
            path: self.path(),
            message: format!("json: cannot unmarshal {got} into Go {target} of type {wanted}"),
        }
    }

    fn structure(&mut self, definition: &Definition, map: &mut Map<String, Value>) -> Result<(), TypeMismatch> {
        let keys: Vec<String> = map.keys().cloned().collect();
        for key in keys {
            let Some(field) = definition.fields.get(&key) else {
                let embedded = definition.embedded_resource && matches!(&*key, "apiVersion" | "kind" | "metadata");
                if !definition.preserve_unknown && !embedded {
                    map.remove(&key);
                    self.path.push(Step::Key(key));
                    self.unknown.push(self.path());
                    self.path.pop();
                }
                continue;
            };
            let Some(value) = map.get_mut(&key) else { continue };
            if value.is_null() && !field.nullable {
                map.remove(&key);
                continue;
            }
            self.path.push(Step::Key(key));
            self.value(field, definition.go_name(), value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn value(&mut self, field: &Field, owner: &str, value: &mut Value) -> Result<(), TypeMismatch> {
        let fits = match (&field.shape, &mut *value) {
            (Shape::Any, _) | (_, Value::Null) => true,
            (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration, v) => v.is_string(),
            (Shape::Boolean, v) => v.is_boolean(),
            (Shape::Int32, v) => v.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            (Shape::Int64, v) => v.is_i64() || v.is_u64(),
            (Shape::Number, v) => v.is_number(),
            (Shape::IntOrString, v) => v.is_string() || v.is_i64(),
            (Shape::Quantity, v) => return self.quantity(v),
            (Shape::Object(reference), Value::Object(map)) => return self.structure(reference.get(), map),
            (Shape::Map(element), Value::Object(map)) => return self.map(element, owner, map),
            (Shape::List(element), Value::Array(list)) => return self.list(element, owner, list),
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.mismatch(value, owner, &go_type(field))) }
    }

    fn map(&mut self, element: &Field, owner: &str, map: &mut Map<String, Value>) -> Result<(), TypeMismatch> {
        for (key, value) in map.iter_mut() {
            self.path.push(Step::Key(key.clone()));
            if value.is_null() && !element.nullable {
                *value = zero(element);
            }
            self.value(element, owner, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn list(&mut self, element: &Field, owner: &str, list: &mut [Value]) -> Result<(), TypeMismatch> {
        for (index, value) in list.iter_mut().enumerate() {
            self.path.push(Step::Index(index));
            if value.is_null() && !element.nullable {
                *value = zero(element);
            }
            self.value(element, owner, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn quantity(&self, value: &mut Value) -> Result<(), TypeMismatch> {
        let text = match &*value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => return Err(self.mismatch(other, "Quantity", "resource.Quantity")),
        };
        match quantity::canonical(&text) {
            Some(canonical) => {
                *value = canonical.into();
                Ok(())
            }
            None => Err(TypeMismatch {
                path: self.path(),
                message: "quantities must match the regular expression \
                          '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                    .into(),
            }),
        }
    }
}

/// What Go makes of a `null` item.
fn zero(field: &Field) -> Value {
    match &field.shape {
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Boolean => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Number | Shape::IntOrString => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Object(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Any | Shape::Time | Shape::MicroTime | Shape::Duration => Value::Null,
    }
}

/// Name of the field's Go type.
fn go_type(field: &Field) -> String {
    match &field.shape {
        Shape::Any => "interface {}".into(),
        Shape::String | Shape::Duration => "string".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Number => "float64".into(),
        Shape::Boolean => "bool".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Object(reference) => {
            let name = &reference.get().name;
            let mut parts = name.rsplit('.');
            let (type_, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{version}.{type_}")
        }
        Shape::Map(element) => format!("map[string]{}", go_type(element)),
        Shape::List(element) => format!("[]{}", go_type(element)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{GroupVersionKind, builtin};
    use serde_json::json;

    fn normalized(mut object: Value) -> Result<(Value, Vec<String>), TypeMismatch> {
        let deployment = builtin::of_kind(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap();
        normalize(deployment.get(), &mut object).map(|unknown| (object, unknown))
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let (object, unknown) = normalized(json!({"metadata":{"name":"x","foo":1,"labels":null},"spec":{"replicas":1,
            "template":{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x",
                "resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}]}}}}))
        .unwrap();
        assert_eq!(unknown, ["metadata.foo", "spec.template.spec.containers[1].imagee"]);
        assert_eq!(
            object,
            json!({"metadata":{"name":"x"},"spec":{"replicas":1,"template":{"spec":{"containers":[
            {"name":"a"},{"name":"b","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}]}}}})
        );
        assert_eq!(
            strict_error(&unknown[..1], &["spec.replicas".into()]).unwrap(),
            "strict decoding error: unknown field \"metadata.foo\", duplicate field \"spec.replicas\""
        );
        assert_eq!(strict_error(&[], &[]), None);
    }

    #[test]
    fn wrong_types_read_as_gos() {
        let error = |object| normalized(object).unwrap_err().to_string();
        assert_eq!(
            error(json!({"spec":{"replicas":"three"}})),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            error(json!({"spec":{"template":{"spec":{"containers":{}}}}})),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"
        );
        assert!(error(json!({"spec":{"replicas":3_000_000_000i64}})).contains("number 3000000000"));
        assert!(error(json!({"metadata":{"labels":{"a":1}}})).contains("of type string"));
        assert!(error(json!([])).contains("of type Deployment"));
        let bad = json!({"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}}});
        assert!(error(bad).starts_with("quantities must match"));
    }
}
