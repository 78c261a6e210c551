//! The kinds that controllers watch: one table, of which everything else about them is made.

use super::{
    informer::{Informer, Watched},
    node_lifecycle,
    pod::{self, Pod},
    service_account,
};
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
use kube::{Client, runtime::watcher};

/// A cache a row: its name, its kind, and what makes its informer of a client.
macro_rules! caches {
    ($($(#[$doc:meta])* $name:ident: $kind:ident = $informer:expr;)*) => {
        /// The shared caches of all controllers.
        pub struct Caches {
            $($(#[$doc])* pub(crate) $name: Informer<$kind>,)*
        }

        impl Caches {
            /// Empty caches that will be filled through `client`.
            pub(crate) fn new(client: &Client) -> Self {
                Self { $($name: $informer(client.clone()),)* }
            }

            /// Each of them.
            pub(crate) fn each(&self) -> impl Iterator<Item = &dyn Watched> {
                [$(&self.$name as &dyn Watched,)*].into_iter()
            }
        }
    };
}

caches! {
    pods: Pod = |client| Informer::with(client, watcher::Config::default(), pod::slim, pod::index);
    replica_sets: ReplicaSet = Informer::by_controller;
    deployments: Deployment = Informer::new;
    stateful_sets: StatefulSet = Informer::new;
    daemon_sets: DaemonSet = Informer::new;
    revisions: ControllerRevision = Informer::by_controller;
    claims: PersistentVolumeClaim = Informer::new;
    jobs: Job = Informer::new;
    cron_jobs: CronJob = Informer::new;
    budgets: PodDisruptionBudget = Informer::new;
    services: Service = Informer::new;
    endpoint_slices: EndpointSlice = Informer::new;
    endpoints: Endpoints = Informer::new;
    namespaces: Namespace = Informer::new;
    service_accounts: ServiceAccount = Informer::new;
    /// ConfigMaps called `kube-root-ca.crt` only.
    root_certificates: ConfigMap = only("metadata.name", service_account::ROOT_CA);
    nodes: Node = Informer::new;
    /// Leases of the namespace `kube-node-lease` only.
    leases: Lease = only("metadata.namespace", node_lifecycle::LEASES);
    autoscalers: HorizontalPodAutoscaler = Informer::new;
    volumes: PersistentVolume = Informer::new;
    storage_classes: StorageClass = Informer::new;
    quotas: ResourceQuota = Informer::new;
}

/// An informer of the objects of which `field` has this value.
fn only<K: super::informer::Cached>(field: &str, value: &str) -> impl FnOnce(Client) -> Informer<K> {
    let config = watcher::Config::default().fields(&format!("{field}={value}"));
    move |client| Informer::selected(client, config)
}
