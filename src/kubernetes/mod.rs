//! The embedded control plane: a Kubernetes API server without etcd (DESIGN §6).

pub mod codec;
pub mod patch;
pub mod schema;
pub mod store;
