//! Server-side apply and field ownership (`metadata.managedFields`).

use super::PatchError;
use crate::kubernetes::schema::Resource;
use serde_json::Value;

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

/// Server-side apply: merges `applied` into `live` by schema and gives the new object with its new
/// `managedFields`. `live` is `None` when the object does not exist (then the result is to be
/// created). Equal input gives an equal object, times included.
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
    let _ = (resource, live, applied, writer, force);
    Err(PatchError::Malformed("server-side apply is not served yet".into()))
}

/// Field ownership of every other write (POST, PUT, other patches): what differs between `live`
/// and `new` becomes the writer's with operation `Update`, and is taken from other managers.
///
/// `live` is `None` on create. A client that sends `managedFields: []` clears ownership.
/// Call after defaulting, before admission.
///
/// # Errors
/// [`PatchError::Malformed`] when the client sent `managedFields` that cannot be read.
pub fn track_update(
    resource: &Resource,
    live: Option<&Value>,
    new: &mut Value,
    writer: Writer<'_>,
) -> Result<(), PatchError> {
    let _ = (resource, live, new, writer);
    Err(PatchError::Malformed("field ownership is not tracked yet".into()))
}
