//! What the scheduler knows: nodes with what is used on them, and counts of pods by rule, kept up
//! to date pod by pod instead of being counted for each decision.

use super::shape::{HostPort, Labels, Term, host_ports, term};
use crate::{
    ownership::controller_of,
    pod::{Pod, Resources},
    quantity::Quantity,
};
use indexmap::IndexMap;
use k8s_openapi::api::core::v1::{Node, Taint};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Taint of a node that is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Rules counted at a time; the others are forgotten and counted anew when needed.
const COUNTED_RULES: usize = 512;
/// CPU, thousandths, that a pod without request counts for in scores.
const DEFAULT_CPU: i64 = 100;
/// Memory, bytes, that a pod without request counts for in scores.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// A node and what is used on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: Arc<str>,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub requested: Resources,
    /// CPU and memory with defaults for pods that ask for none.
    pub scored: (i64, i64),
    pub pods: i64,
    pub host_ports: Vec<HostPort>,
    /// Bytes by image name.
    pub images: HashMap<String, i64>,
    /// Pods by owner, for spreading.
    pub siblings: HashMap<String, i64>,
}

/// A pod on a node, as much as must be taken back when it goes.
#[derive(Clone, Debug)]
struct Placed {
    node: Arc<str>,
    namespace: String,
    labels: Labels,
    requests: Resources,
    host_ports: Vec<HostPort>,
    owner: Option<String>,
    terminating: bool,
    anti_affinity: Vec<Term>,
}

/// Pods matching a rule, by node.
#[derive(Clone, Debug)]
pub struct Count {
    pub term: Term,
    pub by_node: HashMap<Arc<str>, i64>,
}

/// Nodes and pods, compact.
#[derive(Default)]
pub struct Cache {
    nodes: IndexMap<Arc<str>, NodeInfo>,
    placed: HashMap<String, Placed>,
    counts: HashMap<Arc<str>, Count>,
    /// Required anti-affinity of placed pods, by rule.
    anti_affinity: HashMap<Arc<str>, Count>,
    namespace_labels: HashMap<String, Labels>,
}

fn amounts(list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>) -> Resources {
    let parsed = list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), Quantity::parse(&v.0)?)));
    Resources::from_iter(parsed)
}

/// CPU and memory that requests count for in scores.
pub fn scored(requests: &Resources) -> (i64, i64) {
    (requests.cpu.unwrap_or(DEFAULT_CPU), requests.memory.unwrap_or(DEFAULT_MEMORY))
}

impl NodeInfo {
    /// Takes the node's own facts; returns whether they could let a pod in that was refused.
    fn update(&mut self, node: &Node) -> bool {
        let before = (self.labels.clone(), self.taints.clone(), self.unschedulable, self.allocatable.clone());
        let (spec, status) = (node.spec.clone().unwrap_or_default(), node.status.as_ref());
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.unschedulable = spec.unschedulable == Some(true);
        self.taints = spec.taints.unwrap_or_default();
        let ready = status.and_then(|s| s.conditions.as_ref()).and_then(|c| c.iter().find(|c| c.type_ == "Ready"));
        let tainted = self.taints.iter().any(|t| t.key.starts_with("node.kubernetes.io/"));
        if ready.is_none_or(|r| r.status != "True") && !tainted {
            // The node lifecycle controller is about to say so.
            let taint = Taint { key: NOT_READY.into(), effect: "NoSchedule".into(), ..Taint::default() };
            self.taints.push(taint);
        }
        self.allocatable = amounts(status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref())));
        let images = status.and_then(|s| s.images.as_deref()).unwrap_or_default().iter();
        self.images =
            images.flat_map(|i| i.names.iter().flatten().map(|n| (n.clone(), i.size_bytes.unwrap_or(0)))).collect();
        before != (self.labels.clone(), self.taints.clone(), self.unschedulable, self.allocatable.clone())
    }

    fn account(&mut self, pod: &Placed, sign: i64) {
        let mut delta = pod.requests.clone();
        for amount in [&mut delta.cpu, &mut delta.memory, &mut delta.ephemeral_storage].into_iter().flatten() {
            *amount *= sign;
        }
        delta.other.values_mut().for_each(|v| *v *= sign);
        self.requested.add(&delta);
        let (cpu, memory) = scored(&pod.requests);
        self.scored = (self.scored.0 + sign * cpu, self.scored.1 + sign * memory);
        self.pods += sign;
        for port in &pod.host_ports {
            match sign {
                1 => self.host_ports.push(port.clone()),
                _ => {
                    if let Some(at) = self.host_ports.iter().position(|p| p == port) {
                        self.host_ports.swap_remove(at);
                    }
                }
            }
        }
        if let Some(owner) = pod.owner.as_ref().filter(|_| !pod.terminating) {
            bump(&mut self.siblings, owner.clone(), sign);
        }
    }
}

fn bump<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, i64>, key: K, by: i64) {
    let entry = counts.entry(key);
    match entry {
        std::collections::hash_map::Entry::Occupied(mut count) => {
            *count.get_mut() += by;
            if *count.get() <= 0 {
                count.remove();
            }
        }
        std::collections::hash_map::Entry::Vacant(free) if by > 0 => {
            free.insert(by);
        }
        std::collections::hash_map::Entry::Vacant(_) => {}
    }
}

impl Cache {
    /// The nodes, in a stable order.
    pub fn nodes(&self) -> &IndexMap<Arc<str>, NodeInfo> {
        &self.nodes
    }

    /// Takes a node as it is now; returns whether that could let a pod in that was refused.
    pub fn set_node(&mut self, name: &str, node: Option<&Node>) -> bool {
        let Some(node) = node else {
            self.nodes.swap_remove(name);
            return false;
        };
        if let Some(info) = self.nodes.get_mut(name) {
            return info.update(node);
        }
        let name: Arc<str> = name.into();
        let mut info = NodeInfo { name: name.clone(), ..NodeInfo::default() };
        info.update(node);
        for pod in self.placed.values().filter(|p| p.node == name) {
            info.account(pod, 1);
        }
        self.nodes.insert(name, info);
        true
    }

    /// Takes the labels of a namespace; `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) if self.namespace_labels.get(name) == Some(&labels) => return,
            Some(labels) => self.namespace_labels.insert(name.to_owned(), labels),
            None => self.namespace_labels.remove(name),
        };
        // Rules that select namespaces by label count differently now.
        self.counts.retain(|_, count| count.term.namespace_selector.is_none());
    }

    /// Labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        self.namespace_labels.get(name).cloned().unwrap_or_default()
    }

    /// Puts a pod on a node (also before the binding is confirmed), instead of where it was.
    pub fn place(&mut self, pod: &Pod, node: &str) {
        self.take_back(pod.uid());
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let away = pod.spec.affinity.as_deref().and_then(|a| a.pod_anti_affinity.as_ref());
        let required = away.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let placed = Placed {
            node: node.into(),
            namespace: pod.namespace().to_owned(),
            requests: pod.requests(),
            host_ports: host_ports(pod),
            owner: controller_of(&pod.metadata).map(|o| o.uid.clone()),
            terminating: pod.is_terminating(),
            anti_affinity: required.into_iter().flatten().map(|t| term(t, pod.namespace(), &labels)).collect(),
            labels,
        };
        self.count(&placed, 1);
        self.placed.insert(pod.uid().to_owned(), placed);
    }

    /// Takes a pod off its node; returns whether it was on one.
    pub fn take_back(&mut self, uid: &str) -> bool {
        let Some(placed) = self.placed.remove(uid) else { return false };
        self.count(&placed, -1);
        true
    }

    fn count(&mut self, pod: &Placed, sign: i64) {
        if let Some(node) = self.nodes.get_mut(&pod.node) {
            node.account(pod, sign);
        }
        if !pod.terminating {
            let none = Labels::default();
            let namespace_labels = self.namespace_labels.get(&pod.namespace).unwrap_or(&none);
            for count in self.counts.values_mut() {
                if count.term.matches(&pod.namespace, namespace_labels, &pod.labels) {
                    bump(&mut count.by_node, pod.node.clone(), sign);
                }
            }
        }
        for term in &pod.anti_affinity {
            let count = self
                .anti_affinity
                .entry(term.id.clone())
                .or_insert_with(|| Count { term: term.clone(), by_node: HashMap::new() });
            bump(&mut count.by_node, pod.node.clone(), sign);
            if count.by_node.is_empty() {
                self.anti_affinity.remove(&term.id);
            }
        }
    }

    /// Starts counting the pods that rules are about, where that is not done yet.
    pub fn count_for<'a>(&mut self, terms: impl Iterator<Item = &'a Term>) {
        for term in terms {
            if self.counts.contains_key(&term.id) {
                continue;
            }
            if self.counts.len() >= COUNTED_RULES {
                self.counts.clear();
            }
            let mut by_node = HashMap::new();
            let none = Labels::default();
            for pod in self.placed.values().filter(|p| !p.terminating) {
                let namespace_labels = self.namespace_labels.get(&pod.namespace).unwrap_or(&none);
                if term.matches(&pod.namespace, namespace_labels, &pod.labels) {
                    bump(&mut by_node, pod.node.clone(), 1);
                }
            }
            self.counts.insert(term.id.clone(), Count { term: term.clone(), by_node });
        }
    }

    /// Pods matching a rule, by node; after [`Cache::count_for`].
    pub fn counted(&self, term: &Term) -> Option<&Count> {
        self.counts.get(&term.id)
    }

    /// Required anti-affinity of placed pods.
    pub fn anti_affinity(&self) -> impl Iterator<Item = &Count> {
        self.anti_affinity.values()
    }
}
