//! What can be broken. A new kind is a file and a line in [`TABLE`]. Names are Chaos Mesh's where it has
//! the fault, AKS's otherwise.

mod container_kill;
mod node_drain;
mod node_failure;
mod pod_kill;
mod target;

use super::{
    Run, ScenarioError,
    table::{Row, arguments, schema_of},
};
use async_trait::async_trait;
use rand::rngs::StdRng;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// What was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// For people.
    pub what: String,
    /// Name of the pod or of the node.
    pub name: String,
}

/// Something that can be broken.
#[async_trait]
pub trait FaultKind: Send + Sync {
    /// Chooses who it meets, by `rng` alone.
    async fn choose(&self, run: &Run<'_>, rng: &mut StdRng) -> Result<Victim, ScenarioError>;

    /// Breaks it.
    async fn inject(&self, run: &Run<'_>, victim: &Victim) -> Result<(), ScenarioError>;

    /// Makes it whole. What heals by itself needs nothing.
    async fn heal(&self, _: &Run<'_>, _: &Victim) -> Result<(), ScenarioError> {
        Ok(())
    }
}

const fn row<F>(name: &'static str) -> Row<dyn FaultKind>
where
    F: FaultKind + DeserializeOwned + JsonSchema + 'static,
{
    Row { name, schema: schema_of::<F>, read: |value| Ok(Box::new(arguments::<F>(value)?)) }
}

/// All kinds.
pub const TABLE: &[Row<dyn FaultKind>] = &[
    row::<container_kill::ContainerKill>("container-kill"),
    row::<node_drain::NodeDrain>("node-drain"),
    row::<node_failure::NodeFailure>("node-failure"),
    row::<pod_kill::PodKill>("pod-kill"),
];

/// Kinds that have a name in the field and are not there yet.
pub const NOT_YET: &[&str] = &[
    "pod-failure",
    "network-delay",
    "network-loss",
    "network-duplicate",
    "network-corrupt",
    "network-partition",
    "network-bandwidth",
    "dns-error",
    "dns-random",
    "http-abort",
    "http-delay",
    "http-replace",
    "http-patch",
    "stress-cpu",
    "stress-memory",
    "io-latency",
    "io-fault",
    "io-attr-override",
    "io-mistake",
    "time-offset",
    "zone-outage",
    "spot-eviction",
    "pool-upgrade",
    "registry-outage",
    "database-failover",
    "key-rotation",
    "token-expiry",
];

/// A kind by name.
pub fn find(name: &str) -> Option<&'static Row<dyn FaultKind>> {
    TABLE.iter().find(|row| row.name == name)
}
