//! What follows from what is told, in the order it is told.

use super::{super::observed::Seen, *};
use crate::workload::{Kind, Workload};
use serde_json::{Value, json};

/// A wait for `web` of a kind with what it has told so far.
struct Wait {
    waited: Waited,
    observed: Observed,
    told: Vec<String>,
}

fn key(name: &str) -> (String, String) {
    ("shop".to_owned(), name.to_owned())
}

impl Wait {
    fn of(api_version: &str, kind: &str) -> Self {
        let kind = Kind::of(api_version, kind).unwrap();
        let workload = Workload { kind, namespace: "shop".into(), name: "web".into() };
        let observed = Observed::of(vec![workload.clone()]);
        Self { waited: Waited::new(Target { workload, generation: 1, restarts: 0 }), observed, told: Vec::new() }
    }

    /// A ReplicaSet of one replica that has all its replicas.
    fn of_one_replica() -> Self {
        let mut wait = Self::of("apps/v1", "ReplicaSet");
        wait.workload(json!({"observedGeneration": 1, "replicas": 1, "availableReplicas": 1}), true);
        wait
    }

    fn workload(&mut self, status: Value, is_there: bool) {
        let object = json!({"metadata": {"uid": "uid", "generation": 1}, "spec": {"replicas": 1}, "status": status});
        self.observed.take(Seen::Workload(0, Box::new(object), is_there));
    }

    /// A pod of the workload with this status, and where its Service leads to it.
    fn pod(&mut self, status: Value, is_endpoint: bool) {
        let pod = json!({"metadata": {"name": "web-1", "namespace": "shop", "uid": "uid-1", "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "web", "uid": "uid", "controller": true}]},
            "spec": {"containers": [], "nodeName": "node-0"}, "status": status});
        self.observed.take(Seen::Pod(key("web-1"), serde_json::from_value(pod).unwrap()));
        let endpoints = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": is_endpoint},
            "targetRef": {"kind": "Pod", "name": "web-1"}}]);
        let slice = json!({"metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints});
        self.observed.take(Seen::Slice(key("web-x"), serde_json::from_value(slice).unwrap()));
    }

    fn service(&mut self) {
        let service =
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        self.observed.take(Seen::Service(key("web"), serde_json::from_value(service).unwrap()));
        self.services();
    }

    /// All Services have been told.
    fn services(&mut self) {
        self.observed.take(Seen::Services("shop".into()));
    }

    fn look(&mut self) -> Progress {
        let told = &mut self.told;
        self.waited.look(0, &self.observed, &mut |new| told.push(name(new)))
    }

    fn hear(&mut self, answer: Answer) {
        let told = &mut self.told;
        self.waited.hear(answer, 0, &mut |new| told.push(name(new)));
        self.look();
    }
}

fn name(told: Told) -> String {
    match told {
        Told::Passed { hop, .. } => hop.name().to_owned(),
        Told::RolledOut { .. } => "rolled out".to_owned(),
    }
}

fn ready() -> Value {
    json!({"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {}}}]})
}

fn refused() -> Answer {
    Answer::Refused { detail: "connection refused".into() }
}

#[test]
fn who_refuses_is_asked_again_when_it_is_time_until_it_answers() {
    let mut wait = Wait::of_one_replica();
    wait.service();
    wait.pod(ready(), true);
    wait.look();
    for _ in 0..3 {
        assert!(wait.waited.question().is_some());
        // One question at a time, and not at once again.
        assert!(wait.waited.question().is_none());
        wait.hear(refused());
        assert!(wait.waited.question().is_none() && !wait.waited.is_done());
        assert_eq!(wait.waited.state(), "it is rolled out, but does not answer: connection refused");
        wait.waited.tick();
    }
    assert!(wait.waited.question().is_some());
    wait.hear(Answer::Http { detail: "200".into() });
    assert!(wait.waited.is_done());
    assert_eq!(wait.told, ["scheduled", "pulled", "started", "ready", "endpoint", "served", "rolled out"]);
    assert_eq!(wait.waited.without_service(), None);
}

#[test]
fn a_connection_is_an_answer_once_the_rollout_is_complete() {
    let mut wait = Wait::of("apps/v1", "ReplicaSet");
    wait.workload(json!({"observedGeneration": 1, "replicas": 1, "availableReplicas": 0}), true);
    wait.service();
    wait.pod(ready(), true);
    wait.look();
    assert!(wait.waited.question().is_some());
    wait.hear(Answer::Connected { pod: "web-1".into(), detail: "no HTTP".into() });
    assert!(!wait.waited.is_done() && !wait.waited.has_passed(Hop::Served));
    wait.workload(json!({"observedGeneration": 1, "replicas": 1, "availableReplicas": 1}), true);
    wait.look();
    assert!(wait.waited.is_done() && wait.waited.has_passed(Hop::Served));
    // One that refuses later on has not answered.
    let mut gone = Wait::of_one_replica();
    gone.service();
    gone.pod(json!({}), false);
    gone.look();
    gone.hear(Answer::Connected { pod: "web-1".into(), detail: "no HTTP".into() });
    gone.hear(refused());
    gone.pod(ready(), true);
    gone.look();
    assert!(!gone.waited.is_done());
}

#[test]
fn without_a_service_being_ready_is_enough_but_who_has_one_must_be_known() {
    let mut wait = Wait::of_one_replica();
    wait.look();
    assert!(!wait.waited.is_done(), "its pod has not been told of");
    wait.pod(ready(), false);
    wait.observed.take(Seen::Slice(key("web-x"), None));
    wait.look();
    assert!(!wait.waited.is_done(), "Services have not been told of");
    wait.services();
    // A program that ends at once is ready until it has: that it stays so is seen.
    for _ in 0..2 {
        wait.look();
        assert!(!wait.waited.is_done());
        wait.waited.tick();
    }
    wait.workload(json!({"observedGeneration": 1, "replicas": 1, "availableReplicas": 0}), true);
    wait.look();
    wait.workload(json!({"observedGeneration": 1, "replicas": 1, "availableReplicas": 1}), true);
    wait.look();
    assert!(!wait.waited.is_done(), "it has not stayed so");
    wait.waited.tick();
    wait.waited.tick();
    wait.look();
    assert!(wait.waited.is_done() && wait.waited.question().is_none());
    assert_eq!(wait.waited.without_service().as_deref(), Some("replicaset web: ready; no Service leads to it"));
    assert_eq!(wait.told.last().map(String::as_str), Some("rolled out"));
}

#[test]
fn a_pod_that_is_no_endpoint_is_waited_for() {
    let mut wait = Wait::of_one_replica();
    wait.service();
    wait.pod(ready(), false);
    wait.look();
    assert!(wait.waited.question().is_none() && !wait.waited.is_done());
    assert!(wait.waited.state().ends_with("service web has no endpoint web-1"), "{}", wait.waited.state());
}

#[test]
fn what_happened_before_the_wait_is_no_verdict() {
    let crashed_once = |restarts: i32| {
        let mut status = ready();
        status["containerStatuses"][0]["restartCount"] = restarts.into();
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        status["containerStatuses"][0]["lastState"] = ended;
        status
    };
    let mut wait = Wait::of_one_replica();
    wait.pod(crashed_once(5), false);
    assert!(matches!(wait.look(), Progress::Complete { .. }));
    // A crash during the wait is one.
    wait.pod(crashed_once(6), false);
    assert!(matches!(wait.look(), Progress::Failed(_)));
    // A pod that was evicted long ago has been replaced; one that fails now has not.
    let mut evicted = Wait::of_one_replica();
    evicted.pod(json!({"phase": "Failed", "reason": "Evicted"}), false);
    assert!(matches!(evicted.look(), Progress::Complete { .. }));
    let mut failing = Wait::of_one_replica();
    failing.pod(ready(), false);
    failing.pod(json!({"phase": "Failed", "reason": "Evicted"}), false);
    assert!(matches!(failing.look(), Progress::Failed(_)));
}

#[test]
fn a_job_may_go_once_it_is_complete_and_nothing_else_may() {
    let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    for (status, done) in [(complete, true), (json!({"active": 1}), false)] {
        let mut wait = Wait::of("batch/v1", "Job");
        wait.workload(status, false);
        assert_eq!(matches!(wait.look(), Progress::Complete { .. }), done);
        assert_eq!(wait.waited.is_done(), done);
    }
    let mut set = Wait::of_one_replica();
    set.workload(json!({"observedGeneration": 1, "replicas": 1, "availableReplicas": 1}), false);
    assert_eq!(set.look(), Progress::Failed(deleted()));
}
