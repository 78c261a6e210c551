//! HTTP server glue: one accept loop for every server of aksim, HTTP/1.1 and HTTP/2, TLS or not.

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{ServerConfig, pki_types::CertificateDer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long open requests may take to end once the server stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// Facts about the connection, in every request's extensions.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// Client certificate chain, leaf first, verified against the environment's CA; empty without.
    pub client_certificates: Arc<Vec<CertificateDer<'static>>>,
    /// Server name the client asked for in TLS.
    pub server_name: Option<Arc<str>>,
}

/// Serves `service` on `listener` until `shutdown`; then refuses new connections, lets open
/// requests end within two seconds, and returns.
///
/// # Errors
/// None today; errors of single connections are logged at debug level.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    service: S,
    shutdown: CancellationToken,
) -> std::io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client gone before accept: neither ends the server.
                tracing::debug!(%error, "accept");
                tokio::task::yield_now().await;
                continue;
            }
        };
        // Latency over fullness of packets; a failure to set it is harmless.
        let _ = stream.set_nodelay(true);
        let (service, shutdown, acceptor) = (service.clone(), shutdown.clone(), acceptor.clone());
        connections.spawn(async move {
            let Some(acceptor) = acceptor else {
                let info = ConnectionInfo { peer, client_certificates: Arc::default(), server_name: None };
                return serve_connection(stream, info, service, shutdown).await;
            };
            match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    let chain = session
                        .peer_certificates()
                        .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect::<Vec<_>>());
                    let info = ConnectionInfo {
                        peer,
                        client_certificates: Arc::new(chain.unwrap_or_default()),
                        server_name: session.server_name().map(Arc::from),
                    };
                    serve_connection(stream, info, service, shutdown).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, %peer, "TLS handshake"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
    drop(listener);
    drain(connections).await;
    Ok(())
}

/// Lets the requests of connections that know of the end finish, within two seconds.
pub(crate) async fn drain(mut connections: JoinSet<()>) {
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_DEADLINE, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves one connection until it ends, or gracefully when `shutdown` is cancelled.
pub async fn serve_connection<I, S>(io: I, info: ConnectionInfo, service: S, shutdown: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(info.clone());
        let mut service = service.clone();
        async move { service.call(request).await }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error, "connection");
    }
}
