//! Objects seen through their schema, as server-side apply sees them: which fields there are,
//! what differs, merging and removing by structure, map and list type.

use super::PatchError;
use super::ownership::{FieldSet, Node};
use crate::schema::{Definition, Field, ListType, Shape};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Typed<T> = Result<T, PatchError>;

/// What is known of a value.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// An object of this type.
    Structure(&'a Definition),
    /// A field, an item or a map's value.
    Field(&'a Field),
    /// Nothing: objects merge, all else is replaced.
    Free,
}

/// How a value is treated.
enum Class<'a> {
    Leaf,
    Map,
    Set,
    /// A list of objects known by these keys, and the type of its items.
    Keyed(&'a [String]),
}

impl<'a> Place<'a> {
    fn class(self, value: Option<&Value>) -> Class<'a> {
        let field = match self {
            Self::Structure(_) => return Class::Map,
            Self::Free if value.is_some_and(Value::is_object) => return Class::Map,
            Self::Free => return Class::Leaf,
            Self::Field(field) => field,
        };
        match (&field.shape, &field.list_type) {
            (Shape::Object(_) | Shape::Map(_), _) if !field.atomic_map => Class::Map,
            (Shape::List(_), ListType::Set) => Class::Set,
            (Shape::List(_), ListType::Map(keys)) => Class::Keyed(keys),
            _ => Class::Leaf,
        }
    }

    /// The place of a map's entry, and whether it is a declared field.
    fn entry(self, name: &str) -> (Place<'a>, bool) {
        let definition = match self {
            Self::Structure(definition) => definition,
            Self::Field(field) => match &field.shape {
                Shape::Object(reference) => reference.get(),
                Shape::Map(element) => return (Self::Field(element), false),
                _ => return (Self::Free, false),
            },
            Self::Free => return (Self::Free, false),
        };
        match definition.fields.get(name) {
            Some(field) => (Self::Field(field), true),
            None => (Self::Free, false),
        }
    }

    fn item(self) -> Place<'a> {
        match self {
            Self::Field(field) => field.element().map_or(Self::Free, Self::Field),
            _ => Self::Free,
        }
    }

    /// Whether an entry of this map is there even when nothing was set: a structure that is no
    /// pointer in Go, or a required list.
    fn always_holds(self, name: &str) -> bool {
        let definition = match self {
            Self::Structure(definition) => Some(definition),
            Self::Field(field) => field.definition(),
            Self::Free => None,
        };
        definition.is_some_and(|definition| match definition.fields.get(name).map(|f| (&f.shape, f.pointer)) {
            Some((Shape::Object(_), pointer)) => !pointer,
            Some((Shape::List(_), _)) => definition.required.iter().any(|required| required == name),
            _ => false,
        })
    }
}

/// `k:{…}` of a keyed item, `v:…` of a set's.
fn element(keys: Option<&[String]>, item: &Value) -> Typed<String> {
    let Some(keys) = keys else { return Ok(format!("v:{item}")) };
    let default = Value::from("TCP");
    let value = |key: &'_ String| match item.get(key) {
        None | Some(Value::Null) if key == "protocol" => Some(default.clone()),
        found => found.cloned(),
    };
    let found: BTreeMap<&String, Value> = keys.iter().filter_map(|key| Some((key, value(key)?))).collect();
    let text = serde_json::to_string(&found).map_err(|error| PatchError::Malformed(error.to_string()))?;
    if found.is_empty() {
        let message = format!("associative list with keys has an element that omits all key fields {keys:?}");
        return Err(PatchError::Malformed(message));
    }
    Ok(format!("k:{text}"))
}

/// Items of a list with their elements; of duplicates the first.
fn items<'v>(keys: Option<&[String]>, list: Option<&'v Value>) -> Typed<Vec<(String, &'v Value)>> {
    let mut seen = BTreeSet::new();
    let mut items = Vec::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        let element = element(keys, item)?;
        if seen.insert(element.clone()) {
            items.push((element, item));
        }
    }
    Ok(items)
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// A path that grows and shrinks while walking.
type Path = Vec<String>;

fn below<T>(path: &mut Path, element: String, walk: impl FnOnce(&mut Path) -> T) -> T {
    path.push(element);
    let result = walk(path);
    path.pop();
    result
}

/// The fields an applied object names.
pub(super) fn fields(place: Place<'_>, object: &Value) -> Typed<FieldSet> {
    let mut set = FieldSet::default();
    collect(place, object, &mut Path::new(), &mut set)?;
    Ok(set)
}

fn collect(place: Place<'_>, value: &Value, path: &mut Path, set: &mut FieldSet) -> Typed<()> {
    match (place.class(Some(value)), value) {
        (Class::Map, Value::Object(map)) => {
            for (name, value) in map {
                let (entry, declared) = place.entry(name);
                below(path, format!("f:{name}"), |path| {
                    if !declared || is_empty(Some(value)) && !value.is_array() {
                        set.insert(path);
                    }
                    collect(entry, value, path, set)
                })?;
            }
        }
        (Class::Set, Value::Array(_)) => {
            for (element, _) in items(None, Some(value))? {
                below(path, element, |path| set.insert(path));
            }
        }
        (Class::Keyed(keys), Value::Array(_)) => {
            for (element, item) in items(Some(keys), Some(value))? {
                below(path, element, |path| {
                    set.insert(path);
                    collect(place.item(), item, path, set)
                })?;
            }
        }
        _ => set.insert(path),
    }
    Ok(())
}

/// What differs between two objects.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// In the new object only.
    pub(super) added: FieldSet,
    /// In both, with different values.
    pub(super) modified: FieldSet,
    /// In the old object only.
    pub(super) removed: FieldSet,
}

/// Compares two objects of one type; `None` for one that is not there.
pub(super) fn compare(place: Place<'_>, old: Option<&Value>, new: &Value) -> Typed<Comparison> {
    let found = Difference::of(place, old, Some(new), true)?;
    Ok(Comparison { added: found.added.below, modified: found.modified.below, removed: found.removed.below })
}

/// What differs at a place and below it.
#[derive(Default)]
struct Difference {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Difference {
    /// `always`: a map or list that is there even when nothing was set does not count as new.
    fn of(place: Place<'_>, old: Option<&Value>, new: Option<&Value>, always: bool) -> Typed<Self> {
        let class = place.class(new.or(old));
        let leaf = matches!(class, Class::Leaf) || is_empty(old) && is_empty(new);
        let lists = |v: Option<&Value>| v.is_none_or(Value::is_array);
        let mut found = Self::default();
        if !leaf && !always && (old.is_none() || new.is_none()) {
            found.note(old, new);
        }
        match class {
            Class::Map if !leaf => found.maps(place, old, new)?,
            Class::Set if !leaf && lists(old) && lists(new) => found.lists(place, None, old, new)?,
            Class::Keyed(keys) if !leaf && lists(old) && lists(new) => found.lists(place, Some(keys), old, new)?,
            _ => found.note(old, new),
        }
        Ok(found)
    }

    fn note(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, Some(_)) => self.added.member = true,
            (Some(_), None) => self.removed.member = true,
            (old, new) if old != new => self.modified.member = true,
            _ => {}
        }
    }

    /// Takes up what differs in an entry. Its text is only made where something does.
    fn put(&mut self, element: impl Fn() -> String, entry: Self) {
        self.added.below.put(&element, entry.added);
        self.modified.below.put(&element, entry.modified);
        self.removed.below.put(&element, entry.removed);
    }

    fn maps(&mut self, place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Typed<()> {
        let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
        let mut entry = |name: &String, old: Option<&Value>, new: Option<&Value>| {
            let entry = Self::of(place.entry(name).0, old, new, place.always_holds(name))?;
            self.put(|| format!("f:{name}"), entry);
            Ok(())
        };
        for (name, value) in new.into_iter().flatten() {
            entry(name, old.and_then(|old| old.get(name)), Some(value))?;
        }
        for (name, value) in old.into_iter().flatten() {
            if !new.is_some_and(|new| new.contains_key(name)) {
                entry(name, Some(value), None)?;
            }
        }
        Ok(())
    }

    fn lists(
        &mut self,
        place: Place<'_>,
        keys: Option<&[String]>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Typed<()> {
        let mut old: BTreeMap<String, &Value> = items(keys, old)?.into_iter().collect();
        let mut entry = |element: String, old: Option<&Value>, new: Option<&Value>| {
            let entry = match keys {
                Some(_) => Self::of(place.item(), old, new, false)?,
                None => {
                    let mut entry = Self::default();
                    entry.note(old, new);
                    entry
                }
            };
            self.put(|| element.clone(), entry);
            Ok(())
        };
        for (element, item) in items(keys, new)? {
            let before = old.remove(&element);
            entry(element, before, Some(item))?;
        }
        for (element, item) in old {
            entry(element, Some(item), None)?;
        }
        Ok(())
    }
}

/// `live` with what `applied` sets.
pub(super) fn merge(place: Place<'_>, live: &Value, applied: &Value) -> Typed<Value> {
    Ok(match (place.class(Some(applied)), live, applied) {
        (Class::Map, Value::Object(live), Value::Object(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let entry = match live.get(name) {
                    Some(live) => merge(place.entry(name).0, live, value)?,
                    None => value.clone(),
                };
                merged.insert(name.clone(), entry);
            }
            Value::Object(merged)
        }
        (Class::Set, Value::Array(_), Value::Array(_)) => Value::Array(merge_lists(place, None, live, applied)?),
        (Class::Keyed(keys), Value::Array(_), Value::Array(_)) => {
            Value::Array(merge_lists(place, Some(keys), live, applied)?)
        }
        _ => applied.clone(),
    })
}

/// The applied items in their order; items of the live list alone stay between the same neighbours.
fn merge_lists(place: Place<'_>, keys: Option<&[String]>, live: &Value, applied: &Value) -> Typed<Vec<Value>> {
    let (live, applied) = (items(keys, Some(live))?, items(keys, Some(applied))?);
    let live_of: HashMap<&str, &Value> = live.iter().map(|(element, item)| (element.as_str(), *item)).collect();
    let wanted: BTreeSet<&str> = applied.iter().map(|(element, _)| element.as_str()).collect();
    let mut merged = Vec::new();
    let mut rest = live.iter().peekable();
    for (element, item) in &applied {
        let shared = live_of.get(element.as_str());
        // Before an item both have come the live-only items that stand before it.
        while shared.is_some() {
            let Some((next, item)) = rest.next_if(|(next, _)| next != element) else { break };
            if !wanted.contains(next.as_str()) {
                merged.push((*item).clone());
            }
        }
        merged.push(match shared {
            Some(live) => merge(place.item(), live, item)?,
            None => (*item).clone(),
        });
        rest.next_if(|(next, _)| next == element);
    }
    merged.extend(rest.filter(|(element, _)| !wanted.contains(element.as_str())).map(|(_, item)| (*item).clone()));
    Ok(merged)
}

/// Removes from `value` what `last` has and `kept` has not, in any way: a field whose last owner
/// no longer applies it goes with everything below it.
pub(super) fn prune(place: Place<'_>, value: &mut Value, last: &FieldSet, kept: &FieldSet) -> Typed<()> {
    match (place.class(Some(value)), value) {
        (Class::Map, Value::Object(map)) => {
            for (element, node) in last.iter() {
                let Some(name) = element.strip_prefix("f:") else { continue };
                match (kept.get(element), map.get_mut(name)) {
                    (None, _) => {
                        map.remove(name);
                    }
                    (Some(kept), Some(value)) => prune(place.entry(name).0, value, &node.below, &kept.below)?,
                    (Some(_), None) => {}
                }
            }
        }
        (Class::Set, Value::Array(list)) => prune_list(place, None, list, last, kept)?,
        (Class::Keyed(keys), Value::Array(list)) => prune_list(place, Some(keys), list, last, kept)?,
        _ => {}
    }
    Ok(())
}

fn prune_list(
    place: Place<'_>,
    keys: Option<&[String]>,
    list: &mut Vec<Value>,
    last: &FieldSet,
    kept: &FieldSet,
) -> Typed<()> {
    let mut left = Vec::new();
    for mut item in std::mem::take(list) {
        let element = element(keys, &item)?;
        match (last.get(&element), kept.get(&element)) {
            (Some(_), None) => continue,
            (Some(last), Some(kept)) => prune(place.item(), &mut item, &last.below, &kept.below)?,
            (None, _) => {}
        }
        left.push(item);
    }
    *list = left;
    Ok(())
}
