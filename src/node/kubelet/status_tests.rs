use super::*;

fn pod(policy: &str) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": "p", "namespace": "d", "uid": "u", "generation": 1 },
        "spec": { "restartPolicy": policy, "containers": [{ "name": "a", "image": "x" }] }
    }))
    .unwrap()
}

fn found(state: Running) -> Found {
    Found {
        id: "abc".into(),
        sandbox: "s".into(),
        name: "a".into(),
        attempt: 0,
        image: "x".into(),
        image_id: "sha256:1".into(),
        state,
        log_path: "/l".into(),
    }
}

fn observed(role: Role, state: Option<Running>) -> Observed {
    let started = matches!(state, Some(Running::Running { .. }));
    Observed {
        role,
        container: Container { name: "a".into(), image: Some("x".into()), ..Default::default() },
        current: state.map(found),
        previous: None,
        waiting: None,
        image_id: "x@sha256:2".into(),
        message: None,
        previous_message: None,
        started,
        ready: started,
        restart_count: 0,
    }
}

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second).unwrap()
}

fn exited(code: i32) -> Running {
    Running::Exited { started: at(1), finished: at(2), code, oom_killed: false }
}

fn status(pod: &Pod, before: Option<&PodStatus>, containers: &[Observed], now: i64) -> PodStatus {
    pod_status(&Observation {
        pod,
        before,
        containers,
        sandbox_ready: true,
        address: Some("10.244.0.5".parse().unwrap()),
        host: "10.224.0.4".parse().unwrap(),
        failure: None,
        now: at(now),
    })
}

fn condition_of<'a>(status: &'a PodStatus, name: &str) -> &'a PodCondition {
    status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == name).unwrap()
}

#[test]
fn a_pod_becomes_ready() {
    let pod = pod("Always");
    let creating = status(&pod, None, &[observed(Role::Main, None)], 10);
    assert_eq!(creating.phase.as_deref(), Some("Pending"));
    let state = creating.container_statuses.as_ref().unwrap()[0].state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("ContainerCreating"));
    assert_eq!(condition_of(&creating, "Ready").status, "False");
    assert_eq!(condition_of(&creating, "Ready").message.as_deref(), Some("containers with unready status: [a]"));
    let running =
        status(&pod, Some(&creating), &[observed(Role::Main, Some(Running::Running { started: at(11) }))], 12);
    assert_eq!(running.phase.as_deref(), Some("Running"));
    assert_eq!(condition_of(&running, "Ready").status, "True");
    assert_eq!(condition_of(&running, "Ready").last_transition_time, Some(Time(at(12))));
    assert_eq!(condition_of(&running, "Initialized").last_transition_time, Some(Time(at(10))));
    assert_eq!(running.pod_ip.as_deref(), Some("10.244.0.5"));
    assert_eq!(running.start_time, creating.start_time);
}

#[test]
fn phases_follow_the_restart_policy() {
    for (policy, code, phase) in [
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Always", 0, "Running"),
    ] {
        let got = status(&pod(policy), None, &[observed(Role::Main, Some(exited(code)))], 3);
        assert_eq!(got.phase.as_deref(), Some(phase), "{policy} {code}");
    }
}

#[test]
fn a_crash_loop_shows_its_last_state() {
    let mut crashed = observed(Role::Main, Some(exited(3)));
    crashed.waiting = Some(("CrashLoopBackOff".into(), "back-off 10s".into()));
    crashed.message = Some("boom".into());
    let got = status(&pod("Always"), None, &[crashed], 3);
    let container = &got.container_statuses.unwrap()[0];
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref(), last.message.as_deref()), (3, Some("Error"), Some("boom")));
    assert_eq!(container.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
}

#[test]
fn a_failed_init_container_fails_the_pod_only_with_never() {
    let containers = [observed(Role::Init, Some(exited(1))), observed(Role::Main, None)];
    assert_eq!(status(&pod("Never"), None, &containers, 3).phase.as_deref(), Some("Failed"));
    let pending = status(&pod("Always"), None, &containers, 3);
    assert_eq!(pending.phase.as_deref(), Some("Pending"));
    assert_eq!(condition_of(&pending, "Initialized").reason.as_deref(), Some("ContainersNotInitialized"));
}

/// By its key the list would be merged, and the address of an earlier sandbox would stay.
#[test]
fn the_addresses_are_replaced_whole() {
    let pod = pod("Always");
    let status = PodStatus { pod_ips: Some(vec![PodIP { ip: "10.244.0.9".into() }]), ..Default::default() };
    let patch = patch(&pod, &status).unwrap();
    assert_eq!(patch["status"]["podIPs"], serde_json::json!([{ "$patch": "replace" }, { "ip": "10.244.0.9" }]));
}

#[test]
fn conditions_of_others_stay_and_are_not_patched() {
    let other = PodCondition { type_: "example.com/gate".into(), status: "True".into(), ..Default::default() };
    let before = PodStatus { conditions: Some(vec![other]), ..Default::default() };
    let pod = pod("Always");
    let got = status(&pod, Some(&before), &[observed(Role::Main, None)], 3);
    assert!(got.conditions.as_ref().unwrap().iter().any(|c| c.type_ == "example.com/gate"));
    let patch = patch(&pod, &got).unwrap();
    assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), 5);
    assert!(patch["status"]["reason"].is_null());
    assert_eq!(patch["metadata"]["uid"], "u");
}
