//! A document, TOML or YAML, in which every value and key knows its place.

use serde_json::{Map, Value};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// The value.
    pub node: Node,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Node {
    /// Null, true, a number, a text.
    Scalar(Value),
    /// A date of TOML, which no key of ours takes.
    Date(String),
    /// An array of TOML, a sequence of YAML.
    List(Vec<Tree>),
    /// A table of TOML, a mapping of YAML; in the order of the text.
    Map(Vec<(Key, Tree)>),
}

/// A key with its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// The key.
    pub name: String,
}

impl Tree {
    /// The tree of a TOML document.
    pub fn of_toml(table: &DeTable<'_>, span: Range<usize>) -> Self {
        Self { span, node: toml_map(table) }
    }

    /// The value without places.
    pub fn value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::Date(text) => text.as_str().into(),
            Node::List(items) => items.iter().map(Self::value).collect(),
            Node::Map(entries) => {
                Value::Object(entries.iter().map(|(k, v)| (k.name.clone(), v.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// Entry of a mapping.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.entries().iter().find(|(k, _)| k.name == name).map(|(_, v)| v)
    }

    /// Place of what a path such as `service[1].depends-on[0]` names; where the document says nothing of it, of the
    /// nearest value around it that the document has.
    pub fn place(&self, path: &str) -> Range<usize> {
        let mut tree = self;
        for part in path.split(['.', '[']) {
            let next = match part.strip_suffix(']') {
                Some(index) => index.parse::<usize>().ok().and_then(|index| tree.items().get(index)),
                None => tree.get(part),
            };
            match next {
                Some(next) => tree = next,
                None => break,
            }
        }
        tree.span.clone()
    }

    /// Items of a sequence; none of anything else.
    pub fn items(&self) -> &[Self] {
        match &self.node {
            Node::List(items) => items,
            _ => &[],
        }
    }

    /// Entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.node {
            Node::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Calls `change` on every scalar.
    pub fn for_each_scalar(&mut self, change: &mut impl FnMut(&mut Value, &Range<usize>)) {
        match &mut self.node {
            Node::Scalar(value) => change(value, &self.span),
            Node::Date(_) => {}
            Node::List(items) => items.iter_mut().for_each(|item| item.for_each_scalar(change)),
            Node::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.for_each_scalar(change)),
        }
    }
}

fn toml_map(table: &DeTable<'_>) -> Node {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        (Key { span: key.span(), name: name.clone().into_owned() }, toml_tree(value))
    };
    Node::Map(table.iter().map(entry).collect())
}

fn toml_tree(value: &toml::Spanned<DeValue<'_>>) -> Tree {
    let node = match value.get_ref() {
        DeValue::Table(table) => toml_map(table),
        DeValue::Array(items) => Node::List(items.iter().map(toml_tree).collect()),
        DeValue::String(text) => Node::Scalar(text.as_ref().into()),
        // A number keeps its kind; one that JSON cannot hold is still no other kind.
        DeValue::Integer(number) => Node::Scalar(number.to_string().parse::<i64>().unwrap_or(i64::MAX).into()),
        DeValue::Float(number) => {
            Node::Scalar(number.to_string().parse::<f64>().ok().filter(|f| f.is_finite()).unwrap_or(0.0).into())
        }
        DeValue::Boolean(truth) => Node::Scalar((*truth).into()),
        DeValue::Datetime(date) => Node::Date(date.to_string()),
    };
    Tree { span: value.span(), node }
}
