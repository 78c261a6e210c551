//! StatefulSet: pods with a name, a host name and claims of their own, one after the other.

pub mod claims;
pub mod plan;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    history::{self, History, POD_REVISION, Subject},
    informer::ObjectKey,
    ownership::{claim_all, pod_owners, selector, selects_all},
    pod::{Pod, orphan_index},
    queue::{Requeue, WorkQueue},
    replicaset::pod_from_template,
};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PodTemplateSpec};
use kube::{
    ResourceExt,
    api::{DeleteParams, Preconditions},
    core::{Selector, SelectorExt},
};
use plan::{POD_INDEX, POD_NAME, Plan, Reason, ordinal};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc};

const SOURCE: &str = "statefulset-controller";

/// Queue of StatefulSets, fed by the changes of them, of their pods, and of claims that go.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = pod_owners(&context.stateful_sets, &context.pods, |set, orphan| {
        ordinal(&set.name_any(), orphan.name()).is_some()
    });
    let (own, sets) = (queue.clone(), context.stateful_sets.clone());
    context.claims.on_change(move |old, new| {
        // A new pod may wait for an old claim to be gone.
        if let (Some(claim), None) = (old, new) {
            for set in sets.in_namespace(claim.metadata.namespace.as_deref().unwrap_or_default()) {
                own.add(ObjectKey::of(set.as_ref()));
            }
        }
    });
    queue
}

/// One step of one StatefulSet; the change it makes brings the next step.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(set) = context.stateful_sets.get(&key) else { return Ok(None) };
    let Some(spec) = &set.spec else { return Ok(None) };
    if selects_all(&spec.selector) || set.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let wanted = selector(&key, &spec.selector)?;
    let subject = Subject {
        owner: set.as_ref(),
        template: &spec.template,
        selector: &wanted,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
        hash_label: "controller.kubernetes.io/hash",
    };
    let history = match subject.record(context, async || history::live_uid::<StatefulSet>(context, &key).await).await {
        Err(error) if error.is_namespace_terminating() => return Ok(None),
        other => other?,
    };
    let pods = owned_pods(context, &set, &key, &wanted).await?;
    let plan = plan::plan(&set, &pods, &history.newest.name_any(), Timestamp::now());
    let done = apply(context, &set, &history, &pods, plan).await;
    let requeue = write_status(context, &key, &set, &history).await?;
    match done {
        Err(error) if error.is_namespace_terminating() => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(requeue),
    }
}

async fn owned_pods(
    context: &Context,
    set: &StatefulSet,
    key: &ObjectKey,
    wanted: &Selector,
) -> Result<Vec<Arc<Pod>>, ControllerError> {
    let mut candidates = context.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
    let orphans = context.pods.indexed(&orphan_index(&key.namespace));
    candidates.extend(orphans.into_iter().filter(|p| wanted.matches(&p.labels())));
    // Only a pod that could be one of the set is its business.
    candidates.retain(|p| ordinal(&key.name, p.name()).is_some());
    let live = async || history::live_uid::<StatefulSet>(context, key).await;
    claim_all(set, live, wanted, &context.pods, candidates).await
}

/// Name of the current revision: the newest one until there was another.
fn current_revision(set: &StatefulSet, history: &History) -> String {
    let told = set.status.as_ref().and_then(|s| s.current_revision.clone()).unwrap_or_default();
    let known = history.all.iter().any(|r| r.name_any() == told);
    if known { told } else { history.newest.name_any() }
}

async fn apply(
    context: &Context,
    set: &StatefulSet,
    history: &History,
    pods: &[Arc<Pod>],
    plan: Plan,
) -> Result<(), ControllerError> {
    let name = set.name_any();
    for pod in pods {
        if let Some(ordinal) = ordinal(&name, pod.name()) {
            keep_claims(context, set, pod, ordinal).await?;
        }
    }
    for pod in &plan.relabel {
        let index = ordinal(&name, pod.name()).unwrap_or(0).to_string();
        let patch = json!({"metadata": {"uid": pod.uid(), "labels": {POD_NAME: pod.name(), POD_INDEX: index}}});
        context.pods.patch(None, &ObjectKey::of(pod.as_ref()), patch).await?;
    }
    let current = current_revision(set, history);
    for (ordinal, wants_current) in plan.create {
        let newest = (history.newest.name_any(), set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default());
        let old = history.all.iter().find(|r| wants_current && r.name_any() == current);
        let (revision, template) = old.and_then(|r| Some((r.name_any(), history::template_of(r)?))).unwrap_or(newest);
        create(context, set, &template, &revision, ordinal).await?;
    }
    for (pod, reason) in plan.delete {
        delete(context, set, &pod, reason).await?;
    }
    Ok(())
}

/// Creates the claims that a waiting pod lacks, and gives those there are the owners that the
/// retention policy says.
async fn keep_claims(context: &Context, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), ControllerError> {
    for (_, wanted) in claims::wanted(set, ordinal) {
        let key = ObjectKey::of(&wanted);
        match context.claims.get(&key) {
            Some(claim) => {
                let Some(owners) = claims::owners(set, pod, &claim) else { continue };
                let owners = if owners.is_empty() { json!(null) } else { json!(owners) };
                let patch = json!({"metadata": {"uid": claim.metadata.uid,
                    "resourceVersion": claim.metadata.resource_version, "ownerReferences": owners}});
                match context.claims.patch(None, &key, patch).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
            None if pod.is_active() && pod.phase() == "Pending" => {
                create_claim(context, set, pod.name(), &wanted).await?;
            }
            None => {}
        }
    }
    Ok(())
}

async fn create_claim(
    context: &Context,
    set: &StatefulSet,
    pod: &str,
    claim: &k8s_openapi::api::core::v1::PersistentVolumeClaim,
) -> Result<(), ControllerError> {
    let key = ObjectKey::of(claim);
    match context.claims.create(&key.namespace, claim).await {
        Ok(_) => {
            let message = format!("create Claim {} Pod {pod} in StatefulSet {} success", key.name, set.name_any());
            context.events.record(SOURCE, reference(set), EventKind::Normal, "SuccessfulCreate", message);
            Ok(())
        }
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => {
            let name = set.name_any();
            let message = error.server_message();
            let message =
                format!("create Claim {} for Pod {pod} in StatefulSet {name} failed error: {message}", key.name);
            context.events.record(SOURCE, reference(set), EventKind::Warning, "FailedCreate", message);
            Err(error)
        }
    }
}

async fn create(
    context: &Context,
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Result<(), ControllerError> {
    let name = format!("{}-{ordinal}", set.name_any());
    for (_, wanted) in claims::wanted(set, ordinal) {
        match context.claims.get(&ObjectKey::of(&wanted)) {
            // Its going brings this set back.
            Some(claim) if claims::is_stale(&claim, &name, None) => return Ok(()),
            Some(_) => {}
            None => create_claim(context, set, &name, &wanted).await?,
        }
    }
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    match context.pods.create(namespace, &pod_body(set, template, revision, ordinal)).await {
        Ok(_) => {
            let message = format!("create Pod {name} in StatefulSet {} successful", set.name_any());
            context.events.record(SOURCE, reference(set), EventKind::Normal, "SuccessfulCreate", message);
            Ok(())
        }
        Err(error) => {
            if !error.is_namespace_terminating() {
                let message = error.server_message();
                let message = format!("create Pod {name} in StatefulSet {} failed error: {message}", set.name_any());
                context.events.record(SOURCE, reference(set), EventKind::Warning, "FailedCreate", message);
            }
            Err(error)
        }
    }
}

async fn delete(context: &Context, set: &StatefulSet, pod: &Pod, reason: Reason) -> Result<(), ControllerError> {
    let (name, set_name) = (pod.name(), set.name_any());
    if reason == Reason::Ended {
        let failed = pod.phase() == "Failed";
        let why = if failed { "RecreatingFailedPod" } else { "RecreatingTerminatedPod" };
        let how = if failed { "failed" } else { "terminated" };
        let message = format!("StatefulSet {}/{set_name} is recreating {how} Pod {name}", pod.namespace());
        context.events.record(SOURCE, reference(set), EventKind::Warning, why, message);
    }
    let only = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    match context.pods.delete(&ObjectKey::of(pod), &DeleteParams::default().preconditions(only)).await {
        Ok(()) => {
            let message = format!("delete Pod {name} in StatefulSet {set_name} successful");
            context.events.record(SOURCE, reference(set), EventKind::Normal, "SuccessfulDelete", message);
            Ok(())
        }
        // Another pod has the name by now: ours is gone.
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) => {
            let message = error.server_message();
            let message = format!("delete Pod {name} in StatefulSet {set_name} failed error: {message}");
            context.events.record(SOURCE, reference(set), EventKind::Warning, "FailedDelete", message);
            Err(error)
        }
    }
}

/// The body of a pod: its name is its host name, its claims are volumes called like their templates.
fn pod_body(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Value {
    let mut body = pod_from_template(set, template);
    let name = format!("{}-{ordinal}", set.name_any());
    body["metadata"]["name"] = json!(name);
    body["metadata"]["labels"][POD_NAME] = json!(name);
    body["metadata"]["labels"][POD_INDEX] = json!(ordinal.to_string());
    body["metadata"]["labels"][POD_REVISION] = json!(revision);
    body["spec"]["hostname"] = json!(name);
    if let Some(service) = set.spec.as_ref().and_then(|s| s.service_name.as_ref()).filter(|s| !s.is_empty()) {
        body["spec"]["subdomain"] = json!(service);
    }
    let wanted = claims::wanted(set, ordinal);
    let mut volumes: Vec<Value> = wanted
        .iter()
        .map(|(volume, claim)| json!({"name": volume, "persistentVolumeClaim": {"claimName": claim.metadata.name}}))
        .collect();
    let others = body["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.extend(others.into_iter().filter(|v| wanted.iter().all(|(name, _)| v["name"] != name.as_str())));
    if !volumes.is_empty() {
        body["spec"]["volumes"] = json!(volumes);
    }
    body
}

async fn write_status(
    context: &Context,
    key: &ObjectKey,
    set: &StatefulSet,
    history: &History,
) -> Result<Requeue, ControllerError> {
    // The store has taken what was just created and deleted.
    let mut pods = context.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
    pods.retain(|p| ordinal(&key.name, p.name()).is_some());
    let (current, update) = (current_revision(set, history), history.newest.name_any());
    let (status, wait) = plan::status(set, &pods, (&current, &update), history.collisions, Timestamp::now());
    let mut live: HashSet<String> = pods.iter().map(|p| history::revision_of(p).to_owned()).collect();
    live.extend([current, update]);
    if set.status.as_ref() != Some(&status) {
        let mut updated = set.clone();
        updated.status = Some(status);
        match context.stateful_sets.replace(Some("status"), key, &updated).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
    }
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
    history::truncate(context, &history.all, &live, limit).await?;
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_its_name_host_name_and_claims() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "u"},
            "spec": {"serviceName": "dbs", "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {
                    "containers": [{"name": "c"}],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]},
        }))
        .unwrap();
        let template = set.spec.as_ref().unwrap().template.clone();
        let body = pod_body(&set, &template, "db-abc", 4);
        assert_eq!((&body["metadata"]["name"], &body["spec"]["hostname"]), (&json!("db-4"), &json!("db-4")));
        assert_eq!(body["spec"]["subdomain"], "dbs");
        let labels = json!({"app": "db", POD_NAME: "db-4", POD_INDEX: "4", POD_REVISION: "db-abc"});
        assert_eq!(body["metadata"]["labels"], labels);
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-4"}},
            {"name": "tmp", "emptyDir": {}}]);
        assert_eq!(body["spec"]["volumes"], volumes);
    }
}
