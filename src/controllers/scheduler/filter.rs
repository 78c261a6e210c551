//! Which nodes a pod can run on, and why not the others. Pure.

use super::{
    cache::{Cache, NodeInfo},
    shape::{Labels, Shape, Spread, node_matches},
};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Whether a toleration tolerates a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

/// The first taint with one of the effects that no toleration tolerates.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints
        .iter()
        .find(|t| effects.contains(&t.effect.as_str()) && !tolerations.iter().any(|tolerance| tolerates(tolerance, t)))
}

/// Effects that keep a pod from a node.
const HARD_EFFECTS: [&str; 2] = ["NoSchedule", "NoExecute"];

/// Facts about all nodes together that single nodes are judged by; made once for each decision.
pub struct Situation {
    spread: Vec<Domains>,
    affinity: Vec<HashSet<String>>,
    /// Nobody matches the affinity yet, and the pod itself does: the first of a group.
    first_of_group: bool,
    anti_affinity: Vec<(String, HashSet<String>)>,
    /// Domains closed by the anti-affinity of pods that run there: `(key, value)`.
    closed: HashMap<String, HashSet<String>>,
}

struct Domains {
    counts: BTreeMap<String, i64>,
    least: i64,
    own: i64,
}

/// Nodes' selector and affinity, without taints.
fn selected(shape: &Shape, node: &NodeInfo) -> bool {
    shape.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v))
        && shape.required_nodes.as_ref().is_none_or(|s| node_matches(s, &node.name, &node.labels))
}

fn domains(cache: &Cache, shape: &Shape, constraint: &Spread) -> Domains {
    let hard_keys: Vec<&String> = shape.spread.iter().filter(|s| s.hard).map(|s| &s.key).collect();
    let counted = cache.counted(&constraint.term);
    let mut counts = BTreeMap::new();
    for node in cache.nodes().values() {
        let Some(value) = node.labels.get(&constraint.key) else { continue };
        let eligible = hard_keys.iter().all(|k| node.labels.contains_key(*k))
            && (!constraint.honor_affinity || selected(shape, node))
            && (!constraint.honor_taints || untolerated(&node.taints, &shape.tolerations, &HARD_EFFECTS).is_none());
        if eligible {
            let here = counted.and_then(|c| c.by_node.get(&node.name)).copied().unwrap_or(0);
            *counts.entry(value.clone()).or_insert(0) += here;
        }
    }
    let few = (counts.len() as i64) < constraint.min_domains;
    let least = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
    let own = constraint.term.matches(&shape.namespace, &shape.namespace_labels, &shape.labels);
    Domains { counts, least, own: i64::from(own) }
}

/// Values of a topology key on the nodes where pods were counted.
fn occupied(cache: &Cache, key: &str, by_node: &HashMap<std::sync::Arc<str>, i64>) -> HashSet<String> {
    let nodes = by_node.keys().filter_map(|name| cache.nodes().get(name));
    nodes.filter_map(|node| node.labels.get(key).cloned()).collect()
}

impl Situation {
    /// Looks at all nodes for one pod; the cache must count the pod's rules.
    pub fn of(cache: &Cache, shape: &Shape) -> Self {
        let places = |term: &super::shape::Term| {
            cache.counted(term).map(|c| occupied(cache, &term.topology_key, &c.by_node)).unwrap_or_default()
        };
        let affinity: Vec<HashSet<String>> = shape.affinity.iter().map(places).collect();
        let own = |t: &super::shape::Term| t.matches(&shape.namespace, &shape.namespace_labels, &shape.labels);
        let mut closed: HashMap<String, HashSet<String>> = HashMap::new();
        for count in cache.anti_affinity().filter(|c| own(&c.term)) {
            let key = &count.term.topology_key;
            closed.entry(key.clone()).or_default().extend(occupied(cache, key, &count.by_node));
        }
        Self {
            spread: shape.spread.iter().filter(|s| s.hard).map(|s| domains(cache, shape, s)).collect(),
            first_of_group: affinity.iter().all(HashSet::is_empty) && shape.affinity.iter().all(own),
            affinity,
            anti_affinity: shape.anti_affinity.iter().map(|t| (t.topology_key.clone(), places(t))).collect(),
            closed,
        }
    }
}

/// Why a pod cannot run on a node, in the scheduler's words; empty when it can.
pub fn reasons(shape: &Shape, node: &NodeInfo, situation: &Situation) -> Vec<String> {
    let single = |reason: &str| vec![reason.to_owned()];
    let tolerated = |taint: &Taint| shape.tolerations.iter().any(|t| tolerates(t, taint));
    if node.unschedulable && !tolerated(&cordon()) {
        return single("node(s) were unschedulable");
    }
    if let Some(taint) = untolerated(&node.taints, &shape.tolerations, &HARD_EFFECTS) {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
    }
    if !selected(shape, node) {
        return single("node(s) didn't match Pod's node affinity/selector");
    }
    if shape.host_ports.iter().any(|p| node.host_ports.iter().any(|q| p.conflicts(q))) {
        return single("node(s) didn't have free ports for the requested pod ports");
    }
    let short = insufficient(shape, node);
    if !short.is_empty() {
        return short;
    }
    super::volumes::reason(&shape.claims, &node.name, &node.labels)
        .or_else(|| spread_reason(shape, &node.labels, situation))
        .or_else(|| affinity_reason(shape, &node.labels, situation))
        .map(single)
        .unwrap_or_default()
}

/// The taint that a cordoned node counts as having.
fn cordon() -> Taint {
    Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() }
}

fn insufficient(shape: &Shape, node: &NodeInfo) -> Vec<String> {
    let (ask, have, used) = (&shape.requests, &node.allocatable, &node.requested);
    let mut short = Vec::new();
    if node.pods + 1 > have.pods.unwrap_or(i64::MAX) {
        short.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, ask: Option<i64>, have: Option<i64>, used: Option<i64>| {
        let ask = ask.unwrap_or(0);
        if ask > 0 && ask > have.unwrap_or(0) - used.unwrap_or(0) {
            short.push(format!("Insufficient {name}"));
        }
    };
    check("cpu", ask.cpu, have.cpu, used.cpu);
    check("memory", ask.memory, have.memory, used.memory);
    check("ephemeral-storage", ask.ephemeral_storage, have.ephemeral_storage, used.ephemeral_storage);
    for (name, amount) in &ask.other {
        check(name, Some(*amount), have.other.get(name).copied(), used.other.get(name).copied());
    }
    short
}

fn spread_reason(shape: &Shape, labels: &Labels, situation: &Situation) -> Option<&'static str> {
    for (constraint, domains) in shape.spread.iter().filter(|s| s.hard).zip(&situation.spread) {
        let Some(value) = labels.get(&constraint.key) else {
            return Some("node(s) didn't match pod topology spread constraints (missing required label)");
        };
        let here = domains.counts.get(value).copied().unwrap_or(0);
        if here + domains.own - domains.least > constraint.max_skew {
            return Some("node(s) didn't match pod topology spread constraints");
        }
    }
    None
}

fn affinity_reason(shape: &Shape, labels: &Labels, situation: &Situation) -> Option<&'static str> {
    let near = shape.affinity.iter().zip(&situation.affinity).all(|(term, places)| {
        labels.get(&term.topology_key).is_some_and(|v| situation.first_of_group || places.contains(v))
    });
    if !near {
        return Some("node(s) didn't match pod affinity rules");
    }
    if situation.anti_affinity.iter().any(|(key, places)| labels.get(key).is_some_and(|v| places.contains(v))) {
        return Some("node(s) didn't match pod anti-affinity rules");
    }
    if situation.closed.iter().any(|(key, places)| labels.get(key).is_some_and(|v| places.contains(v))) {
        return Some("node(s) didn't satisfy existing pods anti-affinity rules");
    }
    None
}
