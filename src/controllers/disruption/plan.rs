//! The status of a PodDisruptionBudget, from its spec and the pods it covers alone.

use crate::{deployment::plan::scaled, pod::Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// How long an evicted pod may take until it begins to end; after it the pod counts again.
const EVICTION_TAKES: SignedDuration = SignedDuration::from_secs(120);
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// How many pods a pod's workload wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Nothing controls the pod.
    Unmanaged,
    /// A workload by its uid, and its replicas.
    Of(String, i32),
    /// The workload has no scale; the text says so.
    Unknown(String),
}

/// What there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Pods that the workloads want.
    pub count: i32,
    /// Pods that must be healthy.
    pub healthy: i32,
}

/// Counts the pods that a budget expects and those of them that must be healthy.
///
/// # Errors
/// A pod's workload has no scale, and the budget is not a plain number of pods.
pub fn expected(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: impl Fn(&Pod) -> Scale,
) -> Result<Expected, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int;
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let count = total(pods, scale)?;
            Ok(Expected { count, healthy: (count - scaled(Some(most), count, true)).max(0) })
        }
        (None, Some(Int(least))) => {
            Ok(Expected { count: i32::try_from(pods.len()).unwrap_or(i32::MAX), healthy: *least })
        }
        (None, least) => {
            let count = total(pods, scale)?;
            let healthy = least.as_ref().map_or(0, |l| scaled(Some(l), count, true));
            Ok(Expected { count, healthy })
        }
    }
}

/// Replicas of all workloads of the pods, each counted once; pods without one do not count.
fn total(pods: &[Arc<Pod>], scale: impl Fn(&Pod) -> Scale) -> Result<i32, String> {
    let mut workloads = HashMap::new();
    for pod in pods {
        match scale(pod) {
            Scale::Unmanaged => {}
            Scale::Of(uid, replicas) => {
                workloads.insert(uid, replicas);
            }
            Scale::Unknown(why) => return Err(why),
        }
    }
    Ok(workloads.values().fold(0, |sum: i32, n| sum.saturating_add(*n)))
}

/// Evicted pods that are still waited for, by name, and when to look again.
fn disrupted(
    status: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut kept = BTreeMap::new();
    let mut wait: Option<Duration> = None;
    for pod in pods.iter().filter(|p| !p.is_terminating()) {
        let Some(since) = status.disrupted_pods.as_ref().and_then(|d| d.get(pod.name())) else { continue };
        let due = since.0.saturating_add(EVICTION_TAKES).unwrap_or(Timestamp::MAX);
        if due < now {
            continue;
        }
        let left = Duration::try_from(due.duration_since(now)).unwrap_or_default() + Duration::from_millis(1);
        wait = Some(wait.map_or(left, |w| w.min(left)));
        kept.insert(pod.name().to_owned(), since.clone());
    }
    (kept, wait)
}

/// The status of a budget over these pods, and when to look again though nothing changed.
pub fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Expected,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let before = budget.status.clone().unwrap_or_default();
    let (disrupted, wait) = disrupted(&before, pods, now);
    let healthy = pods.iter().filter(|p| !p.is_terminating() && !disrupted.contains_key(p.name()) && p.is_ready());
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected.count <= 0 { 0 } else { (healthy - expected.healthy).max(0) };
    let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let status = PodDisruptionBudgetStatus {
        conditions: conditions(budget, state, reason, "", now),
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected.count),
        observed_generation: budget.metadata.generation,
    };
    (status, wait)
}

/// The status when the pods cannot be counted: nothing may be evicted.
pub fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        conditions: conditions(budget, "False", "SyncFailed", why, now),
        ..budget.status.clone().unwrap_or_default()
    }
}

fn conditions(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let before = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let (old, mut kept): (Vec<_>, Vec<_>) = before.into_iter().partition(|c| c.type_ == DISRUPTION_ALLOWED);
    let since = old.into_iter().find(|c| c.status == status).map_or(Time(now), |c| c.last_transition_time);
    kept.push(Condition {
        last_transition_time: since,
        message: message.into(),
        observed_generation: budget.metadata.generation,
        reason: reason.into(),
        status: status.into(),
        type_: DISRUPTION_ALLOWED.into(),
    });
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let meta = json!({"name": "b", "generation": 2});
        serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let value =
            json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|n| pod(&format!("p{n}"), true)).collect()
    }

    fn of_ten(_: &Pod) -> Scale {
        Scale::Of("web".into(), 10)
    }

    #[test]
    fn numbers_and_percentages_of_what_the_workloads_want() {
        for (spec, count, healthy) in [
            (json!({"minAvailable": 3}), 7, 3),
            (json!({"minAvailable": "25%"}), 10, 3),
            (json!({"maxUnavailable": 2}), 10, 8),
            (json!({"maxUnavailable": "25%"}), 10, 7),
            (json!({"maxUnavailable": 20}), 10, 0),
        ] {
            let found = expected(&budget(spec.clone(), json!({})), &pods(7), of_ten).unwrap();
            assert_eq!(found, Expected { count, healthy }, "{spec}");
        }
        let unmanaged = expected(&budget(json!({"maxUnavailable": 1}), json!({})), &pods(2), |_| Scale::Unmanaged);
        assert_eq!(unmanaged, Ok(Expected { count: 0, healthy: 0 }));
        let daemons = |_: &Pod| Scale::Unknown("daemonsets.apps does not implement the scale subresource".into());
        assert!(expected(&budget(json!({"maxUnavailable": 1}), json!({})), &pods(2), daemons).is_err());
        assert!(expected(&budget(json!({"minAvailable": 1}), json!({})), &pods(2), daemons).is_ok());
    }

    #[test]
    fn as_many_may_go_as_are_healthy_beyond_the_need() {
        let budget = budget(json!({"minAvailable": 2}), json!({}));
        let of = |pods: &[Arc<Pod>]| {
            let (status, _) = status(&budget, pods, Expected { count: 3, healthy: 2 }, now());
            let condition = status.conditions.unwrap().remove(0);
            (status.current_healthy, status.disruptions_allowed, condition.reason)
        };
        assert_eq!(of(&pods(3)), (Some(3), Some(1), "SufficientPods".into()));
        let two = [pod("a", true), pod("b", true), pod("c", false)];
        assert_eq!(of(&two), (Some(2), Some(0), "InsufficientPods".into()));
        assert_eq!(of(&[pod("a", true)]), (Some(1), Some(0), "InsufficientPods".into()));
        let (none, _) = status(&budget, &[], Expected { count: 0, healthy: 0 }, now());
        assert_eq!(none.disruptions_allowed, Some(0));
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_until_it_goes_or_does_not() {
        let told = |at: &str| json!({"disruptedPods": {"p0": at, "absent": at}});
        let of = |at: &str| {
            let budget = budget(json!({"minAvailable": 1}), told(at));
            status(&budget, &pods(3), Expected { count: 3, healthy: 1 }, now())
        };
        let (fresh, wait) = of("2026-01-01T00:59:00Z");
        assert_eq!((fresh.current_healthy, fresh.disruptions_allowed), (Some(2), Some(1)));
        assert_eq!(fresh.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["p0"]);
        assert_eq!(wait.map(|w| w.as_secs()), Some(60));
        let (late, wait) = of("2026-01-01T00:57:00Z");
        assert_eq!((late.disruptions_allowed, late.disrupted_pods, wait), (Some(2), None, None));
    }

    #[test]
    fn without_a_count_nothing_may_go() {
        let known = budget(json!({"maxUnavailable": 1}), json!({"disruptionsAllowed": 3, "expectedPods": 4}));
        let status = failed(&known, "no scale", now());
        assert_eq!((status.disruptions_allowed, status.expected_pods), (Some(0), Some(4)));
        let condition = &status.conditions.unwrap()[0];
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "no scale"));
    }
}
