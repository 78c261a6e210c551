//! What a DaemonSet does next, from its spec, the nodes and its pods alone.

use crate::{
    deployment::plan::scaled,
    history::revision_of,
    pod::Pod,
    replicaset::plan::available_in,
    scheduler::{filter::untolerated, shape::node_matches},
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus},
    core::v1::{Node, Taint, Toleration},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// Taints that daemons live with: `(key, effect)`.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And those in the node's own network.
const TOLERATED_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The template's tolerations and those that every daemon has.
pub fn tolerations(set: &DaemonSet) -> Vec<Toleration> {
    let pod = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
    let mut tolerations = pod.tolerations.unwrap_or_default();
    let host = (pod.host_network == Some(true)).then_some(TOLERATED_ON_HOST_NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(host) {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    tolerations
}

/// Whether a node gets a pod, and whether one that is there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// It gets one.
    pub should_run: bool,
    /// One stays.
    pub may_stay: bool,
}

/// Judges a node by the template's node name, selector, affinity and tolerations.
pub fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let none = Fit { should_run: false, may_stay: false };
    let pod = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    if pod.node_name.as_deref().is_some_and(|n| !n.is_empty() && n != name) {
        return none;
    }
    let required = pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let selected = pod.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v))
        && required.is_none_or(|selector| node_matches(selector, name, &labels));
    if !selected {
        return none;
    }
    let tolerations = tolerations(set);
    let taints: Vec<Taint> = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if untolerated(&taints, &tolerations, &["NoSchedule", "NoExecute"]).is_none() {
        return Fit { should_run: true, may_stay: true };
    }
    Fit { should_run: false, may_stay: untolerated(&taints, &tolerations, &["NoExecute"]).is_none() }
}

/// The node that a pod is on, or is to be on by its affinity.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.node().or_else(|| {
        let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
        let name = fields.into_iter().find(|f| f.key == "metadata.name" && f.operator == "In")?;
        name.values.as_ref()?.first().map(String::as_str)
    })
}

/// The pods of each node, oldest first.
fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut nodes: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        nodes.entry(node_of(pod).unwrap_or_default()).or_default().push(pod);
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|p| (p.created(), p.name().to_owned()));
    }
    nodes
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that have ended, to delete with back-off.
    pub ended: Vec<Arc<Pod>>,
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

/// One pod on every node that should have one, and none elsewhere. `hash` is of the newest revision.
pub fn manage(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], hash: &str, now: Timestamp) -> Plan {
    let on_node = by_node(pods);
    let known: BTreeSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
    let surges = limits(set, nodes).surge > 0;
    let mut plan = Plan::default();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let fit = fit(set, node);
        match on_node.get(name) {
            None if fit.should_run => plan.create.push(name.to_owned()),
            None => {}
            Some(there) if fit.may_stay => {
                let staying = there.iter().copied().filter(|p| !p.is_terminating());
                let (ended, running): (Vec<_>, Vec<_>) = staying.partition(|p| p.is_finished());
                plan.ended.extend(ended.into_iter().cloned());
                let surplus = if surges {
                    surplus_of_surge(set, &running, hash, now)
                } else {
                    running.get(1..).unwrap_or_default().to_vec()
                };
                plan.delete.extend(surplus.into_iter().cloned());
            }
            Some(there) => plan.delete.extend(there.iter().copied().filter(|p| !p.is_terminating()).cloned()),
        }
    }
    // Pods that wait for a node that is no more; bound ones are the pod garbage collector's.
    let lost = pods.iter().filter(|p| p.node().is_none() && !p.is_terminating());
    plan.delete.extend(lost.filter(|p| node_of(p).is_none_or(|n| !known.contains(n))).cloned());
    plan
}

/// With surge a node has one old and one new pod; the old one goes when the new one is available.
fn surplus_of_surge<'a>(set: &DaemonSet, running: &[&'a Arc<Pod>], hash: &str, now: Timestamp) -> Vec<&'a Arc<Pod>> {
    if running.len() <= 1 {
        return Vec::new();
    }
    let (new, old): (Vec<_>, Vec<_>) = running.iter().copied().partition(|p| revision_of(p) == hash);
    let mut surplus: Vec<&Arc<Pod>> = new.iter().skip(1).chain(old.iter().skip(1)).copied().collect();
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && new.is_available(min_ready(set), now)
    {
        surplus.push(old);
    }
    surplus
}

/// How many pods an update may have too few or too many.
struct Limits {
    unavailable: usize,
    surge: usize,
}

fn limits(set: &DaemonSet, nodes: &[Arc<Node>]) -> Limits {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    if !is_rolling(set) {
        return Limits { unavailable: 0, surge: 0 };
    }
    let desired = i32::try_from(nodes.iter().filter(|n| fit(set, n).should_run).count()).unwrap_or(i32::MAX);
    let of = |value: Option<_>, default: i32| value.map_or(default, |v| scaled(Some(v), desired, true));
    let unavailable = of(rolling.and_then(|r| r.max_unavailable.as_ref()), 1).max(0);
    let surge = of(rolling.and_then(|r| r.max_surge.as_ref()), 0).max(0);
    // Percentages of no nodes: an update must still be possible.
    let unavailable = if unavailable == 0 && surge == 0 { 1 } else { unavailable };
    Limits { unavailable: usize::try_from(unavailable).unwrap_or(0), surge: usize::try_from(surge).unwrap_or(0) }
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.type_.as_deref());
    strategy != Some("OnDelete")
}

/// The newest and the older pod of a node.
type Versions<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// The versions on a node; `Err` when there are several pods of either.
fn versions<'a>(pods: &[&'a Arc<Pod>], hash: &str) -> Result<Versions<'a>, ()> {
    let alive = pods.iter().copied().filter(|p| !p.is_terminating());
    let (new, old): (Vec<_>, Vec<_>) = alive.partition(|p| revision_of(p) == hash);
    if new.len() > 1 || old.len() > 1 {
        return Err(());
    }
    Ok((new.first().copied(), old.first().copied()))
}

/// One step of an update: old pods to delete, or nodes to put a new one on beside the old.
pub fn roll(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], hash: &str, now: Timestamp) -> Plan {
    if !is_rolling(set) {
        return Plan::default();
    }
    let limits = limits(set, nodes);
    let fits: HashMap<&str, Fit> =
        nodes.iter().filter_map(|n| Some((n.metadata.name.as_deref()?, fit(set, n)))).collect();
    let mut on_node = by_node(pods);
    // Nodes that should not run a pod are no part of the update.
    on_node.retain(|name, _| fits.get(name).is_some_and(|f| f.should_run));
    let available = |pod: &Pod| pod.is_available(min_ready(set), now);
    if limits.surge > 0 {
        return surge(&on_node, hash, limits.surge, available);
    }
    let (mut unavailable, mut plan, mut candidates) = (0, Plan::default(), Vec::new());
    for pods in on_node.values() {
        match versions(pods, hash) {
            Ok((Some(new), None)) => unavailable += usize::from(!available(new)),
            // Replacing what is not available costs nothing.
            Ok((None, Some(old))) if !available(old) => {
                unavailable += 1;
                plan.delete.push(old.clone());
            }
            Ok((None, Some(old))) => candidates.push(old.clone()),
            _ => unavailable += 1,
        }
    }
    // A node without a pod is unavailable too, and `manage` gives it one.
    unavailable += fits.iter().filter(|(name, fit)| fit.should_run && !on_node.contains_key(*name)).count();
    plan.delete.extend(candidates.into_iter().take(limits.unavailable.saturating_sub(unavailable)));
    plan
}

fn surge(on_node: &BTreeMap<&str, Vec<&Arc<Pod>>>, hash: &str, most: usize, available: impl Fn(&Pod) -> bool) -> Plan {
    let (mut surging, mut plan, mut candidates) = (0, Plan::default(), Vec::new());
    for (node, pods) in on_node {
        match versions(pods, hash) {
            Err(()) => surging += 1,
            Ok((_, None)) => {}
            Ok((None, Some(old))) if !available(old) => plan.create.push((*node).to_owned()),
            Ok((None, Some(_))) => candidates.push((*node).to_owned()),
            Ok((Some(_), Some(old))) if !available(old) => plan.delete.push(old.clone()),
            Ok((Some(new), Some(old))) => {
                surging += 1;
                if available(new) {
                    plan.delete.push(old.clone());
                }
            }
        }
    }
    plan.create.extend(candidates.into_iter().take(most.saturating_sub(surging)));
    plan
}

/// The status, and for how long to wait when a pod becomes available only by waiting.
pub fn status(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    hash: &str,
    collisions: Option<i32>,
    now: Timestamp,
) -> (DaemonSetStatus, Option<Duration>) {
    let on_node = by_node(pods);
    let mut status = DaemonSetStatus {
        collision_count: collisions,
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in nodes {
        let there = on_node.get(node.metadata.name.as_deref().unwrap_or_default());
        match (fit(set, node).should_run, there.and_then(|t| t.first())) {
            (true, Some(pod)) => {
                status.desired_number_scheduled += 1;
                status.current_number_scheduled += 1;
                status.number_ready += i32::from(pod.is_ready());
                available += i32::from(pod.is_available(min_ready(set), now));
                updated += i32::from(revision_of(pod) == hash);
            }
            (true, None) => status.desired_number_scheduled += 1,
            (false, Some(_)) => status.number_misscheduled += 1,
            (false, None) => {}
        }
    }
    let some = |n: i32| (n > 0).then_some(n);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status.updated_number_scheduled = some(updated);
    let wait = pods.iter().filter(|p| p.is_active()).filter_map(|p| available_in(p, min_ready(set), now)).min();
    (status, wait)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
