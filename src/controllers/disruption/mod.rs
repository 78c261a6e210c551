//! PodDisruptionBudget: counts how many of the pods it covers may be evicted. The eviction itself,
//! which takes one from that number, is the API server's.

pub mod plan;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    ownership::{controller_of, selector},
    pod::Pod,
    queue::{Requeue, WorkQueue},
};
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::core::SelectorExt;
use plan::Scale;
use std::sync::Arc;

const SOURCE: &str = "controllermanager";

/// Queue of budgets, fed by the changes of them, of the pods they cover, and of their workloads.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.budgets.on_change(move |old, new| {
        if let Some(budget) = new.or(old) {
            own.add(ObjectKey::of(budget.as_ref()));
        }
    });
    let (own, budgets) = (queue.clone(), context.budgets.clone());
    context.pods.on_change(move |old, new| {
        let Some(namespace) = new.or(old).map(|p| p.namespace().to_owned()) else { return };
        for budget in budgets.in_namespace(&namespace) {
            if [old, new].into_iter().flatten().any(|pod| covers(&budget, pod)) {
                own.add(ObjectKey::of(budget.as_ref()));
            }
        }
    });
    // How many pods are expected changes with the workload, before any pod does.
    feed(&queue, context, &context.deployments, |d| d.spec.as_ref().and_then(|s| s.replicas));
    feed(&queue, context, &context.replica_sets, |s| s.spec.as_ref().and_then(|s| s.replicas));
    feed(&queue, context, &context.stateful_sets, |s| s.spec.as_ref().and_then(|s| s.replicas));
    queue
}

fn feed<K: super::informer::Cached>(
    queue: &WorkQueue<ObjectKey>,
    context: &Arc<Context>,
    workloads: &super::informer::Informer<K>,
    replicas: fn(&K) -> Option<i32>,
) {
    let (own, budgets) = (queue.clone(), context.budgets.clone());
    workloads.on_change(move |old, new| {
        let (Some(old), Some(new)) = (old, new) else { return };
        if replicas(old) != replicas(new) {
            let namespace = new.meta().namespace.as_deref().unwrap_or_default();
            budgets.in_namespace(namespace).iter().for_each(|b| own.add(ObjectKey::of(b.as_ref())));
        }
    });
}

/// Whether a budget is about a pod. An empty selector is about every pod, none about no pod.
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let wanted = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    wanted.is_some_and(|w| selector(&ObjectKey::of(budget), w).is_ok_and(|s| s.matches(&pod.labels())))
}

/// Brings the status of one budget up to date.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(budget) = context.budgets.get(&key) else { return Ok(None) };
    let mut pods = context.pods.in_namespace(&key.namespace);
    pods.retain(|p| covers(&budget, p));
    let now = Timestamp::now();
    if pods.is_empty() {
        context.events.record(
            SOURCE,
            reference(budget.as_ref()),
            EventKind::Normal,
            "NoPods",
            "No matching pods found",
        );
    }
    match plan::expected(&budget, &pods, |pod| scale(context, pod)) {
        Ok(expected) => {
            let (status, wait) = plan::status(&budget, &pods, expected, now);
            write(context, &key, &budget, status).await?;
            Ok(wait)
        }
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            let object = reference(budget.as_ref());
            context.events.record(SOURCE, object, EventKind::Warning, "CalculateExpectedPodCountFailed", message);
            write(context, &key, &budget, plan::failed(&budget, &why, now)).await?;
            Ok(None)
        }
    }
}

/// What the workload of a pod wants: that of its controller, or of the controller's own.
fn scale(context: &Context, pod: &Pod) -> Scale {
    let Some(owner) = controller_of(&pod.metadata) else { return Scale::Unmanaged };
    let key = ObjectKey::new(pod.namespace(), owner.name.as_str());
    let of =
        |uid: &Option<String>, replicas: Option<i32>| Scale::Of(uid.clone().unwrap_or_default(), replicas.unwrap_or(1));
    let missing = || Scale::Unknown(format!("found no controllers for pod {:?}", pod.name()));
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let Some(set) = context.replica_sets.get(&key) else { return missing() };
            let above = controller_of(&set.metadata).filter(|o| o.kind == "Deployment");
            let above = above.and_then(|o| context.deployments.get(&ObjectKey::new(pod.namespace(), o.name.as_str())));
            match above {
                Some(d) => of(&d.metadata.uid, d.spec.as_ref().and_then(|s| s.replicas)),
                None => of(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)),
            }
        }
        "StatefulSet" => match context.stateful_sets.get(&key) {
            Some(set) => of(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)),
            None => missing(),
        },
        kind => {
            let group = owner.api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
            Scale::Unknown(format!("{}s{group} does not implement the scale subresource", kind.to_lowercase()))
        }
    }
}

async fn write(
    context: &Context,
    key: &ObjectKey,
    budget: &PodDisruptionBudget,
    status: PodDisruptionBudgetStatus,
) -> Result<(), ControllerError> {
    if budget.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut updated = budget.clone();
    updated.status = Some(status);
    match context.budgets.replace(Some("status"), key, &updated).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
