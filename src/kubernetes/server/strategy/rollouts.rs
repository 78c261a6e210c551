//! StatefulSets, DaemonSets and their revisions: strategies, and what may change.

use super::{Change, names, workloads::IMMUTABLE};
use crate::request::status::{ApiError, Cause};
use serde_json::Value;

/// Fields of a StatefulSet's spec that may change.
const MAY_CHANGE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// Annotation that counts the changes of a DaemonSet's template.
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// A number that is there is not below zero.
pub(super) fn not_negative(value: &Value, pointer: &str, causes: &mut Vec<Cause>) {
    let found = value.pointer(pointer).filter(|v| v.as_i64().is_some_and(|n| n < 0));
    if let Some(found) = found {
        causes.push(Cause::invalid(pointer[1..].replace('/', "."), found, NOT_NEGATIVE));
    }
}

/// A text is one of a few.
pub(super) fn one_of(value: &Value, pointer: &str, supported: &[&str], causes: &mut Vec<Cause>) {
    let found = value.pointer(pointer).filter(|v| v.as_str().is_some_and(|text| !supported.contains(&text)));
    if let Some(found) = found {
        causes.push(Cause::not_supported(pointer[1..].replace('/', "."), found, supported));
    }
}

/// A number of pods or a percentage of them; `Some` of the number when it is well formed, with
/// whether it is a percentage.
pub(super) fn amount(value: &Value, pointer: &str, causes: &mut Vec<Cause>) -> Option<(i64, bool)> {
    let found = value.pointer(pointer).filter(|v| !v.is_null())?;
    let field = pointer[1..].replace('/', ".");
    match found {
        Value::String(text) => {
            let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            let Some(percent) = digits.and_then(|d| d.parse().ok()) else {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' \
                     (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                causes.push(Cause::invalid(field, found, detail));
                return None;
            };
            Some((percent, true))
        }
        found => {
            let number = found.as_i64().unwrap_or(0);
            if number < 0 {
                causes.push(Cause::invalid(field, found, NOT_NEGATIVE));
                return None;
            }
            Some((number, false))
        }
    }
}

/// As [`amount`], of at most all pods.
pub(super) fn part(value: &Value, pointer: &str, causes: &mut Vec<Cause>) -> Option<(i64, bool)> {
    let found = amount(value, pointer, causes)?;
    if found.1 && found.0 > 100 {
        let shown = value.pointer(pointer).cloned().unwrap_or_default();
        causes.push(Cause::invalid(pointer[1..].replace('/', "."), &shown, "must not be greater than 100%"));
    }
    Some(found)
}

/// Strategies of a StatefulSet, and what of it may change.
pub fn validate_stateful_set(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    one_of(value, "/spec/podManagementPolicy", &["OrderedReady", "Parallel"], causes);
    one_of(value, "/spec/updateStrategy/type", &["RollingUpdate", "OnDelete"], causes);
    for field in ["whenDeleted", "whenScaled"] {
        one_of(value, &format!("/spec/persistentVolumeClaimRetentionPolicy/{field}"), &["Retain", "Delete"], causes);
    }
    for field in ["minReadySeconds", "ordinals/start", "updateStrategy/rollingUpdate/partition"] {
        not_negative(value, &format!("/spec/{field}"), causes);
    }
    let most = "/spec/updateStrategy/rollingUpdate/maxUnavailable";
    if part(value, most, causes).is_some_and(|(number, _)| number == 0) {
        let shown = value.pointer(most).cloned().unwrap_or_default();
        causes.push(Cause::invalid(most[1..].replace('/', "."), &shown, "cannot be 0"));
    }
    let Some(old) = change.old else { return };
    let fixed = |set: &Value| {
        let mut spec = set["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|name, value| !MAY_CHANGE.contains(&name.as_str()) && !value.is_null());
            // Claims in the templates have a status that says nothing.
            for claim in spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
                claim["status"] = Value::Null;
            }
        }
        spec
    };
    if fixed(old) != fixed(value) {
        let quoted = MAY_CHANGE.map(|name| format!("'{name}'"));
        let (last, others) =
            quoted.split_last().map_or((String::new(), String::new()), |(l, o)| (l.clone(), o.join(", ")));
        let detail = format!("updates to statefulset spec for fields other than {others} and {last} are forbidden");
        causes.push(Cause::forbidden("spec", &detail));
    }
}

/// Counts the changes of a DaemonSet's template.
pub fn prepare_daemon_set(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    let generation = match change.old {
        None => 1,
        Some(old) => {
            let before =
                old["metadata"]["annotations"][GENERATION].as_str().and_then(|g| g.parse().ok()).unwrap_or(0_i64);
            before + i64::from(old["spec"]["template"] != value["spec"]["template"])
        }
    };
    if !value["metadata"]["annotations"].is_object() {
        value["metadata"]["annotations"] = serde_json::json!({});
    }
    value["metadata"]["annotations"][GENERATION] = generation.to_string().into();
    Ok(())
}

/// Strategies of a DaemonSet.
pub fn validate_daemon_set(_change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    one_of(value, "/spec/updateStrategy/type", &["RollingUpdate", "OnDelete"], causes);
    not_negative(value, "/spec/minReadySeconds", causes);
    not_negative(value, "/spec/revisionHistoryLimit", causes);
    let at = |field: &str| format!("/spec/updateStrategy/rollingUpdate/{field}");
    let most = part(value, &at("maxUnavailable"), causes);
    let surge = part(value, &at("maxSurge"), causes);
    let field = |name: &str| at(name)[1..].replace('/', ".");
    let shown = |name: &str| value.pointer(&at(name)).cloned().unwrap_or_default();
    match (most, surge) {
        (Some((most, _)), Some((surge, _))) if most > 0 && surge > 0 => {
            let detail = "may not be set when maxUnavailable is non-zero";
            causes.push(Cause::invalid(field("maxSurge"), &shown("maxSurge"), detail));
        }
        (Some((0, _)), Some((0, _))) => {
            let detail = "cannot be 0 when maxSurge is 0";
            causes.push(Cause::invalid(field("maxUnavailable"), &shown("maxUnavailable"), detail));
        }
        _ => {}
    }
}

/// The data of a revision does not change.
pub fn validate_revision(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    not_negative(value, "/revision", causes);
    if change.old.is_some_and(|old| old["data"] != value["data"]) {
        causes.push(Cause::invalid("data", &value["data"], IMMUTABLE));
    }
    let name = &value["metadata"]["name"];
    if change.old.is_none() && !names::is_dns_subdomain(name.as_str().unwrap_or_default()) {
        causes.push(Cause::invalid("metadata.name", name, names::SUBDOMAIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn causes(check: impl Fn(&mut Vec<Cause>)) -> Vec<String> {
        let mut causes = Vec::new();
        check(&mut causes);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn amounts_are_numbers_or_percentages() {
        let of = |amount: Value| json!({"a": amount});
        assert!(
            causes(|c| {
                let _ = part(&of(json!("30%")), "/a", c);
            })
            .is_empty()
        );
        assert_eq!(
            causes(|c| {
                let _ = part(&of(json!(-1)), "/a", c);
            }),
            ["a: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            causes(|c| {
                let _ = part(&of(json!("130%")), "/a", c);
            }),
            ["a: Invalid value: \"130%\": must not be greater than 100%"]
        );
        assert!(
            causes(|c| {
                let _ = part(&of(json!("x%")), "/a", c);
            })[0]
                .contains("a valid percent string")
        );
        assert_eq!(part(&json!({}), "/a", &mut Vec::new()), None);
    }
}
