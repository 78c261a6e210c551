//! Connections from the API server into the node network.

use aksim_runtime::{
    net::{DirectDialer, SharedDialer},
    pki::{Identity, Pki, PkiError},
};
use axum::body::Body;
use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

/// How long connecting and shaking hands may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Why a request could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("dial tcp {address}: {source}")]
    Dial {
        /// To where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(SocketAddr),
    /// The connection broke, or what came was not HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

/// Opens connections to kubelets and pods. The dialer is set when the node network is there.
pub struct Upstream {
    dialer: RwLock<SharedDialer>,
    tls: Arc<ClientConfig>,
    connections: Mutex<JoinSet<()>>,
}

impl Upstream {
    /// Connections straight from the host, until a dialer is set; kubelets are shown `identity`.
    ///
    /// # Errors
    /// [`PkiError`] when the certificates do not parse.
    pub fn new(pki: &Pki, identity: &Identity) -> Result<Self, PkiError> {
        let tls = Arc::new(pki.client_config(Some(identity))?);
        Ok(Self { dialer: RwLock::new(Arc::new(DirectDialer)), tls, connections: Mutex::default() })
    }

    /// Connects through `dialer` from now on.
    pub fn set_dialer(&self, dialer: SharedDialer) {
        *self.dialer.write() = dialer;
    }

    /// Sends a request to `address`; over TLS, verified for that address, when `tls`.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn send(
        &self,
        address: SocketAddr,
        tls: bool,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let connecting = self.connect(address, tls);
        let mut sender =
            tokio::time::timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| UpstreamError::Timeout(address))??;
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self, address: SocketAddr, tls: bool) -> Result<http1::SendRequest<Body>, UpstreamError> {
        let dialer = self.dialer.read().clone();
        let dial = |source| UpstreamError::Dial { address, source };
        let stream = dialer.dial(address).await.map_err(dial)?;
        if !tls {
            return self.handshake(stream).await;
        }
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(dial)?;
        self.handshake(stream).await
    }

    async fn handshake<S>(&self, stream: S) -> Result<http1::SendRequest<Body>, UpstreamError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection");
            }
        });
        Ok(sender)
    }

    /// Runs a connection's work until it ends or the server does.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut connections = self.connections.lock();
        while connections.try_join_next().is_some() {}
        connections.spawn(work);
    }

    /// Ends all connections.
    pub fn close(&self) {
        self.connections.lock().abort_all();
    }
}
