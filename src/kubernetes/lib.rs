//! The embedded control plane: a Kubernetes API server without etcd.

mod admission;
mod auth;
mod codec;
mod patch;
mod request;
mod schema;
mod server;
mod store;
mod stream;

pub use server::{ApiServer, ApiServerConfig, ApiServerError};
