//! Holds a document against its JSON schema: every unknown key, missing key and wrong type at once, each with its
//! place and, for a typo, the nearest known name.
//!
//! A `x-kinds` in the schema stands for a mapping that names one kind of a table of [`Kinds`], which has the schema of
//! each.

use super::document::{Node, Tree};
use aksim_model::suggest::nearest;
use serde_json::Value;
use std::ops::Range;

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

/// What a format calls its values.
#[derive(Debug)]
pub struct Words {
    map: &'static str,
    list: &'static str,
    text: &'static str,
    fraction: &'static str,
    number: &'static str,
}

/// As TOML calls them.
pub const TOML: &Words =
    &Words { map: "a table", list: "an array", text: "a string", fraction: "a float", number: "an integer" };

/// As YAML's users call them.
pub const YAML: &Words =
    &Words { map: "a mapping", list: "a list", text: "a text", fraction: "a fraction", number: "a number" };

/// What a table of kinds knows of a name.
pub enum Known {
    /// It takes arguments of this schema.
    Kind(Value),
    /// It is known and not there.
    NotYet {
        /// Next step.
        hint: String,
    },
    /// It is none of these.
    Unknown(Vec<String>),
}

/// Tables of kinds, which `x-kinds` in a schema names.
pub trait Kinds {
    /// What is called so in the table; the table's name is the plural of what its kinds are.
    fn find(&self, table: &str, name: &str) -> Known;
}

/// No tables.
pub struct NoKinds;

impl Kinds for NoKinds {
    fn find(&self, _: &str, _: &str) -> Known {
        Known::Unknown(Vec::new())
    }
}

/// Problems of `tree` by `schema`, in the order of the file.
pub fn check(tree: &Tree, schema: &Value, words: &Words, kinds: &dyn Kinds) -> Vec<Problem> {
    let mut checker = Checker { words, kinds, problems: Vec::new() };
    checker.value(Schema { node: schema, root: schema }, tree, "");
    checker.problems.sort_by_key(|p| p.span.start);
    checker.problems
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
            return found.map_or(self, |node| self.of(node).resolve());
        }
        let branches = self.node["anyOf"].as_array().into_iter().flatten();
        match branches.into_iter().find(|b| b["type"] != "null") {
            Some(node) => self.of(node).resolve(),
            None => self,
        }
    }

    fn of(self, node: &'s Value) -> Self {
        Self { node, ..self }
    }

    fn property(self, name: &str) -> Option<Self> {
        self.node["properties"].get(name).map(|node| self.of(node))
    }

    fn properties(self) -> impl Iterator<Item = &'s str> {
        self.node["properties"].as_object().into_iter().flat_map(|map| map.keys().map(String::as_str))
    }

    /// Types that it names; of none it takes any.
    fn types(self) -> Vec<&'s str> {
        match &self.node["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn accepts(self, wanted: &str) -> bool {
        let types = self.types();
        types.is_empty() || types.contains(&wanted)
    }
}

struct Checker<'c> {
    words: &'c Words,
    kinds: &'c dyn Kinds,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, span: &Range<usize>, message: String, hint: Option<String>) {
        self.problems.push(Problem { span: span.clone(), message, hint });
    }

    fn value(&mut self, schema: Schema<'_>, tree: &Tree, path: &str) {
        let schema = schema.resolve();
        if let Some(table) = schema.node["x-kinds"].as_str() {
            return self.kind(schema, tree, table, path);
        }
        let (found, fits) = match &tree.node {
            Node::Map(_) if schema.accepts("object") => return self.map(schema, tree, path),
            Node::List(items) if schema.accepts("array") => {
                for (index, item) in items.iter().enumerate() {
                    self.value(schema.of(&schema.node["items"]), item, &format!("{path}[{index}]"));
                }
                return;
            }
            Node::Map(_) => (self.words.map, false),
            Node::List(_) => (self.words.list, false),
            Node::Date(_) => ("a date", false),
            Node::Scalar(Value::String(_)) => (self.words.text, schema.accepts("string")),
            Node::Scalar(Value::Bool(_)) => ("a boolean", schema.accepts("boolean")),
            Node::Scalar(Value::Number(n)) if n.is_f64() => (self.words.fraction, schema.accepts("number")),
            Node::Scalar(Value::Number(_)) => {
                (self.words.number, schema.accepts("integer") || schema.accepts("number"))
            }
            Node::Scalar(_) => ("nothing", schema.accepts("null")),
        };
        if !fits {
            let wanted = schema.types().into_iter().find(|t| *t != "null").unwrap_or("a value");
            self.problem(&tree.span, format!("{} must be {wanted}, not {found}", named(path)), None);
        }
    }

    fn map(&mut self, schema: Schema<'_>, tree: &Tree, path: &str) {
        let others = &schema.node["additionalProperties"];
        // A schema that names nothing takes anything: manifests, values.
        let free = schema.properties().next().is_none() && others.is_null();
        for (key, value) in tree.entries() {
            let below = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
            match schema.property(&key.name) {
                Some(property) => self.value(property, value, &below),
                None if free || others == true => {}
                None if others.is_object() => self.value(schema.of(others), value, &below),
                None => {
                    let hint = nearest(&key.name, schema.properties()).map(did_you_mean);
                    self.problem(&key.span, format!("unknown key `{below}`"), hint);
                }
            }
        }
        for required in schema.node["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if tree.get(required).is_none() {
                let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
                self.problem(&tree.span, format!("missing key `{required}`{place}"), None);
            }
        }
    }

    /// A mapping with the name of one kind, its arguments, and keys that every kind has.
    fn kind(&mut self, schema: Schema<'_>, tree: &Tree, table: &str, path: &str) {
        let one = table.strip_suffix('s').unwrap_or(table);
        let mut kinds = 0;
        for (key, value) in tree.entries() {
            let below = format!("{path}.{}", key.name);
            if let Some(property) = schema.property(&key.name) {
                self.value(property, value, &below);
                continue;
            }
            kinds += 1;
            match self.kinds.find(table, &key.name) {
                Known::Kind(kind) => self.value(Schema { node: &kind, root: &kind }, value, &below),
                Known::NotYet { hint } => {
                    self.problem(&key.span, format!("{one} `{}` is not there yet", key.name), Some(hint));
                }
                Known::Unknown(names) => {
                    let known: Vec<&str> = names.iter().map(String::as_str).chain(schema.properties()).collect();
                    let near = nearest(&key.name, known.iter().copied()).map(did_you_mean);
                    let hint = near.unwrap_or_else(|| format!("one of {}", known.join(", ")));
                    self.problem(&key.span, format!("unknown {one} `{below}`"), Some(hint));
                }
            }
        }
        if kinds != 1 {
            self.problem(&tree.span, format!("{} must name one of the {table}, not {kinds}", named(path)), None);
        }
    }
}

fn named(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") }
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(text: &str, schema: &Value) -> Vec<(String, String)> {
        let table = toml::de::DeTable::parse(text).unwrap();
        let tree = Tree::of_toml(table.get_ref(), table.span());
        let found = check(&tree, schema, TOML, &NoKinds);
        found.into_iter().map(|p| (text[p.span].to_owned(), p.message)).collect()
    }

    #[test]
    fn every_kind_of_toml_value_is_told_at_its_own_place() {
        let schema = json!({"properties": {
            "text": {"type": "string"}, "whole": {"type": ["integer", "null"]}, "any": {"type": "number"},
            "list": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/one"}]}},
        }, "$defs": {"one": {"type": "object", "properties": {"name": {"type": "string"}},
            "additionalProperties": false, "required": ["name"]}}});
        let good = "text = 'a'\nwhole = 0xff\nany = 1.5\nlist = [{ name = 'a' }]";
        assert_eq!(problems(good, &schema), []);
        let bad = "text = 1979-05-27\nwhole = inf\nany = true\nlist = [{ nmae = 'a' }, 'a']";
        let told = [
            ("1979-05-27", "`text` must be string, not a date"),
            ("inf", "`whole` must be integer, not a float"),
            ("true", "`any` must be number, not a boolean"),
            ("{ nmae = 'a' }", "missing key `name` in `list[0]`"),
            ("nmae", "unknown key `list[0].nmae`"),
            ("'a'", "`list[1]` must be object, not a string"),
        ];
        let found = problems(bad, &schema);
        assert_eq!(found.iter().map(|(at, said)| (at.as_str(), said.as_str())).collect::<Vec<_>>(), told);
        // A schema that names nothing takes anything; one that says so takes nothing.
        assert_eq!(problems("a = 1", &json!({})), []);
        assert_eq!(problems("a = 1", &json!({"additionalProperties": false})).len(), 1);
    }
}
