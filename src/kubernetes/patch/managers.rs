//! `metadata.managedFields`: who owns which fields.

use super::PatchError;
use super::apply::Writer;
use super::ownership::FieldSet;
use serde_json::{Map, Value};

/// More managers by `Update` than this are joined, the oldest first.
const MOST_UPDATERS: usize = 10;
const JOINED: &str = "ancient-changes";

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manager {
    pub(super) name: String,
    /// Operation `Apply`, else `Update`.
    pub(super) applies: bool,
    pub(super) api_version: String,
    pub(super) subresource: String,
    /// RFC 3339 in seconds; empty when unknown.
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

impl Manager {
    fn parse(entry: &Value) -> Option<Self> {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let applies = match text("operation").as_str() {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let fields = match &entry["fieldsV1"] {
            Value::Null => FieldSet::default(),
            fields => FieldSet::parse(fields)?,
        };
        Some(Self {
            name: text("manager"),
            applies,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields,
        })
    }

    fn into_value(self) -> Value {
        let mut entry = Map::new();
        let mut set = |name: &str, value: Value| entry.insert(name.to_owned(), value);
        set("manager", self.name.into());
        set("operation", if self.applies { "Apply" } else { "Update" }.into());
        set("apiVersion", self.api_version.into());
        set("fieldsType", "FieldsV1".into());
        set("fieldsV1", self.fields.into_value());
        if !self.time.is_empty() {
            set("time", self.time.into());
        }
        if !self.subresource.is_empty() {
            set("subresource", self.subresource.into());
        }
        Value::Object(entry)
    }

    fn order(&self) -> (bool, [&str; 4]) {
        (!self.applies, [&self.time, &self.name, &self.api_version, &self.subresource])
    }

    /// As conflicts name it.
    pub(super) fn printed(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
            if !self.time.is_empty() {
                text.push_str(&format!(" at {}", self.time));
            }
        }
        text
    }
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers(pub(super) Vec<Manager>);

impl Managers {
    /// Reads an object's entries.
    ///
    /// # Errors
    /// [`PatchError::Malformed`].
    pub(super) fn of(object: &Value) -> Result<Self, PatchError> {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let parse = |entry| {
            Manager::parse(entry).ok_or_else(|| PatchError::Malformed("metadata.managedFields: invalid entry".into()))
        };
        entries.into_iter().flatten().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Writes the entries into an object: appliers first, then by time and name.
    pub(super) fn write(mut self, object: &mut Value) {
        self.0.retain(|manager| !manager.fields.is_empty());
        self.join_oldest();
        self.0.sort_by(|a, b| a.order().cmp(&b.order()));
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if self.0.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), self.0.into_iter().map(Manager::into_value).collect());
        }
    }

    /// The writer's entry.
    pub(super) fn entry(&mut self, writer: Writer<'_>, api_version: &str, applies: bool) -> &mut Manager {
        let same = |m: &Manager| {
            m.name == writer.manager
                && m.applies == applies
                && m.subresource == writer.subresource
                && m.api_version == api_version
        };
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(Manager {
                name: writer.manager.to_owned(),
                applies,
                api_version: api_version.to_owned(),
                subresource: writer.subresource.to_owned(),
                time: String::new(),
                fields: FieldSet::default(),
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    fn join_oldest(&mut self) {
        let updaters = self.0.iter().filter(|m| !m.applies).count();
        let Some(surplus) = updaters.checked_sub(MOST_UPDATERS).filter(|n| *n > 0) else { return };
        self.0.sort_by(|a, b| (a.applies, &a.time).cmp(&(b.applies, &b.time)));
        // One entry more is joined, as the joined entry takes a place itself.
        let oldest: Vec<Manager> = self.0.drain(..=surplus).collect();
        for old in oldest {
            match self.0.iter_mut().find(|m| m.name == JOINED && m.api_version == old.api_version) {
                Some(joined) => {
                    joined.fields = std::mem::take(&mut joined.fields).union(old.fields);
                    joined.time = joined.time.clone().max(old.time);
                }
                None => self.0.push(Manager { name: JOINED.into(), subresource: String::new(), ..old }),
            }
        }
    }
}
