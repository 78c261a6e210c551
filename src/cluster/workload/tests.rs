//! Every kind: done, waiting, failed; and which pods are of the template as it is now.

use super::*;
use serde_json::json;

const DEFAULT_RESTARTS: i32 = 0;

fn pod(name: &str, owner: &str, more: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Any", "name": owner, "uid": format!("uid-{owner}"), "controller": true}]},
        "status": {"phase": "Running"},
    });
    json_patch(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn json_patch(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                json_patch(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

fn ready() -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn labelled(hash: &str) -> Value {
    json!({"metadata": {"labels": {"controller-revision-hash": hash}}})
}

/// A pod whose container has just ended with code 3.
fn crashed() -> Value {
    json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}})
}

/// A workload of a kind as JSON; its uid is that of its name.
fn object(kind: &str, more: Value) -> (&'static Kind, Value) {
    let row = KINDS.iter().find(|row| row.kind == kind).unwrap();
    let mut object = json!({"apiVersion": row.api_version, "kind": kind,
        "metadata": {"name": "it", "namespace": "shop", "uid": "uid-it", "generation": 2},
        "spec": {}, "status": {"observedGeneration": 2}});
    json_patch(&mut object, more);
    (row, object)
}

/// The verdict about a workload and the pods of its namespace.
fn judged((kind, object): &(&'static Kind, Value), histories: &[Value], pods: &[Pod]) -> Progress {
    let histories: Vec<&Value> = histories.iter().collect();
    let (new, old) = by_template(kind, object, &histories, pods.iter());
    View { object, generation: 2, new, old, allowed: &|_| DEFAULT_RESTARTS }.judge(kind)
}

fn waits(progress: Progress, wanted: &str) {
    match progress {
        Progress::Waiting(message) => assert!(message.contains(wanted), "{message}"),
        other => panic!("{wanted}: {other:?}"),
    }
}

/// What a failed workload says, and the pod that shows it.
fn fails(progress: Progress) -> (String, Option<PodFailure>) {
    match progress {
        Progress::Failed(failure) => (failure.message, failure.pod),
        other => panic!("{other:?}"),
    }
}

fn notes(progress: Progress, pods: i64, wanted: &str) {
    match progress {
        Progress::Complete { pods: there, note: Some(note) } => {
            assert_eq!(there, pods);
            assert!(note.contains(wanted), "{note}");
        }
        other => panic!("{wanted}: {other:?}"),
    }
}

fn replica_set(name: &str, image: &str) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"kind": "Deployment", "name": "it", "uid": "uid-it", "controller": true}]},
        "spec": {"template": {"metadata": {"creationTimestamp": null, "labels": {"app": "it", "pod-template-hash": name}},
            "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "it"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(status: Value) -> (&'static Kind, Value) {
    object("Deployment", json!({"spec": {"replicas": 2, "template": template("it:2")}, "status": status}))
}

#[test]
fn a_spec_that_has_not_been_observed_says_nothing() {
    let complete = json!({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1});
    waits(judged(&deployment(complete), &[], &[]), "has not been observed");
    for kind in ["StatefulSet", "DaemonSet", "ReplicaSet"] {
        waits(judged(&object(kind, json!({"status": {"observedGeneration": 1}})), &[], &[]), "has not been observed");
    }
}

#[test]
fn a_deployment() {
    let status = |replicas: i64, updated: i64, available: i64| json!({"replicas": replicas, "updatedReplicas": updated, "availableReplicas": available});
    assert_eq!(judged(&deployment(status(2, 2, 2)), &[], &[]), Progress::complete(2));
    waits(judged(&deployment(status(3, 1, 2)), &[], &[]), "1 of 2 new replicas have been updated");
    waits(judged(&deployment(status(3, 2, 2)), &[], &[]), "1 old replicas are pending termination");
    waits(judged(&deployment(status(2, 2, 1)), &[], &[]), "1 of 2 updated replicas are available");
    let mut paused = deployment(status(2, 0, 2));
    json_patch(&mut paused.1, json!({"spec": {"paused": true}}));
    waits(judged(&paused, &[], &[]), "it is paused");
    let scaled_to_nothing = object("Deployment", json!({"spec": {"replicas": 0}}));
    assert_eq!(judged(&scaled_to_nothing, &[], &[]), Progress::complete(0));
    let mut late = status(2, 1, 1);
    late["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    assert!(fails(judged(&deployment(late), &[], &[])).0.contains("progress deadline"));
}

#[test]
fn only_pods_of_the_new_template_fail_a_deployment() {
    let sets = [replica_set("old", "it:1"), replica_set("new", "it:2")];
    let waiting = deployment(json!({"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}));
    let pods = |new: Value| [pod("old-1", "old", crashed()), pod("new-1", "new", new), pod("other", "x", crashed())];
    waits(judged(&waiting, &sets, &pods(ready())), "1 of 2 new replicas");
    let (_, shown) = fails(judged(&waiting, &sets, &pods(crashed())));
    assert_eq!(shown.map(|failure| failure.pod).as_deref(), Some("new-1"));
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let mut crashed_and_going = crashed();
    json_patch(&mut crashed_and_going, going);
    waits(judged(&waiting, &sets, &pods(crashed_and_going)), "1 of 2 new replicas");
    // No set of the new template yet: no pod is new.
    waits(judged(&waiting, &sets[..1], &pods(crashed())), "1 of 2 new replicas");
}

#[test]
fn a_pod_that_finds_no_node_is_told() {
    let unscheduled = json!({"status": {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: Insufficient cpu."}]}});
    let pods = [pod("new-1", "new", unscheduled)];
    let waiting = deployment(json!({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 0}));
    waits(judged(&waiting, &[replica_set("new", "it:2")], &pods), "; pod new-1: 0/1 nodes are available");
}

fn stateful_set(spec: Value, updated: i64, ready: i64) -> (&'static Kind, Value) {
    let status = json!({"replicas": 2, "updatedReplicas": updated, "readyReplicas": ready, "updateRevision": "it-2"});
    let mut set = object("StatefulSet", json!({"spec": {"replicas": 2}, "status": status}));
    json_patch(&mut set.1, json!({"spec": spec}));
    set
}

#[test]
fn a_stateful_set() {
    let rolling = || json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    assert_eq!(judged(&stateful_set(rolling(), 2, 2), &[], &[]), Progress::complete(2));
    waits(judged(&stateful_set(rolling(), 1, 2), &[], &[]), "1 of 2 new pods have been updated");
    waits(judged(&stateful_set(rolling(), 2, 1), &[], &[]), "1 of 2 pods are ready");
    let mut exits = labelled("it-2");
    json_patch(&mut exits, crashed());
    let (_, shown) = fails(judged(&stateful_set(rolling(), 2, 0), &[], &[pod("it-0", "it", exits)]));
    assert_eq!(shown.unwrap().message, "exited with code 3 (Error)");
    // A crash of the old template is what the new one is to mend, and in its way.
    let mut old = labelled("it-1");
    json_patch(&mut old, crashed());
    waits(judged(&stateful_set(rolling(), 0, 0), &[], &[pod("it-0", "it", old)]), "kubectl delete pod it-0");
}

#[test]
fn a_stateful_set_that_has_not_observed_its_spec_has_no_new_pods() {
    let pods = [pod("it-0", "it", labelled("it-2"))];
    for (observed, new) in [(1, 0), (2, 1)] {
        let (kind, mut set) = stateful_set(json!({}), 1, 1);
        set["status"]["observedGeneration"] = observed.into();
        assert_eq!(by_template(kind, &set, &[], pods.iter()).0.len(), new);
    }
}

#[test]
fn a_partition_is_waited_for_as_far_as_it_goes() {
    let partition = |n: i64| json!({"updateStrategy": {"rollingUpdate": {"partition": n}}});
    waits(judged(&stateful_set(partition(1), 0, 2), &[], &[]), "0 of 1 new pods");
    notes(judged(&stateful_set(partition(1), 1, 2), &[], &[]), 1, "below partition 1");
    notes(judged(&stateful_set(partition(5), 0, 2), &[], &[]), 0, "below partition 5");
}

#[test]
fn updates_on_delete_are_not_waited_for_but_new_pods_are() {
    let spec = || json!({"updateStrategy": {"type": "OnDelete"}});
    let (old, new) = (
        || pod("it-1", "it", labelled("it-1")),
        |more: Value| {
            let mut all = labelled("it-2");
            json_patch(&mut all, more);
            pod("it-0", "it", all)
        },
    );
    notes(judged(&stateful_set(spec(), 1, 1), &[], &[old(), new(ready())]), 1, "OnDelete");
    waits(judged(&stateful_set(spec(), 1, 0), &[], &[old(), new(json!({}))]), "0 of 1 pods with the new template");
    waits(judged(&stateful_set(spec(), 1, 1), &[], &[new(ready())]), "1 of 2 pods are there");
    fails(judged(&stateful_set(spec(), 1, 0), &[], &[old(), new(crashed())]));
}

fn daemon_set(spec: Value, updated: i64, available: i64) -> (&'static Kind, Value) {
    let status = json!({"desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": available});
    let mut set = object("DaemonSet", json!({"spec": {"template": template("it:2")}, "status": status}));
    json_patch(&mut set.1, json!({"spec": spec}));
    set
}

fn revision(hash: &str, image: &str) -> Value {
    let mut template = template(image);
    template["$patch"] = "replace".into();
    json!({"metadata": {"name": format!("it-{hash}"), "labels": {"controller-revision-hash": hash},
        "ownerReferences": [{"kind": "DaemonSet", "name": "it", "uid": "uid-it", "controller": true}]},
        "data": {"spec": {"template": template}}, "revision": 1})
}

#[test]
fn a_daemon_set() {
    let revisions = [revision("one", "it:1"), revision("two", "it:2")];
    let hashed = |hash: &str, more: Value| {
        let mut all = labelled(hash);
        json_patch(&mut all, more);
        pod(&format!("it-{hash}"), "it", all)
    };
    assert_eq!(judged(&daemon_set(json!({}), 2, 2), &revisions, &[]), Progress::complete(2));
    waits(judged(&daemon_set(json!({}), 1, 2), &revisions, &[hashed("one", crashed())]), "1 of 2 new pods");
    waits(judged(&daemon_set(json!({}), 2, 1), &revisions, &[hashed("two", ready())]), "1 of 2 updated pods");
    fails(judged(&daemon_set(json!({}), 2, 1), &revisions, &[hashed("two", crashed())]));
    let on_delete = daemon_set(json!({"updateStrategy": {"type": "OnDelete"}}), 0, 2);
    notes(judged(&on_delete, &revisions, &[hashed("one", ready()), hashed("two", ready())]), 1, "OnDelete");
}

#[test]
fn a_replica_set() {
    let set = |replicas: i64, available: i64| {
        let status = json!({"replicas": replicas, "availableReplicas": available});
        object("ReplicaSet", json!({"spec": {"replicas": 2}, "status": status}))
    };
    assert_eq!(judged(&set(2, 2), &[], &[]), Progress::complete(2));
    waits(judged(&set(2, 1), &[], &[]), "1 of 2 replicas are available");
    waits(judged(&set(3, 3), &[], &[]), "1 replicas are pending termination");
    fails(judged(&set(2, 1), &[], &[pod("it-1", "it", crashed())]));
}

#[test]
fn a_job() {
    let job = |status: Value| object("Job", json!({"status": status}));
    let condition = |type_: &str| json!({"conditions": [{"type": type_, "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]});
    let mut ended = crashed();
    json_patch(&mut ended, json!({"status": {"phase": "Failed"}}));
    let pods = [pod("it-a", "it", ended)];
    assert_eq!(judged(&job(condition("Complete")), &[], &pods), Progress::complete(0));
    waits(judged(&job(json!({"active": 1, "failed": 1})), &[], &pods), "1 active, 0 succeeded, 1 failed");
    let (message, shown) = fails(judged(&job(condition("Failed")), &[], &pods));
    assert_eq!(message, "BackoffLimitExceeded: too often");
    assert_eq!(shown.unwrap().message, "exited with code 3 (Error)");
    // It counts crashes by itself, but what cannot start is never counted.
    waits(judged(&job(json!({"active": 1})), &[], &[pod("it-a", "it", crashed())]), "1 active");
    let missing = json!({"status": {"phase": "Pending", "containerStatuses": [{"name": "c", "image": "", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}});
    fails(judged(&job(json!({"active": 1})), &[], &[pod("it-a", "it", missing)]));
    notes(judged(&object("Job", json!({"spec": {"suspend": true}})), &[], &[]), 0, "suspended");
}

#[test]
fn a_cron_job_has_nothing_to_wait_for() {
    assert_eq!(judged(&object("CronJob", json!({})), &[], &[]), Progress::complete(0));
}

#[test]
fn a_bare_pod() {
    let bare = |more: Value| {
        let mut all = json!({"metadata": {"uid": "uid-it", "ownerReferences": []}});
        json_patch(&mut all, more);
        judged(&object("Pod", json!({})), &[], &[pod("it", "x", all), pod("other", "x", crashed())])
    };
    assert_eq!(bare(ready()), Progress::complete(1));
    assert_eq!(bare(json!({"status": {"phase": "Succeeded"}})), Progress::complete(0));
    waits(bare(json!({"status": {"phase": "Pending"}})), "it is Pending and not ready");
    fails(bare(crashed()));
    let (_, shown) = fails(bare(json!({"status": {"phase": "Failed", "reason": "Evicted"}})));
    assert_eq!(shown.unwrap().reason, "Evicted");
}

#[test]
fn other_kinds_are_no_workloads() {
    assert!(Kind::of("apps/v1", "Deployment").is_some());
    for (api_version, kind) in [("v1", "Service"), ("extensions/v1beta1", "Deployment"), ("v1", "ConfigMap")] {
        assert!(Kind::of(api_version, kind).is_none(), "{kind}");
    }
}
