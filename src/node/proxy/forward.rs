//! Carrying connections and datagrams from a listener to an endpoint.

use super::pool::Pool;
use crate::{kubelet::Cidr, runtime::NodeNetwork};
use aksim_runtime::net::{Dialer, DirectDialer};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What one endpoint gets to accept before the next is tried.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Endpoints tried for one connection.
const ATTEMPTS: usize = 4;
/// Bytes in flight each way.
const BUFFER: usize = 32 * 1024;
/// A datagram session without traffic ends.
const UDP_IDLE: Duration = Duration::from_secs(30);
/// Clients of one datagram port at a time.
const UDP_SESSIONS: usize = 1024;
const DATAGRAM: usize = 65_535;

/// What every forwarder needs.
pub(super) struct Forwarder {
    pub network: Arc<dyn NodeNetwork>,
    pub nodes: Vec<(String, Cidr)>,
}

impl Forwarder {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        // Servers of this environment listen on the host's loopback.
        let dialed = async {
            match address.ip().is_loopback() {
                true => DirectDialer.dial(address).await,
                false => self.network.dial(address).await,
            }
        };
        tokio::time::timeout(CONNECT_DEADLINE, dialed).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Accepts until `close`; connections under way then go on to their own end.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, pool: Arc<Pool>, close: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = close.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    connections.spawn(self.clone().carry(stream, client.ip(), pool.clone()));
                }
                Err(error) => {
                    // Out of descriptors, or a client that is gone already.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream, from: IpAddr, pool: Arc<Pool>) {
        for address in pool.candidates(from, &self.nodes).into_iter().take(ATTEMPTS) {
            match self.dial(address).await {
                Ok(mut backend) => {
                    pool.connected(from, address);
                    // Latency over fullness of packets; a failure to set it is harmless.
                    let _ = client.set_nodelay(true);
                    let copied =
                        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER).await;
                    if let Err(error) = copied {
                        tracing::trace!(%error, %address, "connection ended");
                    }
                    return;
                }
                Err(error) => tracing::debug!(%error, %address, "endpoint does not accept"),
            }
        }
        // Refused, as kube-proxy refuses a service without endpoints: a reset, not an end of file.
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }

    /// Carries datagrams until `close`; a client keeps its endpoint while it sends.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket, pool: Arc<Pool>, close: CancellationToken) {
        let socket = Arc::new(socket);
        let mut sessions: HashMap<SocketAddr, Arc<UdpSession>> = HashMap::new();
        let mut replies: JoinSet<SocketAddr> = JoinSet::new();
        let mut buffer = vec![0u8; DATAGRAM];
        loop {
            let received = tokio::select! {
                () = close.cancelled() => return,
                Some(ended) = replies.join_next(), if !replies.is_empty() => {
                    if let Ok(client) = ended {
                        sessions.remove(&client);
                    }
                    continue;
                }
                received = socket.recv_from(&mut buffer) => received,
            };
            let Ok((length, client)) = received else { continue };
            if !sessions.contains_key(&client) {
                if sessions.len() >= UDP_SESSIONS {
                    continue;
                }
                let Some(backend) = pool.candidates(client.ip(), &self.nodes).first().copied() else { continue };
                let Ok(near) = self.datagram_socket(backend).await else { continue };
                let session = Arc::new(UdpSession { near, backend, used: parking_lot::Mutex::new(Instant::now()) });
                replies.spawn(session.clone().reply(socket.clone(), client));
                sessions.insert(client, session);
            }
            if let Some(session) = sessions.get(&client) {
                *session.used.lock() = Instant::now();
                // A lost datagram is the protocol's own business.
                let _ = session.near.send_to(&buffer[..length], session.backend).await;
            }
        }
    }

    async fn datagram_socket(&self, backend: SocketAddr) -> io::Result<UdpSocket> {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        match backend.ip().is_loopback() {
            true => UdpSocket::bind(any).await,
            false => self.network.listen_udp(any).await,
        }
    }
}

struct UdpSession {
    near: UdpSocket,
    backend: SocketAddr,
    used: parking_lot::Mutex<Instant>,
}

impl UdpSession {
    /// Sends what the endpoint answers back to the client until neither sends for a while.
    async fn reply(self: Arc<Self>, front: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
        let mut buffer = vec![0u8; DATAGRAM];
        loop {
            let idle = *self.used.lock() + UDP_IDLE;
            tokio::select! {
                received = self.near.recv_from(&mut buffer) => {
                    if let Ok((length, from)) = received
                        && from == self.backend
                    {
                        *self.used.lock() = Instant::now();
                        let _ = front.send_to(&buffer[..length], client).await;
                    }
                }
                () = tokio::time::sleep_until(idle) => {
                    if self.used.lock().elapsed() >= UDP_IDLE {
                        return client;
                    }
                }
            }
        }
    }
}
