//! The embedded control plane: a Kubernetes API server without etcd.

pub mod admission;
pub mod auth;
pub mod codec;
pub mod patch;
pub mod schema;
pub mod server;
pub mod store;
pub mod stream;

pub use server::{ApiServer, ApiServerConfig, ApiServerError};
