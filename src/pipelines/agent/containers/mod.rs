//! Containers of a job: its own, those that steps name as their target, and its services.
//!
//! The agent of Azure makes them with Docker on a network of the job. Here each is a pod, in a namespace of the job in
//! the environment's cluster, as agents that run on Kubernetes do it: the folders of the agent are mounted at their
//! own paths, services answer to their names by the cluster's DNS, and all of it goes with the namespace.
//! <https://learn.microsoft.com/azure/devops/pipelines/process/container-phases>

mod exec;
mod needs;
mod pod;
mod ports;

pub use exec::ContainerProcess;
pub use needs::{ContainerName, Needs};

use crate::{connections::ClusterConnection, plan::Container, store::StepLog};
use aksim_cluster::provider::ClusterProvider;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::{WatchStreamExt, wait, watcher},
};
use pod::Mounts;
use ports::Forward;
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Label of all that belongs to containers of jobs.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "azure-pipelines");
/// Label of a pod: which container of the job it is.
const CONTAINER_LABEL: &str = "aksim.dev/pipeline-container";
/// Label of a namespace with the process that made it: those of others were left behind.
const PROCESS_LABEL: &str = "aksim.dev/process";
static PROCESS: LazyLock<String> = LazyLock::new(|| format!("{:016x}", rand::random::<u64>()));
/// Patience for a namespace to be usable, and for a container to be up: images may have to be pulled.
const USABLE: Duration = Duration::from_secs(60);
const UP: Duration = Duration::from_secs(15 * 60);
/// Last lines of a container that did not start.
const LAST_LINES: i64 = 20;

/// The containers of a job under way.
pub struct JobContainers {
    client: Client,
    /// For what upgrades its connection.
    streaming: Client,
    provider: Arc<dyn ClusterProvider>,
    namespace: String,
    forwards: JoinSet<()>,
    /// `agent.services.NAME.ports.PORT` with the port of this machine.
    pub variables: BTreeMap<String, String>,
}

/// What the containers of a job are made with.
pub struct Start<'a> {
    /// The cluster they run in.
    pub cluster: &'a ClusterConnection,
    /// What the job needs.
    pub needs: &'a Needs,
    /// Folder of the agent, mounted at its own path.
    pub agent_home: &'a Path,
    /// The run, for names.
    pub run: u64,
    /// The job's log.
    pub log: &'a StepLog,
}

impl JobContainers {
    /// Starts all containers and waits until they run.
    ///
    /// # Errors
    /// What hinders a container, with its last lines; what was made is gone again. `None` when cancelled.
    pub async fn start(start: Start<'_>, cancel: &CancellationToken) -> Result<Self, Option<String>> {
        let streaming = start.cluster.streaming_client().await.map_err(Some)?;
        let namespace = format!("pipelines-{}-{:08x}", start.run, rand::random::<u32>());
        let mut containers = Self {
            client: start.cluster.client.clone(),
            streaming,
            provider: start.cluster.provider.clone(),
            namespace,
            forwards: JoinSet::new(),
            variables: BTreeMap::new(),
        };
        let started = tokio::select! {
            () = cancel.cancelled() => Err(None),
            started = containers.make(&start) => started.map_err(Some),
        };
        match started {
            Ok(()) => Ok(containers),
            Err(error) => {
                if let Err(left) = containers.stop().await {
                    start.log.warning(&left);
                }
                Err(error)
            }
        }
    }

    async fn make(&mut self, start: &Start<'_>) -> Result<(), String> {
        start.log.section("Starting: Initialize containers");
        self.make_namespace(start.run).await?;
        let mounts = Mounts { agent_home: start.agent_home };
        for (name, container) in start.needs.all() {
            start.log.command(&format!("docker create --name {} {}", name.host_name(), container.image));
            let pod = pod::pod(name, container, &mounts, &mut |ignored| start.log.warning(ignored))?;
            let host = json!({
                "metadata": { "name": name.host_name(), "labels": { MANAGED_BY.0: MANAGED_BY.1 } },
                "spec": { "clusterIP": "None", "publishNotReadyAddresses": true,
                          "selector": { CONTAINER_LABEL: name.host_name() } },
            });
            // Both are written out above.
            let host: Service = serde_json::from_value(host).map_err(|e| e.to_string())?;
            self.api().create(&PostParams::default(), &host).await.map_err(refused(name))?;
            self.api().create(&PostParams::default(), &pod).await.map_err(refused(name))?;
        }
        for (name, container) in start.needs.all() {
            let pod = self.running(name, container).await?;
            let address = pod.status.and_then(|s| s.pod_ip).and_then(|ip| ip.parse::<IpAddr>().ok());
            let address = address.ok_or_else(|| format!("container {name}: it has no address"))?;
            start.log.write(&format!("{} runs {} at {address}", name.host_name(), container.image));
            for forward in Forward::of(&container.ports).map_err(|e| format!("container {name}: {e}"))? {
                let (port, dialer) = (forward.container, start.cluster.dialer.clone());
                let listening = forward.listen().await.map_err(|e| format!("container {name}: {e}"))?;
                if let ContainerName::Service(alias) = name {
                    let variable = format!("agent.services.{alias}.ports.{port}");
                    self.variables.insert(variable, listening.port.to_string());
                }
                start.log.write(&format!("127.0.0.1:{} is port {port} of {}", listening.port, name.host_name()));
                self.forwards.spawn(listening.serve(SocketAddr::new(address, port), dialer));
            }
        }
        start.log.section("Finishing: Initialize containers");
        Ok(())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes the namespace and waits until pods may be made in it.
    async fn make_namespace(&self, run: u64) -> Result<(), String> {
        let namespace = json!({ "metadata": { "name": self.namespace, "labels": {
            MANAGED_BY.0: MANAGED_BY.1, "aksim.dev/pipeline-run": run.to_string(), PROCESS_LABEL: *PROCESS,
        } } });
        let namespace: Namespace = serde_json::from_value(namespace).map_err(|e| e.to_string())?;
        let failed = |e: &dyn std::fmt::Display| format!("namespace {} of the job's containers: {e}", self.namespace);
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.map_err(|e| failed(&e))?;
        let account =
            wait::await_condition(self.api::<ServiceAccount>(), "default", |a: Option<&ServiceAccount>| a.is_some());
        match tokio::time::timeout(USABLE, account).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"its service account was not made in time")),
        }
    }

    /// Waits until a container runs; its pod.
    async fn running(&self, name: &ContainerName, container: &Container) -> Result<Pod, String> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", name.pod_name()));
        let pods = watcher(self.api::<Pod>(), config).default_backoff().applied_objects();
        let ended = async {
            let mut pods = std::pin::pin!(pods);
            loop {
                match pods.try_next().await {
                    Ok(Some(pod)) => match pod::state(&pod) {
                        pod::State::Starting => {}
                        pod::State::Running => return Ok(pod),
                        pod::State::Failed(why) => return Err(why),
                    },
                    // The watcher tries again by itself.
                    Err(_) => {}
                    Ok(None) => return Err("the watch ended".to_owned()),
                }
            }
        };
        let why = match tokio::time::timeout(UP, ended).await {
            Ok(Ok(pod)) => return Ok(pod),
            Ok(Err(why)) => why,
            Err(_) => format!("it was not up within {} minutes", UP.as_secs() / 60),
        };
        let params = LogParams { tail_lines: Some(LAST_LINES), ..LogParams::default() };
        // Without a log there is nothing more to say.
        let log = self.api::<Pod>().logs(&name.pod_name(), &params).await.unwrap_or_default();
        let log = if log.is_empty() { log } else { format!("\n{}", log.trim_end()) };
        Err(format!("container {name} ({}) did not start: {why}{log}", container.image))
    }

    /// Removes everything.
    ///
    /// # Errors
    /// What the API said; the next start of the pipelines tries again.
    pub async fn stop(mut self) -> Result<(), String> {
        self.forwards.shutdown().await;
        remove(&self.client, &self.namespace).await
    }
}

fn refused(name: &ContainerName) -> impl Fn(kube::Error) -> String {
    move |error| match error {
        kube::Error::Api(status) => format!("container {name}: {}", status.message),
        other => format!("container {name}: {other}"),
    }
}

async fn remove(client: &Client, namespace: &str) -> Result<(), String> {
    let api: Api<Namespace> = Api::all(client.clone());
    match api.delete(namespace, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(format!("the containers of a job stay in namespace {namespace}: {error}")),
    }
}

/// Removes the containers of jobs that a process before this one has left.
///
/// # Errors
/// What the API said.
pub async fn remove_left(client: &Client) -> Result<(), String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let ours =
        ListParams::default().labels(&format!("{}={},{PROCESS_LABEL}!={}", MANAGED_BY.0, MANAGED_BY.1, *PROCESS));
    let left = api.list_metadata(&ours).await.map_err(|e| format!("containers that were left behind: {e}"))?;
    for namespace in left.items.into_iter().filter_map(|n| n.metadata.name) {
        remove(client, &namespace).await?;
    }
    Ok(())
}
