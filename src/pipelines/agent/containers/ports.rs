//! Ports of containers on this machine.

use aksim_runtime::net::{SharedDialer, listen_loopback};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

/// Patience for a container to take a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A port that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forward {
    /// Of this machine; 0 for a free one.
    pub host: u16,
    /// Of the container.
    pub container: u16,
}

/// A port that is listened on.
pub(super) struct Listening {
    listener: TcpListener,
    /// Of this machine.
    pub port: u16,
}

impl Forward {
    /// Reads `ports:`: `CONTAINER`, `HOST:CONTAINER`, each with `/tcp` if wanted.
    ///
    /// # Errors
    /// Other text, UDP among it.
    pub fn of(ports: &[String]) -> Result<Vec<Self>, String> {
        ports
            .iter()
            .map(|text| Self::parse(text).ok_or_else(|| format!("port '{text}' is not [HOST:]CONTAINER[/tcp]")))
            .collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_suffix("/tcp").unwrap_or(text);
        let (host, container) = text.rsplit_once(':').unwrap_or(("0", text));
        let container = container.parse().ok().filter(|port| *port != 0)?;
        Some(Self { host: host.parse().ok()?, container })
    }

    /// Listens on loopback.
    ///
    /// # Errors
    /// When the port is taken, in Docker's words.
    pub async fn listen(&self) -> Result<Listening, String> {
        let taken = |e: std::io::Error| format!("cannot bind port {}: {e}", self.host);
        let listener = listen_loopback(self.host).await.map_err(taken)?;
        let port = listener.local_addr().map_err(taken)?.port();
        Ok(Listening { listener, port })
    }
}

impl Listening {
    /// Carries connections to the container until it is dropped.
    pub async fn serve(self, to: SocketAddr, dialer: SharedDialer) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let Ok((mut near, _)) = accepted else { continue };
            let dialer = dialer.clone();
            connections.spawn(async move {
                match tokio::time::timeout(CONNECT, dialer.dial(to)).await {
                    // How it ends is the two programs' own business.
                    Ok(Ok(mut far)) => drop(tokio::io::copy_bidirectional(&mut near, &mut far).await),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, %to, "a service of a pipeline does not take a connection")
                    }
                    Err(_) => tracing::debug!(%to, "a service of a pipeline does not take a connection in time"),
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        let read = |text: &str| Forward::of(&[text.to_owned()]);
        assert_eq!(read("6379").unwrap(), [Forward { host: 0, container: 6379 }]);
        assert_eq!(read("8080:80/tcp").unwrap(), [Forward { host: 8080, container: 80 }]);
        for bad in ["", "0", "x", "80/udp", "1:2:3", "70000", "a:80"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
