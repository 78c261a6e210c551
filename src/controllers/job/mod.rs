//! Job: runs pods until enough have succeeded.
//!
//! Not done, and said by an event on the Job: `podFailurePolicy`, `successPolicy`,
//! `backoffLimitPerIndex`.

pub mod indexes;
pub mod plan;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    ownership::{claim_all, controller_key, selector},
    pod::{COMPLETION_INDEX, Pod, orphan_index},
    queue::{Requeue, WorkQueue},
    replicaset::{create_from, delete_all, pod_from_template},
};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    api::{Api, DeleteParams, Preconditions},
    core::SelectorExt,
};
use plan::{FINALIZER, Plan};
use serde_json::{Value, json};
use std::sync::Arc;

const SOURCE: &str = "job-controller";
/// The controller that a Job without `spec.managedBy` belongs to.
const MANAGER: &str = "kubernetes.io/job-controller";

/// Queue of Jobs, fed by the changes of them and of their pods.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.jobs.on_change(move |old, new| {
        if let Some(job) = new.or(old) {
            own.add(ObjectKey::of(job.as_ref()));
        }
    });
    let own = queue.clone();
    context.pods.on_change(move |old, new| {
        let owners = [old, new].into_iter().flatten().filter_map(|p| controller_key::<Job>(&p.metadata));
        owners.for_each(|key| own.add(key));
    });
    queue
}

/// One step of one Job.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(job) = context.jobs.get(&key) else { return release_orphans(context, &key).await };
    let Some(spec) = &job.spec else { return Ok(None) };
    if spec.managed_by.as_deref().is_some_and(|m| m != MANAGER) {
        return Ok(None);
    }
    let now = Timestamp::now();
    if let Some(wait) = plan::expires_in(&job, now) {
        return expire(context, &key, &job, wait).await;
    }
    warn_of_gaps(context, &job);
    let pods = owned_pods(context, &job, &key).await?;
    let plan = plan::plan(&job, &pods, now);
    let deleted = delete_all(context, job.as_ref(), SOURCE, &plan.delete).await;
    let bodies: Vec<Value> = plan.create.iter().map(|index| pod_body(&job, *index)).collect();
    let created = create_from(context, job.as_ref(), SOURCE, &bodies).await;
    let requeue = write(context, &key, &job, plan).await?;
    match deleted.and(created) {
        Err(error) if !error.is_namespace_terminating() => Err(error),
        _ => Ok(requeue),
    }
}

/// Writes the status, and only then takes the finalizers off the pods that it counts.
async fn write(context: &Context, key: &ObjectKey, job: &Job, plan: Plan) -> Result<Requeue, ControllerError> {
    if job.status.as_ref() != Some(&plan.status) {
        let mut updated = job.clone();
        updated.status = Some(plan.status);
        match context.jobs.replace(Some("status"), key, &updated).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
    }
    for (warning, reason, message) in plan.events {
        let kind = if warning { EventKind::Warning } else { EventKind::Normal };
        context.events.record(SOURCE, reference(job), kind, reason, message);
    }
    for pod in plan.release {
        release(context, &pod).await?;
    }
    Ok(plan.requeue)
}

async fn release(context: &Context, pod: &Pod) -> Result<(), ControllerError> {
    let kept: Vec<&String> = pod.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
    let kept = if kept.is_empty() { json!(null) } else { json!(kept) };
    let patch = json!({"metadata": {
        "uid": pod.uid(), "resourceVersion": pod.metadata.resource_version, "finalizers": kept,
    }});
    match context.pods.patch(None, &ObjectKey::of(pod), patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The Job is gone: nobody counts its pods any more.
async fn release_orphans(context: &Context, key: &ObjectKey) -> Result<Requeue, ControllerError> {
    for pod in context.pods.in_namespace(&key.namespace) {
        let tracked = pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        if tracked && controller_key::<Job>(&pod.metadata).as_ref() == Some(key) {
            release(context, &pod).await?;
        }
    }
    Ok(None)
}

async fn expire(
    context: &Context,
    key: &ObjectKey,
    job: &Job,
    wait: std::time::Duration,
) -> Result<Requeue, ControllerError> {
    if !wait.is_zero() {
        return Ok(Some(wait));
    }
    if job.metadata.deletion_timestamp.is_none() {
        let only =
            Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() };
        context.jobs.delete(key, &DeleteParams::foreground().preconditions(only)).await?;
    }
    Ok(None)
}

fn warn_of_gaps(context: &Context, job: &Job) {
    let Some(spec) = &job.spec else { return };
    let started = job.status.as_ref().is_some_and(|s| s.start_time.is_some());
    let gaps = [
        ("podFailurePolicy", spec.pod_failure_policy.is_some()),
        ("successPolicy", spec.success_policy.is_some()),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.is_some()),
    ];
    for (field, _) in gaps.into_iter().filter(|(_, used)| *used && !started) {
        let message = format!("spec.{field} is not emulated and has no effect");
        context.events.record(SOURCE, reference(job), EventKind::Warning, "NotEmulated", message);
    }
}

async fn owned_pods(context: &Context, job: &Arc<Job>, key: &ObjectKey) -> Result<Vec<Arc<Pod>>, ControllerError> {
    let mut candidates = context.pods.indexed(job.metadata.uid.as_deref().unwrap_or_default());
    let Some(labels) = job.spec.as_ref().and_then(|s| s.selector.as_ref()) else { return Ok(candidates) };
    let wanted = selector(key, labels)?;
    let orphans = context.pods.indexed(&orphan_index(&key.namespace));
    candidates.extend(orphans.into_iter().filter(|p| wanted.matches(&p.labels())));
    let live = async || {
        let api: Api<Job> = Api::namespaced(context.client.clone(), &key.namespace);
        let found = api.get_metadata_opt(&key.name).await.map_err(ControllerError::api(format!("get Job {key}")))?;
        Ok(found.and_then(|f| f.metadata.uid))
    };
    claim_all(job.as_ref(), live, &wanted, &context.pods, candidates).await
}

/// The body of a new pod; one of an indexed Job knows its index by annotation, label, host name
/// and environment.
fn pod_body(job: &Job, index: Option<i32>) -> Value {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut body = pod_from_template(job, &template);
    let (name, uid) =
        (job.metadata.name.as_deref().unwrap_or_default(), job.metadata.uid.as_deref().unwrap_or_default());
    for (label, value) in [
        ("job-name", name),
        ("controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
    ] {
        body["metadata"]["labels"][label] = json!(value);
    }
    match body["metadata"]["finalizers"].as_array_mut() {
        Some(finalizers) => finalizers.push(json!(FINALIZER)),
        None => body["metadata"]["finalizers"] = json!([FINALIZER]),
    }
    let Some(index) = index else { return body };
    body["metadata"]["generateName"] = json!(format!("{name}-{index}-"));
    body["metadata"]["annotations"][COMPLETION_INDEX] = json!(index.to_string());
    body["metadata"]["labels"][COMPLETION_INDEX] = json!(index.to_string());
    if body["spec"]["hostname"].as_str().is_none_or(str::is_empty) {
        body["spec"]["hostname"] = json!(format!("{name}-{index}"));
    }
    let path = format!("metadata.annotations['{COMPLETION_INDEX}']");
    let variable =
        json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    for list in ["containers", "initContainers"] {
        for container in body["spec"][list].as_array_mut().into_iter().flatten() {
            let has =
                container["env"].as_array().is_some_and(|e| e.iter().any(|v| v["name"] == "JOB_COMPLETION_INDEX"));
            match container["env"].as_array_mut() {
                _ if has => {}
                Some(env) => env.push(variable.clone()),
                None => container["env"] = json!([variable]),
            }
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_an_indexed_job_know_their_index() {
        let job: Job = serde_json::from_value(json!({"metadata": {"name": "pi", "uid": "u"}, "spec": {
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}}}))
        .unwrap();
        let body = pod_body(&job, Some(3));
        assert_eq!(body["metadata"]["generateName"], "pi-3-");
        assert_eq!(body["metadata"]["annotations"][COMPLETION_INDEX], "3");
        assert_eq!(body["metadata"]["labels"]["a"], "b");
        assert_eq!(body["spec"]["hostname"], "pi-3");
        assert_eq!(body["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
        assert_eq!(body["metadata"]["finalizers"], json!([FINALIZER]));
        assert!(pod_body(&job, None)["spec"]["hostname"].is_null());
    }
}
