//! Stored objects: immutable encoded bytes with a small header, and the keys they lie under.

use bytes::Bytes;
use serde_json::{Map, Value};
use std::{borrow::Borrow, fmt, sync::Arc};

/// Separates namespace from name in a [`Key`]; sorts before every character of a name, so keys
/// order as the pairs `(namespace, name)`.
const SEPARATOR: char = '\0';

/// Key of an object in its table: namespace (empty when cluster-scoped) and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of `name` in `namespace`; an empty namespace for cluster-scoped objects.
    pub fn new(namespace: &str, name: &str) -> Self {
        let mut text = String::with_capacity(namespace.len() + name.len() + 1);
        text.push_str(namespace);
        text.push(SEPARATOR);
        text.push_str(name);
        Self(text.into())
    }
    /// Namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.0.split_once(SEPARATOR).map_or("", |(namespace, _)| namespace)
    }
    /// Name.
    pub fn name(&self) -> &str {
        self.0.split_once(SEPARATOR).map_or(&self.0, |(_, name)| name)
    }
    /// First and one-past-last text of the keys of a namespace.
    pub(super) fn bounds(namespace: &str) -> (String, String) {
        (format!("{namespace}{SEPARATOR}"), format!("{namespace}\u{1}"))
    }
    /// The key as it is written to the log and put into continue tokens.
    pub fn as_text(&self) -> &str {
        &self.0
    }
    /// The key that [`Key::as_text`] gave.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

/// What is known of an object without decoding it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.labels`.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Uids of `metadata.ownerReferences`.
    pub owners: Box<[Box<str>]>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Values at the table's selectable field paths, in their order; absent ones are empty.
    pub fields: Box<[Box<str>]>,
}

impl Header {
    /// Reads the header out of an object; `paths` are the table's selectable fields
    /// (`spec.nodeName`).
    pub fn of(object: &Value, paths: &[&str]) -> Self {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().into();
        let labels = metadata["labels"]
            .as_object()
            .map(|labels| labels.iter().map(|(key, value)| (key.as_str().into(), text(value))).collect::<Vec<_>>());
        let owners = metadata["ownerReferences"].as_array();
        Self {
            uid: text(&metadata["uid"]),
            labels: labels.unwrap_or_default().into(),
            owners: owners.map(|o| o.iter().map(|owner| text(&owner["uid"])).collect()).unwrap_or_default(),
            deleting: !metadata["deletionTimestamp"].is_null(),
            fields: paths.iter().map(|path| field(object, path)).collect(),
        }
    }

    /// Value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
    }
}

fn field(object: &Value, path: &str) -> Box<str> {
    match path.split('.').try_fold(object, |value, part| value.get(part)) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Null) | None => Box::default(),
        Some(other) => other.to_string().into(),
    }
}

/// A stored object. Its bytes are JSON with `metadata.resourceVersion` equal to `revision`.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Where it lies.
    pub key: Key,
    /// Revision of the write that made it.
    pub revision: u64,
    /// What is known of it without decoding.
    pub header: Header,
    /// The whole object, JSON.
    pub bytes: Bytes,
}

impl Object {
    /// Decodes the object.
    ///
    /// Stored bytes were encoded by [`Draft`] or checked when the log was read; should they not
    /// parse all the same, the object reads as `null` and callers treat it as empty.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

/// An object on its way into the store: encoded but for its resource version, which the commit
/// thread splices in.
#[derive(Debug)]
pub struct Draft {
    pub(super) header: Header,
    encoded: Vec<u8>,
    splice_at: usize,
}

impl Draft {
    /// Encodes `object`, leaving its resource version open.
    pub fn new(object: &Value, paths: &[&str]) -> Self {
        let mut encoded = Vec::with_capacity(1024);
        let mut splice_at = 0;
        encoded.push(b'{');
        let empty = Map::new();
        let fields = object.as_object().unwrap_or(&empty);
        // Kind and version first: readers that only peek find them soon.
        for name in ["apiVersion", "kind"] {
            if let Some(value) = fields.get(name) {
                write_field(&mut encoded, name, value);
            }
        }
        begin_field(&mut encoded, "metadata");
        encoded.extend_from_slice(b"{\"resourceVersion\":\"");
        splice_at += encoded.len();
        encoded.push(b'"');
        for (name, value) in fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
            if name != "resourceVersion" {
                write_field(&mut encoded, name, value);
            }
        }
        encoded.push(b'}');
        for (name, value) in fields {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                write_field(&mut encoded, name, value);
            }
        }
        encoded.push(b'}');
        Self { header: Header::of(object, paths), encoded, splice_at }
    }

    /// The object at `revision`.
    pub(super) fn at(self, key: Key, revision: u64) -> Object {
        let digits = revision.to_string();
        let mut bytes = Vec::with_capacity(self.encoded.len() + digits.len());
        bytes.extend_from_slice(&self.encoded[..self.splice_at]);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(&self.encoded[self.splice_at..]);
        Object { key, revision, header: self.header, bytes: bytes.into() }
    }
}

fn begin_field(out: &mut Vec<u8>, name: &str) {
    if !matches!(out.last(), Some(b'{')) {
        out.push(b',');
    }
    // Writing JSON text to memory does not fail.
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    begin_field(out, name);
    let _ = serde_json::to_writer(&mut *out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_draft_gets_its_revision_and_loses_nothing() {
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a\"b", "uid": "u",
            "resourceVersion": "1", "labels": {"a": "b"}, "ownerReferences": [{"uid": "o"}]},
            "spec": {"nodeName": "n1"}, "extra": [1, 2.5, null]});
        let stored = Draft::new(&object, &["spec.nodeName", "status.phase"]).at(Key::new("ns", "a"), 1234);
        let mut want = object.clone();
        want["metadata"]["resourceVersion"] = json!("1234");
        assert_eq!(stored.value(), want);
        assert_eq!(stored.header.label("a"), Some("b"));
        assert_eq!(*stored.header.fields, ["n1".into(), "".into()]);
        assert_eq!(*stored.header.owners, ["o".into()]);
        let bare = Draft::new(&json!({}), &[]).at(Key::new("", "x"), 7);
        assert_eq!(bare.value(), json!({"metadata": {"resourceVersion": "7"}}));
    }

    #[test]
    fn keys_sort_by_namespace_then_name() {
        let mut keys = [Key::new("a-b", "x"), Key::new("a", "z"), Key::new("", "q"), Key::new("a", "a.b")];
        keys.sort();
        let text: Vec<_> = keys.iter().map(|k| (k.namespace(), k.name())).collect();
        assert_eq!(text, [("", "q"), ("a", "a.b"), ("a", "z"), ("a-b", "x")]);
    }
}
