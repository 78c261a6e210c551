use super::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn set(more: Value) -> StatefulSet {
    let mut value = json!({
        "metadata": {"name": "db", "namespace": "shop", "uid": "u", "generation": 4},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "db"}}, "serviceName": "db",
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "db:1"}]}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
    });
    json_patch::merge(&mut value["spec"], &more);
    serde_json::from_value(value).unwrap()
}

/// A pod from `ORDINAL REVISION [WORD…]`.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, has) = (format!("db-{}", words[0]), |word: &str| words.contains(&word));
    let phase = ["Pending", "Failed", "Succeeded"].into_iter().find(|p| has(p)).unwrap_or("Running");
    let ready = phase == "Running" && !has("unready");
    let since = if has("young") { "2026-01-01T00:59:55Z" } else { "2026-01-01T00:00:00Z" };
    let mut value = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {
            "app": "db", "controller-revision-hash": words[1], POD_NAME: name, POD_INDEX: words[0]}},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since}]},
    });
    if has("leaving") {
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:59Z");
    }
    if has("nameless") {
        value["metadata"]["labels"] = json!({"app": "db"});
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

/// The plan in words: `+0` creates, `+0@current` of the current revision, `-2 Surplus` deletes.
fn planned(set: &StatefulSet, pods: &[&str]) -> Vec<String> {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let plan = plan(set, &pods, "new", now());
    let created = plan.create.iter().map(|(o, current)| format!("+{o}{}", if *current { "@current" } else { "" }));
    let deleted = plan.delete.iter().map(|(p, reason)| format!("-{} {reason:?}", &p.name()[3..]));
    let relabelled = plan.relabel.iter().map(|p| format!("~{}", &p.name()[3..]));
    created.chain(deleted).chain(relabelled).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn names_have_ordinals() {
    assert_eq!(ordinal("db", "db-12"), Some(12));
    for other in ["db", "db-", "db-x", "db-1-2", "web-1", "db-+1", "db-99999999999"] {
        assert_eq!(ordinal("db", other), None, "{other}");
    }
}

#[test]
fn ordered_pods_wait_for_the_one_before() {
    let set = set(json!({}));
    assert_eq!(planned(&set, &[]), ["+0"]);
    assert_eq!(planned(&set, &["0 new Pending"]), NONE);
    assert_eq!(planned(&set, &["0 new unready"]), NONE);
    assert_eq!(planned(&set, &["0 new"]), ["+1"]);
    assert_eq!(planned(&set, &["0 new", "1 new", "2 new"]), NONE);
    assert_eq!(planned(&set, &["0 new", "2 new"]), ["+1"]);
    assert_eq!(planned(&set, &["0 new leaving", "1 new"]), NONE);
}

#[test]
fn parallel_pods_do_not() {
    let set = set(json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(planned(&set, &[]), ["+0", "+1", "+2"]);
    assert_eq!(planned(&set, &["1 new unready"]), ["+0", "+2"]);
    assert_eq!(planned(&set, &["0 new", "1 new", "2 new", "3 new", "4 new unready"]), ["-4 Surplus", "-3 Surplus"]);
}

#[test]
fn pods_must_be_ready_for_long_enough() {
    let set = set(json!({"minReadySeconds": 10}));
    assert_eq!(planned(&set, &["0 new young"]), NONE);
    let (status, wait) = status(&set, &[pod("0 new young")], ("new", "new"), None, now());
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(1), Some(0)));
    assert_eq!(wait.map(|w| w.as_secs()), Some(5));
}

#[test]
fn ended_pods_are_replaced_under_their_name() {
    let set = set(json!({}));
    assert_eq!(planned(&set, &["0 new Failed", "1 new", "2 new"]), ["-0 Ended"]);
    assert_eq!(planned(&set, &["0 new Succeeded"]), ["-0 Ended"]);
    assert_eq!(planned(&set, &["0 new Failed leaving", "1 old"]), NONE);
}

#[test]
fn ordinals_may_start_elsewhere_and_others_go_highest_first() {
    let set = set(json!({"ordinals": {"start": 5}, "replicas": 2}));
    assert_eq!(planned(&set, &[]), ["+5"]);
    assert_eq!(planned(&set, &["5 new", "6 new", "0 new", "7 new"]), ["-7 Surplus"]);
    assert_eq!(planned(&set, &["5 new", "6 new", "7 new leaving", "0 new"]), NONE);
    assert_eq!(planned(&set, &["5 new", "6 new", "0 new"]), ["-0 Surplus"]);
    // An unhealthy one goes when it is the first of the unhealthy.
    assert_eq!(planned(&set, &["5 new", "6 new", "7 new unready"]), ["-7 Surplus"]);
    assert_eq!(planned(&set, &["5 new", "6 new", "7 new unready", "8 new unready"]), NONE);
}

#[test]
fn updates_go_from_the_highest_ordinal_down_to_the_partition() {
    let all = ["0 old", "1 old", "2 old"];
    assert_eq!(planned(&set(json!({})), &all), ["-2 Outdated"]);
    assert_eq!(planned(&set(json!({})), &["0 old", "1 old", "2 new"]), ["-1 Outdated"]);
    assert_eq!(planned(&set(json!({})), &["0 old", "1 old"]), ["+2"]);
    let split = set(json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}));
    assert_eq!(planned(&split, &all), ["-2 Outdated"]);
    assert_eq!(planned(&split, &["0 old", "1 old", "2 new"]), NONE);
    assert_eq!(planned(&split, &["0 old"]), ["+1@current"]);
    assert_eq!(planned(&split, &["0 old", "1 old"]), ["+2"]);
    let manual = set(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    assert_eq!(planned(&manual, &all), NONE);
    assert_eq!(planned(&manual, &["0 old", "2 old"]), ["+1"]);
}

#[test]
fn updates_keep_to_the_allowed_number_of_unavailable_pods() {
    let parallel = |max: Value| {
        set(json!({"replicas": 4, "podManagementPolicy": "Parallel",
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": max}}}))
    };
    let all = ["0 old", "1 old", "2 old", "3 old"];
    assert_eq!(planned(&parallel(json!(2)), &all), ["-3 Outdated", "-2 Outdated"]);
    assert_eq!(planned(&parallel(json!("30%")), &all), ["-3 Outdated", "-2 Outdated"]);
    assert_eq!(planned(&parallel(json!(2)), &["0 old", "1 old", "2 old", "3 new unready"]), ["-2 Outdated"]);
    assert_eq!(planned(&parallel(json!(1)), &["0 old", "1 old", "2 old", "3 new unready"]), NONE);
    // A broken old version does not stand in the way of its own replacement.
    assert_eq!(planned(&parallel(json!(1)), &["0 old", "1 old", "2 old", "3 old unready"]), ["-3 Outdated"]);
}

#[test]
fn pods_taken_in_get_their_labels() {
    assert_eq!(
        planned(&set(json!({"replicas": 1, "updateStrategy": {"type": "OnDelete"}})), &["0 x nameless"]),
        ["~0"]
    );
}

#[test]
fn nothing_is_done_for_a_set_that_is_being_deleted() {
    let mut set = set(json!({}));
    set.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(planned(&set, &[]), NONE);
}

#[test]
fn the_update_becomes_the_current_revision_when_all_run_it() {
    let set = set(json!({}));
    let pods = |texts: &[&str]| texts.iter().map(|t| pod(t)).collect::<Vec<_>>();
    let (midway, _) = status(&set, &pods(&["0 old", "1 old", "2 new unready"]), ("old", "new"), None, now());
    assert_eq!((midway.current_revision.as_deref(), midway.current_replicas), (Some("old"), Some(2)));
    assert_eq!((midway.updated_replicas, midway.ready_replicas, midway.replicas), (Some(1), Some(2), 3));
    let (done, _) = status(&set, &pods(&["0 new", "1 new", "2 new"]), ("old", "new"), Some(1), now());
    assert_eq!((done.current_revision.as_deref(), done.current_replicas), (Some("new"), Some(3)));
    assert_eq!((done.collision_count, done.observed_generation), (Some(1), Some(4)));
}
