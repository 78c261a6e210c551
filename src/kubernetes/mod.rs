//! The embedded control plane: a Kubernetes API server without etcd.

pub mod store;
