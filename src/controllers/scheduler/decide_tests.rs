use super::*;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use std::collections::HashMap;

fn node(name: &str, more: Value) -> (String, Node) {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    json_patch::merge(&mut value, &more);
    (name.to_owned(), serde_json::from_value(value).unwrap())
}

fn zoned(name: &str, zone: &str) -> (String, Node) {
    node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
}

fn cache(nodes: Vec<(String, Node)>) -> Cache {
    let mut cache = Cache::default();
    for (name, node) in nodes {
        cache.set_node(&name, Some(&node));
    }
    cache
}

fn pod(name: &str, more: Value) -> Pod {
    let mut value = json!({
        "metadata": {"name": name, "uid": name, "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}}]},
    });
    json_patch::merge(&mut value, &more);
    serde_json::from_value(value).unwrap()
}

fn choose(cache: &mut Cache, pod: &Pod) -> Result<String, String> {
    let shape = Shape::of(pod, cache.namespace_labels(pod.namespace()));
    decide(cache, &shape, &mut 0).map(|n| n.to_string()).map_err(|e| e.to_string())
}

/// Places as many copies as can be; how many each node got, and the message of the first refusal.
fn fill(cache: &mut Cache, count: usize, more: &Value) -> (HashMap<String, usize>, Option<String>) {
    let mut placed = HashMap::new();
    for i in 0..count {
        let pod = pod(&format!("p{i}"), more.clone());
        match choose(cache, &pod) {
            Ok(node) => {
                cache.place(&pod, &node);
                *placed.entry(node).or_insert(0) += 1;
            }
            Err(message) => return (placed, Some(message)),
        }
    }
    (placed, None)
}

#[test]
fn requests_are_held_against_what_is_left_and_freed_again() {
    let mut cache = cache(vec![node("a", json!({})), node("b", json!({}))]);
    let (placed, refused) = fill(&mut cache, 9, &json!({}));
    assert_eq!(placed, HashMap::from([("a".into(), 4), ("b".into(), 4)]));
    assert_eq!(refused.unwrap(), "0/2 nodes are available: 2 Insufficient cpu.");
    assert!(cache.take_back("p0"));
    assert!(choose(&mut cache, &pod("again", json!({}))).is_ok());
    assert_eq!(super::super::cache::Cache::default().nodes().len(), 0);
    assert_eq!(choose(&mut Cache::default(), &pod("x", json!({}))).unwrap_err(), "no nodes available to schedule pods");
}

#[test]
fn every_reason_has_its_familiar_words() {
    let taint = json!({"spec": {"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]}});
    let nodes = vec![
        node("tainted", taint),
        node("cordoned", json!({"spec": {"unschedulable": true}})),
        node("down", json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})),
        node("small", json!({"status": {"allocatable": {"cpu": "100m", "memory": "1Mi", "pods": "0"}}})),
        node("busy", json!({})),
    ];
    let mut cache = cache(nodes);
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}],
        "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}}]}});
    cache.place(&pod("holder", port.clone()), "busy");
    assert_eq!(
        choose(&mut cache, &pod("p", port)).unwrap_err(),
        "0/5 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, \
         1 node(s) didn't have free ports for the requested pod ports, \
         1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
         1 node(s) had untolerated taint {sku: gpu}, 1 node(s) were unschedulable."
    );
    let tolerant = json!({"spec": {"nodeName": null, "tolerations": [{"key": "sku", "operator": "Equal", "value": "gpu"}],
        "nodeSelector": {"kubernetes.io/hostname": "tainted"}}});
    assert_eq!(choose(&mut cache, &pod("p", tolerant)).unwrap(), "tainted");
    let picky = json!({"spec": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}]}});
    assert_eq!(
        choose(&mut cache, &pod("p", picky)).unwrap_err(),
        "0/5 nodes are available: 5 node(s) didn't match Pod's node affinity/selector."
    );
}

#[test]
fn node_affinity_required_and_preferred() {
    let mut cache = cache(vec![zoned("a", "1"), zoned("b", "2"), zoned("c", "3")]);
    let zones = |zones: &[&str]| {
        json!({"matchExpressions": [
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": zones}]})
    };
    let affinity = json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [zones(&["1", "2"])]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": zones(&["2", "3"])}]}}}});
    assert_eq!(choose(&mut cache, &pod("p", affinity)).unwrap(), "b");
}

#[test]
fn siblings_are_spread_over_nodes_without_being_asked() {
    let owned = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]}});
    let mut cache = cache((0..4).map(|i| zoned(&format!("n{i}"), &(i % 2).to_string())).collect());
    let (placed, _) = fill(&mut cache, 8, &owned);
    assert!(placed.len() == 4 && placed.values().all(|n| *n == 2), "{placed:?}");
}

#[test]
fn hard_spread_holds_the_skew() {
    let spread = |when: &str| {
        json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": when,
        "topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}})
    };
    // Zone 2 has room for four, zone 1 for eight.
    let mut hard = cache(vec![zoned("a", "1"), zoned("b", "1"), zoned("c", "2")]);
    let (placed, refused) = fill(&mut hard, 12, &spread("DoNotSchedule"));
    assert_eq!(placed["c"], 4);
    assert_eq!(placed["a"] + placed["b"], 5);
    assert_eq!(
        refused.unwrap(),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match pod topology spread constraints."
    );
    let mut soft = cache(vec![zoned("a", "1"), zoned("b", "1"), zoned("c", "2")]);
    let (placed, refused) = fill(&mut soft, 12, &spread("ScheduleAnyway"));
    assert_eq!((placed.values().sum::<usize>(), refused), (12, None));
    let mut unlabelled = cache(vec![node("x", json!({}))]);
    let message = choose(&mut unlabelled, &pod("p", spread("DoNotSchedule"))).unwrap_err();
    assert!(message.ends_with("1 node(s) didn't match pod topology spread constraints (missing required label)."));
}

#[test]
fn anti_affinity_works_both_ways_and_affinity_lets_the_first_in() {
    let term =
        |app: &str| json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}]);
    let rule = |kind: &str, app: &str| json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}}});
    let mut alone = cache(vec![node("a", json!({})), node("b", json!({}))]);
    let (placed, refused) = fill(&mut alone, 3, &rule("podAntiAffinity", "web"));
    assert_eq!(placed.len(), 2);
    assert_eq!(refused.unwrap(), "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.");
    assert_eq!(
        choose(&mut alone, &pod("plain", json!({}))).unwrap_err(),
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    );
    let other = json!({"metadata": {"labels": {"app": "db"}}});
    assert!(choose(&mut alone, &pod("other", other)).is_ok());

    let mut together = cache(vec![node("a", json!({})), node("b", json!({}))]);
    let (placed, refused) = fill(&mut together, 5, &rule("podAffinity", "web"));
    assert_eq!(placed.values().copied().collect::<Vec<_>>(), [4], "all on one node");
    assert!(refused.unwrap().contains("1 node(s) didn't match pod affinity rules"));
    let lonely = choose(&mut together, &pod("p", rule("podAffinity", "nobody"))).unwrap_err();
    assert_eq!(lonely, "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod affinity rules.");
}

#[test]
fn a_node_that_appears_after_its_pods_counts_them() {
    let mut cache = Cache::default();
    for i in 0..4 {
        cache.place(&pod(&format!("p{i}"), json!({})), "a");
    }
    let (name, fresh) = node("a", json!({}));
    cache.set_node(&name, Some(&fresh));
    assert!(choose(&mut cache, &pod("p", json!({}))).is_err());
}

proptest::proptest! {
    /// Placing and taking back in any order leaves nothing behind.
    #[test]
    fn accounting_is_exact(order in proptest::collection::vec((0..6_u8, 0..3_u8), 0..60)) {
        let mut cache = cache(vec![node("n0", json!({})), node("n1", json!({})), node("n2", json!({}))]);
        let anti = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"x": "y"}}}]}}}});
        for (pod_number, node) in order {
            let pod = pod(&format!("p{pod_number}"), anti.clone());
            if !cache.take_back(pod.uid()) {
                cache.place(&pod, &format!("n{node}"));
            }
        }
        for i in 0..6 {
            cache.take_back(&format!("p{i}"));
        }
        let used = cache.nodes().values().any(|n| {
            n.pods != 0 || n.requested.cpu.unwrap_or(0) != 0 || n.scored != (0, 0) || !n.siblings.is_empty()
        });
        proptest::prop_assert!(!used);
        proptest::prop_assert_eq!(cache.anti_affinity().count(), 0);
    }
}
