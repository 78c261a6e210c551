//! kube-rs controllers over a `kube::Client`: workloads, endpoints, namespaces, garbage
//! collection, autoscaling, nodes, and the scheduler.
//!
//! Each controller is a queue of keys, fed by the watches it depends on, and a level-triggered
//! `reconcile(context, key)` that reads the shared caches and brings one object a step closer to
//! what it should be. Decisions are pure functions in `plan` modules.
//!
//! Not here yet, to be added the same way (one module, one row of `CONTROLLERS`): CertificateSigningRequest
//! approval, mirroring of hand-written Endpoints, preemption.

mod caches;
mod clock;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod ephemeral_volume;
mod error;
mod events;
mod eviction;
mod gc;
mod history;
mod hpa;
mod informer;
mod job;
mod namespace;
mod node_lifecycle;
mod ownership;
mod pod;
mod pod_gc;
mod quantity;
mod queue;
mod replicaset;
mod resource_quota;
mod scheduler;
mod service_account;
mod statefulset;
mod volume;

pub use clock::Clock;

use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    volumes::VolumeFolders,
};
use async_trait::async_trait;
use caches::Caches;
use error::ControllerError;
use futures::future::{BoxFuture, join_all};
use informer::ObjectKey;
use queue::{Requeue, WorkQueue};
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
    pub(crate) caches: Caches,
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
        Self {
            caches: Caches::new(&client),
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

/// Every controller lives by the caches: `context.pods` is `context.caches.pods`.
impl std::ops::Deref for Context {
    type Target = Caches;

    fn deref(&self) -> &Caches {
        &self.caches
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

/// A queue of keys and what brings one object a step closer to what it should be.
struct Controller {
    name: &'static str,
    /// How many keys are worked on at once.
    workers: usize,
    /// Follows the watches it depends on; before they start.
    register: fn(&Arc<Context>) -> WorkQueue<ObjectKey>,
    reconcile: for<'a> fn(&'a Context, ObjectKey) -> BoxFuture<'a, Result<Requeue, ControllerError>>,
}

/// A controller a row: its name, its workers, the module that has its `register` and `reconcile`.
macro_rules! controllers {
    ($($name:literal, $workers:literal, $module:ident;)*) => {
        const CONTROLLERS: &[Controller] = &[$(Controller {
            name: $name,
            workers: $workers,
            register: $module::register,
            reconcile: |context, key| Box::pin($module::reconcile(context, key)),
        },)*];
    };
}

controllers! {
    "deployment", 4, deployment;
    "replicaset", 8, replicaset;
    "endpoints", 8, endpoints;
    "statefulset", 4, statefulset;
    "daemonset", 2, daemonset;
    "job", 4, job;
    "cronjob", 4, cronjob;
    "disruption", 2, disruption;
    "horizontal-pod-autoscaler", 4, hpa;
    "namespace", 4, namespace;
    "service-account", 2, service_account;
    "node-lifecycle", 4, node_lifecycle;
    "taint-eviction", 4, eviction;
    "pod-gc", 2, pod_gc;
    "persistent-volume", 4, volume;
    "ephemeral-volume", 2, ephemeral_volume;
    "resource-quota", 2, resource_quota;
}

impl Controller {
    /// Registers its handlers at once; the future works on the queue once the caches are filled.
    fn start(&'static self, context: &Arc<Context>, shutdown: &CancellationToken) -> impl Future<Output = ()> + use<> {
        let queue = (self.register)(context);
        let (context, shutdown) = (context.clone(), shutdown.clone());
        async move {
            context.synced().await;
            let reconcile = |key| {
                let context = context.clone();
                async move { (self.reconcile)(&context, key).await }
            };
            queue.run(self.name, self.workers, shutdown, reconcile).await;
        }
    }
}

impl Context {
    /// Waits until every cache has its first list.
    async fn synced(&self) {
        join_all(self.caches.each().map(|cache| cache.synced())).await;
    }

    /// Starts every watch; after all handlers are registered.
    fn watch(&self, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        for cache in self.caches.each() {
            tasks.spawn(cache.watch(shutdown.clone()));
        }
    }
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
        for controller in CONTROLLERS {
            tasks.spawn(controller.start(&context, &shutdown));
        }
        tasks.spawn(cronjob::follow_clock(context.clone(), shutdown.clone()));
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
