//! The admission chain: what the cluster adds to or refuses of a write, beyond the kind's rules.
//!
//! Plug-ins run in this order, as kube-apiserver's: `NamespaceLifecycle`, `LimitRanger`,
//! `ServiceAccount`, `Priority`, `DefaultTolerationSeconds`, `StorageObjectInUseProtection`,
//! `DefaultStorageClass`, `PersistentVolumeClaimResize`, `DefaultIngressClass`; last of all, when
//! the object is valid, `ResourceQuota` ([`quota`]).
//! Not emulated yet, and named by `aksim fidelity`: `PodSecurity`, webhooks and admission policies.

mod change;
mod gaps;
mod lifecycle;
mod limits;
mod pods;
pub mod quota;
mod volumes;

use crate::{
    request::{status::ApiError, target::Target},
    store::Key,
};
use serde_json::Value;

pub use change::{Change, Part};

type Plugin = fn(&Change<'_>, &mut Value) -> Result<(), ApiError>;

/// Plug-ins with the tables they look at; none means all.
const CHAIN: &[(&[&str], Plugin)] = &[
    (&[], gaps::say),
    (&[], lifecycle::namespace_lifecycle),
    (&["pods"], limits::pod),
    (&["persistentvolumeclaims"], limits::claim),
    (&["pods"], pods::service_account),
    (&["pods"], pods::priority),
    (&["pods"], pods::default_tolerations),
    (&["persistentvolumeclaims", "persistentvolumes"], volumes::protect),
    (&["persistentvolumeclaims"], volumes::default_storage_class),
    (&["persistentvolumeclaims"], volumes::resize),
    (&["ingresses.networking.k8s.io"], lifecycle::default_ingress_class),
];

/// Runs the chain over an object that is to be written.
///
/// # Errors
/// 403, 404 or 422 of a plug-in.
pub fn mutate(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if !matches!(change.part, Part::Whole | Part::EphemeralContainers) {
        return Ok(());
    }
    for (tables, plugin) in CHAIN {
        if tables.is_empty() || tables.contains(&change.target.table_name.as_str()) {
            plugin(change, value)?;
        }
    }
    Ok(())
}

/// Checks that an object may be removed.
///
/// # Errors
/// 403 for what the cluster cannot do without.
pub fn delete(target: &Target, key: &Key) -> Result<(), ApiError> {
    lifecycle::keep_system_namespaces(target, key)
}
