//! PodDisruptionBudgets.

use super::{Change, rollouts};
use crate::request::status::Cause;
use serde_json::Value;

/// A budget says one of two numbers.
pub fn validate(_change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        causes.push(Cause::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    rollouts::part(value, "/spec/minAvailable", causes);
    rollouts::part(value, "/spec/maxUnavailable", causes);
    rollouts::one_of(value, "/spec/unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], causes);
}
