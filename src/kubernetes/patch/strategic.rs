//! Strategic merge patch: a merge patch that knows lists by their merge keys, with directives
//! (`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`).

use super::PatchError;
use crate::schema::{Definition, Field, Shape};
use serde_json::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;
type Patched<T> = Result<T, PatchError>;

/// What is known about the place in the object: a structure, the values of a map, or nothing.
#[derive(Clone, Copy)]
enum Place<'a> {
    Structure(&'a Definition),
    Values(&'a Field),
    Free,
}

impl<'a> Place<'a> {
    fn of(field: Option<&'a Field>) -> Self {
        match field.map(|f| (f, &f.shape)) {
            Some((_, Shape::Object(reference))) => Self::Structure(reference.get()),
            Some((_, Shape::Map(values))) => Self::Values(values),
            _ => Self::Free,
        }
    }
    fn field(self, name: &str) -> Option<&'a Field> {
        match self {
            Self::Structure(definition) => definition.fields.get(name),
            Self::Values(values) => Some(values),
            Self::Free => None,
        }
    }
}

/// Applies `patch` to `target`; `target` is unchanged on error.
pub(super) fn apply(target: &mut Value, patch: &Value, definition: &Definition) -> Patched<()> {
    let (Value::Object(original), Value::Object(patch)) = (&*target, patch) else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".into()));
    };
    *target = Value::Object(merge_map(original.clone(), patch, Place::Structure(definition))?);
    Ok(())
}

fn merge_map(mut original: Object, patch: &Object, place: Place<'_>) -> Patched<Object> {
    match patch.get(PATCH).map(|d| d.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            let mut replaced = patch.clone();
            replaced.remove(PATCH);
            return Ok(replaced);
        }
        Some(Some("delete")) => return Ok(Object::new()),
        Some(other) => return Err(unknown_directive(other)),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        retain_keys(&mut original, patch, kept)?;
    }
    let before = original.clone();
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVE) {
            delete_primitives(&mut original, name, value)?;
        } else if !(key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER)) {
            merge_value(&mut original, key, value, place.field(key))?;
        }
    }
    for (key, order) in patch {
        let Some(name) = key.strip_prefix(SET_ORDER) else { continue };
        let order = order.as_array().ok_or_else(|| malformed(format!("{key} must be a list")))?;
        if let Some(Value::Array(merged)) = original.get_mut(name) {
            let server = before.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let key = place.field(name).and_then(|f| f.merge_key.as_deref());
            *merged = in_order(std::mem::take(merged), order, server, key);
        }
    }
    Ok(original)
}

fn merge_value(original: &mut Object, key: &str, value: &Value, field: Option<&Field>) -> Patched<()> {
    if value.is_null() {
        original.remove(key);
        return Ok(());
    }
    let merged = match (original.remove(key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            // Structures merge unless the schema says replace; directives may still say otherwise.
            Value::Object(merge_map(old, new, Place::of(field))?)
        }
        (Some(Value::Array(old)), Value::Array(new)) if field.is_some_and(|f| f.merge) => {
            Value::Array(merge_list(old, new, field)?)
        }
        (None, value) => {
            // Nothing to merge with; only an emptied list or object with `$patch: delete` vanishes.
            without_directives(value, field)?
        }
        (Some(_), value) => value.clone(),
    };
    original.insert(key.to_owned(), merged);
    Ok(())
}

/// `$retainKeys`: of the fields of a union only those named stay.
fn retain_keys(original: &mut Object, patch: &Object, kept: &Value) -> Patched<()> {
    let names: Option<Vec<&str>> = kept.as_array().and_then(|l| l.iter().map(Value::as_str).collect());
    let names = names.ok_or_else(|| malformed(format!("{RETAIN_KEYS} must be a list of strings")))?;
    let stray =
        patch.iter().find(|(key, value)| !(key.starts_with('$') || value.is_null() || names.contains(&key.as_str())));
    if let Some((key, _)) = stray {
        return Err(malformed(format!("{RETAIN_KEYS} doesn't contain {key}, which the patch sets")));
    }
    original.retain(|key, _| names.contains(&key.as_str()));
    Ok(())
}

fn delete_primitives(original: &mut Object, name: &str, value: &Value) -> Patched<()> {
    let gone = value.as_array().ok_or_else(|| malformed(format!("{DELETE_PRIMITIVE}{name} must be a list")))?;
    if let Some(Value::Array(list)) = original.get_mut(name) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// Merges two lists of a field with patch strategy `merge`.
fn merge_list(old: Vec<Value>, new: &[Value], field: Option<&Field>) -> Patched<Vec<Value>> {
    let element = field.and_then(Field::element);
    let Some(key) = field.and_then(|f| f.merge_key.as_deref()) else {
        let mut merged = old.clone();
        for item in new {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(in_order(merged, new, &old, None));
    };
    let place = Place::of(element);
    if new.iter().any(|item| directive(item) == Some("replace")) {
        let kept = new.iter().filter(|item| directive(item).is_none());
        return kept.map(|item| without_directives(item, element)).collect();
    }
    let mut merged = old.clone();
    let mut plain = Vec::new();
    for item in new {
        let identity = identity(item, key)?;
        let same = |candidate: &Value| candidate.get(key) == Some(identity);
        match directive(item) {
            Some("delete") => {
                merged.retain(|candidate| !same(candidate));
                continue;
            }
            Some("merge") | None => {}
            other => return Err(unknown_directive(other)),
        }
        plain.push(item.clone());
        match (merged.iter_mut().find(|candidate| same(candidate)), item) {
            (Some(Value::Object(found)), Value::Object(item)) => {
                *found = merge_map(std::mem::take(found), item, place)?;
            }
            _ => merged.push(without_directives(item, element)?),
        }
    }
    Ok(in_order(merged, &plain, &old, Some(key)))
}

fn directive(item: &Value) -> Option<&str> {
    item.get(PATCH).and_then(Value::as_str)
}

fn identity<'a>(item: &'a Value, key: &str) -> Patched<&'a Value> {
    item.get(key).ok_or_else(|| malformed(format!("map: {item} does not contain declared merge key: {key}")))
}

/// A value that is new to the object: merged into nothing, so that nulls and directives go.
fn without_directives(value: &Value, field: Option<&Field>) -> Patched<Value> {
    Ok(match value {
        Value::Object(new) => Value::Object(merge_map(Object::new(), new, Place::of(field))?),
        Value::Array(new) if field.is_some_and(|f| f.merge) => Value::Array(merge_list(Vec::new(), new, field)?),
        other => other.clone(),
    })
}

/// Sorts `merged`: items the patch names in the patch's `order`; the others stay where the
/// server's list has them relative to those.
fn in_order(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    };
    let position = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    let mut sorted = Vec::new();
    loop {
        let other_first = match (named.peek(), others.peek()) {
            (Some(left), Some(right)) => match (position(server, left), position(server, right)) {
                (Some(left), Some(right)) => right < left,
                _ => false,
            },
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return sorted,
        };
        sorted.extend(if other_first { others.next() } else { named.next() });
    }
}

fn unknown_directive(directive: Option<&str>) -> PatchError {
    malformed(format!("unknown patch type {}", directive.unwrap_or("(not a string)")))
}

fn malformed(message: String) -> PatchError {
    PatchError::Malformed(message)
}
