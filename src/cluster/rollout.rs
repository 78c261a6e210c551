//! Waits until a new version answers, and tells each hop as it is passed.
//!
//! Everything is read from watches of Deployments, pods, events and EndpointSlices; nothing is
//! polled. Hops carry the moment their evidence arrived here, as the API's own times have
//! whole seconds only.

use super::pod_failure::{self, PodFailure};
use aksim_model::{journey::Hop, pod::is_ready};
use aksim_runtime::net::SharedDialer;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event as CoreEvent, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::SocketAddr,
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// A Deployment to wait for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// Name of the Deployment.
    pub deployment: String,
    /// Its `metadata.generation` after the apply.
    pub generation: i64,
    /// Image that tells pods of the new version; `None` when the Deployment does not run one of ours.
    pub image: Option<String>,
    /// How often a container may end before it counts as a failure.
    pub restarts: i32,
}

/// Why the new version does not answer.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// A pod of the new version cannot come up.
    #[error("{evidence}")]
    Pod {
        /// Reason, message and last log lines.
        evidence: String,
    },
    /// Time is over.
    #[error("not rolled out within {seconds} s: {state}")]
    Deadline {
        /// The deadline.
        seconds: u64,
        /// What it was waiting for.
        state: String,
    },
    /// A newer change took over.
    #[error("superseded")]
    Cancelled,
    /// The cluster could not be watched.
    #[error("cluster: {0}")]
    Cluster(#[source] watcher::Error),
}

/// A hop with the moment its evidence arrived, and the evidence.
pub type Passed = (Hop, Timestamp, String);

enum Seen {
    Deployment(Box<Deployment>),
    Pod(Box<Pod>),
    PodGone(String),
    Event(Box<CoreEvent>),
    Slice(Box<EndpointSlice>),
}

/// Waits for one Deployment.
pub struct Rollout<'a> {
    client: &'a Client,
    dialer: &'a SharedDialer,
    target: Target,
    passed: BTreeSet<Hop>,
    pods: BTreeMap<String, Pod>,
    slices: BTreeMap<String, EndpointSlice>,
    deployment: Option<Deployment>,
    answered: bool,
}

impl<'a> Rollout<'a> {
    /// A wait for `target`; pods are asked through `dialer`.
    pub fn new(client: &'a Client, dialer: &'a SharedDialer, target: Target) -> Self {
        Self {
            client,
            dialer,
            target,
            passed: BTreeSet::new(),
            pods: BTreeMap::new(),
            slices: BTreeMap::new(),
            deployment: None,
            answered: false,
        }
    }

    /// Waits until the first pod of the new version is an endpoint and has answered a request
    /// (`on_hop` tells each hop), and then until the rollout is complete.
    ///
    /// # Errors
    /// [`RolloutError`]; within moments when a pod cannot come up.
    pub async fn wait(
        mut self,
        deadline: Duration,
        cancel: &CancellationToken,
        mut on_hop: impl FnMut(Passed) + Send,
    ) -> Result<(), RolloutError> {
        let mut seen = self.watch();
        let timer = tokio::time::sleep(deadline);
        tokio::pin!(timer);
        loop {
            let next = tokio::select! {
                () = cancel.cancelled() => return Err(RolloutError::Cancelled),
                () = &mut timer => {
                    return Err(RolloutError::Deadline { seconds: deadline.as_secs(), state: self.state() });
                }
                next = seen.next() => next,
            };
            match next {
                Some(Ok(seen)) => self.take(seen, &mut on_hop).await?,
                // The watcher backs off and tries again by itself.
                Some(Err(error)) => tracing::debug!(%error, "rollout watch"),
                None => continue,
            }
            if self.complete() && self.answered {
                return Ok(());
            }
        }
    }

    fn watch(&self) -> BoxStream<'static, Result<Seen, watcher::Error>> {
        let namespace = &self.target.namespace;
        let by_name = format!("metadata.name={}", self.target.deployment);
        let deployments = objects::<Deployment>(self.client, namespace, watcher::Config::default().fields(&by_name));
        let pods = objects::<Pod>(self.client, namespace, watcher::Config::default());
        let events = objects::<CoreEvent>(
            self.client,
            namespace,
            watcher::Config::default().fields("involvedObject.kind=Pod,reason=Pulled"),
        );
        let slices = objects::<EndpointSlice>(self.client, namespace, watcher::Config::default());
        futures::stream::select_all([
            deployments.filter_map(async |e| one(e, |d| Some(Seen::Deployment(Box::new(d))), |_| None)).boxed(),
            pods.filter_map(async |e| {
                one(e, |p| Some(Seen::Pod(Box::new(p))), |p: Pod| Some(Seen::PodGone(p.name_any())))
            })
            .boxed(),
            events.filter_map(async |e| one(e, |e| Some(Seen::Event(Box::new(e))), |_| None)).boxed(),
            slices.filter_map(async |e| one(e, |s| Some(Seen::Slice(Box::new(s))), |_| None)).boxed(),
        ])
        .boxed()
    }

    async fn take(&mut self, seen: Seen, on_hop: &mut (impl FnMut(Passed) + Send)) -> Result<(), RolloutError> {
        match seen {
            Seen::Deployment(deployment) => self.deployment = Some(*deployment),
            Seen::PodGone(name) => {
                self.pods.remove(&name);
            }
            Seen::Pod(pod) => {
                self.pods.insert(pod.name_any(), *pod);
            }
            Seen::Slice(slice) => {
                self.slices.insert(slice.name_any(), *slice);
            }
            Seen::Event(event) => {
                let name = event.involved_object.name.unwrap_or_default();
                if self.pods.get(&name).is_some_and(|p| self.is_new(p)) {
                    self.pass(Hop::Pulled, name, on_hop);
                }
            }
        }
        self.look(on_hop).await
    }

    /// Reads the hops off the objects known now.
    async fn look(&mut self, on_hop: &mut (impl FnMut(Passed) + Send)) -> Result<(), RolloutError> {
        let new: Vec<Pod> = self.pods.values().filter(|p| self.is_new(p)).cloned().collect();
        for pod in &new {
            if let Some(failure) = pod_failure::of_pod(pod, self.target.restarts) {
                return Err(self.failed(&failure).await);
            }
            let name = pod.name_any();
            let Some(status) = &pod.status else { continue };
            if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_ref()) {
                self.pass(Hop::Scheduled, format!("{name} to {node}"), on_hop);
            }
            let containers = || status.container_statuses.iter().flatten();
            if containers().any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some())) {
                self.pass(Hop::Pulled, name.clone(), on_hop);
                self.pass(Hop::Started, name.clone(), on_hop);
            }
            if is_ready(pod) {
                self.pass(Hop::Ready, name.clone(), on_hop);
                self.ask(pod, on_hop).await;
            }
        }
        Ok(())
    }

    /// Once a ready pod is an endpoint, asks it; without a service, being ready is all there is.
    async fn ask(&mut self, pod: &Pod, on_hop: &mut (impl FnMut(Passed) + Send)) {
        if self.answered {
            return;
        }
        let name = pod.name_any();
        let endpoint = self.slices.values().find_map(|slice| {
            let ready = slice.endpoints.iter().flatten().any(|endpoint| {
                endpoint.target_ref.as_ref().and_then(|r| r.name.as_ref()) == Some(&name)
                    && endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false))
            });
            let port = slice.ports.iter().flatten().find_map(|p| p.port)?;
            ready.then(|| (slice.labels().get("kubernetes.io/service-name").cloned().unwrap_or_default(), port))
        });
        let Some((service, port)) = endpoint else {
            self.answered = !self.has_service(pod);
            return;
        };
        self.pass(Hop::Endpoint, service.clone(), on_hop);
        let Some(ip) = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).and_then(|ip| ip.parse().ok()) else {
            return;
        };
        let address = SocketAddr::new(ip, u16::try_from(port).unwrap_or(80));
        let path = readiness_path(pod);
        match tokio::time::timeout(Duration::from_secs(2), request(self.dialer, address, &path)).await {
            Ok(Ok(status)) => {
                self.answered = true;
                self.pass(Hop::Served, format!("{status} from {name} {path}"), on_hop);
            }
            Ok(Err(error)) => tracing::debug!(%error, %address, "first request"),
            Err(_) => tracing::debug!(%address, "first request took too long"),
        }
    }

    fn has_service(&self, pod: &Pod) -> bool {
        // A slice of a service that selects the pod appears with the pod, ready or not.
        let name = pod.name_any();
        self.slices.values().any(|s| {
            s.endpoints.iter().flatten().any(|e| e.target_ref.as_ref().and_then(|r| r.name.as_ref()) == Some(&name))
        }) || self
            .slices
            .values()
            .any(|s| s.labels().get("kubernetes.io/service-name").is_some_and(|n| *n == self.target.deployment))
    }

    fn pass(&mut self, hop: Hop, detail: String, on_hop: &mut (impl FnMut(Passed) + Send)) {
        if self.passed.insert(hop) {
            on_hop((hop, Timestamp::now(), detail));
        }
    }

    async fn failed(&self, failure: &PodFailure) -> RolloutError {
        RolloutError::Pod { evidence: pod_failure::evidence(self.client, &self.target.namespace, failure).await }
    }

    fn is_new(&self, pod: &Pod) -> bool {
        if pod.metadata.deletion_timestamp.is_some() || !self.selects(pod) {
            return false;
        }
        match &self.target.image {
            Some(image) => {
                pod.spec.iter().flat_map(|s| &s.containers).any(|c| c.image.as_deref() == Some(image.as_str()))
            }
            None => true,
        }
    }

    fn selects(&self, pod: &Pod) -> bool {
        let Some(selector) = self.deployment.as_ref().and_then(|d| d.spec.as_ref()).map(|s| &s.selector) else {
            return false;
        };
        selector.match_labels.iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value))
    }

    fn complete(&self) -> bool {
        let Some(deployment) = &self.deployment else { return false };
        let Some(status) = &deployment.status else { return false };
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        status.observed_generation.unwrap_or(0) >= self.target.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.replicas.unwrap_or(0) <= status.updated_replicas.unwrap_or(0)
            && status.available_replicas.unwrap_or(0) >= wanted
            || wanted == 0
    }

    fn state(&self) -> String {
        let unscheduled = self.pods.values().filter(|p| self.is_new(p)).find_map(|pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
            condition.message.clone()
        });
        if let Some(message) = unscheduled {
            return message;
        }
        let status = self.deployment.as_ref().and_then(|d| d.status.as_ref());
        match status {
            Some(s) => format!(
                "deployment {}: {} updated, {} available",
                self.target.deployment,
                s.updated_replicas.unwrap_or(0),
                s.available_replicas.unwrap_or(0)
            ),
            None => format!("deployment {} has no status", self.target.deployment),
        }
    }
}

fn objects<K>(
    client: &Client,
    namespace: &str,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    watcher::watcher(Api::namespaced(client.clone(), namespace), config).boxed()
}

fn one<K>(
    event: watcher::Result<Event<K>>,
    there: impl FnOnce(K) -> Option<Seen>,
    gone: impl FnOnce(K) -> Option<Seen>,
) -> Option<Result<Seen, watcher::Error>> {
    match event {
        Ok(Event::Apply(object) | Event::InitApply(object)) => there(object).map(Ok),
        Ok(Event::Delete(object)) => gone(object).map(Ok),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

fn readiness_path(pod: &Pod) -> String {
    let probe = pod.spec.iter().flat_map(|s| &s.containers).find_map(|c| c.readiness_probe.as_ref());
    probe.and_then(|p| p.http_get.as_ref()).and_then(|g| g.path.clone()).unwrap_or_else(|| "/".into())
}

/// One HTTP/1.0 request; the status code of the answer.
async fn request(dialer: &SharedDialer, address: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = dialer.dial(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: aksim\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut buffer = [0u8; 256];
    while !head.contains(&b'\n') && head.len() < 4096 {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    let line = String::from_utf8_lossy(&head);
    line.split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
