//! PATCH: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch, server-side apply.

pub mod apply;
mod managers;
mod ownership;
mod strategic;
mod typed;

use crate::schema::Definition;
use serde_json::Value;

/// Why a patch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch is no valid document of its kind: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch does not fit the object (a path is missing, a `test` failed): 422 `Invalid`.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unprocessable(String),
    /// Fields are owned by other managers: 409 `Conflict`, with one cause a field.
    #[error("{message}")]
    Conflict {
        /// As kube-apiserver words it.
        message: String,
        /// For `status.details.causes`, reason `FieldManagerConflict`.
        causes: Vec<ConflictCause>,
    },
}

/// One field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictCause {
    /// `conflict with "kubectl" using apps/v1`
    pub message: String,
    /// `.spec.replicas`
    pub field: String,
}

/// Applies a JSON patch; `target` is unchanged on error.
///
/// # Errors
/// [`PatchError::Malformed`], [`PatchError::Unprocessable`].
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    json_patch::patch(target, &patch).map_err(|error| PatchError::Unprocessable(error.to_string()))
}

/// Applies a merge patch.
pub fn merge(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

/// Applies a strategic merge patch by the object's definition; `target` is unchanged on error.
///
/// Custom resources have no strategic merge (answer 415 before calling).
///
/// # Errors
/// [`PatchError::Malformed`] for a wrong directive or a list item without its merge key.
pub fn strategic(target: &mut Value, patch: &Value, definition: &Definition) -> Result<(), PatchError> {
    strategic::apply(target, patch, definition)
}

#[cfg(test)]
mod tests;
