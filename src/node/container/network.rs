//! The node network as the daemon uses it: sockets made inside by the agent, used here.

use super::{client::AgentClient, config::Ipv4Network, wire::AgentRequest};
use crate::runtime::NodeNetwork;
use aksim_runtime::net::Dialer;
use async_trait::async_trait;
use parking_lot::Mutex;
use socket2::TcpKeepalive;
use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// Sockets fetched at once for dialing.
const BATCH: usize = 8;

/// Network of the node.
pub struct ContainerNetwork {
    agent: Arc<AgentClient>,
    /// Ranges that exist only inside.
    ranges: Vec<Ipv4Network>,
    added: Mutex<HashSet<IpAddr>>,
    /// Unused IPv4 stream sockets of the node's namespace.
    spare: Mutex<Vec<OwnedFd>>,
}

impl ContainerNetwork {
    pub(super) fn new(agent: Arc<AgentClient>, ranges: Vec<Ipv4Network>) -> Self {
        Self { agent, ranges, added: Mutex::default(), spare: Mutex::default() }
    }

    /// Forgets sockets of an agent that has ended.
    pub(super) fn forget(&self) {
        self.spare.lock().clear();
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.added.lock().contains(&address)
            || matches!(address, IpAddr::V4(v4) if self.ranges.iter().any(|r| r.contains(v4)))
    }

    async fn sockets(
        &self,
        sandbox: Option<&str>,
        udp: bool,
        address: SocketAddr,
        count: usize,
    ) -> io::Result<Vec<OwnedFd>> {
        let request =
            AgentRequest::Sockets { sandbox: sandbox.map(str::to_owned), udp, ipv6: address.is_ipv6(), count };
        let (_, fds) = self.agent.call(&request).await?;
        if fds.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(fds) }
    }

    async fn socket(&self, sandbox: Option<&str>, udp: bool, address: SocketAddr) -> io::Result<OwnedFd> {
        self.sockets(sandbox, udp, address, 1).await?.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn spare(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        if address.is_ipv6() {
            return self.socket(None, false, address).await;
        }
        if let Some(fd) = self.spare.lock().pop() {
            return Ok(fd);
        }
        let mut fds = self.sockets(None, false, address, BATCH).await?;
        let fd = fds.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.spare.lock().extend(fds);
        Ok(fd)
    }
}

/// How long the other side's kernel may leave what was sent unconfirmed. It confirms at once, however
/// busy the process; one that does not has gone, with a node or the network of a pod, and said nothing.
const SILENCE: Duration = Duration::from_secs(2);

/// Ends connections whose other side has gone without a word; accepted ones have it from their listener.
fn end_when_silent(socket: &OwnedFd) -> io::Result<()> {
    let options = socket2::SockRef::from(socket);
    options.set_tcp_user_timeout(Some(SILENCE))?;
    let alive = TcpKeepalive::new().with_time(SILENCE).with_interval(Duration::from_secs(1)).with_retries(2);
    options.set_tcp_keepalive(&alive)
}

async fn connect(socket: OwnedFd, address: SocketAddr) -> io::Result<TcpStream> {
    end_when_silent(&socket)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[async_trait]
impl Dialer for ContainerNetwork {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if self.is_inside(address.ip()) {
            connect(self.spare(address).await?, address).await
        } else {
            aksim_runtime::net::DirectDialer.dial(address).await
        }
    }
}

#[async_trait]
impl NodeNetwork for ContainerNetwork {
    async fn dial_sandbox(&self, sandbox: &str, port: u16) -> io::Result<TcpStream> {
        let v4 = SocketAddr::from(([127, 0, 0, 1], port));
        match connect(self.socket(Some(sandbox), false, v4).await?, v4).await {
            // As the kubelet's port-forward does: a server on ::1 alone is found too.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
                connect(self.socket(Some(sandbox), false, v6).await?, v6).await.map_err(|_| e)
            }
            other => other,
        }
    }

    async fn add_address(&self, address: IpAddr) -> io::Result<()> {
        self.agent.call(&AgentRequest::AddAddress { address }).await?;
        self.added.lock().insert(address);
        Ok(())
    }

    async fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.socket(None, false, address).await?;
        end_when_silent(&socket)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    }

    async fn listen_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(None, true, address).await?;
        socket2::SockRef::from(&socket).bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    }
}
