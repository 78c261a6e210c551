//! Sets of fields, as `managedFields` keeps them (`fieldsV1`).

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths. Elements are kept in their `fieldsV1` form: `f:NAME`, `k:{KEYS}`, `v:VALUE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(BTreeMap<String, Node>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the path up to here is in the set itself.
    pub(super) member: bool,
    /// Paths going on from here.
    pub(super) below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// Reads `fieldsV1`; `None` when it is no object of objects.
    pub(super) fn parse(fields: &Value) -> Option<Self> {
        let entries = fields.as_object()?.iter().filter(|(key, _)| *key != ".");
        let node = |value: &Value| {
            let map = value.as_object()?;
            let member = map.is_empty() || map.contains_key(".");
            Some(Node { member, below: Self::parse(value)? })
        };
        entries.map(|(key, value)| Some((key.clone(), node(value)?))).collect::<Option<_>>().map(Self)
    }

    /// As `fieldsV1`.
    pub(super) fn into_value(self) -> Value {
        let entry = |(key, node): (String, Node)| {
            let marked = node.member && !node.below.is_empty();
            let mut below = node.below.into_value();
            if let (true, Value::Object(map)) = (marked, &mut below) {
                map.insert(".".into(), Value::Object(Map::new()));
            }
            (key, below)
        };
        Value::Object(self.0.into_iter().map(entry).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, element: &str) -> Option<&Node> {
        self.0.get(element)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.0.iter()
    }

    /// Adds one path.
    pub(super) fn insert(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.0.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.below.insert(rest);
        }
    }

    /// Puts what there is at an element; nothing is not kept.
    pub(super) fn put(&mut self, element: impl FnOnce() -> String, node: Node) {
        if !node.is_empty() {
            self.0.insert(element(), node);
        }
    }

    /// Paths in either set.
    pub(super) fn union(mut self, other: Self) -> Self {
        if self.0.is_empty() {
            return other;
        }
        for (key, theirs) in other.0 {
            let node = self.0.entry(key).or_default();
            node.member |= theirs.member;
            node.below = std::mem::take(&mut node.below).union(theirs.below);
        }
        self
    }

    /// Paths in both sets.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let nodes = self.0.iter().filter_map(|(key, mine)| {
            let theirs = other.0.get(key)?;
            let below = mine.below.intersection(&theirs.below);
            let node = Node { member: mine.member && theirs.member, below };
            (!node.is_empty()).then(|| (key.clone(), node))
        });
        Self(nodes.collect())
    }

    /// Paths in this set and not in the other.
    pub(super) fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    fn subtract(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        self.0.retain(|key, node| {
            if let Some(theirs) = other.0.get(key) {
                node.member &= !theirs.member;
                node.below.subtract(&theirs.below);
            }
            !node.is_empty()
        });
    }

    /// Without these fields of the object and everything below them.
    pub(super) fn without_trees(mut self, names: &[&str]) -> Self {
        if !names.is_empty() {
            self.0.retain(|key, _| !names.iter().any(|name| key.strip_prefix("f:") == Some(name)));
        }
        self
    }

    /// Every path, as kube prints it: `.spec.containers[name="web"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.print("", &mut paths);
        paths
    }

    fn print(&self, prefix: &str, paths: &mut Vec<String>) {
        for (element, node) in &self.0 {
            let path = format!("{prefix}{}", printed(element));
            if node.member {
                paths.push(path.clone());
            }
            node.below.print(&path, paths);
        }
    }
}

/// `.name`, `[name="web"]`, `[="value"]` or `[3]`.
fn printed(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some((_, index)) => format!("[{index}]"),
        None => element.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sets_read_write_and_combine() {
        let text = json!({"f:spec":{"f:replicas":{},"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{}}}},
            "f:metadata":{"f:finalizers":{"v:\"x\"":{}}}});
        let set = FieldSet::parse(&text).unwrap();
        assert_eq!(set.clone().into_value(), text);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers[=\"x\"]",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].image",
                ".spec.replicas"
            ]
        );
        let other = FieldSet::parse(
            &json!({"f:spec":{"f:replicas":{},"f:containers":{"k:{\"name\":\"web\"}":{"f:image":{}}}}}),
        )
        .unwrap();
        assert_eq!(set.intersection(&other).union(set.clone().difference(&other)), set);
        assert_eq!(set.clone().difference(&set), FieldSet::default());
        assert_eq!(set.difference(&other).paths(), [".metadata.finalizers[=\"x\"]", ".spec.containers[name=\"web\"]"]);
        assert_eq!(FieldSet::parse(&json!({"f:a":3})), None);
    }
}
