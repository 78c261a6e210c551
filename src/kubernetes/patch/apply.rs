//! Server-side apply and field ownership (`metadata.managedFields`).

use super::managers::{Manager, Managers};
use super::ownership::FieldSet;
use super::typed::{self, Place};
use super::{ConflictCause, PatchError};
use crate::schema::Resource;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager` parameter, else the user agent up to its first `/`.
    pub manager: &'a str,
    /// Subresource written; empty for the object itself.
    pub subresource: &'a str,
    /// Time of the request.
    pub now: jiff::Timestamp,
}

/// Fields nobody owns: they identify the object or belong to the API server.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    let mut set = FieldSet::default();
    let metadata =
        ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];
    for path in [&["f:apiVersion"][..], &["f:kind"], &["f:metadata"]] {
        set.insert(&path.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    }
    for name in metadata {
        set.insert(&["f:metadata".to_owned(), format!("f:{name}")]);
    }
    set
});

fn place(resource: &Resource) -> Place<'_> {
    resource.definition().map_or(Place::Free, Place::Structure)
}

/// Fields a write to this subresource does not touch, whatever it says.
fn reset_fields(resource: &Resource, subresource: &str) -> &'static [&'static str] {
    match subresource {
        "" if resource.has_status() => &["status"],
        "status" => &["spec"],
        _ => &[],
    }
}

/// Server-side apply: merges `applied` into `live` by schema and gives the new object with its new
/// `managedFields`. `live` is `None` when the object does not exist (then the result is to be
/// created). When nothing changes the result equals `live`, times included.
///
/// Call before defaulting and admission; neither is owned by the applier.
///
/// # Errors
/// [`PatchError::Conflict`] without `force`; [`PatchError::Malformed`] when `applied` carries
/// `managedFields` or does not fit the schema.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    applied: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, PatchError> {
    if applied.pointer("/metadata/managedFields").is_some_and(|f| f.as_array().is_some_and(|l| !l.is_empty())) {
        return Err(PatchError::Malformed("metadata.managedFields must be nil".into()));
    }
    let (place, api_version) = (place(resource), resource.api_version());
    let nothing = json!({ "apiVersion": api_version, "kind": resource.kind, "metadata": {} });
    let live_or_nothing = live.unwrap_or(&nothing);
    let before = Managers::of(live_or_nothing)?;
    let mut managers = before.clone();

    let reset = reset_fields(resource, writer.subresource);
    let set = typed::fields(place, applied)?.difference(&UNOWNED).without_trees(reset);
    let own = managers.entry(writer, &api_version, true);
    let last = std::mem::replace(&mut own.fields, set);
    let mut new = typed::merge(place, live_or_nothing, applied)?;
    let kept = managers.0.iter().fold(UNOWNED.clone(), |kept, manager| kept.union(manager.fields.clone()));
    typed::prune(place, &mut new, &last, &kept)?;
    keep_reset(&mut new, live_or_nothing, reset);

    let comparison = typed::compare(place, Some(live_or_nothing), &new)?;
    let changed = comparison.modified.union(comparison.added).difference(&UNOWNED);
    let is_own = |m: &Manager| m.applies && m.name == writer.manager && m.subresource == writer.subresource;
    if !force {
        conflicts(managers.0.iter().filter(|m| !is_own(m)), &changed)?;
    }
    for other in managers.0.iter_mut().filter(|m| !is_own(m)) {
        other.fields = std::mem::take(&mut other.fields).difference(&changed).difference(&comparison.removed);
    }
    managers.0.retain(|manager| !manager.fields.is_empty());
    let unchanged = changed.is_empty() && comparison.removed.is_empty() && managers == before;
    if let (Some(live), true) = (live, unchanged) {
        return Ok(live.clone());
    }
    if let Some(own) = managers.0.iter_mut().find(|m| is_own(m)) {
        own.time = time(writer.now);
    }
    managers.write(&mut new);
    Ok(new)
}

/// Puts back what this endpoint may not write.
fn keep_reset(new: &mut Value, live: &Value, names: &[&str]) {
    let Value::Object(new) = new else { return };
    for name in names {
        match live.get(name) {
            Some(value) => new.insert((*name).to_owned(), value.clone()),
            None => new.remove(*name),
        };
    }
}

fn conflicts<'a>(others: impl Iterator<Item = &'a Manager>, changed: &FieldSet) -> Result<(), PatchError> {
    let mut found: Vec<(String, Vec<String>)> = others
        .map(|manager| (manager.printed(), manager.fields.intersection(changed).paths()))
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    found.sort();
    let causes: Vec<ConflictCause> = found
        .iter()
        .flat_map(|(manager, paths)| {
            paths
                .iter()
                .map(move |field| ConflictCause { message: format!("conflict with {manager}"), field: field.clone() })
        })
        .collect();
    let message = match &causes[..] {
        [] => return Ok(()),
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let lines = found.iter().flat_map(|(manager, paths)| {
                std::iter::once(format!("conflicts with {manager}:"))
                    .chain(paths.iter().map(|path| format!("- {path}")))
            });
            format!("Apply failed with {} conflicts: {}", many.len(), lines.collect::<Vec<_>>().join("\n"))
        }
    };
    Err(PatchError::Conflict { message, causes })
}

fn time(now: jiff::Timestamp) -> String {
    format!("{now:.0}")
}

/// Field ownership of every other write (POST, PUT, other patches): what differs between `live`
/// and `new` becomes the writer's with operation `Update`, and is taken from other managers.
///
/// `live` is `None` on create. A client that sends `managedFields: [{}]` clears ownership; one
/// that sends entries sets them. Call after defaulting, before admission.
///
/// # Errors
/// [`PatchError::Malformed`] when the client sent `managedFields` that cannot be read.
pub fn track_update(
    resource: &Resource,
    live: Option<&Value>,
    new: &mut Value,
    writer: Writer<'_>,
) -> Result<(), PatchError> {
    let (place, api_version) = (place(resource), resource.api_version());
    let sent = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    if sent.is_some_and(|entries| matches!(&entries[..], [only] if only.as_object().is_some_and(|o| o.is_empty()))) {
        Managers::default().write(new);
        return Ok(());
    }
    let mut managers = match live {
        _ if sent.is_some_and(|entries| !entries.is_empty()) => Managers::of(new)?,
        Some(live) => Managers::of(live)?,
        None => Managers::default(),
    };

    let comparison = typed::compare(place, live, new)?;
    let reset = reset_fields(resource, writer.subresource);
    let changed = comparison.modified.union(comparison.added).without_trees(reset);
    let removed = comparison.removed.without_trees(reset);
    let is_own = |m: &Manager| {
        !m.applies && m.name == writer.manager && m.subresource == writer.subresource && m.api_version == api_version
    };
    for manager in &mut managers.0 {
        let taken = if is_own(manager) { &FieldSet::default() } else { &changed };
        manager.fields = std::mem::take(&mut manager.fields).difference(taken).difference(&removed);
    }
    let own_changes = changed.difference(&UNOWNED);
    if !own_changes.is_empty() {
        let own = managers.entry(writer, &api_version, false);
        own.fields = std::mem::take(&mut own.fields).union(own_changes);
        own.time = time(writer.now);
    }
    managers.write(new);
    Ok(())
}

#[cfg(test)]
mod tests;
