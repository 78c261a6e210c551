//! Kinds that are kept and served, yet have no effect here: whoever creates one is told.

use super::Change;
use crate::{auth::user::API_SERVER, request::status::ApiError};
use serde_json::Value;

/// A kind without its effect.
pub struct Gap {
    /// Table of the kind.
    pub table: &'static str,
    /// What is not emulated.
    pub missing: &'static str,
    /// Whether creating one is refused rather than warned about.
    pub refused: bool,
}

/// All such kinds.
pub const GAPS: &[Gap] = &[
    Gap {
        table: "customresourcedefinitions.apiextensions.k8s.io",
        missing: "custom resource definitions",
        refused: true,
    },
    Gap { table: "apiservices.apiregistration.k8s.io", missing: "aggregated API servers", refused: true },
    Gap {
        table: "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        missing: "admission webhooks",
        refused: false,
    },
    Gap {
        table: "validatingwebhookconfigurations.admissionregistration.k8s.io",
        missing: "admission webhooks",
        refused: false,
    },
    Gap {
        table: "validatingadmissionpolicies.admissionregistration.k8s.io",
        missing: "admission policies",
        refused: false,
    },
];

/// Refuses or warns about a new object whose effect is missing.
pub fn say(change: &Change<'_>, _value: &mut Value) -> Result<(), ApiError> {
    let gap = GAPS.iter().find(|gap| gap.table == change.target.table_name);
    let Some(gap) = gap.filter(|_| change.old.is_none()) else { return Ok(()) };
    if gap.refused && change.user.name != API_SERVER {
        return Err(ApiError::not_emulated(gap.missing));
    }
    if !gap.refused {
        let warning = format!("aksim does not emulate {} yet; the object is kept without effect", gap.missing);
        change.warnings.lock().push(warning);
    }
    Ok(())
}
