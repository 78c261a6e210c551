//! Listeners on loopback and dialers into the node network.

use async_trait::async_trait;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::{TcpListener, TcpStream};

/// Opens TCP connections. The node's dialer reaches pod and service addresses that the host
/// has no route to; everything else goes straight out.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `address`.
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// Connects from the host's own network.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectDialer;

#[async_trait]
impl Dialer for DirectDialer {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A shared dialer.
pub type SharedDialer = Arc<dyn Dialer>;

/// Listens on 127.0.0.1 at `port`; at a free one when `port` is 0.
///
/// # Errors
/// Any error of binding, the port taken among them; the message names the address.
pub async fn listen_loopback(port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpListener::bind(address).await.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}
