//! What a CronJob does next, from its spec, its status, its Jobs and the time alone.

use crate::{events::reference, job::plan::has, ownership::controlled_by};
use aksim_model::cron::CronSchedule;
use jiff::{SignedDuration, Timestamp, Zoned, fmt::strtime, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use std::{cmp::Reverse, sync::Arc, time::Duration};

/// Annotation of a Job with the time it was scheduled for, on the clocks of the CronJob's zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed starts than this are told about.
const MANY: i64 = 100;
/// Looked at this much after a start is due, so that it is due on every clock.
const AFTER_DUE: Duration = Duration::from_millis(100);

/// Something to record: `(warning, reason, message)`.
pub type Told = (bool, &'static str, String);

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Status to write before a new Job is started.
    pub status: CronJobStatus,
    /// Jobs to delete: ended ones beyond the history limits, and active ones that are replaced.
    pub delete: Vec<ObjectReference>,
    /// The time for which a Job is to be started now.
    pub start: Option<Timestamp>,
    /// What to record.
    pub events: Vec<Told>,
    /// When to look again though nothing changed.
    pub requeue: Option<Duration>,
}

fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(super::super::job::plan::is_finished)
}

fn succeeded(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| has(s, "Complete"))
}

/// Plans the next step. `jobs` are the CronJob's own.
pub fn plan(cron_job: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron_job.status.clone().unwrap_or_default(), ..Plan::default() };
    observe(&mut plan, jobs);
    prune(&mut plan, cron_job, jobs);
    if cron_job.metadata.deletion_timestamp.is_none() {
        schedule(&mut plan, cron_job, now);
    }
    plan
}

/// Brings the list of active Jobs and the time of the last success up to date.
fn observe(plan: &mut Plan, jobs: &[Arc<Job>]) {
    let uid = |job: &Job| job.metadata.uid.clone().unwrap_or_default();
    let name = |job: &Job| job.metadata.name.clone().unwrap_or_default();
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let listed = active.iter().any(|a| a.uid.as_deref() == Some(&uid(job)));
        match (listed, is_finished(job)) {
            (false, false) => {
                let message = format!("Saw a job that the controller did not create or forgot: {}", name(job));
                plan.events.push((true, "UnexpectedJob", message));
            }
            (true, true) => {
                let how = if succeeded(job) { "Complete" } else { "Failed" };
                active.retain(|a| a.uid.as_deref() != Some(&uid(job)));
                let message = format!("Saw completed job: {}, condition: {how}", name(job));
                plan.events.push((false, "SawCompletedJob", message));
            }
            _ => {}
        }
        if succeeded(job) {
            let ended = job.status.as_ref().and_then(|s| s.completion_time.clone());
            let last = &mut plan.status.last_successful_time;
            if ended.as_ref().map(|t| t.0) > last.as_ref().map(|t| t.0) {
                *last = ended;
            }
        }
    }
    active.retain(|reference| {
        let there = jobs.iter().any(|j| j.metadata.uid == reference.uid);
        if !there {
            let message = format!("Active job went missing: {}", reference.name.as_deref().unwrap_or_default());
            plan.events.push((false, "MissingJob", message));
        }
        there
    });
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// Ended Jobs beyond the history limits, oldest first.
fn prune(plan: &mut Plan, cron_job: &CronJob, jobs: &[Arc<Job>]) {
    let spec = &cron_job.spec;
    let started = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let (good, bad): (Vec<_>, Vec<_>) = jobs.iter().filter(|j| is_finished(j)).partition(|j| succeeded(j));
    for (mut ended, limit) in [(good, spec.successful_jobs_history_limit), (bad, spec.failed_jobs_history_limit)] {
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { continue };
        ended.sort_by_key(|j| Reverse((started(j), j.metadata.name.clone())));
        let surplus = ended.into_iter().skip(limit).filter(|j| j.metadata.deletion_timestamp.is_none());
        plan.delete.extend(surplus.rev().map(|j| reference(j.as_ref())));
    }
}

/// Decides whether a Job starts now.
fn schedule(plan: &mut Plan, cron_job: &CronJob, now: Timestamp) {
    let spec = &cron_job.spec;
    let warn = |reason, message| (true, reason, message);
    let zone = match zone(cron_job) {
        Ok(zone) => zone,
        Err(message) => return plan.events.push(warn("UnknownTimeZone", message)),
    };
    if spec.suspend == Some(true) {
        return;
    }
    let schedule = match CronSchedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
            return plan.events.push(warn("UnparseableSchedule", message));
        }
    };
    let next = schedule.next(now, &zone).map(|next| wait(next, now));
    plan.requeue = next;
    let Some((due, missed)) = due(cron_job, &schedule, &zone, now) else { return };
    if missed > MANY {
        let message = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        plan.events.push(warn("TooManyMissedTimes", message));
    }
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if deadline.is_some_and(|d| due.saturating_add(d).unwrap_or(Timestamp::MAX) < now) {
        let shown = strtime::format("%a, %d %b %Y %H:%M:%S %z", &due.to_zoned(zone)).unwrap_or_default();
        return plan.events.push(warn("MissSchedule", format!("Missed scheduled time to start a job: {shown}")));
    }
    let active = plan.status.active.clone().unwrap_or_default();
    let name = job_name(cron_job, due);
    let started = plan.status.last_schedule_time.as_ref().is_some_and(|t| t.0 == due)
        || active.iter().any(|a| a.name.as_ref() == Some(&name));
    if started {
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.events.push((false, "JobAlreadyActive", message.into()));
        }
        Some("Replace") => {
            plan.delete.extend(active);
            plan.status.active = None;
        }
        _ => {}
    }
    plan.start = Some(due);
}

fn wait(next: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(next.duration_since(now)).unwrap_or_default() + AFTER_DUE
}

/// The time zone of a CronJob; UTC when it names none, as on a control plane of AKS.
///
/// # Errors
/// The zone is not known; the text says which.
pub fn zone(cron_job: &CronJob) -> Result<TimeZone, String> {
    match cron_job.spec.time_zone.as_deref() {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name).map_err(|error| format!("invalid timeZone: {name:?}: {error}")),
    }
}

/// The latest time at which a Job was due and not started, and about how many times were missed.
fn due(cron_job: &CronJob, schedule: &CronSchedule, zone: &TimeZone, now: Timestamp) -> Option<(Timestamp, i64)> {
    let created = cron_job.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let last = cron_job.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    let mut earliest = last.or(created)?;
    if let Some(deadline) = cron_job.spec.starting_deadline_seconds {
        // Times that are too late anyway do not count.
        let bound = now.saturating_sub(SignedDuration::from_secs(deadline)).unwrap_or(Timestamp::MIN);
        earliest = earliest.max(bound);
    }
    let first = schedule.next(earliest, zone).filter(|t| *t <= now)?;
    let Some(second) = schedule.next(first, zone).filter(|t| *t <= now) else { return Some((first, 1)) };
    let between = (second.as_second() - first.as_second()).max(1);
    let missed = (now.as_second() - first.as_second()) / between + 1;
    let latest = match schedule {
        CronSchedule::Every(_) => first + SignedDuration::from_secs(between * (missed - 1)),
        CronSchedule::Fields(_) => latest(schedule, zone, (first, now), between),
    };
    Some((latest, missed))
}

/// The last time after `first` up to `now`, looked for from ever further back: a schedule of every
/// minute may have missed millions, and an uneven one has gaps of any length.
fn latest(schedule: &CronSchedule, zone: &TimeZone, (first, now): (Timestamp, Timestamp), between: i64) -> Timestamp {
    let mut back = between;
    loop {
        back = back.saturating_mul(2);
        let from = now.saturating_sub(SignedDuration::from_secs(back)).unwrap_or(Timestamp::MIN).max(first);
        let times = std::iter::successors(schedule.next(from, zone), |t| schedule.next(*t, zone));
        match times.take_while(|t| *t <= now).last() {
            Some(latest) => return latest,
            None if from == first => return first,
            None => {}
        }
    }
}

/// `NAME-MINUTE`: the same time gives the same name, so that no Job starts twice.
pub fn job_name(cron_job: &CronJob, scheduled: Timestamp) -> String {
    format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or_default(), scheduled.as_second().div_euclid(60))
}

/// The Job for a scheduled time.
pub fn job(cron_job: &CronJob, scheduled: Timestamp) -> Job {
    let template = cron_job.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local: Zoned = scheduled.to_zoned(zone(cron_job).unwrap_or(TimeZone::UTC));
    let shown = if local.offset().is_zero() {
        strtime::format("%Y-%m-%dT%H:%M:%SZ", &local)
    } else {
        strtime::format("%Y-%m-%dT%H:%M:%S%:z", &local)
    };
    annotations.insert(SCHEDULED.into(), shown.unwrap_or_default());
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron_job, scheduled)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controlled_by(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The status after a Job was started, now or before (then it may have ended already).
pub fn started(mut status: CronJobStatus, job: &Job, scheduled: Timestamp) -> CronJobStatus {
    let listed = status.active.iter().flatten().any(|a| a.uid == job.metadata.uid);
    if !listed && !is_finished(job) {
        status.active.get_or_insert_default().push(reference(job));
    }
    status.last_schedule_time = Some(Time(scheduled));
    status
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
