//! Listeners on loopback, dialers into the node network, HTTP clients that know the Azure names.

use crate::pki::{Pki, PkiError};
use aksim_model::endpoint::AzureName;
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

/// Why an HTTP client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The environment's CA cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// reqwest refuses the configuration.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// An HTTP client as code inside the environment sees the world: it trusts the environment's CA
/// alone, reaches every Azure name at its local server, and asks no proxy.
///
/// `https://HOST/` without a port goes to the port of the name's target; a port other than the
/// scheme's own in the URL is kept (hyper-util respects explicit ports only).
///
/// # Errors
/// [`HttpClientError`] when the CA does not parse.
pub fn azure_http_client(pki: &Pki, names: &[AzureName]) -> Result<reqwest::Client, HttpClientError> {
    let mut tls = pki.client_config(None)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .connect_timeout(std::time::Duration::from_secs(10));
    let builder = names.iter().fold(builder, |builder, name| builder.resolve(&name.host, name.target));
    Ok(builder.build()?)
}
