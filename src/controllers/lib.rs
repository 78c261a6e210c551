//! kube-rs controllers over a `kube::Client`: workloads, endpoints, namespaces, garbage
//! collection, autoscaling, nodes, and the scheduler.
//!
//! Each controller is a queue of keys, fed by the watches it depends on, and a level-triggered
//! `reconcile(context, key)` that reads the shared caches and brings one object a step closer to
//! what it should be. Decisions are pure functions in `plan` modules.
//!
//! Not here yet, to be added the same way (one module, one line in `start`): CertificateSigningRequest
//! approval, mirroring of hand-written Endpoints, preemption.

pub mod clock;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod error;
pub mod events;
pub mod eviction;
pub mod gc;
pub mod history;
pub mod hpa;
pub mod informer;
pub mod job;
pub mod namespace;
pub mod node_lifecycle;
mod ownership;
pub mod pod;
pub mod pod_gc;
pub mod quantity;
pub mod queue;
pub mod replicaset;
pub mod resource_quota;
pub mod scheduler;
pub mod service_account;
pub mod statefulset;
pub mod volume;

use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    volumes::VolumeFolders,
};
use async_trait::async_trait;
use error::ControllerError;
use informer::{Cached, Informer, ObjectKey};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, ResourceQuota, Service,
        ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    storage::v1::StorageClass,
};
use kube::runtime::watcher;
use pod::Pod;
use queue::WorkQueue;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Settings of the controllers. [`Default`] has those of Kubernetes.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// The cluster's CA certificate, PEM, for `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Where the volumes' data is.
    pub volumes: VolumeFolders,
    /// How long a node may say nothing before it counts as unreachable.
    pub node_monitor_grace: Duration,
    /// How long pods of a node that is gone are left alone.
    pub pod_gc_quarantine: Duration,
    /// Ended pods that are kept.
    pub terminated_pod_threshold: usize,
    /// How often an autoscaler looks at its metrics.
    pub hpa_sync_period: Duration,
    /// How far from its target an autoscaler does nothing, as a part of one.
    pub hpa_tolerance: f64,
    /// How long after a pod's start its CPU use counts only if measured while ready.
    pub hpa_cpu_initialization: Duration,
    /// How long after its start a pod that was never ready counts as not ready.
    pub hpa_initial_readiness_delay: Duration,
    /// The time of day by which CronJobs start.
    pub clock: clock::Clock,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            root_ca_pem: String::new(),
            volumes: VolumeFolders::default(),
            node_monitor_grace: Duration::from_secs(50),
            pod_gc_quarantine: Duration::from_secs(40),
            terminated_pod_threshold: 12_500,
            hpa_sync_period: Duration::from_secs(15),
            hpa_tolerance: 0.1,
            hpa_cpu_initialization: Duration::from_secs(300),
            hpa_initial_readiness_delay: Duration::from_secs(30),
            clock: clock::Clock::default(),
        }
    }
}

/// What every controller reads and writes through.
pub struct Context {
    pub(crate) client: kube::Client,
    pub(crate) config: ControllersConfig,
    pub(crate) events: events::EventRecorder,
    pub(crate) pods: Informer<Pod>,
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) deployments: Informer<Deployment>,
    pub(crate) stateful_sets: Informer<StatefulSet>,
    pub(crate) daemon_sets: Informer<DaemonSet>,
    pub(crate) revisions: Informer<ControllerRevision>,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) jobs: Informer<Job>,
    pub(crate) cron_jobs: Informer<CronJob>,
    pub(crate) budgets: Informer<PodDisruptionBudget>,
    pub(crate) services: Informer<Service>,
    pub(crate) endpoint_slices: Informer<EndpointSlice>,
    pub(crate) endpoints: Informer<Endpoints>,
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) service_accounts: Informer<ServiceAccount>,
    /// ConfigMaps called `kube-root-ca.crt` only.
    pub(crate) root_certificates: Informer<ConfigMap>,
    pub(crate) nodes: Informer<Node>,
    /// Leases of the namespace `kube-node-lease` only.
    pub(crate) leases: Informer<Lease>,
    pub(crate) autoscalers: Informer<HorizontalPodAutoscaler>,
    pub(crate) volumes: Informer<PersistentVolume>,
    pub(crate) storage_classes: Informer<StorageClass>,
    pub(crate) quotas: Informer<ResourceQuota>,
    /// Namespaces with quotas whose content changed.
    pub(crate) counted: WorkQueue<ObjectKey>,
    /// Namespaces that are being deleted and may have become empty.
    pub(crate) ending: WorkQueue<ObjectKey>,
    /// CronJobs to look at, also when the clock is set.
    pub(crate) due: WorkQueue<ObjectKey>,
    pub(crate) daemon_failures: daemonset::Failures,
    pub(crate) heartbeats: node_lifecycle::Heartbeats,
    pub(crate) first_seen: eviction::FirstSeen,
    pub(crate) histories: hpa::Histories,
}

impl Context {
    fn new(client: kube::Client, config: ControllersConfig, events: events::EventRecorder) -> Self {
        let only = |field: &str| watcher::Config::default().fields(field);
        Self {
            pods: Informer::with(client.clone(), watcher::Config::default(), pod::slim, pod::index),
            replica_sets: Informer::by_controller(client.clone()),
            deployments: Informer::new(client.clone()),
            stateful_sets: Informer::new(client.clone()),
            daemon_sets: Informer::new(client.clone()),
            revisions: Informer::by_controller(client.clone()),
            claims: Informer::new(client.clone()),
            jobs: Informer::new(client.clone()),
            cron_jobs: Informer::new(client.clone()),
            budgets: Informer::new(client.clone()),
            services: Informer::new(client.clone()),
            endpoint_slices: Informer::new(client.clone()),
            endpoints: Informer::new(client.clone()),
            namespaces: Informer::new(client.clone()),
            service_accounts: Informer::new(client.clone()),
            root_certificates: Informer::selected(
                client.clone(),
                only(&format!("metadata.name={}", service_account::ROOT_CA)),
            ),
            nodes: Informer::new(client.clone()),
            leases: Informer::selected(client.clone(), only(&format!("metadata.namespace={}", node_lifecycle::LEASES))),
            autoscalers: Informer::new(client.clone()),
            volumes: Informer::new(client.clone()),
            storage_classes: Informer::new(client.clone()),
            quotas: Informer::new(client.clone()),
            counted: WorkQueue::default(),
            ending: WorkQueue::default(),
            due: WorkQueue::default(),
            daemon_failures: Default::default(),
            heartbeats: Default::default(),
            first_seen: Default::default(),
            histories: Default::default(),
            client,
            config,
            events,
        }
    }
}

/// All controllers and the scheduler of a cluster, as one component.
pub struct Controllers {
    context: Arc<Context>,
    writer: events::EventWriter,
}

impl Controllers {
    /// Controllers that reach the API server through `client`, which must be allowed everything.
    pub fn new(client: kube::Client, config: ControllersConfig) -> Self {
        let (recorder, writer) = events::recorder(client.clone());
        Self { context: Arc::new(Context::new(client, config, recorder)), writer }
    }
}

/// Starts the queue of one controller module.
macro_rules! controller {
    ($tasks:expr, $context:expr, $shutdown:expr, $name:literal, $workers:literal, $module:ident) => {{
        let queue = $module::register(&$context);
        let (context, shutdown) = ($context.clone(), $shutdown.clone());
        $tasks.spawn(async move {
            context.synced().await;
            let reconcile = |key| {
                let context = context.clone();
                async move { $module::reconcile(&context, key).await }
            };
            queue.run($name, $workers, shutdown, reconcile).await;
        });
    }};
}

impl Context {
    /// Waits until every cache has its first list.
    async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.replica_sets.synced(),
            self.deployments.synced(),
            self.jobs.synced(),
            self.stateful_sets.synced(),
            self.daemon_sets.synced(),
            self.revisions.synced(),
            self.claims.synced(),
            self.cron_jobs.synced(),
            self.budgets.synced(),
            self.services.synced(),
            self.endpoint_slices.synced(),
            self.endpoints.synced(),
            self.namespaces.synced(),
            self.service_accounts.synced(),
            self.root_certificates.synced(),
            self.nodes.synced(),
            self.leases.synced(),
            self.autoscalers.synced(),
            self.volumes.synced(),
            self.storage_classes.synced(),
            self.quotas.synced(),
        );
    }

    /// Starts every watch; after all handlers are registered.
    fn watch(&self, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        spawn(tasks, &self.pods, shutdown);
        spawn(tasks, &self.replica_sets, shutdown);
        spawn(tasks, &self.deployments, shutdown);
        spawn(tasks, &self.jobs, shutdown);
        spawn(tasks, &self.stateful_sets, shutdown);
        spawn(tasks, &self.daemon_sets, shutdown);
        spawn(tasks, &self.revisions, shutdown);
        spawn(tasks, &self.claims, shutdown);
        spawn(tasks, &self.cron_jobs, shutdown);
        spawn(tasks, &self.budgets, shutdown);
        spawn(tasks, &self.services, shutdown);
        spawn(tasks, &self.endpoint_slices, shutdown);
        spawn(tasks, &self.endpoints, shutdown);
        spawn(tasks, &self.namespaces, shutdown);
        spawn(tasks, &self.service_accounts, shutdown);
        spawn(tasks, &self.root_certificates, shutdown);
        spawn(tasks, &self.nodes, shutdown);
        spawn(tasks, &self.leases, shutdown);
        spawn(tasks, &self.autoscalers, shutdown);
        spawn(tasks, &self.volumes, shutdown);
        spawn(tasks, &self.storage_classes, shutdown);
        spawn(tasks, &self.quotas, shutdown);
    }
}

fn spawn<K: Cached>(tasks: &mut JoinSet<()>, informer: &Informer<K>, shutdown: &CancellationToken) {
    tasks.spawn(informer.clone().run(shutdown.clone()));
}

#[async_trait]
impl Component for Controllers {
    fn name(&self) -> &'static str {
        "controllers"
    }

    async fn run(self: Box<Self>, run: RunContext) -> Result<(), ComponentError> {
        let Self { context, writer } = *self;
        let mut tasks = JoinSet::new();
        let shutdown = run.shutdown.child_token();
        controller!(tasks, context, shutdown, "deployment", 4, deployment);
        controller!(tasks, context, shutdown, "replicaset", 8, replicaset);
        controller!(tasks, context, shutdown, "endpoints", 8, endpoints);
        controller!(tasks, context, shutdown, "statefulset", 4, statefulset);
        controller!(tasks, context, shutdown, "daemonset", 2, daemonset);
        controller!(tasks, context, shutdown, "job", 4, job);
        controller!(tasks, context, shutdown, "cronjob", 4, cronjob);
        tasks.spawn(cronjob::follow_clock(context.clone(), shutdown.clone()));
        controller!(tasks, context, shutdown, "disruption", 2, disruption);
        controller!(tasks, context, shutdown, "horizontal-pod-autoscaler", 4, hpa);
        controller!(tasks, context, shutdown, "namespace", 4, namespace);
        controller!(tasks, context, shutdown, "service-account", 2, service_account);
        controller!(tasks, context, shutdown, "node-lifecycle", 4, node_lifecycle);
        controller!(tasks, context, shutdown, "taint-eviction", 4, eviction);
        controller!(tasks, context, shutdown, "pod-gc", 2, pod_gc);
        controller!(tasks, context, shutdown, "persistent-volume", 4, volume);
        controller!(tasks, context, shutdown, "ephemeral-volume", 2, ephemeral_volume);
        controller!(tasks, context, shutdown, "resource-quota", 2, resource_quota);
        let (collecting, stop) = (context.clone(), shutdown.clone());
        tasks.spawn(async move {
            collecting.synced().await;
            gc::run(collecting, stop).await;
        });
        let (changed, scheduling, stop) = (scheduler::register(&context), context.clone(), shutdown.clone());
        tasks.spawn(async move {
            scheduling.synced().await;
            scheduler::run(scheduling, changed, stop).await;
        });
        tasks.spawn(writer.run(shutdown.clone()));
        context.watch(&mut tasks, &shutdown);
        let readiness = async {
            context.synced().await;
            run.readiness.ready();
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = tasks.join_next() => ended,
            () = readiness => None,
        };
        shutdown.cancel();
        while tasks.join_next().await.is_some() {}
        match ended {
            Some(Err(error)) => Err(error.into()),
            Some(Ok(())) if !run.shutdown.is_cancelled() => {
                Err(ControllerError::NotYet("a controller ended by itself".into()).into())
            }
            _ => Ok(()),
        }
    }
}
