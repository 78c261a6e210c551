use super::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn job(spec: Value) -> Job {
    let mut value = json!({"metadata": {"name": "pi", "uid": "j"}, "spec": {"template": {}}});
    json_patch::merge(&mut value["spec"], &spec);
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, phase: &str, more: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "uid": name, "finalizers": [FINALIZER]},
        "status": {"phase": phase},
    });
    json_patch::merge(&mut value, &more);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn at_index(index: i32) -> Value {
    json!({"metadata": {"annotations": {COMPLETION_INDEX: index.to_string()}}})
}

/// Plays the server: writes the status, takes the finalizers off, and plans again.
fn settle(job: &mut Job, mut pods: Vec<Arc<Pod>>) -> (Plan, Vec<Arc<Pod>>) {
    for _ in 0..5 {
        let step = plan(job, &pods, now());
        job.status = Some(step.status.clone());
        if step.release.is_empty() {
            return (step, pods);
        }
        for pod in &mut pods {
            if step.release.iter().any(|r| r.uid() == pod.uid()) {
                let mut free = pod.as_ref().clone();
                free.metadata.finalizers = None;
                *pod = Arc::new(free);
            }
        }
    }
    panic!("does not settle: {:?}", job.status);
}

fn conditions(job: &Job) -> Vec<String> {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.status == "True").map(|c| c.type_.clone()).collect()
}

#[test]
fn creates_up_to_parallelism_and_what_is_still_needed() {
    for (spec, succeeded, active, want) in [
        (json!({"completions": 5, "parallelism": 2}), 0, 0, 2),
        (json!({"completions": 5, "parallelism": 2}), 4, 0, 1),
        (json!({"completions": 5, "parallelism": 10}), 2, 1, 2),
        (json!({"parallelism": 3}), 0, 1, 2),
        (json!({"parallelism": 3}), 1, 1, 0),
        (json!({"completions": 1}), 0, 0, 1),
        (json!({"completions": 3, "parallelism": 0}), 0, 0, 0),
    ] {
        let mut job = job(spec.clone());
        job.status = Some(JobStatus { succeeded: Some(succeeded), ..JobStatus::default() });
        let pods: Vec<_> = (0..active).map(|i| pod(&format!("a{i}"), "Running", json!({}))).collect();
        assert_eq!(plan(&job, &pods, now()).create.len(), want, "{spec} {succeeded} {active}");
    }
}

#[test]
fn an_ended_pod_is_counted_once_and_the_job_completes() {
    let mut job = job(json!({"completions": 2, "parallelism": 2}));
    let pods = vec![pod("a", "Succeeded", json!({})), pod("b", "Running", json!({}))];
    let first = plan(&job, &pods, now());
    assert_eq!(first.release.len(), 1);
    assert_eq!(first.status.uncounted_terminated_pods.as_ref().unwrap().succeeded.as_ref().unwrap(), &["a"]);
    assert_eq!(first.status.succeeded, None, "not a number before its finalizer is gone");
    let (_, pods) = settle(&mut job, pods);
    assert_eq!(job.status.as_ref().unwrap().succeeded, Some(1));
    let (again, _) = settle(&mut job, vec![pods[1].clone()]);
    assert_eq!((again.status.succeeded, again.create.len()), (Some(1), 0), "a was deleted: still counted");
    let (done, _) = settle(&mut job, vec![pod("b", "Succeeded", json!({}))]);
    assert_eq!((done.status.succeeded, done.status.active), (Some(2), None));
    assert_eq!(conditions(&job), ["SuccessCriteriaMet", "Complete"]);
    assert!(job.status.as_ref().unwrap().completion_time.is_some());
    assert_eq!(plan(&job, &[], now()).status, job.status.unwrap(), "nothing more to write");
}

#[test]
fn failures_back_off_and_then_fail_the_job() {
    let mut job = job(json!({"completions": 1, "backoffLimit": 1}));
    let ended = |at: &str| {
        json!({"metadata": {"finalizers": null},
               "status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]}})
    };
    job.status = Some(JobStatus { failed: Some(1), ..JobStatus::default() });
    let pods = vec![pod("a", "Failed", ended("2026-06-01T11:59:56Z"))];
    let waiting = plan(&job, &pods, now());
    assert_eq!((waiting.create.len(), waiting.requeue.unwrap().as_secs()), (0, 6));
    let pods = vec![pod("a", "Failed", ended("2026-06-01T11:59:40Z"))];
    assert_eq!(plan(&job, &pods, now()).create.len(), 1);

    let running = pod("c", "Running", json!({}));
    let step = plan(&job, &[pod("b", "Failed", json!({})), running.clone()], now());
    assert_eq!(step.delete.len(), 1, "the others are stopped");
    assert!(has(&step.status, "FailureTarget") && !has(&step.status, "Failed"));
    settle(&mut job, vec![pod("b", "Failed", json!({}))]);
    assert_eq!(conditions(&job), ["FailureTarget", "Failed"]);
    let reason = job.status.unwrap().conditions.unwrap()[1].reason.clone();
    assert_eq!(reason.as_deref(), Some("BackoffLimitExceeded"));
}

#[test]
fn the_deadline_fails_the_job() {
    let mut job = job(json!({"activeDeadlineSeconds": 60}));
    job.status = serde_json::from_value(json!({"startTime": "2026-06-01T11:59:10Z"})).unwrap();
    let running = [pod("a", "Running", json!({}))];
    assert_eq!(plan(&job, &running, now()).requeue.unwrap().as_secs(), 10);
    job.status = serde_json::from_value(json!({"startTime": "2026-06-01T11:58:00Z"})).unwrap();
    let step = plan(&job, &running, now());
    assert!(has(&step.status, "FailureTarget"));
    assert_eq!(step.delete.len(), 1);
}

#[test]
fn indexed_jobs_run_each_index_once() {
    let mut job = job(json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed"}));
    assert_eq!(plan(&job, &[], now()).create, [Some(0), Some(1), Some(2)]);
    let pods = vec![
        pod("a", "Succeeded", at_index(1)),
        pod("b", "Running", at_index(0)),
        pod("twin", "Running", at_index(0)),
        pod("c", "Failed", at_index(2)),
    ];
    let step = plan(&job, &pods, now());
    assert_eq!(step.delete.len(), 1, "one of two with index 0 goes");
    let (step, _) = settle(&mut job, pods);
    assert_eq!(step.status.completed_indexes.as_deref(), Some("1"));
    assert_eq!((step.status.succeeded, step.status.failed), (Some(1), Some(1)));
    let pods: Vec<_> = (0..4).map(|i| pod(&format!("p{i}"), "Succeeded", at_index(i))).collect();
    settle(&mut job, pods);
    assert_eq!(job.status.as_ref().unwrap().completed_indexes.as_deref(), Some("0-3"));
    assert_eq!(conditions(&job), ["SuccessCriteriaMet", "Complete"]);
}

#[test]
fn suspending_stops_and_resuming_starts_anew() {
    let mut job = job(json!({"completions": 1, "suspend": true}));
    let step = plan(&job, &[pod("a", "Running", json!({}))], now());
    assert_eq!((step.delete.len(), step.create.len()), (1, 0));
    assert!(step.status.start_time.is_none() && has(&step.status, "Suspended"));
    job.status = Some(step.status);
    job.spec.as_mut().unwrap().suspend = Some(false);
    let step = plan(&job, &[], now());
    assert_eq!(step.create.len(), 1);
    assert!(step.status.start_time.is_some() && !has(&step.status, "Suspended"));
}

#[test]
fn expires_after_its_time() {
    let mut job = job(json!({"ttlSecondsAfterFinished": 100}));
    assert_eq!(expires_in(&job, now()), None);
    job.status = serde_json::from_value(json!({"conditions": [
        {"type": "Complete", "status": "True", "lastTransitionTime": "2026-06-01T11:59:00Z"}]}))
    .unwrap();
    assert_eq!(expires_in(&job, now()).unwrap().as_secs(), 40);
}
