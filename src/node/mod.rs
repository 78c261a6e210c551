//! Containers, pod network, volumes, kubelet, service proxy, cluster DNS.

pub mod aks;
pub mod kubelet;

pub mod container;
pub mod runtime;
pub mod streaming;
#[cfg(test)]
mod testing;
