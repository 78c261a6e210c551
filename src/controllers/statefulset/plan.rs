//! What a StatefulSet does next, from its spec, its revisions and its pods alone.

use crate::{deployment::plan::scaled, history::revision_of, pod::Pod, replicaset::plan::available_in};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

/// Label of a pod with its own name, for Services of a single pod.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label of a pod with its ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has ended, and one of the same name takes its place.
    Ended,
    /// Its ordinal is no longer wanted.
    Surplus,
    /// It is of an older revision.
    Outdated,
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Ordinals to create, and whether of the current revision rather than the newest.
    pub create: Vec<(i32, bool)>,
    /// Pods to delete.
    pub delete: Vec<(Arc<Pod>, Reason)>,
    /// Pods whose labels do not say who they are.
    pub relabel: Vec<Arc<Pod>>,
}

/// The ordinal of a pod by its name; `None` when the pod cannot be one of the set.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The first ordinal and the one after the last.
pub fn ordinals(set: &StatefulSet) -> (i32, i32) {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|s| s.ordinals.as_ref()).and_then(|o| o.start).unwrap_or(0);
    (start, start.saturating_add(spec.and_then(|s| s.replicas).unwrap_or(1)))
}

fn is_rolling(set: &StatefulSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.type_.as_deref());
    strategy != Some("OnDelete")
}

/// Ordinals below this one keep the current revision.
fn partition(set: &StatefulSet) -> i32 {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    ordinals(set).0 + strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.partition).unwrap_or(0)
}

/// How many pods may be unavailable for an update; at least one.
fn max_unavailable(set: &StatefulSet) -> i32 {
    let (first, end) = ordinals(set);
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let value = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_unavailable.as_ref());
    value.map_or(1, |v| scaled(Some(v), end - first, true)).max(1)
}

fn min_ready(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

fn is_available(set: &StatefulSet, pod: &Pod, now: Timestamp) -> bool {
    pod.phase() == "Running" && pod.is_available(min_ready(set), now)
}

struct Planner<'a> {
    set: &'a StatefulSet,
    update_revision: &'a str,
    now: Timestamp,
    /// One at a time, each waiting for the one before.
    ordered: bool,
    plan: Plan,
}

/// Plans the next step. `pods` are the set's own; `update_revision` is the name of the newest one.
pub fn plan(set: &StatefulSet, pods: &[Arc<Pod>], update_revision: &str, now: Timestamp) -> Plan {
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let (first, end) = ordinals(set);
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let by_ordinal: BTreeMap<i32, &Arc<Pod>> =
        pods.iter().filter_map(|p| Some((ordinal(name, p.name())?, p))).collect();
    let replicas: Vec<(i32, Option<&Arc<Pod>>)> = (first..end).map(|o| (o, by_ordinal.get(&o).copied())).collect();
    let mut condemned: Vec<&Arc<Pod>> =
        by_ordinal.iter().filter(|(o, _)| !(first..end).contains(o)).map(|(_, p)| *p).collect();
    condemned.sort_by_key(|p| Reverse(ordinal(name, p.name())));
    let policy = set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref());
    let ordered = policy != Some("Parallel");
    let mut planner = Planner { set, update_revision, now, ordered, plan: Plan::default() };
    if planner.fill(&replicas) && planner.scale_down(&replicas, &condemned) && is_rolling(set) {
        planner.update(&replicas);
    }
    planner.plan
}

impl Planner<'_> {
    fn delete(&mut self, pod: &Arc<Pod>, reason: Reason) {
        self.plan.delete.push((pod.clone(), reason));
    }

    fn available(&self, pod: &Pod) -> bool {
        is_available(self.set, pod, self.now)
    }

    /// Every ordinal has a pod that runs; `false` when something has to happen first.
    fn fill(&mut self, replicas: &[(i32, Option<&Arc<Pod>>)]) -> bool {
        let mut go_on = true;
        for (ordinal, pod) in replicas {
            let Some(pod) = pod else {
                let current = is_rolling(self.set) && *ordinal < partition(self.set);
                self.plan.create.push((*ordinal, current));
                if self.ordered {
                    return false;
                }
                continue;
            };
            if pod.is_finished() {
                // The new one is created when this one is gone.
                if !pod.is_terminating() {
                    self.delete(pod, Reason::Ended);
                }
                go_on = false;
                if self.ordered {
                    return false;
                }
                continue;
            }
            if self.ordered && (pod.is_terminating() || !self.available(pod)) {
                return false;
            }
            let labels = pod.labels();
            let known = labels.get(POD_NAME).map(String::as_str) == Some(pod.name())
                && labels.get(POD_INDEX).is_some_and(|i| *i == ordinal.to_string());
            if !known && !pod.is_terminating() {
                self.plan.relabel.push((*pod).clone());
            }
        }
        go_on
    }

    /// Pods beyond the wanted ordinals go, the highest first; `false` while one has to be waited for.
    fn scale_down(&mut self, replicas: &[(i32, Option<&Arc<Pod>>)], condemned: &[&Arc<Pod>]) -> bool {
        let all = replicas.iter().filter_map(|(_, p)| *p).chain(condemned.iter().rev().copied());
        let first_unhealthy =
            all.into_iter().find(|p| p.is_terminating() || !self.available(p)).map(|p| p.uid().to_owned());
        for pod in condemned {
            if pod.is_terminating() {
                if self.ordered {
                    return false;
                }
                continue;
            }
            // A pod that is not ready goes only when nothing before it is unhealthy.
            if self.ordered && !self.available(pod) && first_unhealthy.as_deref() != Some(pod.uid()) {
                return false;
            }
            self.delete(pod, Reason::Surplus);
            if self.ordered {
                return false;
            }
        }
        true
    }

    /// Pods of older revisions go, the highest ordinal first, while no more than the allowed number
    /// is unavailable. One that is unavailable already costs nothing, so that a rollback passes a
    /// broken version.
    fn update(&mut self, replicas: &[(i32, Option<&Arc<Pod>>)]) {
        let healthy = |pod: &Arc<Pod>| !pod.is_terminating() && self.available(pod);
        let unavailable = replicas.iter().filter(|(_, p)| !p.is_some_and(healthy)).count();
        let mut left = max_unavailable(self.set) - i32::try_from(unavailable).unwrap_or(i32::MAX);
        let from = partition(self.set);
        let mut outdated = Vec::new();
        for (_, pod) in replicas.iter().rev().filter(|(ordinal, _)| *ordinal >= from) {
            let Some(pod) = pod.filter(|p| !p.is_terminating() && revision_of(p) != self.update_revision) else {
                continue;
            };
            if healthy(pod) {
                if left <= 0 {
                    break;
                }
                left -= 1;
            }
            outdated.push(pod);
        }
        for pod in outdated {
            self.delete(pod, Reason::Outdated);
        }
    }
}

/// The status of a set with these pods, and for how long to wait when a pod becomes available only
/// by waiting. `current` and `update` are names of revisions.
pub fn status(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    (current, update): (&str, &str),
    collisions: Option<i32>,
    now: Timestamp,
) -> (StatefulSetStatus, Option<Duration>) {
    let count =
        |holds: &dyn Fn(&Pod) -> bool| i32::try_from(pods.iter().filter(|p| holds(p)).count()).unwrap_or(i32::MAX);
    let running_ready = |p: &Pod| p.phase() == "Running" && p.is_ready();
    let of = |revision: &str| count(&|p| !p.is_terminating() && revision_of(p) == revision);
    let replicas = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let (ready, updated) = (count(&running_ready), of(update));
    let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let complete = is_rolling(set) && [updated, ready, replicas].iter().all(|n| *n == wanted);
    let (current, current_replicas) = if complete { (update, updated) } else { (current, of(current)) };
    let some = |n: i32| (n > 0).then_some(n);
    let status = StatefulSetStatus {
        available_replicas: Some(count(&|p| is_available(set, p, now))),
        collision_count: Some(collisions.unwrap_or(0)),
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        current_replicas: some(current_replicas),
        current_revision: Some(current.to_owned()),
        observed_generation: set.metadata.generation,
        ready_replicas: some(ready),
        replicas,
        update_revision: Some(update.to_owned()),
        updated_replicas: some(updated),
    };
    let wait = pods.iter().filter(|p| p.is_active()).filter_map(|p| available_in(p, min_ready(set), now)).min();
    (status, wait)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
