//! CronJob: starts Jobs at the times of a schedule.

pub mod plan;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    ownership::{controller_key, controller_of},
    queue::{Requeue, WorkQueue},
};
use k8s_openapi::api::{
    batch::v1::{CronJob, CronJobStatus, Job},
    core::v1::ObjectReference,
};
use kube::api::{DeleteParams, Preconditions};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SOURCE: &str = "cronjob-controller";

/// Queue of CronJobs, fed by the changes of them and of their Jobs.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = context.due.clone();
    let own = queue.clone();
    context.cron_jobs.on_change(move |old, new| {
        if let Some(cron_job) = new.or(old) {
            own.add(ObjectKey::of(cron_job.as_ref()));
        }
    });
    let own = queue.clone();
    context.jobs.on_change(move |old, new| {
        let owners = [old, new].into_iter().flatten().filter_map(|j| controller_key::<CronJob>(&j.metadata));
        owners.for_each(|key| own.add(key));
    });
    queue
}

/// Looks at every CronJob each time the clock is set, until `shutdown`.
pub async fn follow_clock(context: Arc<Context>, shutdown: CancellationToken) {
    let mut set = context.config.clock.was_set();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = set.changed() => if changed.is_err() { return },
        }
        context.cron_jobs.list().iter().for_each(|c| context.due.add(ObjectKey::of(c.as_ref())));
    }
}

/// One step of one CronJob.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(cron_job) = context.cron_jobs.get(&key) else { return Ok(None) };
    let uid = cron_job.metadata.uid.clone().unwrap_or_default();
    let mut jobs = context.jobs.in_namespace(&key.namespace);
    jobs.retain(|j| controller_of(&j.metadata).is_some_and(|o| o.uid == uid));
    let plan = plan::plan(&cron_job, &jobs, context.config.clock.now());
    for (warning, reason, message) in &plan.events {
        tell(context, &cron_job, *warning, reason, message.clone());
    }
    for job in &plan.delete {
        delete(context, &cron_job, &key, job).await?;
    }
    let mut status = plan.status;
    if let Some(scheduled) = plan.start {
        let body = plan::job(&cron_job, scheduled);
        match start(context, &cron_job, &body).await {
            Ok(job) => status = plan::started(status, &job, scheduled),
            Err(error) if error.is_namespace_terminating() => return Ok(None),
            Err(error) => {
                write(context, &key, &cron_job, status).await?;
                return Err(error);
            }
        }
    }
    write(context, &key, &cron_job, status).await?;
    Ok(plan.requeue)
}

fn tell(context: &Context, cron_job: &CronJob, warning: bool, reason: &'static str, message: String) {
    let kind = if warning { EventKind::Warning } else { EventKind::Normal };
    context.events.record(SOURCE, reference(cron_job), kind, reason, message);
}

async fn start(context: &Context, cron_job: &CronJob, body: &Job) -> Result<Arc<Job>, ControllerError> {
    let key = ObjectKey::of(body);
    match context.jobs.create(&key.namespace, body).await {
        Ok(job) => {
            tell(context, cron_job, false, "SuccessfulCreate", format!("Created job {}", key.name));
            Ok(job)
        }
        // Ours of the last time, when this program ended before the status was written.
        Err(error) if error.is_already_exists() => {
            let known = context.jobs.get(&key);
            let ours = |j: &Arc<Job>| {
                controller_of(&j.metadata).is_some_and(|o| Some(&o.uid) == cron_job.metadata.uid.as_ref())
            };
            known.filter(ours).ok_or(error)
        }
        Err(error) => {
            if !error.is_namespace_terminating() {
                let message = format!("Error creating job: {}", error.server_message());
                tell(context, cron_job, true, "FailedCreate", message);
            }
            Err(error)
        }
    }
}

async fn delete(
    context: &Context,
    cron_job: &CronJob,
    key: &ObjectKey,
    job: &ObjectReference,
) -> Result<(), ControllerError> {
    let name = job.name.clone().unwrap_or_default();
    let only = Preconditions { uid: job.uid.clone(), resource_version: None };
    let params = DeleteParams::background().preconditions(only);
    match context.jobs.delete(&ObjectKey::new(key.namespace.clone(), name.as_str()), &params).await {
        Ok(()) => {
            tell(context, cron_job, false, "SuccessfulDelete", format!("Deleted job {name}"));
            Ok(())
        }
        // Another Job has the name by now: ours is gone.
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) => {
            tell(context, cron_job, true, "FailedDelete", format!("Deleted job: {}", error.server_message()));
            Err(error)
        }
    }
}

async fn write(
    context: &Context,
    key: &ObjectKey,
    cron_job: &CronJob,
    status: CronJobStatus,
) -> Result<(), ControllerError> {
    if cron_job.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut updated = cron_job.clone();
    updated.status = Some(status);
    match context.cron_jobs.replace(Some("status"), key, &updated).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
