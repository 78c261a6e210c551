//! OpenAPI v2 in gnostic's protobuf (`openapi.v2.Document`): the numbers of its messages' fields.
//!
//! Only what [`super::paths`] and [`super::schemas`] produce is written.

use prost::encoding::{WireType, bool as boolean, encode_key, encode_varint, string};
use serde_json::{Map, Value};

/// Writes a document.
pub(super) fn document(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(1, &value["swagger"], &mut out);
    message(2, &mut out, |out| {
        text(1, &value["info"]["title"], out);
        text(2, &value["info"]["version"], out);
    });
    message(8, &mut out, |out| named(2, &value["paths"], out, path_item));
    message(9, &mut out, |out| named(1, &value["definitions"], out, schema));
    out
}

/// A message in a field.
fn message(tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(inner.len() as u64, out);
    out.extend(inner);
}

fn text(tag: u32, value: &Value, out: &mut Vec<u8>) {
    if let Some(value) = value.as_str() {
        string::encode(tag, &value.to_owned(), out);
    }
}

fn texts(tag: u32, value: &Value, out: &mut Vec<u8>) {
    value.as_array().into_iter().flatten().for_each(|item| text(tag, item, out));
}

fn truth(tag: u32, value: &Value, out: &mut Vec<u8>) {
    if value == true {
        boolean::encode(tag, &true, out);
    }
}

/// `message NamedX { string name = 1; X value = 2 }`, repeated.
fn named(tag: u32, map: &Value, out: &mut Vec<u8>, write: impl Fn(&Value, &mut Vec<u8>)) {
    for (name, value) in map.as_object().into_iter().flatten() {
        message(tag, out, |out| {
            string::encode(1, name, out);
            message(2, out, |out| write(value, out));
        });
    }
}

/// `x-…` keys as `NamedAny` of YAML text.
fn extensions(tag: u32, value: &Value, out: &mut Vec<u8>) {
    let extensions: Map<String, Value> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("x-"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    // JSON is YAML.
    named(tag, &Value::Object(extensions), out, |value, out| string::encode(2, &format!("{value}\n"), out));
}

fn path_item(item: &Value, out: &mut Vec<u8>) {
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if item.get(method).is_some() {
            message(tag, out, |out| operation(&item[method], out));
        }
    }
    parameters(9, item, out);
}

fn operation(value: &Value, out: &mut Vec<u8>) {
    texts(1, &value["tags"], out);
    text(3, &value["description"], out);
    text(5, &value["operationId"], out);
    texts(6, &value["produces"], out);
    texts(7, &value["consumes"], out);
    parameters(8, value, out);
    // Responses → NamedResponseValue → ResponseValue → Response.
    message(9, out, |out| {
        named(1, &value["responses"], out, |response, out| {
            message(1, out, |out| {
                text(1, &response["description"], out);
                // SchemaItem → Schema
                message(2, out, |out| message(1, out, |out| schema(&response["schema"], out)));
            });
        });
    });
    texts(10, &value["schemes"], out);
    extensions(13, value, out);
}

/// ParametersItem → Parameter → body, or NonBodyParameter → one message per place.
fn parameters(tag: u32, holder: &Value, out: &mut Vec<u8>) {
    for parameter in holder["parameters"].as_array().into_iter().flatten() {
        message(tag, out, |out| message(1, out, |out| one_parameter(parameter, out)));
    }
}

fn one_parameter(parameter: &Value, out: &mut Vec<u8>) {
    if parameter["in"] == "body" {
        return message(1, out, |out| {
            text(2, &parameter["name"], out);
            text(3, &parameter["in"], out);
            truth(4, &parameter["required"], out);
            message(5, out, |out| schema(&parameter["schema"], out));
        });
    }
    let in_path = parameter["in"] == "path";
    // NonBodyParameter: query = 3, path = 4; their fields differ only in where `type` starts.
    message(2, out, |out| {
        message(if in_path { 4 } else { 3 }, out, |out| {
            truth(1, &parameter["required"], out);
            text(2, &parameter["in"], out);
            text(3, &parameter["description"], out);
            text(4, &parameter["name"], out);
            text(if in_path { 5 } else { 6 }, &parameter["type"], out);
            truth(if in_path { 19 } else { 20 }, &parameter["uniqueItems"], out);
        });
    });
}

fn schema(value: &Value, out: &mut Vec<u8>) {
    text(1, &value["$ref"], out);
    text(2, &value["format"], out);
    text(4, &value["description"], out);
    texts(19, &value["required"], out);
    if value["additionalProperties"].is_object() {
        // AdditionalPropertiesItem → Schema
        message(21, out, |out| message(1, out, |out| schema(&value["additionalProperties"], out)));
    }
    if value["type"].is_string() {
        // TypeItem
        message(22, out, |out| text(1, &value["type"], out));
    }
    if value["items"].is_object() {
        // ItemsItem → Schema
        message(23, out, |out| message(1, out, |out| schema(&value["items"], out)));
    }
    if value["properties"].is_object() {
        // Properties → NamedSchema
        message(25, out, |out| named(1, &value["properties"], out, schema));
    }
    extensions(31, value, out);
}
