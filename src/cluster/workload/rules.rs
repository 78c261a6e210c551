//! What each kind of workload calls complete.

use super::{Failure, Progress, View, phase};
use crate::pod_failure;
use aksim_model::pod::is_ready;
use kube::ResourceExt;
use serde_json::Value;

pub(super) fn deployment(view: &View<'_>) -> Progress {
    let exceeded = view.conditions().find(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
    if exceeded.is_some() {
        let message = "it exceeded its progress deadline (spec.progressDeadlineSeconds)".to_owned();
        return Progress::Failed(Failure { message, pod: None });
    }
    let wanted = view.int("/spec/replicas", 1);
    let (replicas, updated) = (view.int("/status/replicas", 0), view.int("/status/updatedReplicas", 0));
    let available = view.int("/status/availableReplicas", 0);
    let waiting = if updated < wanted {
        format!("{updated} of {wanted} new replicas have been updated")
    } else if replicas > updated {
        format!("{} old replicas are pending termination", replicas - updated)
    } else if available < updated {
        format!("{available} of {updated} updated replicas are available")
    } else {
        return Progress::complete(wanted);
    };
    let paused = view.object.pointer("/spec/paused") == Some(&Value::Bool(true));
    Progress::Waiting(if paused { format!("{waiting}; it is paused (spec.paused)") } else { waiting })
}

pub(super) fn stateful_set(view: &View<'_>) -> Progress {
    let wanted = view.int("/spec/replicas", 1);
    if view.text("/spec/updateStrategy/type") == "OnDelete" {
        return on_delete(view, wanted);
    }
    let ready = view.int("/status/readyReplicas", 0);
    let partition = view.int("/spec/updateStrategy/rollingUpdate/partition", 0);
    let (updated, to_update) = (view.int("/status/updatedReplicas", 0), wanted.saturating_sub(partition).max(0));
    if updated < to_update {
        return Progress::Waiting(format!("{updated} of {to_update} new pods have been updated{}", stuck(view)));
    }
    if ready < wanted {
        return Progress::Waiting(format!("{ready} of {wanted} pods are ready"));
    }
    match partition {
        0 => Progress::complete(to_update),
        _ => Progress::noted(to_update, format!("pods below partition {partition} keep their template")),
    }
}

/// A StatefulSet waits for a broken pod of the old template before it replaces it, so for ever.
fn stuck(view: &View<'_>) -> String {
    let broken = view.old.iter().find(|pod| !is_ready(pod));
    broken.map_or_else(String::new, |pod| {
        format!("; pod {0} has the old template and is replaced only once it is ready (kubectl delete pod {0} replaces it at once)", pod.name_any())
    })
}

/// Pods are replaced when somebody deletes them: those that are there must run, no more.
fn on_delete(view: &View<'_>, wanted: i64) -> Progress {
    let count = |pods: usize| i64::try_from(pods).unwrap_or(i64::MAX);
    let (new, old) = (count(view.new.len()), count(view.old.len()));
    let ready = count(view.new.iter().filter(|pod| is_ready(pod)).count());
    if new.saturating_add(old) < wanted {
        return Progress::Waiting(format!("{} of {wanted} pods are there", new + old));
    }
    if ready < new {
        return Progress::Waiting(format!("{ready} of {new} pods with the new template are ready"));
    }
    let note =
        "its update strategy is OnDelete: pods get the new template when they are deleted, which is not waited for";
    Progress::noted(new, note)
}

pub(super) fn daemon_set(view: &View<'_>) -> Progress {
    let wanted = view.int("/status/desiredNumberScheduled", 0);
    if view.text("/spec/updateStrategy/type") == "OnDelete" {
        return on_delete(view, wanted);
    }
    let updated = view.int("/status/updatedNumberScheduled", 0);
    let available = view.int("/status/numberAvailable", 0);
    if updated < wanted {
        return Progress::Waiting(format!("{updated} of {wanted} new pods have been updated"));
    }
    if available < wanted {
        return Progress::Waiting(format!("{available} of {wanted} updated pods are available"));
    }
    Progress::complete(wanted)
}

pub(super) fn replica_set(view: &View<'_>) -> Progress {
    let wanted = view.int("/spec/replicas", 1);
    let (replicas, available) = (view.int("/status/replicas", 0), view.int("/status/availableReplicas", 0));
    if replicas > wanted {
        return Progress::Waiting(format!("{} replicas are pending termination", replicas - wanted));
    }
    if available < wanted {
        return Progress::Waiting(format!("{available} of {wanted} replicas are available"));
    }
    Progress::complete(wanted)
}

pub(super) fn job(view: &View<'_>) -> Progress {
    if view.condition("Complete").is_some() {
        return Progress::complete(0);
    }
    if let Some(failed) = view.condition("Failed") {
        let said = |key: &str| failed[key].as_str().unwrap_or_default();
        let mut pods = view.new.clone();
        pods.sort_by_key(|pod| pod.creation_timestamp());
        let pod = pods.iter().rev().find_map(|pod| pod_failure::of_pod(pod, 0));
        return Progress::Failed(Failure { message: format!("{}: {}", said("reason"), said("message")), pod });
    }
    if view.object.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        return Progress::noted(0, "it is suspended (spec.suspend): not waited for");
    }
    let (active, failed) = (view.int("/status/active", 0), view.int("/status/failed", 0));
    let succeeded = view.int("/status/succeeded", 0);
    Progress::Waiting(format!("not complete: {active} active, {succeeded} succeeded, {failed} failed"))
}

pub(super) fn cron_job(_: &View<'_>) -> Progress {
    // It runs on its schedule: there is nothing to wait for.
    Progress::complete(0)
}

pub(super) fn pod(view: &View<'_>) -> Progress {
    let Some(pod) = view.new.first() else { return Progress::Waiting("it is not there, or is being deleted".into()) };
    match phase(pod) {
        "Succeeded" => Progress::complete(0),
        _ if is_ready(pod) => Progress::complete(1),
        "" => Progress::Waiting("it has no status".into()),
        other => Progress::Waiting(format!("it is {other} and not ready")),
    }
}
