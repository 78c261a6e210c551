//! Where a server listens, and the Azure name that stands for it.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A named address that a person or a client uses from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What it is, for people: `API server`, `registry`, `shop`.
    pub name: String,
    /// URL, or `host:port` where the protocol has no URL.
    pub url: String,
}

/// An Azure DNS name answered by a server of this environment.
///
/// Inside the cluster DNS resolves `host` to an address of the node network that forwards
/// `port` to `target`; on the host the image puller and the ingress use the same table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AzureName {
    /// Fully qualified, lower case, no trailing dot: `shopacr.azurecr.io`.
    pub host: String,
    /// Port that clients inside the cluster use: 443, 3306.
    pub port: u16,
    /// Address of the server on the host, always loopback.
    pub target: SocketAddr,
}
