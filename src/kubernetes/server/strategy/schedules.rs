//! CronJobs: schedule, time zone, policies, and the Job to run.

use super::{Change, metadata, pods, rollouts};
use crate::request::status::Cause;
use aksim_model::cron::CronSchedule;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Eleven characters are added to make the name of a Job, which is a label.
const LONGEST_NAME: usize = 52;

/// A CronJob has a schedule that can be read, and a Job that can be run.
pub fn validate(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let name = &value["metadata"]["name"];
    if change.old.is_none() && name.as_str().is_some_and(|n| n.len() > LONGEST_NAME) {
        causes.push(Cause::invalid("metadata.name", name, "must be no more than 52 characters"));
    }
    // What was there before and is not touched stays, also when it would be refused today.
    let same = |field: &str| change.old.is_some_and(|old| old["spec"][field] == value["spec"][field]);
    if !same("schedule") {
        validate_schedule(&value["spec"]["schedule"], causes);
    }
    if !same("timeZone") {
        validate_zone(&value["spec"]["timeZone"], causes);
    }
    rollouts::one_of(value, "/spec/concurrencyPolicy", &["Allow", "Forbid", "Replace"], causes);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        rollouts::not_negative(value, &format!("/spec/{field}"), causes);
    }
    let template = &value["spec"]["jobTemplate"]["spec"]["template"];
    metadata::validate_labels(
        "spec.jobTemplate.metadata.labels",
        &value["spec"]["jobTemplate"]["metadata"]["labels"],
        causes,
    );
    pods::validate_spec("spec.jobTemplate.spec.template.spec", &template["spec"], causes);
    let policy = &template["spec"]["restartPolicy"];
    if matches!(policy.as_str(), None | Some("Always")) {
        let field = "spec.jobTemplate.spec.template.spec.restartPolicy";
        causes.push(Cause {
            message: "Required value: valid values: \"OnFailure\", \"Never\"".into(),
            ..Cause::required(field, "")
        });
    }
}

fn validate_schedule(schedule: &Value, causes: &mut Vec<Cause>) {
    let text = schedule.as_str().unwrap_or_default();
    if text.is_empty() {
        return causes.push(Cause::required("spec.schedule", ""));
    }
    if text.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        return causes.push(Cause::invalid("spec.schedule", schedule, detail));
    }
    if let Err(error) = CronSchedule::parse(text) {
        causes.push(Cause::invalid("spec.schedule", schedule, &error.to_string()));
    }
}

fn validate_zone(zone: &Value, causes: &mut Vec<Cause>) {
    let Some(name) = zone.as_str() else { return };
    let detail = if name.is_empty() {
        "timeZone must be nil or non-empty string".to_owned()
    } else if name.eq_ignore_ascii_case("local") {
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
    } else if TimeZone::get(name).is_err() {
        format!("unknown time zone {name}")
    } else {
        return;
    };
    causes.push(Cause::invalid("spec.timeZone", zone, &detail));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schedules_and_zones_are_read_before_they_are_kept() {
        let of = |schedule: Value, zone: Value| {
            let mut causes = Vec::new();
            validate_schedule(&schedule, &mut causes);
            validate_zone(&zone, &mut causes);
            causes.into_iter().map(|cause| cause.message).collect::<Vec<_>>()
        };
        assert!(of(json!("*/5 * * * *"), json!("Europe/Berlin")).is_empty());
        assert_eq!(
            of(json!("every minute"), json!("Mars/Base")),
            [
                "Invalid value: \"every minute\": expected exactly 5 fields, found 2: [every minute]",
                "Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
            ]
        );
        assert_eq!(of(json!(null), json!("Local")).len(), 2);
        assert!(of(json!("TZ=UTC 0 0 * * *"), json!(null))[0].contains("use timeZone field instead"));
    }
}
