//! Containers, pod network, volumes, kubelet, service proxy, cluster DNS.

pub mod aks;
pub mod azure;
pub mod container;
pub mod dns;
pub mod kubelet;
pub mod proxy;
pub mod runtime;
pub mod streaming;
#[cfg(test)]
mod testing;
