//! Containers, pod network, volumes, kubelet, service proxy, cluster DNS.

pub mod runtime;
