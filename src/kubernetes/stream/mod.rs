//! Requests that are passed on: to kubelets (logs, exec, attach, port-forward), pods and services.
//!
//! The API server authenticates and authorizes, then passes bytes. WebSocket and SPDY end in the
//! kubelet: an upgraded connection is copied as it is.

mod forward;
mod routes;
mod upstream;

pub use routes::{node, pod, service};
pub use upstream::Upstream;
