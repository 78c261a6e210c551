//! What a Job does next, from its spec, its status and its pods alone.
//!
//! A pod that has ended counts once: its uid goes to `uncountedTerminatedPods`, then its finalizer
//! is taken off, and only then does the uid become a number. So nothing is counted twice or lost,
//! however often pods are deleted or this program is killed in between.

use super::indexes;
use crate::pod::{COMPLETION_INDEX, Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods},
    apimachinery::pkg::apis::meta::v1::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Finalizer that keeps an ended pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Delay after the first failure; doubled with each that follows.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
/// Longest delay.
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Status to write before finalizers are removed.
    pub status: JobStatus,
    /// Pods to create; with an index for indexed Jobs.
    pub create: Vec<Option<i32>>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that are counted (in `status`) and lose their finalizer.
    pub release: Vec<Arc<Pod>>,
    /// `(warning, reason, message)` to record.
    pub events: Vec<(bool, &'static str, String)>,
    /// When to look again though nothing changed.
    pub requeue: Option<Duration>,
}

/// Whether a condition is true.
pub fn has(status: &JobStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == type_ && c.status == "True")
}

/// Whether the Job has ended.
pub fn is_finished(status: &JobStatus) -> bool {
    has(status, "Complete") || has(status, "Failed")
}

fn tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotation(COMPLETION_INDEX)?.parse().ok()
}

struct Planner<'a> {
    job: &'a Job,
    spec: JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    plan: Plan,
    /// Indexes done, for indexed Jobs.
    done: BTreeSet<i32>,
}

/// Plans the next step.
pub fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let done = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), spec.completions.unwrap_or(0));
    let mut planner = Planner { job, spec, pods, now, plan: Plan { status, ..Plan::default() }, done };
    planner.count();
    planner.judge();
    planner.manage();
    planner.finish();
    planner.plan
}

impl Planner<'_> {
    fn indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|p| p.is_active()).cloned().collect()
    }

    /// A pod that is being deleted has failed, unless only ended pods are replaced.
    fn has_failed(&self, pod: &Pod) -> bool {
        let waits = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        pod.phase() == "Failed" || (pod.is_terminating() && pod.phase() != "Succeeded" && !waits)
    }

    /// Moves pods through `uncountedTerminatedPods` into the counters.
    fn count(&mut self) {
        let uncounted = self.plan.status.uncounted_terminated_pods.take().unwrap_or_default();
        let by_uid: BTreeMap<&str, &Arc<Pod>> = self.pods.iter().map(|p| (p.uid(), p)).collect();
        let held = |uid: &String| by_uid.get(uid.as_str()).is_some_and(|p| tracked(p));
        let (mut succeeded, settled): (Vec<_>, Vec<_>) =
            uncounted.succeeded.unwrap_or_default().into_iter().partition(held);
        let (mut failed, lost): (Vec<_>, Vec<_>) = uncounted.failed.unwrap_or_default().into_iter().partition(held);
        let add = |counter: Option<i32>, n: usize| Some(counter.unwrap_or(0) + n as i32).filter(|c| *c > 0);
        if !self.indexed() {
            self.plan.status.succeeded = add(self.plan.status.succeeded, settled.len());
        }
        self.plan.status.failed = add(self.plan.status.failed, lost.len());
        for pod in self.pods.iter().filter(|p| tracked(p)) {
            let uid = pod.uid().to_owned();
            let known = succeeded.contains(&uid) || failed.contains(&uid);
            if pod.phase() == "Succeeded" {
                if self.indexed() {
                    let below = self.spec.completions.unwrap_or(0);
                    self.done.extend(index_of(pod).filter(|i| (0..below).contains(i)));
                }
                if !known {
                    succeeded.push(uid);
                }
                self.plan.release.push(pod.clone());
            } else if self.has_failed(pod) {
                if !known {
                    failed.push(uid);
                }
                self.plan.release.push(pod.clone());
            }
        }
        if self.indexed() {
            self.plan.status.completed_indexes = Some(indexes::format(&self.done)).filter(|t| !t.is_empty());
            self.plan.status.succeeded = Some(self.done.len() as i32).filter(|n| *n > 0);
        }
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        self.plan.status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: some(succeeded), failed: some(failed) });
    }

    fn uncounted(&self, which: fn(&UncountedTerminatedPods) -> &Option<Vec<String>>) -> i32 {
        let uncounted = self.plan.status.uncounted_terminated_pods.as_ref();
        uncounted.and_then(|u| which(u).as_ref()).map_or(0, |list| list.len() as i32)
    }

    fn succeeded(&self) -> i32 {
        let counted = self.plan.status.succeeded.unwrap_or(0);
        if self.indexed() { counted } else { counted + self.uncounted(|u| &u.succeeded) }
    }

    fn failed(&self) -> i32 {
        self.plan.status.failed.unwrap_or(0) + self.uncounted(|u| &u.failed)
    }

    fn set(&mut self, type_: &str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let conditions = self.plan.status.conditions.get_or_insert_default();
        if conditions.iter().any(|c| c.type_ == type_ && c.status == status) {
            return;
        }
        conditions.retain(|c| c.type_ != type_);
        conditions.push(JobCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        });
    }

    fn started(&self) -> Option<Timestamp> {
        self.plan.status.start_time.as_ref().map(|t| t.0)
    }

    /// Whether the Job is suspended, has met its goal, or has failed.
    fn judge(&mut self) {
        if is_finished(&self.plan.status) || has(&self.plan.status, "FailureTarget") {
            return;
        }
        let suspended = self.spec.suspend == Some(true);
        if suspended && !has(&self.plan.status, "SuccessCriteriaMet") {
            if !has(&self.plan.status, "Suspended") {
                self.plan.events.push((false, "Suspended", "Job suspended".into()));
            }
            self.set("Suspended", true, "JobSuspended", "Job suspended");
            self.plan.status.start_time = None;
            return;
        }
        if has(&self.plan.status, "Suspended") {
            self.set("Suspended", false, "JobResumed", "Job resumed");
            self.plan.events.push((false, "Resumed", "Job resumed".into()));
        }
        let now = self.now;
        self.plan.status.start_time.get_or_insert(Time(now));
        if let Some((reason, message)) = self.failure() {
            return self.set("FailureTarget", true, reason, &message);
        }
        let reached = match self.spec.completions {
            Some(completions) => self.succeeded() >= completions,
            None => self.succeeded() > 0 && self.active().is_empty(),
        };
        if reached {
            self.set("SuccessCriteriaMet", true, "CompletionsReached", "Reached expected number of succeeded pods");
        }
    }

    fn failure(&mut self) -> Option<(&'static str, String)> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts: i32 = match self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
            Some("OnFailure") => self.active().iter().map(|p| p.restarts()).sum(),
            _ => 0,
        };
        if self.failed() > limit || (restarts > 0 && restarts >= limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
        }
        let deadline = SignedDuration::from_secs(self.spec.active_deadline_seconds?);
        let left = deadline - self.now.duration_since(self.started()?);
        if !left.is_positive() {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
        }
        self.requeue_in(Duration::try_from(left).unwrap_or_default());
        None
    }

    fn requeue_in(&mut self, wait: Duration) {
        self.plan.requeue = Some(self.plan.requeue.map_or(wait, |r| r.min(wait)));
    }

    /// Pods to create and to delete.
    fn manage(&mut self) {
        let active = self.active();
        let over = ["FailureTarget", "SuccessCriteriaMet", "Suspended", "Complete", "Failed"];
        if over.iter().any(|c| has(&self.plan.status, c)) || self.job.metadata.deletion_timestamp.is_some() {
            self.plan.delete = active;
            return;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.spec.completions {
            None if self.succeeded() > 0 => parallelism.min(active.len() as i32),
            None => parallelism,
            Some(completions) => parallelism.min((completions - self.succeeded()).max(0)),
        } as usize;
        let (keep, surplus) = self.split_by_index(active);
        self.plan.delete = surplus;
        if keep.len() > wanted {
            let mut ranked = keep;
            ranked.sort_by_key(|p| (p.node().is_some(), p.is_ready(), std::cmp::Reverse(p.created())));
            let surplus = ranked.len() - wanted;
            self.plan.delete.extend(ranked.into_iter().take(surplus));
            return;
        }
        let mut missing = wanted - keep.len();
        if self.spec.pod_replacement_policy.as_deref() == Some("Failed") {
            let leaving = self.pods.iter().filter(|p| p.is_terminating() && !p.is_finished()).count();
            missing = missing.saturating_sub(leaving);
        }
        if missing == 0 {
            return;
        }
        let wait = self.backoff();
        if !wait.is_zero() {
            return self.requeue_in(wait);
        }
        self.plan.create = if self.indexed() {
            let taken: BTreeSet<i32> = keep.iter().filter_map(|p| index_of(p)).collect();
            let free = (0..self.spec.completions.unwrap_or(0)).filter(|i| !self.done.contains(i) && !taken.contains(i));
            free.take(missing).map(Some).collect()
        } else {
            vec![None; missing]
        };
    }

    /// For indexed Jobs, one pod an index that is not done stays; the others are surplus.
    fn split_by_index(&self, active: Vec<Arc<Pod>>) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        if !self.indexed() {
            return (active, Vec::new());
        }
        let mut taken = self.done.clone();
        let mut sorted = active;
        sorted.sort_by_key(|p| (std::cmp::Reverse(p.is_ready()), p.created()));
        let below = self.spec.completions.unwrap_or(0);
        sorted.into_iter().partition(|p| index_of(p).is_some_and(|i| (0..below).contains(&i) && taken.insert(i)))
    }

    /// How long to wait after failures in a row.
    fn backoff(&self) -> Duration {
        let ended = |pod: &Pod| {
            let times =
                pod.status.container_statuses.iter().filter_map(|c| c.state.terminated.as_ref()?.finished_at.as_ref());
            times.map(|t| t.0).max().or(pod.metadata.deletion_timestamp.as_ref().map(|t| t.0))
        };
        let last_success = self.pods.iter().filter(|p| p.phase() == "Succeeded").filter_map(|p| ended(p)).max();
        let failures: Vec<Timestamp> = self
            .pods
            .iter()
            .filter(|p| p.phase() == "Failed")
            .filter_map(|p| ended(p).or_else(|| p.created()))
            .filter(|at| last_success.is_none_or(|s| *at > s))
            .collect();
        let Some(last) = failures.iter().max() else { return Duration::ZERO };
        let delay = FIRST_BACKOFF.saturating_mul(1 << (failures.len() - 1).min(10)).min(LONGEST_BACKOFF);
        let since = Duration::try_from(self.now.duration_since(*last)).unwrap_or_default();
        delay.saturating_sub(since)
    }

    /// Counters of what runs, and the end once nothing does.
    fn finish(&mut self) {
        let active = self.active();
        let leaving = self.pods.iter().filter(|p| p.is_terminating() && !p.is_finished()).count() as i32;
        let status = &mut self.plan.status;
        status.active = Some(active.len() as i32).filter(|n| *n > 0);
        status.ready = Some(active.iter().filter(|p| p.is_ready()).count() as i32);
        status.terminating = Some(leaving);
        if is_finished(&self.plan.status) {
            return;
        }
        let quiet =
            active.is_empty() && leaving == 0 && self.uncounted(|u| &u.succeeded) + self.uncounted(|u| &u.failed) == 0;
        if !quiet {
            return;
        }
        let reason = |status: &JobStatus, type_: &str| {
            let found = status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True").cloned();
            found.map(|c| (c.reason.unwrap_or_default(), c.message.unwrap_or_default()))
        };
        if let Some((why, message)) = reason(&self.plan.status, "FailureTarget") {
            self.set("Failed", true, &why, &message);
            let known = if why == "DeadlineExceeded" { "DeadlineExceeded" } else { "BackoffLimitExceeded" };
            self.plan.events.push((true, known, message));
        } else if let Some((why, message)) = reason(&self.plan.status, "SuccessCriteriaMet") {
            self.set("Complete", true, &why, &message);
            self.plan.status.completion_time = Some(Time(self.now));
            self.plan.events.push((false, "Completed", "Job completed".into()));
        }
    }
}

/// When an ended Job is deleted by `ttlSecondsAfterFinished`; zero is now.
pub fn expires_in(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let ended = job.status.as_ref()?.conditions.iter().flatten();
    let ended = ended.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let ended = ended.filter_map(|c| c.last_transition_time.as_ref()).map(|t| t.0).max()?;
    let due = ended.saturating_add(SignedDuration::from_secs(i64::from(ttl))).unwrap_or(Timestamp::MAX);
    Some(Duration::try_from(due.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
