//! Holds a document against the JSON schema of scenario files: every unknown key, missing key and wrong
//! type at once. A `x-kinds` in the schema stands for a mapping that names one kind of step, check or
//! fault, whose own schema is in its table.

use super::tree::{Node, Tree};
use crate::{checks, faults, steps};
use aksim_config::check::{Problem, nearest};
use serde_json::Value;
use std::ops::Range;

/// Problems of `tree` by `schema`, in the order of the file.
pub fn check(tree: &Tree, schema: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let root = Schema { node: schema, root: schema };
    root.check(tree, "", &mut problems);
    problems.sort_by_key(|p| p.span.start);
    problems
}

/// What a table of kinds knows of a name.
enum Known {
    Kind(Value),
    NotYet,
    Unknown(Vec<String>),
}

/// Makes the schema of a kind.
type MakesSchema = fn() -> Value;

fn lookup(table: &str, name: &str) -> Known {
    let (schema, not_yet, all): (Option<MakesSchema>, bool, Vec<&str>) = match table {
        "steps" => (steps::find(name).map(|r| r.schema), false, steps::TABLE.iter().map(|r| r.name).collect()),
        "checks" => (checks::find(name).map(|r| r.schema), false, checks::TABLE.iter().map(|r| r.name).collect()),
        _ => {
            let names = faults::TABLE.iter().map(|r| r.name).collect();
            (faults::find(name).map(|r| r.schema), faults::NOT_YET.contains(&name), names)
        }
    };
    match schema {
        Some(schema) => Known::Kind(schema()),
        None if not_yet => Known::NotYet,
        None => Known::Unknown(all.into_iter().map(str::to_owned).collect()),
    }
}

/// A schema with the document it is part of, where its references lead.
#[derive(Clone, Copy)]
struct Schema<'s> {
    node: &'s Value,
    root: &'s Value,
}

impl<'s> Schema<'s> {
    /// Follows `$ref`, and takes the non-null branch of an optional value.
    fn resolve(self) -> Self {
        if let Some(reference) = self.node["$ref"].as_str() {
            let found = self.root.pointer(reference.trim_start_matches('#'));
            return found.map_or(self, |node| Self { node, ..self }.resolve());
        }
        let branches = self.node["anyOf"].as_array().into_iter().flatten();
        match branches.into_iter().find(|b| b["type"] != "null") {
            Some(node) => Self { node, ..self }.resolve(),
            None => self,
        }
    }

    fn of(self, node: &'s Value) -> Self {
        Self { node, ..self }
    }

    fn accepts(self, wanted: &str) -> bool {
        match &self.node["type"] {
            Value::String(one) => one == wanted,
            Value::Array(several) => several.iter().any(|t| t == wanted),
            _ => true,
        }
    }

    fn check(self, tree: &Tree, path: &str, problems: &mut Vec<Problem>) {
        let schema = self.resolve();
        if let Some(table) = schema.node["x-kinds"].as_str() {
            return schema.check_kind(tree, table, path, problems);
        }
        let (found, fits) = match &tree.node {
            Node::Map(_) if schema.accepts("object") => return schema.check_map(tree, path, problems),
            Node::List(items) if schema.accepts("array") => {
                for (index, item) in items.iter().enumerate() {
                    schema.of(&schema.node["items"]).check(item, &format!("{path}[{index}]"), problems);
                }
                return;
            }
            Node::Map(_) => ("a mapping", false),
            Node::List(_) => ("a list", false),
            Node::Scalar(Value::String(_)) => ("a text", schema.accepts("string")),
            Node::Scalar(Value::Bool(_)) => ("a boolean", schema.accepts("boolean")),
            Node::Scalar(Value::Number(n)) if n.is_f64() => ("a fraction", schema.accepts("number")),
            Node::Scalar(Value::Number(_)) => ("a number", schema.accepts("integer") || schema.accepts("number")),
            Node::Scalar(_) => ("nothing", schema.accepts("null")),
        };
        if !fits {
            let wanted = schema.wanted();
            let message = format!("`{path}` must be {wanted}, not {found}");
            problems.push(Problem { span: tree.span.clone(), message, hint: None });
        }
    }

    fn wanted(self) -> &'s str {
        match &self.node["type"] {
            Value::String(one) => one,
            Value::Array(several) => several.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or("value"),
            _ => "a value",
        }
    }

    fn check_map(self, tree: &Tree, path: &str, problems: &mut Vec<Problem>) {
        let empty = serde_json::Map::new();
        let properties = self.node["properties"].as_object().unwrap_or(&empty);
        // A schema that names nothing takes anything: manifests, values.
        let free = properties.is_empty() && !self.node["additionalProperties"].is_object();
        for (key, value) in tree.entries() {
            let below = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
            match properties.get(&key.name) {
                Some(property) => self.of(property).check(value, &below, problems),
                None if free => {}
                None if self.node["additionalProperties"].is_object() => {
                    self.of(&self.node["additionalProperties"]).check(value, &below, problems);
                }
                None => problems.push(unknown(&key.span, "key", &below, &key.name, properties.keys())),
            }
        }
        for required in self.node["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if tree.get(required).is_none() {
                let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
                let message = format!("missing key `{required}`{place}");
                problems.push(Problem { span: tree.span.clone(), message, hint: None });
            }
        }
    }

    /// A mapping with the name of one kind, its arguments, and keys that every kind has.
    fn check_kind(self, tree: &Tree, table: &str, path: &str, problems: &mut Vec<Problem>) {
        let empty = serde_json::Map::new();
        let shared = self.node["properties"].as_object().unwrap_or(&empty);
        let mut kinds = 0;
        for (key, value) in tree.entries() {
            let below = format!("{path}.{}", key.name);
            if let Some(property) = shared.get(&key.name) {
                self.of(property).check(value, &below, problems);
                continue;
            }
            kinds += 1;
            match lookup(table, &key.name) {
                Known::Kind(schema) => Schema { node: &schema, root: &schema }.check(value, &below, problems),
                Known::NotYet => problems.push(Problem {
                    span: key.span.clone(),
                    message: format!("fault `{}` is not there yet", key.name),
                    hint: Some("`aksim fidelity --all` lists what is missing".into()),
                }),
                Known::Unknown(names) => {
                    let kind = &table[..table.len() - 1];
                    problems.push(unknown(&key.span, kind, &below, &key.name, names.iter().chain(shared.keys())));
                }
            }
        }
        if kinds != 1 {
            let message = format!("`{path}` must name one of the {table}, not {kinds}");
            problems.push(Problem { span: tree.span.clone(), message, hint: None });
        }
    }
}

fn unknown<'k>(
    span: &Range<usize>,
    what: &str,
    path: &str,
    name: &str,
    known: impl Iterator<Item = &'k String>,
) -> Problem {
    let known: Vec<&String> = known.collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if what == "key" => None,
        None => Some(format!("one of {}", known.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", "))),
    };
    Problem { span: span.clone(), message: format!("unknown {what} `{path}`"), hint }
}
