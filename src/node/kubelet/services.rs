//! The services of the cluster, for environment variables.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Keeps `known` up to date until told to stop.
pub(super) async fn follow(
    client: Client,
    known: watch::Sender<Option<Arc<Vec<Service>>>>,
    shutdown: CancellationToken,
) {
    let api: Api<Service> = Api::all(client);
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut services: BTreeMap<(Option<String>, Option<String>), Service> = BTreeMap::new();
    let mut listing = BTreeMap::new();
    let key = |s: &Service| (s.metadata.namespace.clone(), s.metadata.name.clone());
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => event,
        };
        match event {
            Some(Ok(watcher::Event::Init)) => {
                listing.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(service))) => {
                listing.insert(key(&service), service);
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => services = std::mem::take(&mut listing),
            Some(Ok(watcher::Event::Apply(service))) => {
                services.insert(key(&service), service);
            }
            Some(Ok(watcher::Event::Delete(service))) => {
                services.remove(&key(&service));
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "watching services");
                continue;
            }
            None => return,
        }
        known.send_replace(Some(Arc::new(services.values().cloned().collect())));
    }
}
