//! Which pods a Service sends requests to, over time: every change of its EndpointSlices, as it came.

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt, runtime::watcher};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Instant};
use tokio::sync::Notify;

/// A change.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it was seen.
    pub at: Instant,
    /// Service, as `namespace/name`.
    pub service: String,
    /// Pod.
    pub pod: String,
    /// Whether it gets requests from now on.
    pub ready: bool,
}

/// All changes since it was started.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    changes: Arc<Mutex<Vec<Change>>>,
    changed: Arc<Notify>,
}

impl Rotation {
    /// Follows the slices of every namespace until dropped.
    pub async fn follow(self, client: Client) {
        let api: Api<EndpointSlice> = Api::all(client);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        let mut now: BTreeMap<(String, String), bool> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::InitApply(slice) | watcher::Event::Apply(slice)) => self.apply(&slice, &mut now),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "watching endpoint slices"),
            }
        }
    }

    /// When a pod was first out of a Service's rotation after `since`.
    pub fn left(&self, service: &str, pod: &str, since: Instant) -> Option<Instant> {
        let changes = self.changes.lock();
        let out = changes.iter().find(|c| c.service == service && c.pod == pod && !c.ready && c.at >= since);
        out.map(|c| c.at)
    }

    /// Waits for the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn apply(&self, slice: &EndpointSlice, now: &mut BTreeMap<(String, String), bool>) {
        let Some(name) = slice.labels().get("kubernetes.io/service-name") else { return };
        let service = format!("{}/{name}", slice.namespace().unwrap_or_default());
        let of_slice: BTreeMap<String, bool> = slice
            .endpoints
            .iter()
            .flatten()
            .filter_map(|e| {
                let ready = e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
                Some((e.target_ref.as_ref()?.name.clone()?, ready))
            })
            .collect();
        let gone = now.keys().filter(|(s, pod)| *s == service && !of_slice.contains_key(pod)).cloned();
        let gone: Vec<(String, String)> = gone.collect();
        let present = of_slice.into_iter().map(|(pod, ready)| ((service.clone(), pod), ready));
        let states: Vec<_> = present.chain(gone.into_iter().map(|key| (key, false))).collect();
        for ((service, pod), ready) in states {
            if now.insert((service.clone(), pod.clone()), ready) != Some(ready) {
                self.changes.lock().push(Change { at: Instant::now(), service, pod, ready });
                self.changed.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "s-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "endpoints": endpoints
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_leaves_by_not_being_ready_and_by_being_gone() {
        let (rotation, mut now) = (Rotation::default(), BTreeMap::new());
        let endpoint = |pod: &str, ready: bool| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"name": pod}});
        let begun = Instant::now();
        rotation.apply(&slice(json!([endpoint("a", true), endpoint("b", true)])), &mut now);
        assert!(rotation.left("default/s", "a", begun).is_none());
        rotation.apply(&slice(json!([endpoint("a", false), endpoint("b", true)])), &mut now);
        assert!(rotation.left("default/s", "a", begun).is_some());
        rotation.apply(&slice(json!([endpoint("a", true)])), &mut now);
        assert!(rotation.left("default/s", "b", begun).is_some());
        assert!(rotation.left("default/s", "a", Instant::now()).is_none());
    }
}
