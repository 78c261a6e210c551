//! What a pod asks of its node, compiled once for each decision.

use crate::pod::{Pod, Resources};
use k8s_openapi::{
    api::core::v1::{
        NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Toleration, TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::{Selector, SelectorExt};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Requirements of a pod that waits for a node.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub namespace: String,
    pub labels: Labels,
    /// Labels of the pod's namespace, for other pods' namespace selectors.
    pub namespace_labels: Labels,
    /// Uid of the controlling owner: siblings are spread.
    pub owner: Option<String>,
    pub requests: Resources,
    pub node_selector: Labels,
    pub required_nodes: Option<NodeSelector>,
    pub preferred_nodes: Vec<(i64, NodeSelectorTerm)>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
    pub images: Vec<String>,
    pub spread: Vec<Spread>,
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    /// Preferred terms with their weights, negative to keep away.
    pub preferred_pods: Vec<(i64, Term)>,
    /// What the pod's claims ask of the node.
    pub claims: Vec<super::volumes::Need>,
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug)]
pub struct Spread {
    pub key: String,
    pub max_skew: i64,
    pub min_domains: i64,
    pub hard: bool,
    pub honor_affinity: bool,
    pub honor_taints: bool,
    pub term: Term,
}

/// Which pods a rule is about, and within which domains.
#[derive(Clone, Debug)]
pub struct Term {
    pub topology_key: String,
    /// Namespaces by name.
    pub namespaces: BTreeSet<String>,
    /// Namespaces by label; `None` selects none.
    pub namespace_selector: Option<Selector>,
    /// `None` matches no pod.
    pub selector: Option<Selector>,
    /// The same text for the same rule, to count once.
    pub id: Arc<str>,
}

impl Term {
    /// Whether a pod is one that the rule is about.
    pub fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        let in_scope = self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| s.matches(namespace_labels));
        in_scope && self.selector.as_ref().is_some_and(|s| s.matches(labels))
    }
}

fn compile(selector: Option<&LabelSelector>, extra: &[(String, &str, String)]) -> Option<Selector> {
    let mut selector = selector.cloned()?;
    for (key, operator, value) in extra {
        selector.match_expressions.get_or_insert_default().push(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                key: key.clone(),
                operator: (*operator).to_owned(),
                values: Some(vec![value.clone()]),
            },
        );
    }
    // The API server has validated it; one it would refuse matches nothing.
    Selector::try_from(selector).ok()
}

/// The pod's own values of labels that a rule names.
fn own<'a>(keys: Option<&Vec<String>>, operator: &'a str, labels: &Labels) -> Vec<(String, &'a str, String)> {
    let keys = keys.into_iter().flatten();
    keys.filter_map(|key| Some((key.clone(), operator, labels.get(key)?.clone()))).collect()
}

/// Compiles an inter-pod term of a pod in `namespace` with `labels`.
pub fn term(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Term {
    let mut extra = own(term.match_label_keys.as_ref(), "In", labels);
    extra.extend(own(term.mismatch_label_keys.as_ref(), "NotIn", labels));
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.insert(namespace.to_owned());
    }
    let id = format!("{}|{extra:?}|{}", namespace, serde_json::to_string(term).unwrap_or_default());
    Term {
        topology_key: term.topology_key.clone(),
        namespaces,
        namespace_selector: term.namespace_selector.as_ref().and_then(|s| compile(Some(s), &[])),
        selector: compile(term.label_selector.as_ref(), &extra),
        id: id.into(),
    }
}

fn spread(constraint: &TopologySpreadConstraint, namespace: &str, labels: &Labels) -> Spread {
    let extra = own(constraint.match_label_keys.as_ref(), "In", labels);
    let honor = |policy: &Option<String>, default: bool| policy.as_deref().map_or(default, |p| p == "Honor");
    let selector = serde_json::to_string(&constraint.label_selector).unwrap_or_default();
    let id = format!("{namespace}|{extra:?}|{}|{selector}", constraint.topology_key);
    Spread {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        honor_affinity: honor(&constraint.node_affinity_policy, true),
        honor_taints: honor(&constraint.node_taints_policy, false),
        term: Term {
            topology_key: constraint.topology_key.clone(),
            namespaces: BTreeSet::from([namespace.to_owned()]),
            namespace_selector: None,
            selector: compile(constraint.label_selector.as_ref(), &extra),
            id: id.into(),
        },
    }
}

impl Shape {
    /// Compiles a pod's requirements.
    pub fn of(pod: &Pod, namespace_labels: Labels) -> Self {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let namespace = pod.namespace();
        let affinity = pod.spec.affinity.as_deref().cloned().unwrap_or_default();
        let nodes = affinity.node_affinity.unwrap_or_default();
        let near = affinity.pod_affinity.unwrap_or_default();
        let away = affinity.pod_anti_affinity.unwrap_or_default();
        let terms = |terms: Option<Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.iter().flatten().map(|t| term(t, namespace, &labels)).collect()
        };
        let weighted =
            |sign: i64, weight: i32, t: &PodAffinityTerm| (sign * i64::from(weight), term(t, namespace, &labels));
        let attract = near.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        let repel = away.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        let preferred = nodes.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        Self {
            namespace: namespace.to_owned(),
            namespace_labels,
            owner: super::super::ownership::controller_of(&pod.metadata).map(|o| o.uid.clone()),
            requests: pod.requests(),
            node_selector: pod.spec.node_selector.clone(),
            required_nodes: nodes.required_during_scheduling_ignored_during_execution,
            preferred_nodes: preferred.into_iter().map(|p| (i64::from(p.weight), p.preference)).collect(),
            tolerations: pod.spec.tolerations.clone(),
            host_ports: host_ports(pod),
            images: pod.spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            spread: pod.spec.topology_spread_constraints.iter().map(|c| spread(c, namespace, &labels)).collect(),
            affinity: terms(near.required_during_scheduling_ignored_during_execution),
            anti_affinity: terms(away.required_during_scheduling_ignored_during_execution),
            preferred_pods: attract
                .iter()
                .map(|w| weighted(1, w.weight, &w.pod_affinity_term))
                .chain(repel.iter().map(|w| weighted(-1, w.weight, &w.pod_affinity_term)))
                .collect(),
            claims: Vec::new(),
            labels,
        }
    }
}

/// Ports of the node that a pod takes.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = pod.spec.containers.iter().flat_map(|c| &c.ports);
    ports
        .filter_map(|port| {
            let taken = port.host_port.filter(|p| *p > 0);
            let number = taken.or(pod.spec.host_network.then_some(port.container_port))?;
            Some(HostPort {
                ip: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number,
            })
        })
        .collect()
}

/// Whether a node is among those a selector selects.
pub fn node_matches(selector: &NodeSelector, name: &str, labels: &Labels) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, name, labels))
}

/// Whether a node matches one term; an empty one matches none.
pub fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| requirement_matches(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, (r.key == "metadata.name").then_some(name)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|w| w == v));
    let numbers = || -> Option<(i64, i64)> { Some((value?.parse().ok()?, values.first()?.parse().ok()?)) };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, bound)| have > bound),
        "Lt" => numbers().is_some_and(|(have, bound)| have < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn node_selector_operators() {
        let labels = Labels::from([("zone".into(), "1".into()), ("cores".into(), "8".into())]);
        for (key, operator, values, want) in [
            ("zone", "In", json!(["1", "2"]), true),
            ("zone", "NotIn", json!(["1"]), false),
            ("none", "NotIn", json!(["1"]), true),
            ("zone", "Exists", json!(null), true),
            ("zone", "DoesNotExist", json!(null), false),
            ("cores", "Gt", json!(["4"]), true),
            ("cores", "Lt", json!(["8"]), false),
            ("none", "Gt", json!(["1"]), false),
        ] {
            let term: NodeSelectorTerm = serde_json::from_value(
                json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
            )
            .unwrap();
            assert_eq!(term_matches(&term, "n", &labels), want, "{key} {operator}");
        }
        assert!(!term_matches(&NodeSelectorTerm::default(), "n", &labels), "an empty term matches nothing");
    }

    #[test]
    fn host_ports_conflict_on_the_same_or_any_address() {
        let port = |ip: &str, port| HostPort { ip: ip.into(), protocol: "TCP".into(), port };
        assert!(port("", 80).conflicts(&port("10.0.0.1", 80)));
        assert!(!port("10.0.0.2", 80).conflicts(&port("10.0.0.1", 80)));
        assert!(!port("", 80).conflicts(&port("", 81)));
    }
}
