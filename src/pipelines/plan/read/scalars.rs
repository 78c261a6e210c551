//! Texts, switches, numbers, lists and conditions.

use super::Reader;
use crate::{
    expression::{Slot, check, runtime_text},
    plan::{Filter, Late},
    template::{Lazy, Map},
    yaml::Kind,
};
use indexmap::IndexMap;
use serde_json::Value as Json;

impl Reader<'_> {
    /// A key's text.
    pub(super) fn text_of(&mut self, map: &mut Map, key: &'static str) -> Option<String> {
        let value = map.take(key)?;
        self.loader.text(&value)
    }

    /// A key's text; nothing written counts as not given.
    pub(super) fn some_text(&mut self, map: &mut Map, key: &'static str) -> Option<String> {
        self.text_of(map, key).filter(|text| !text.is_empty())
    }

    /// A key's switch, known now.
    pub(super) fn flag(&mut self, map: &mut Map, key: &'static str) -> Option<bool> {
        let value = map.take(key)?;
        let text = self.loader.text(&value)?;
        let found = boolean(&text);
        if found.is_none() {
            self.unexpected(&value, &text);
        }
        found
    }

    /// A key's switch, or a text the run evaluates.
    pub(super) fn late_flag(&mut self, map: &mut Map, key: &'static str) -> Option<Late<bool>> {
        self.late(map, key, boolean)
    }

    /// A key's number, or a text the run evaluates.
    pub(super) fn late_number(&mut self, map: &mut Map, key: &'static str) -> Option<Late<u32>> {
        self.late(map, key, |text| text.trim().parse().ok())
    }

    fn late<T>(&mut self, map: &mut Map, key: &'static str, read: impl Fn(&str) -> Option<T>) -> Option<Late<T>> {
        let value = map.take(key)?;
        let text = self.loader.text(&value)?;
        if text.is_empty() {
            return None;
        }
        if let Some(known) = read(&text) {
            return Some(Late::Known(known));
        }
        if let Some(inner) = runtime_text(&text) {
            self.checked(inner, Slot::JobVariable, &value);
            return Some(Late::Text(text));
        }
        if text.contains("$(") {
            return Some(Late::Text(text));
        }
        self.unexpected(&value, &text);
        None
    }

    /// A condition, read and its names checked.
    pub(super) fn condition(&mut self, map: &mut Map, slot: Slot) -> Option<String> {
        let value = map.take("condition")?;
        let text = self.loader.text(&value)?.trim().to_owned();
        if text.is_empty() {
            return None;
        }
        let inner = runtime_text(&text).unwrap_or(&text).trim().to_owned();
        self.checked(&inner, slot, &value);
        Some(inner)
    }

    /// Checks an expression of the run.
    pub(super) fn checked(&mut self, expression: &str, slot: Slot, at: &Lazy) {
        if let Err(error) = check(expression, &slot) {
            self.loader.error(&at.node.mark, error.to_string());
        }
    }

    /// Notes that a value is not expected.
    pub(super) fn unexpected(&mut self, value: &Lazy, text: &str) {
        self.loader.error(&value.node.mark, format!("Unexpected value '{text}'"));
    }

    /// Notes that a value is none of the allowed ones.
    pub(super) fn not_among(&mut self, value: &Lazy, text: &str, allowed: &[&str]) {
        let hint = format!("allowed: {}", allowed.join(", "));
        self.loader.error_hint(&value.node.mark, format!("Unexpected value '{text}'"), hint);
    }

    /// A text, or a sequence of texts.
    pub(super) fn texts(&mut self, value: &Lazy) -> Vec<String> {
        let Some(value) = self.loader.resolved(value) else { return Vec::new() };
        match &value.node.kind {
            Kind::Scalar(text, _) if text.is_empty() => Vec::new(),
            Kind::Scalar(..) => self.loader.text(&value).into_iter().collect(),
            _ => {
                let items = self.loader.items(&value);
                items.iter().filter_map(|item| self.loader.text(item)).collect()
            }
        }
    }

    /// A key's text or sequence of texts.
    pub(super) fn texts_of(&mut self, map: &mut Map, key: &'static str) -> Vec<String> {
        map.take(key).map(|value| self.texts(&value)).unwrap_or_default()
    }

    /// `include` and `exclude`, or a sequence of what is included.
    pub(super) fn filter(&mut self, value: &Lazy) -> Filter {
        let Some(value) = self.loader.resolved(value) else { return Filter::default() };
        if !matches!(value.node.kind, Kind::Mapping(_)) {
            return Filter { include: self.texts(&value), exclude: Vec::new() };
        }
        let Some(mut map) = self.loader.map(&value) else { return Filter::default() };
        let filter =
            Filter { include: self.texts_of(&mut map, "include"), exclude: self.texts_of(&mut map, "exclude") };
        self.loader.finish(map);
        filter
    }

    /// A mapping of texts, such as `env`.
    pub(super) fn dictionary(&mut self, value: &Lazy) -> IndexMap<String, String> {
        let Some(value) = self.loader.resolved(value) else { return IndexMap::new() };
        if value.node.is_empty() {
            return IndexMap::new();
        }
        let Some(mut map) = self.loader.map(&value) else { return IndexMap::new() };
        map.rest().into_iter().filter_map(|entry| Some((entry.key, self.loader.text(&entry.value)?))).collect()
    }

    /// What is left of a mapping, as written.
    pub(super) fn others(&mut self, map: &mut Map) -> IndexMap<String, Json> {
        let mut others = IndexMap::new();
        for entry in map.rest() {
            if let Some(node) = self.loader.deep(&entry.value) {
                others.insert(entry.key, node.value().to_json());
            }
        }
        others
    }
}

/// What Azure reads as a boolean.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}
