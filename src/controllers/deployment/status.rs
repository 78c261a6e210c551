//! Status and conditions of a Deployment. Pure.

use super::plan;
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};
use std::{sync::Arc, time::Duration};

/// Reason of a finished rollout.
pub const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
/// Reason of a rollout that took too long.
pub const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// Reason while paused.
pub const PAUSED: &str = "DeploymentPaused";
/// Reason after resuming.
pub const RESUMED: &str = "DeploymentResumed";

/// A condition with its times set to `now`.
pub fn condition(type_: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A condition by type.
pub fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_deref().unwrap_or_default().iter().find(|c| c.type_ == type_)
}

/// Sets a condition; one with the same status and reason stays as it is, and the transition time
/// moves only with the status.
pub fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    remove(status, &new.type_.clone());
    status.conditions.get_or_insert_default().push(new);
}

/// Removes a condition.
pub fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != type_);
    }
}

/// Seconds that a rollout may make no progress; `None` when there is no bound.
pub fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).filter(|s| *s != i32::MAX)
}

/// Whether every wanted pod is of the newest template and available, and no other is left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = plan::desired(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Counters and the `Available` condition from the ReplicaSets; other conditions are kept.
pub fn calculate(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    newest: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |field: &dyn Fn(&ReplicaSet) -> i32| all.iter().map(|s| field(s)).sum::<i32>();
    let status_of = |s: &ReplicaSet| s.status.clone().unwrap_or_default();
    let available = sum(&plan::available);
    let total = sum(&plan::replicas);
    let some = |count: i32| (count != 0).then_some(count);
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&|s| status_of(s).replicas)),
        updated_replicas: some(newest.map_or(0, |s| status_of(s).replicas)),
        ready_replicas: some(sum(&|s| status_of(s).ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((total - available).max(0)),
        terminating_replicas: Some(sum(&|s| status_of(s).terminating_replicas.unwrap_or(0))),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let enough = available >= plan::desired(deployment) - plan::max_unavailable(deployment);
    let available = if enough {
        condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into(), now)
    } else {
        let message = "Deployment does not have minimum availability.".into();
        condition("Available", "False", "MinimumReplicasUnavailable", message, now)
    };
    set(&mut status, available);
    status
}

/// The whole status in a rollout: counters, `Available`, `Progressing`, `ReplicaFailure`.
pub fn rollout(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    newest: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = calculate(deployment, all, newest, now);
    let current = deployment.status.as_ref().and_then(|s| find(s, "Progressing")).cloned();
    if progress_deadline(deployment).is_none() {
        remove(&mut status, "Progressing");
    } else {
        let settled = status.replicas == status.updated_replicas
            && current.as_ref().and_then(|c| c.reason.as_deref()) == Some(NEW_SET_AVAILABLE);
        if !settled {
            progressing(deployment, newest, current, &mut status, now);
        }
    }
    match replica_failure(all, newest) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, "ReplicaFailure"),
    }
    status
}

fn progressing(
    deployment: &Deployment,
    newest: Option<&Arc<ReplicaSet>>,
    current: Option<DeploymentCondition>,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    let subject = match newest {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, condition("Progressing", "True", NEW_SET_AVAILABLE, message, now));
    } else if has_progressed(deployment, status) {
        let message = format!("{subject} is progressing.");
        let mut new = condition("Progressing", "True", "ReplicaSetUpdated", message, now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            new.last_transition_time = current.last_transition_time;
        }
        // Replaced even when alike: its update time is what the deadline counts from.
        remove(status, "Progressing");
        status.conditions.get_or_insert_default().push(new);
    } else if has_timed_out(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        set(status, condition("Progressing", "False", DEADLINE_EXCEEDED, message, now));
    }
}

fn has_progressed(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let count = |n: Option<i32>| n.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(&old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(current)) = (progress_deadline(deployment), find(status, "Progressing")) else {
        return false;
    };
    match current.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(DEADLINE_EXCEEDED) => true,
        _ => current
            .last_update_time
            .as_ref()
            .is_some_and(|from| now.duration_since(from.0) > jiff::SignedDuration::from_secs(i64::from(deadline))),
    }
}

fn replica_failure(all: &[Arc<ReplicaSet>], newest: Option<&Arc<ReplicaSet>>) -> Option<DeploymentCondition> {
    let failure = |set: &Arc<ReplicaSet>| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned()
    };
    let found = newest.and_then(failure).or_else(|| all.iter().find_map(failure))?;
    Some(DeploymentCondition {
        type_: found.type_,
        status: found.status,
        reason: found.reason,
        message: found.message,
        last_update_time: found.last_transition_time.clone(),
        last_transition_time: found.last_transition_time,
    })
}

/// When to look again whether the rollout is stuck; `None` when it is not under way.
pub fn deadline_in(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = progress_deadline(deployment)?;
    let current = find(status, "Progressing")?;
    if is_complete(deployment, status) || current.reason.as_deref() == Some(DEADLINE_EXCEEDED) {
        return None;
    }
    let due = current.last_update_time.as_ref()?.0 + jiff::SignedDuration::from_secs(i64::from(deadline));
    Some(Duration::try_from(due.duration_since(now)).unwrap_or_default() + Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn deployment(status: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {},
                     "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
            "status": status,
        }))
        .unwrap()
    }

    fn set_of(name: &str, replicas: i32, available: i32) -> Arc<ReplicaSet> {
        let status = json!({"replicas": replicas, "readyReplicas": available, "availableReplicas": available});
        let value =
            json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {}}, "status": status});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn reason<'a>(status: &'a DeploymentStatus, type_: &str) -> (&'a str, &'a str) {
        let condition = find(status, type_).unwrap();
        (&condition.status, condition.reason.as_deref().unwrap())
    }

    #[test]
    fn a_rollout_progresses_completes_and_stays_settled() {
        let mut current = deployment(json!({}));
        let newest = set_of("web-1", 2, 1);
        let status = rollout(&current, std::slice::from_ref(&newest), Some(&newest), at(0));
        assert_eq!(reason(&status, "Progressing"), ("True", "ReplicaSetUpdated"));
        assert_eq!(reason(&status, "Available"), ("False", "MinimumReplicasUnavailable"));
        assert_eq!((status.unavailable_replicas, status.updated_replicas), (Some(1), Some(2)));
        current.status = Some(status);

        let newest = set_of("web-1", 2, 2);
        let status = rollout(&current, std::slice::from_ref(&newest), Some(&newest), at(5));
        assert_eq!(reason(&status, "Progressing"), ("True", NEW_SET_AVAILABLE));
        assert_eq!(find(&status, "Progressing").unwrap().last_transition_time, Some(Time(at(0))));
        let message = find(&status, "Progressing").unwrap().message.as_deref();
        assert_eq!(message, Some("ReplicaSet \"web-1\" has successfully progressed."));
        assert!(deadline_in(&current, &status, at(5)).is_none());
        current.status = Some(status.clone());
        assert_eq!(
            rollout(&current, std::slice::from_ref(&newest), Some(&newest), at(500)),
            status,
            "no write when nothing changes"
        );
    }

    #[test]
    fn a_stuck_rollout_exceeds_its_deadline() {
        let (newest, old) = (set_of("web-2", 1, 0), set_of("web-1", 2, 2));
        let all = [old, newest.clone()];
        let mut current = deployment(json!({}));
        current.status = Some(rollout(&current, &all, Some(&newest), at(0)));
        let status = rollout(&current, &all, Some(&newest), at(59));
        assert_eq!(reason(&status, "Progressing").0, "True");
        assert_eq!(deadline_in(&current, &status, at(59)).unwrap().as_secs(), 2);
        let status = rollout(&current, &all, Some(&newest), at(61));
        assert_eq!(reason(&status, "Progressing"), ("False", DEADLINE_EXCEEDED));
        assert_eq!(reason(&status, "Available").0, "True", "the old version keeps serving");
    }

    #[test]
    fn failures_of_a_set_show_on_the_deployment() {
        let mut newest = Arc::unwrap_or_clone(set_of("web-1", 2, 0));
        newest.status.as_mut().unwrap().conditions = serde_json::from_value(json!([
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]))
        .unwrap();
        let newest = Arc::new(newest);
        let status = rollout(&deployment(json!({})), std::slice::from_ref(&newest), Some(&newest), at(0));
        assert_eq!(reason(&status, "ReplicaFailure"), ("True", "FailedCreate"));
    }
}
