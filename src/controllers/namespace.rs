//! Namespace: deletes everything in one that is being deleted, then lets it go.

use super::{
    Context,
    error::ControllerError,
    informer::ObjectKey,
    queue::{Requeue, WorkQueue},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    api::{Api, DeleteParams, DynamicObject, ListParams},
    core::ApiResource,
    discovery::{Discovery, Scope, verbs},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The finalizer in `spec.finalizers` that this controller removes.
const FINALIZER: &str = "kubernetes";
/// Looked at again after this time while content is left: the garbage collector tells when
/// something is gone, but not of the few kinds that it does not watch.
const RECHECK: Duration = Duration::from_secs(5);

/// Queue of namespaces, fed by their changes; the garbage collector adds those whose content goes.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = context.ending.clone();
    let own = queue.clone();
    context.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new.filter(|n| n.metadata.deletion_timestamp.is_some()) {
            own.add(ObjectKey::of(namespace.as_ref()));
        }
    });
    queue
}

fn has_finalizer(namespace: &Namespace) -> bool {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

/// What was found in a namespace after deleting its content.
#[derive(Debug, Default)]
struct Remains {
    /// Objects left by `resource.group`.
    counts: BTreeMap<String, usize>,
    /// Objects left by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Resources whose content could not be deleted, with the reason.
    failures: Vec<String>,
}

/// Empties one namespace that is being deleted.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(namespace) = context.namespaces.get(&key) else { return Ok(None) };
    if namespace.metadata.deletion_timestamp.is_none() || !has_finalizer(&namespace) {
        return Ok(None);
    }
    let resources = namespaced_resources(&context.client).await?;
    let remains = empty(context, &key.name, &resources).await;
    if remains.counts.is_empty() && remains.failures.is_empty() {
        return finalize(context, &key, &namespace).await;
    }
    let conditions = conditions(&remains, namespace.status.as_ref(), Timestamp::now());
    if namespace.status.as_ref().and_then(|s| s.conditions.as_ref()) != Some(&conditions) {
        let mut updated = namespace.as_ref().clone();
        updated.status = Some(NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions) });
        context.namespaces.replace(Some("status"), &key, &updated).await?;
    }
    Ok(Some(RECHECK))
}

/// Every namespaced resource whose objects can be listed and deleted.
pub async fn namespaced_resources(client: &kube::Client) -> Result<Vec<ApiResource>, ControllerError> {
    let discovery = Discovery::new(client.clone()).run().await.map_err(ControllerError::api("discover resources"))?;
    let mut found = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let usable = capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::DELETE);
            if capabilities.scope == Scope::Namespaced && usable {
                found.push(resource);
            }
        }
    }
    Ok(found)
}

async fn empty(context: &Context, namespace: &str, resources: &[ApiResource]) -> Remains {
    let mut remains = Remains::default();
    for resource in resources {
        let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, resource);
        if let Err(error) = empty_resource(&api, resource, &mut remains).await {
            remains.failures.push(format!("{}: {error}", qualified(resource)));
        }
    }
    remains
}

fn qualified(resource: &ApiResource) -> String {
    if resource.group.is_empty() { resource.plural.clone() } else { format!("{}.{}", resource.plural, resource.group) }
}

async fn empty_resource(
    api: &Api<DynamicObject>,
    resource: &ApiResource,
    remains: &mut Remains,
) -> Result<(), kube::Error> {
    let gone = |error: &kube::Error| matches!(error, kube::Error::Api(s) if s.code == 404 || s.code == 405);
    let before = match api.list_metadata(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    if before.is_empty() {
        return Ok(());
    }
    for object in before.iter().filter(|o| o.metadata.deletion_timestamp.is_none()) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        match api.delete(name, &DeleteParams::background()).await {
            Err(error) if !gone(&error) => return Err(error),
            _ => {}
        }
    }
    let left = api.list_metadata(&ListParams::default()).await?.items;
    if !left.is_empty() {
        remains.counts.insert(qualified(resource), left.len());
    }
    for finalizer in left.iter().flat_map(|o| o.metadata.finalizers.iter().flatten()) {
        *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(())
}

async fn finalize(context: &Context, key: &ObjectKey, namespace: &Namespace) -> Result<Requeue, ControllerError> {
    let mut updated = namespace.clone();
    if let Some(finalizers) = updated.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    match context.namespaces.replace(Some("finalize"), key, &updated).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(None),
    }
}

/// The conditions with which `kubectl describe namespace` says why it is still there.
fn conditions(remains: &Remains, before: Option<&NamespaceStatus>, now: Timestamp) -> Vec<NamespaceCondition> {
    let list = |counts: &BTreeMap<String, usize>, what: &str| {
        let parts: Vec<_> = counts.iter().map(|(name, n)| format!("{name} {what} {n} resource instances")).collect();
        parts.join(", ")
    };
    let failed = remains.failures.join("; ");
    let table = [
        (
            "NamespaceDeletionContentFailure",
            !failed.is_empty(),
            "ContentDeletionFailed",
            "ContentDeleted",
            failed,
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !remains.counts.is_empty(),
            "SomeResourcesRemain",
            "ContentRemoved",
            format!("Some resources are remaining: {}", list(&remains.counts, "has")),
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            !remains.finalizers.is_empty(),
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            format!("Some content in the namespace has finalizers remaining: {}", list(&remains.finalizers, "in")),
            "All content-preserving finalizers finished",
        ),
    ];
    let old = before.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    table
        .into_iter()
        .map(|(type_, holds, yes, no, bad, good)| {
            let status = if holds { "True" } else { "False" };
            let same = old.iter().find(|c| c.type_ == type_ && c.status == status);
            NamespaceCondition {
                type_: type_.into(),
                status: status.into(),
                reason: Some(if holds { yes } else { no }.into()),
                message: Some(if holds { bad } else { good.into() }),
                last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_is_left_and_keep_their_times() {
        let mut remains = Remains::default();
        remains.counts.insert("pods".into(), 2);
        let first = conditions(&remains, None, Timestamp::from_second(1).unwrap());
        let messages: Vec<_> = first.iter().map(|c| (c.status.as_str(), c.message.as_deref().unwrap())).collect();
        assert_eq!(messages[0].0, "False");
        assert_eq!(messages[1], ("True", "Some resources are remaining: pods has 2 resource instances"));
        let status = NamespaceStatus { phase: None, conditions: Some(first.clone()) };
        let second = conditions(&remains, Some(&status), Timestamp::from_second(9).unwrap());
        assert_eq!(first, second);
    }
}
