//! The embedded control plane: a Kubernetes API server without etcd.

pub mod store;
//! Embedded control plane (DESIGN §6). See the map in the crate root.

pub mod codec;
pub mod patch;
pub mod schema;
