//! EndpointSlices and Endpoints of Services with a selector.

pub mod plan;
pub mod slices;

use super::{
    Context,
    error::ControllerError,
    informer::ObjectKey,
    ownership::controlled_by,
    pod::Pod,
    queue::{Requeue, WorkQueue},
};
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::DeleteParams;
use std::{collections::BTreeMap, sync::Arc};

/// Label with the name of the Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_MANAGER: &str = "endpointslice-controller.k8s.io";
const LEGACY_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const LEGACY_MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Queue of Services, fed by the changes of them, their pods, and their slices.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.services.on_change(move |old, new| {
        if let Some(service) = new.or(old) {
            own.add(ObjectKey::of(service.as_ref()));
        }
    });
    let (pods, services) = (queue.clone(), context.services.clone());
    context.pods.on_change(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && same_to_services(old, new)
        {
            return;
        }
        let Some(namespace) = new.or(old).map(|p| p.namespace().to_owned()) else { return };
        for service in services.in_namespace(&namespace) {
            if [old, new].into_iter().flatten().any(|pod| selects(&service, pod)) {
                pods.add(ObjectKey::of(service.as_ref()));
            }
        }
    });
    let own = queue.clone();
    context.endpoint_slices.on_change(move |old, new| {
        if let Some(slice) = new.or(old) {
            service_of(slice).into_iter().for_each(|key| own.add(key));
        }
    });
    let own = queue.clone();
    context.endpoints.on_change(move |old, new| {
        if let Some(endpoints) = new.or(old) {
            own.add(ObjectKey::of(endpoints.as_ref()));
        }
    });
    queue
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    (labels.get(MANAGED_BY)? == SLICE_MANAGER).then_some(())?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref()?, labels.get(SERVICE_NAME)?.as_str()))
}

/// Whether a change of a pod is of no concern to any Service.
fn same_to_services(old: &Pod, new: &Pod) -> bool {
    let facts = |p: &Pod| (p.is_ready(), p.is_terminating(), p.is_finished(), p.status.pod_ip.clone());
    let ips = |p: &Pod| p.status.pod_ips.iter().map(|i| i.ip.clone()).collect::<Vec<_>>();
    facts(old) == facts(new)
        && ips(old) == ips(new)
        && old.spec.node_name == new.spec.node_name
        && old.metadata.labels == new.metadata.labels
        && old.metadata.uid == new.metadata.uid
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    plan::is_selected(service)
        && selector
            .is_some_and(|s| s.iter().all(|(k, v)| pod.metadata.labels.as_ref().and_then(|l| l.get(k)) == Some(v)))
}

/// Brings slices and Endpoints of one Service up to date.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let service = context.services.get(&key);
    let Some(service) = service.filter(|s| s.metadata.deletion_timestamp.is_none()) else {
        return remove_legacy(context, &key).await;
    };
    if !plan::is_selected(&service) {
        return Ok(None);
    }
    let pods = context.pods.in_namespace(&key.namespace);
    let pods: Vec<Arc<Pod>> = pods.into_iter().filter(|p| selects(&service, p)).collect();
    // Slices first: the service proxy and the ingress read them.
    reconcile_slices(context, &key, &service, &pods).await?;
    reconcile_legacy(context, &key, &service, &pods).await
}

async fn reconcile_slices(
    context: &Context,
    key: &ObjectKey,
    service: &Service,
    pods: &[Arc<Pod>],
) -> Result<(), ControllerError> {
    let zone = |node: &str| {
        let node = context.nodes.get(&ObjectKey::new("", node))?;
        node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
    };
    let existing: Vec<_> = context
        .endpoint_slices
        .in_namespace(&key.namespace)
        .into_iter()
        .filter(|s| service_of(s).as_ref() == Some(key) && s.metadata.deletion_timestamp.is_none())
        .collect();
    let labels = slice_labels(service);
    let mut changes = slices::reconcile(plan::groups(service, pods, zone), &plan::families(service), &existing);
    for slice in &existing {
        let name = slice.metadata.name.as_ref();
        let handled = changes.update.iter().any(|s| s.metadata.name.as_ref() == name)
            || changes.delete.iter().any(|n| Some(n) == name);
        if !handled && slice.metadata.labels.as_ref() != Some(&labels) {
            changes.update.push(slice.as_ref().clone());
        }
    }
    for mut slice in changes.update {
        slice.metadata.labels = Some(labels.clone());
        context.endpoint_slices.replace(None, &ObjectKey::of(&slice), &slice).await?;
    }
    for mut slice in changes.create {
        slice.metadata = ObjectMeta {
            generate_name: Some(format!("{}-", key.name)),
            namespace: Some(key.namespace.to_string()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controlled_by(service)]),
            ..ObjectMeta::default()
        };
        match context.endpoint_slices.create(&key.namespace, &slice).await {
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            other => other?,
        };
    }
    for name in changes.delete {
        let key = ObjectKey::new(key.namespace.clone(), name);
        context.endpoint_slices.delete(&key, &DeleteParams::default()).await?;
    }
    Ok(())
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn inherited_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    for reserved in [SERVICE_NAME, MANAGED_BY, LEGACY_MANAGED_BY, HEADLESS] {
        labels.remove(reserved);
    }
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = inherited_labels(service);
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), SLICE_MANAGER.into());
    labels
}

async fn reconcile_legacy(
    context: &Context,
    key: &ObjectKey,
    service: &Service,
    pods: &[Arc<Pod>],
) -> Result<Requeue, ControllerError> {
    let (subsets, cut) = plan::subsets(service, pods);
    let mut labels = inherited_labels(service);
    labels.insert(LEGACY_MANAGED_BY.into(), LEGACY_MANAGER.into());
    let current = context.endpoints.get(key);
    let mut wanted = current.as_deref().cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.subsets = (!subsets.is_empty()).then_some(subsets);
    wanted.metadata.labels = Some(labels);
    let mut annotations = wanted.metadata.annotations.take().unwrap_or_default();
    match cut {
        true => annotations.insert(OVER_CAPACITY.into(), "truncated".into()),
        false => annotations.remove(OVER_CAPACITY),
    };
    wanted.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    match current {
        Some(current) if *current == wanted => {}
        Some(_) => {
            context.endpoints.replace(None, key, &wanted).await?;
        }
        None => match context.endpoints.create(&key.namespace, &wanted).await {
            Err(error) if !error.is_namespace_terminating() => return Err(error),
            _ => {}
        },
    }
    Ok(None)
}

/// The Endpoints object goes with its Service; slices go by their owner reference.
async fn remove_legacy(context: &Context, key: &ObjectKey) -> Result<Requeue, ControllerError> {
    let ours = |e: &Arc<Endpoints>| {
        e.metadata.labels.as_ref().and_then(|l| l.get(LEGACY_MANAGED_BY)).is_some_and(|m| m == LEGACY_MANAGER)
    };
    if context.endpoints.get(key).as_ref().is_some_and(ours) {
        context.endpoints.delete(key, &DeleteParams::default()).await?;
    }
    Ok(None)
}
