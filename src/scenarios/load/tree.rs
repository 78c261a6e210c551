//! A YAML document in which every value and key knows its place.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};
use std::{fmt, ops::Range};

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
    /// A sequence.
    List(Vec<Tree>),
    /// A mapping, in the order of the text.
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
    /// The value without places.
    pub fn value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(Tree::value).collect(),
            Node::Map(entries) => {
                Value::Object(entries.iter().map(|(k, v)| (k.name.clone(), v.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// Entry of a mapping.
    pub fn get(&self, name: &str) -> Option<&Tree> {
        match &self.node {
            Node::Map(entries) => entries.iter().find(|(k, _)| k.name == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Items of a sequence; none of anything else.
    pub fn items(&self) -> &[Tree] {
        match &self.node {
            Node::List(items) => items,
            _ => &[],
        }
    }

    /// Entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Key, Tree)] {
        match &self.node {
            Node::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Calls `change` on every scalar.
    pub fn for_each_scalar(&mut self, change: &mut impl FnMut(&mut Value, &Range<usize>)) {
        match &mut self.node {
            Node::Scalar(value) => change(value, &self.span),
            Node::List(items) => items.iter_mut().for_each(|item| item.for_each_scalar(change)),
            Node::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.for_each_scalar(change)),
        }
    }
}

/// Bytes of the text that a location names.
pub fn bytes(location: Location) -> Range<usize> {
    let at = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let start = at(location.span().byte_offset());
    start..start + at(location.span().byte_len()).max(1)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { span: bytes(spanned.referenced), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let key = Key { span: bytes(key.referenced), name: key.value };
            map.push((key, entries.next_value()?));
        }
        Ok(Node::Map(map))
    }
}
