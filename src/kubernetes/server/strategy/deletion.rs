//! How an object is removed: grace period, finalizers, propagation.

use crate::server::verbs::delete::DeleteOptions;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Tables whose dependents stay when a client does not say (kept from their first versions).
const ORPHAN_BY_DEFAULT: &[&str] = &["jobs.batch", "replicationcontrollers"];
/// Tables for which a removal that took effect at once answers with the object.
const RETURNS_OBJECT: &[&str] = &[
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
    "resourcequotas",
    "limitranges",
    "podtemplates",
    "replicationcontrollers",
];

/// Whether a removal that took effect at once answers with the object rather than a status.
pub fn returns_object(table: &str) -> bool {
    RETURNS_OBJECT.contains(&table)
}

/// The object as the removal leaves it; finished objects are to be dropped. `None` when it is
/// being removed already and nothing about that changes.
pub fn begin(table: &str, live: &Value, options: &DeleteOptions, now: Timestamp) -> Option<Value> {
    let mut value = live.clone();
    let grace = grace(table, live, options);
    let finalizers = finalizers(table, live, options);
    let deleting = !live["metadata"]["deletionTimestamp"].is_null();
    let before = live["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let metadata = value["metadata"].as_object_mut()?;
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
    // A running grace period can be shortened only.
    let grace = before.filter(|_| deleting).map_or(grace, |before| before.min(grace));
    if !deleting || Some(grace) != before {
        let ends = now + SignedDuration::from_secs(grace);
        let shown = jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", ends).unwrap_or_default();
        metadata.insert("deletionTimestamp".into(), shown.into());
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
        if table != "pods" && !deleting {
            bump(metadata);
        }
    }
    if table == "namespaces" {
        value["status"]["phase"] = "Terminating".into();
    }
    (value != *live || super::metadata::is_finished(&value)).then_some(value)
}

/// A removal that waits is a change of what is wanted.
fn bump(metadata: &mut serde_json::Map<String, Value>) {
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

/// Seconds the object may take to end. Only pods take any.
fn grace(table: &str, live: &Value, options: &DeleteOptions) -> i64 {
    if table != "pods" {
        return 0;
    }
    let unscheduled = live["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(live["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || ended {
        return 0;
    }
    let own = live["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    // Negative means at once, which a kubelet takes as one second.
    match options.grace_period_seconds.unwrap_or(own) {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

/// Finalizers by propagation policy: `orphan` or `foregroundDeletion`, or neither.
fn finalizers(table: &str, live: &Value, options: &DeleteOptions) -> Vec<String> {
    let have: Vec<String> = live["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let has = |name: &str| have.iter().any(|have| have == name);
    let (orphan, foreground) = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some("Orphan"), _) | (None, Some(true)) => (true, false),
        (Some("Foreground"), _) => (false, true),
        (Some(_), _) | (None, Some(false)) => (false, false),
        (None, None) if has(ORPHAN) => (true, false),
        (None, None) if has(FOREGROUND) => (false, true),
        (None, None) => (ORPHAN_BY_DEFAULT.contains(&table), false),
    };
    let mut finalizers: Vec<_> =
        have.into_iter().filter(|name| !matches!(name.as_str(), ORPHAN | FOREGROUND)).collect();
    if orphan {
        finalizers.push(ORPHAN.into());
    }
    if foreground {
        finalizers.push(FOREGROUND.into());
    }
    finalizers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::strategy::metadata::is_finished;
    use serde_json::json;

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}})
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_the_kubelet_ends_it() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = begin("pods", &pod(), &DeleteOptions::default(), now).unwrap();
        assert_eq!(first["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
        assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 30);
        assert!(!is_finished(&first));
        assert!(begin("pods", &first, &DeleteOptions::default(), now).is_none());
        assert!(begin("pods", &first, &grace(60), now).is_none(), "a grace period is not lengthened");
        let shorter = begin("pods", &first, &grace(5), now).unwrap();
        assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        assert!(is_finished(&begin("pods", &shorter, &grace(0), now).unwrap()));
        let mut pending = pod();
        pending["spec"] = json!({});
        assert!(is_finished(&begin("pods", &pending, &DeleteOptions::default(), now).unwrap()));
    }

    #[test]
    fn propagation_is_told_by_finalizers() {
        let now = Timestamp::now();
        let policy =
            |policy: &str| DeleteOptions { propagation_policy: Some(policy.into()), ..DeleteOptions::default() };
        let live = json!({"metadata": {"name": "d", "generation": 1, "finalizers": ["mine"]}});
        let foreground = begin("deployments.apps", &live, &policy("Foreground"), now).unwrap();
        assert_eq!(foreground["metadata"]["finalizers"], json!(["mine", "foregroundDeletion"]));
        assert_eq!(foreground["metadata"]["generation"], 2);
        let orphan = begin("deployments.apps", &foreground, &policy("Orphan"), now).unwrap();
        assert_eq!(orphan["metadata"]["finalizers"], json!(["mine", "orphan"]));
        let plain = json!({"metadata": {"name": "d"}});
        assert!(is_finished(&begin("deployments.apps", &plain, &policy("Background"), now).unwrap()));
        let job = begin("jobs.batch", &plain, &DeleteOptions::default(), now).unwrap();
        assert_eq!(job["metadata"]["finalizers"], json!(["orphan"]));
    }
}
