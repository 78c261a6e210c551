use super::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn set(more: Value) -> DaemonSet {
    let mut value = json!({
        "metadata": {"name": "agent", "namespace": "kube-system", "uid": "u", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c"}]}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}},
    });
    json_patch::merge(&mut value["spec"], &more);
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, spec: Value) -> Arc<Node> {
    let labels = json!({"pool": "a", "kubernetes.io/hostname": name});
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap())
}

fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    names.iter().map(|n| node(n, json!({}))).collect()
}

/// A pod from `NAME NODE HASH [WORD…]`.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let phase = ["Pending", "Failed"].into_iter().find(|p| has(p)).unwrap_or("Running");
    let ready = phase == "Running" && !has("unready");
    let mut value = json!({
        "metadata": {"name": words[0], "uid": words[0], "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "agent", "controller-revision-hash": words[2]}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    if has("unbound") {
        value["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [words[1]]}]}]});
    } else {
        value["spec"]["nodeName"] = json!(words[1]);
    }
    if has("leaving") {
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:59Z");
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pods(texts: &[&str]) -> Vec<Arc<Pod>> {
    texts.iter().map(|text| pod(text)).collect()
}

fn words(plan: &Plan) -> Vec<String> {
    let created = plan.create.iter().map(|n| format!("+{n}"));
    let deleted = plan.delete.iter().map(|p| format!("-{}", p.name()));
    let ended = plan.ended.iter().map(|p| format!("!{}", p.name()));
    created.chain(deleted).chain(ended).collect()
}

fn managed(set: &DaemonSet, nodes: &[Arc<Node>], texts: &[&str]) -> Vec<String> {
    words(&manage(set, nodes, &pods(texts), "new", now()))
}

fn rolled(set: &DaemonSet, nodes: &[Arc<Node>], texts: &[&str]) -> Vec<String> {
    words(&roll(set, nodes, &pods(texts), "new", now()))
}

const NONE: [&str; 0] = [];

#[test]
fn nodes_are_judged_by_selector_affinity_and_taints() {
    let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "effect": effect}]});
    let all = Fit { should_run: true, may_stay: true };
    let stays = Fit { should_run: false, may_stay: true };
    let none = Fit { should_run: false, may_stay: false };
    let plain = set(json!({}));
    assert_eq!(fit(&plain, &node("n", json!({}))), all);
    assert_eq!(fit(&plain, &node("n", taint("sku", "NoSchedule"))), stays);
    assert_eq!(fit(&plain, &node("n", taint("sku", "NoExecute"))), none);
    assert_eq!(fit(&plain, &node("n", taint("sku", "PreferNoSchedule"))), all);
    for (key, effect) in TOLERATED {
        assert_eq!(fit(&plain, &node("n", taint(key, effect))), all, "{key}");
    }
    let (key, effect) = TOLERATED_ON_HOST_NETWORK;
    assert_eq!(fit(&plain, &node("n", taint(key, effect))), stays);
    let template = |spec: Value| set(json!({"template": {"spec": spec}}));
    assert_eq!(fit(&template(json!({"hostNetwork": true})), &node("n", taint(key, effect))), all);
    assert_eq!(fit(&template(json!({"nodeSelector": {"pool": "b"}})), &node("n", json!({}))), none);
    assert_eq!(fit(&template(json!({"nodeName": "m"})), &node("n", json!({}))), none);
    let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["a"]}]}]}}}});
    assert_eq!(fit(&template(affinity), &node("n", json!({}))), none);
    let tolerant = template(json!({"tolerations": [{"operator": "Exists"}]}));
    assert_eq!(fit(&tolerant, &node("n", taint("sku", "NoExecute"))), all);
}

#[test]
fn every_node_gets_one_pod() {
    let two = nodes(&["n1", "n2"]);
    assert_eq!(managed(&set(json!({})), &two, &[]), ["+n1", "+n2"]);
    assert_eq!(managed(&set(json!({})), &two, &["a n1 new", "b n2 new unbound Pending"]), NONE);
    assert_eq!(managed(&set(json!({})), &two, &["a n1 new", "b n1 new", "c n2 new"]), ["-b"]);
    assert_eq!(managed(&set(json!({})), &two, &["a n1 new leaving", "b n2 new"]), NONE, "the name is free later");
    assert_eq!(managed(&set(json!({})), &two, &["a n1 new Failed", "b n2 new"]), ["!a"]);
}

#[test]
fn pods_leave_nodes_that_do_not_want_them() {
    let tainted = [node("n1", json!({"taints": [{"key": "k", "effect": "NoExecute"}]}))];
    assert_eq!(managed(&set(json!({})), &tainted, &["a n1 new"]), ["-a"]);
    let closed = [node("n1", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}))];
    assert_eq!(managed(&set(json!({})), &closed, &["a n1 new"]), NONE);
    assert_eq!(managed(&set(json!({})), &[], &["a gone new unbound Pending", "b gone new"]), ["-a"]);
}

#[test]
fn updates_keep_to_the_number_of_unavailable_pods() {
    let three = nodes(&["n1", "n2", "n3"]);
    let set_of = |max: Value| set(json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": max}}}));
    let old = ["a n1 old", "b n2 old", "c n3 old"];
    assert_eq!(rolled(&set_of(json!(1)), &three, &old), ["-a"]);
    assert_eq!(rolled(&set_of(json!("50%")), &three, &old), ["-a", "-b"]);
    assert_eq!(rolled(&set_of(json!(1)), &three, &["b n2 old", "c n3 old"]), NONE, "n1 has none yet");
    assert_eq!(rolled(&set_of(json!(1)), &three, &["a n1 new unready", "b n2 old", "c n3 old"]), NONE);
    assert_eq!(rolled(&set_of(json!(1)), &three, &["a n1 old leaving", "b n2 old", "c n3 old"]), NONE);
    assert_eq!(rolled(&set_of(json!(1)), &three, &["a n1 new", "b n2 old unready", "c n3 old"]), ["-b"]);
    let manual = set(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    assert_eq!(rolled(&manual, &three, &old), NONE);
}

#[test]
fn with_surge_the_new_pod_comes_before_the_old_one_goes() {
    let two = nodes(&["n1", "n2"]);
    let surge = set(json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}));
    assert_eq!(rolled(&surge, &two, &["a n1 old", "b n2 old"]), ["+n1"]);
    assert_eq!(rolled(&surge, &two, &["a n1 old", "x n1 new unready", "b n2 old"]), NONE);
    assert_eq!(rolled(&surge, &two, &["a n1 old", "x n1 new", "b n2 old"]), ["-a"]);
    assert_eq!(managed(&surge, &two, &["a n1 old", "x n1 new", "b n2 old"]), ["-a"]);
    assert_eq!(managed(&surge, &two, &["a n1 old", "x n1 new unready", "b n2 old"]), NONE);
    assert_eq!(rolled(&surge, &two, &["a n1 old unready", "b n2 old"]), ["+n1", "+n2"]);
}

#[test]
fn the_status_counts_nodes() {
    let mut all = nodes(&["n1", "n2", "n3"]);
    all.push(node("n4", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]})));
    let there = pods(&["a n1 new", "b n2 old unready", "d n4 old"]);
    let (status, _) = status(&set(json!({})), &all, &there, "new", None, now());
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (3, 2));
    assert_eq!((status.number_ready, status.number_available, status.number_unavailable), (1, Some(1), Some(2)));
    assert_eq!((status.updated_number_scheduled, status.number_misscheduled), (Some(1), 1));
    assert_eq!(status.observed_generation, Some(2));
}
