use super::*;
use serde_json::{Value, json};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron_job(spec: Value, status: Value) -> CronJob {
    let mut value = json!({
        "metadata": {"name": "tidy", "namespace": "shop", "uid": "u", "creationTimestamp": "2026-01-01T00:00:30Z"},
        "spec": {"schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1, "jobTemplate": {
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}},
        "status": status,
    });
    json_patch::merge(&mut value["spec"], &spec);
    serde_json::from_value(value).unwrap()
}

/// A Job from `NAME (Complete|Failed|active) [ENDED]`.
fn job_of(text: &str) -> Arc<Job> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut value = json!({"metadata": {"name": words[0], "namespace": "shop", "uid": words[0]}, "status": {
        "startTime": words.get(2).unwrap_or(&"2026-01-01T00:00:00Z")}});
    if words[1] != "active" {
        value["status"]["conditions"] = json!([{"type": words[1], "status": "True"}]);
    }
    if words[1] == "Complete" {
        value["status"]["completionTime"] = json!(words[2]);
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

fn active(names: &[&str]) -> Value {
    json!(names.iter().map(|n| json!({"kind": "Job", "name": n, "uid": n})).collect::<Vec<_>>())
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.events.iter().map(|(_, reason, _)| *reason).collect()
}

#[test]
fn a_job_starts_when_it_is_due_and_once() {
    let fresh = cron_job(json!({}), json!({}));
    let early = plan(&fresh, &[], at("2026-01-01T00:09:59Z"));
    assert_eq!((early.start, early.requeue), (None, Some(Duration::from_millis(1100))));
    let due = plan(&fresh, &[], at("2026-01-01T00:10:00Z"));
    assert_eq!(due.start, Some(at("2026-01-01T00:10:00Z")));
    assert_eq!(due.requeue, Some(Duration::from_millis(600_100)));
    let begun = cron_job(json!({}), json!({"lastScheduleTime": "2026-01-01T00:10:00Z"}));
    assert_eq!(plan(&begun, &[], at("2026-01-01T00:10:00Z")).start, None);
    assert_eq!(plan(&begun, &[], at("2026-01-01T00:20:07Z")).start, Some(at("2026-01-01T00:20:00Z")));
}

#[test]
fn of_many_missed_starts_only_the_latest_is_made_up_for() {
    let fresh = cron_job(json!({}), json!({}));
    let few = plan(&fresh, &[], at("2026-01-01T03:05:00Z"));
    assert_eq!((few.start, reasons(&few)), (Some(at("2026-01-01T03:00:00Z")), vec![]));
    let many = plan(&fresh, &[], at("2026-01-03T03:05:00Z"));
    assert_eq!((many.start, reasons(&many)), (Some(at("2026-01-03T03:00:00Z")), vec!["TooManyMissedTimes"]));
    // An uneven schedule: the estimate of missed times is rough, the latest one is not.
    let uneven = cron_job(json!({"schedule": "0,5 8 * * 1-5"}), json!({}));
    assert_eq!(plan(&uneven, &[], at("2026-01-05T07:00:00Z")).start, Some(at("2026-01-02T08:05:00Z")));
}

#[test]
fn a_start_may_be_too_late() {
    let strict = |seconds: i64| cron_job(json!({"startingDeadlineSeconds": seconds}), json!({}));
    assert_eq!(plan(&strict(60), &[], at("2026-01-01T00:10:40Z")).start, Some(at("2026-01-01T00:10:00Z")));
    assert_eq!(plan(&strict(30), &[], at("2026-01-01T00:10:40Z")).start, None);
    // A deadline bounds what is counted as missed.
    let many = plan(&strict(3600), &[], at("2026-01-03T03:05:00Z"));
    assert_eq!((many.start, reasons(&many)), (Some(at("2026-01-03T03:00:00Z")), vec![]));
}

#[test]
fn concurrency_policies() {
    let now = at("2026-01-01T00:20:00Z");
    let status = json!({"lastScheduleTime": "2026-01-01T00:10:00Z", "active": active(&["tidy-1"])});
    let jobs = [job_of("tidy-1 active")];
    let of = |policy: &str| plan(&cron_job(json!({"concurrencyPolicy": policy}), status.clone()), &jobs, now);
    let allowed = of("Allow");
    assert_eq!((allowed.start, allowed.delete.len()), (Some(now), 0));
    let forbidden = of("Forbid");
    assert_eq!((forbidden.start, reasons(&forbidden)), (None, vec!["JobAlreadyActive"]));
    let replaced = of("Replace");
    assert_eq!((replaced.start, replaced.delete[0].name.as_deref()), (Some(now), Some("tidy-1")));
    assert_eq!(replaced.status.active, None);
}

#[test]
fn nothing_starts_when_suspended_or_unreadable() {
    let now = at("2026-01-01T00:20:00Z");
    assert_eq!(plan(&cron_job(json!({"suspend": true}), json!({})), &[], now).start, None);
    let broken = plan(&cron_job(json!({"schedule": "often"}), json!({})), &[], now);
    assert_eq!((broken.start, reasons(&broken)), (None, vec!["UnparseableSchedule"]));
    let nowhere = plan(&cron_job(json!({"timeZone": "Mars/Base"}), json!({})), &[], now);
    assert_eq!((nowhere.start, reasons(&nowhere)), (None, vec!["UnknownTimeZone"]));
}

#[test]
fn the_status_follows_the_jobs() {
    let now = at("2026-01-01T00:11:00Z");
    let status = json!({"lastScheduleTime": "2026-01-01T00:10:00Z", "active": active(&["done", "gone", "runs"])});
    let jobs = [job_of("done Complete 2026-01-01T00:10:30Z"), job_of("runs active"), job_of("manual active")];
    let plan = plan(&cron_job(json!({}), status), &jobs, now);
    assert_eq!(reasons(&plan), ["SawCompletedJob", "UnexpectedJob", "MissingJob"]);
    let names: Vec<_> = plan.status.active.iter().flatten().filter_map(|a| a.name.as_deref()).collect();
    assert_eq!(names, ["runs"]);
    assert_eq!(plan.status.last_successful_time, Some(Time(at("2026-01-01T00:10:30Z"))));
}

#[test]
fn the_oldest_ended_jobs_go_beyond_the_limits() {
    let jobs: Vec<_> = [
        "g1 Complete 2026-01-01T00:01:00Z",
        "g3 Complete 2026-01-01T00:03:00Z",
        "g2 Complete 2026-01-01T00:02:00Z",
        "b1 Failed 2026-01-01T00:01:00Z",
        "b2 Failed 2026-01-01T00:02:00Z",
        "runs active",
    ]
    .iter()
    .map(|text| job_of(text))
    .collect();
    let cron_job = cron_job(json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}), json!({}));
    let deleted = plan(&cron_job, &jobs, at("2026-01-01T00:05:00Z")).delete;
    let names: Vec<_> = deleted.iter().filter_map(|d| d.name.as_deref()).collect();
    assert_eq!(names, ["g1", "g2", "b1", "b2"]);
}

#[test]
fn a_job_is_named_by_its_minute_and_knows_its_time() {
    let berlin = cron_job(json!({"timeZone": "Europe/Berlin", "schedule": "@daily"}), json!({}));
    let midnight = at("2026-01-01T23:00:00Z");
    assert_eq!(plan(&berlin, &[], midnight).start, Some(midnight));
    let job = job(&berlin, midnight);
    assert_eq!(job.metadata.name.as_deref(), Some("tidy-29455140"));
    let annotations = job.metadata.annotations.unwrap();
    assert_eq!((annotations[SCHEDULED].as_str(), annotations["c"].as_str()), ("2026-01-02T00:00:00+01:00", "d"));
    let utc = super::job(&cron_job(json!({}), json!({})), midnight);
    assert_eq!(utc.metadata.annotations.unwrap()[SCHEDULED], "2026-01-01T23:00:00Z");
}
