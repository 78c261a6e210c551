//! The container runtime: pods on Linux namespaces, as root and rootless.
//!
//! | process | what it is |
//! | - | - |
//! | daemon | [`ContainerRuntime`] in aksim itself; keeps no container alive |
//! | agent | `aksim __node-agent`: the node's namespaces; process 1 of them, outlives the daemon |
//! | shim | forked from the agent, one a container: its parent, log writer, exec server |
//!
//! The daemon speaks to agent and shims by [`wire`] and finds them again by their sockets. Where
//! the pods are is a network namespace without a way out: sockets made inside it and passed to
//! the daemon are the only doors.

pub mod agent;
pub mod cgroup;
mod client;
pub mod config;
mod containers;
mod image;
pub mod launch;
mod netlink;
mod network;
mod put;
mod record;
mod reexec;
pub mod run;
mod runtime;
mod session;
mod shim;
pub mod spec;
mod usage;
mod userns;
pub mod wire;

pub use config::{ContainerRuntimeConfig, Ipv4Network};
pub use network::ContainerNetwork;
pub use reexec::reexec;
pub use runtime::ContainerRuntime;
