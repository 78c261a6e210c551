//! Names of others: asked of the host's own name servers, from the host's network.

use hickory_proto::op::Message;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// What one server gets to answer before the next is asked.
const DEADLINE: Duration = Duration::from_secs(2);

/// Name servers of a `resolv.conf`.
pub(super) fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).collect()
}

/// Asks each server in turn; the first answer counts.
///
/// # Errors
/// The last server's error; `NotFound` when there is none.
pub(super) async fn ask(servers: &[SocketAddr], query: &[u8]) -> io::Result<Message> {
    let mut last = io::ErrorKind::NotFound.into();
    for server in servers {
        let answered = tokio::time::timeout(DEADLINE, ask_one(*server, query)).await;
        match answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(message) => return Ok(message),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask_one(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    // An id of our own: the client's is known to whoever runs in the cluster.
    let id: [u8; 2] = rand::random();
    let mut query = query.to_vec();
    query.get_mut(..2).ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(&id);
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0u8; 65_535];
    let answer = loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length].starts_with(&id) {
            break Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
        }
    };
    if answer.metadata.truncation { ask_tcp(server, &query).await } else { Ok(answer) }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0u8; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    Message::from_vec(&buffer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        let found = servers("# x\nnameserver 9.9.9.9\nsearch a\nnameserver ::1\nnameserver bad\n");
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["9.9.9.9:53", "[::1]:53"]);
    }
}
