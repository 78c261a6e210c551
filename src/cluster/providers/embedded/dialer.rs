//! The way into the network that nodes and pods have apart from the host's.

use aksim_node::runtime::NodeNetwork;
use aksim_runtime::net::{Dialer, DirectDialer};
use async_trait::async_trait;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpStream;

/// Sends what belongs to the cluster's ranges through the node network, everything else directly.
pub struct ClusterDialer {
    network: Arc<dyn NodeNetwork>,
}

impl ClusterDialer {
    /// Through `network`.
    pub fn new(network: Arc<dyn NodeNetwork>) -> Self {
        Self { network }
    }
}

fn in_cluster(ip: IpAddr) -> bool {
    match ip {
        // 10.0 services, 10.224 nodes, 10.225 Azure names, 10.244 pods.
        IpAddr::V4(ip) => matches!(ip.octets(), [10, 0 | 224 | 225 | 244, ..]),
        IpAddr::V6(_) => false,
    }
}

#[async_trait]
impl Dialer for ClusterDialer {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if in_cluster(address.ip()) { self.network.dial(address).await } else { DirectDialer.dial(address).await }
    }
}
