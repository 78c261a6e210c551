//! Holds a TOML document against the JSON schema of the project file: every unknown key, missing
//! key and wrong type at once, each with its place and, for a typo, the nearest known key.

use serde_json::Value;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Something wrong at a place of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the file it is about.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// Next step, if there is an obvious one.
    pub hint: Option<String>,
}

/// Problems of `table` by `schema`, in the order of the file.
pub fn check(table: &DeTable<'_>, span: Range<usize>, schema: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_table(table, span, schema, schema, "", &mut problems);
    problems.sort_by_key(|p| p.span.start);
    problems
}

/// Follows `$ref`, and takes the non-null branch of an optional value.
fn resolve<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        return root.pointer(pointer).map_or(schema, |s| resolve(s, root));
    }
    if let Some(branches) = schema["anyOf"].as_array()
        && let Some(branch) = branches.iter().find(|b| b["type"] != "null")
    {
        return resolve(branch, root);
    }
    schema
}

fn check_table(
    table: &DeTable<'_>,
    span: Range<usize>,
    schema: &Value,
    root: &Value,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let schema = resolve(schema, root);
    let empty = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let open = schema["additionalProperties"].is_object();
    for (key, value) in table.iter() {
        let name = key.get_ref().as_ref();
        let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match properties.get(name) {
            Some(property) => check_value(value.get_ref(), value.span(), property, root, &below, problems),
            None if open => {
                check_value(value.get_ref(), value.span(), &schema["additionalProperties"], root, &below, problems);
            }
            None => problems.push(Problem {
                span: key.span(),
                message: format!("unknown key `{below}`"),
                hint: nearest(name, properties.keys()).map(|known| format!("did you mean `{known}`?")),
            }),
        }
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !table.iter().any(|(key, _)| key.get_ref().as_ref() == required) {
            let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
            problems.push(Problem {
                span: span.clone(),
                message: format!("missing key `{required}`{place}"),
                hint: None,
            });
        }
    }
}

fn check_value(
    value: &DeValue<'_>,
    span: Range<usize>,
    schema: &Value,
    root: &Value,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let schema = resolve(schema, root);
    let accepts = |wanted: &str| match &schema["type"] {
        Value::String(one) => one == wanted,
        Value::Array(several) => several.iter().any(|t| t == wanted),
        _ => true,
    };
    let (found, fits) = match value {
        DeValue::Table(table) => {
            if accepts("object") {
                return check_table(table, span, schema, root, path, problems);
            }
            ("a table", false)
        }
        DeValue::Array(items) => {
            if accepts("array") {
                for (index, item) in items.iter().enumerate() {
                    let below = format!("{path}[{index}]");
                    check_value(item.get_ref(), item.span(), &schema["items"], root, &below, problems);
                }
                return;
            }
            ("an array", false)
        }
        DeValue::String(_) => ("a string", accepts("string")),
        DeValue::Integer(_) => ("an integer", accepts("integer") || accepts("number")),
        DeValue::Float(_) => ("a float", accepts("number")),
        DeValue::Boolean(_) => ("a boolean", accepts("boolean")),
        DeValue::Datetime(_) => ("a date", false),
    };
    if !fits {
        let wanted = match &schema["type"] {
            Value::String(one) => one.clone(),
            Value::Array(several) => {
                several.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or("value").into()
            }
            _ => "value".into(),
        };
        problems.push(Problem { span, message: format!("`{path}` must be {wanted}, not {found}"), hint: None });
    }
}

/// The known name nearest to a mistyped one, if any is near.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k String>) -> Option<&'k String> {
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
