//! Keeps the route table in step with the cluster, and Ingress status with the front door.

use super::{RouteTable, routes::is_ours};
use futures::{Stream, StreamExt};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, networking::v1::Ingress};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};
use tokio::sync::watch;

type Key = (String, String);

/// Objects of one kind as the watch tells them.
struct Cache<K> {
    objects: BTreeMap<Key, K>,
    listing: BTreeMap<Key, K>,
    synced: bool,
}

impl<K: Resource + Clone> Cache<K> {
    fn new() -> Self {
        Self { objects: BTreeMap::new(), listing: BTreeMap::new(), synced: false }
    }

    fn take(&mut self, event: watcher::Result<Event<K>>) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Ok(Event::Apply(object)) => {
                self.objects.insert(key(&object), object);
            }
            Ok(Event::Delete(object)) => {
                self.objects.remove(&key(&object));
            }
            Ok(Event::Init) => self.listing.clear(),
            Ok(Event::InitApply(object)) => {
                self.listing.insert(key(&object), object);
            }
            Ok(Event::InitDone) => {
                self.objects = std::mem::take(&mut self.listing);
                self.synced = true;
            }
            Err(error) => tracing::debug!(%error, "ingress watch"),
        }
    }
}

fn stream<K>(client: &Client) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    watcher::watcher(Api::<K>::all(client.clone()), watcher::Config::default())
}

/// Follows the cluster for ever; calls `on_synced` once the first whole table is published.
pub async fn follow(client: Client, routes: watch::Sender<Arc<RouteTable>>, on_synced: impl FnOnce()) {
    let (mut ingresses, mut services, mut slices) =
        (Cache::<Ingress>::new(), Cache::<Service>::new(), Cache::<EndpointSlice>::new());
    let mut ingress_events = std::pin::pin!(stream::<Ingress>(&client));
    let mut service_events = std::pin::pin!(stream::<Service>(&client));
    let mut slice_events = std::pin::pin!(stream::<EndpointSlice>(&client));
    let mut on_synced = Some(on_synced);
    loop {
        tokio::select! {
            Some(event) = ingress_events.next() => {
                if let Ok(Event::Apply(ingress) | Event::InitApply(ingress)) = &event {
                    publish_address(&client, ingress).await;
                }
                ingresses.take(event);
            }
            Some(event) = service_events.next() => services.take(event),
            Some(event) = slice_events.next() => slices.take(event),
            else => return,
        }
        if !(ingresses.synced && services.synced && slices.synced) {
            continue;
        }
        let table = RouteTable::build(
            ingresses.objects.values(),
            &services.objects,
            &slices.objects.values().collect::<Vec<_>>(),
        );
        routes.send_if_modified(|current| {
            let changed = **current != table;
            if changed {
                *current = Arc::new(table);
            }
            changed
        });
        if let Some(on_synced) = on_synced.take() {
            on_synced();
        }
    }
}

/// Puts the front door's address into the status, as the managed NGINX of AKS does.
async fn publish_address(client: &Client, ingress: &Ingress) {
    let current = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    let published = current.is_some_and(|list| list.iter().any(|i| i.ip.as_deref() == Some("127.0.0.1")));
    if !is_ours(ingress) || published || ingress.metadata.deletion_timestamp.is_some() {
        return;
    }
    let api: Api<Ingress> = Api::namespaced(client.clone(), &ingress.namespace().unwrap_or_default());
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}});
    if let Err(error) = api.patch_status(&ingress.name_any(), &PatchParams::default(), &Patch::Merge(status)).await {
        tracing::debug!(%error, ingress = ingress.name_any(), "ingress status");
    }
}
