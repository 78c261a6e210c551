//! The endpoints behind one service port, and which of them a connection goes to.

use crate::kubelet::Cidr;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Clients remembered for session affinity before those that expired are dropped.
const AFFINITY_SWEEP: usize = 4096;

/// An endpoint that connections may go to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Target {
    pub address: SocketAddr,
    /// Node it runs on.
    pub node: Option<String>,
}

/// What connections may go to now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backends {
    pub targets: Vec<Target>,
    /// `sessionAffinity: ClientIP` with its timeout.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`.
    pub local_only: bool,
}

/// Endpoints with the memory of earlier choices; lives as long as its service port.
#[derive(Default)]
pub(super) struct Pool {
    backends: Mutex<Backends>,
    next: AtomicUsize,
    affinity: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

impl Pool {
    pub fn set(&self, backends: Backends) {
        *self.backends.lock() = backends;
    }

    /// Endpoints to try for a client, best first: the one it had, then round robin.
    pub fn candidates(&self, client: IpAddr, nodes: &[(String, Cidr)]) -> Vec<SocketAddr> {
        let Backends { mut targets, affinity, local_only } = self.backends.lock().clone();
        if local_only {
            let own = nodes.iter().find(|(_, range)| range.index(client).is_some()).map(|(name, _)| name);
            targets.retain(|t| own.is_none() || t.node.as_ref() == own);
        }
        if targets.is_empty() {
            return vec![];
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) % targets.len();
        targets.rotate_left(start);
        if let Some(timeout) = affinity {
            let remembered =
                self.affinity.lock().get(&client).filter(|(_, at)| at.elapsed() < timeout).map(|(a, _)| *a);
            if let Some(index) = remembered.and_then(|a| targets.iter().position(|t| t.address == a)) {
                targets[..=index].rotate_right(1);
            }
        }
        targets.into_iter().map(|t| t.address).collect()
    }

    /// Notes where a client's connection went.
    pub fn connected(&self, client: IpAddr, to: SocketAddr) {
        let Some(timeout) = self.backends.lock().affinity else { return };
        let mut affinity = self.affinity.lock();
        if affinity.len() >= AFFINITY_SWEEP {
            affinity.retain(|_, (_, at)| at.elapsed() < timeout);
        }
        affinity.insert(client, (to, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str, node: &str) -> Target {
        Target { address: text.parse().unwrap(), node: Some(node.into()) }
    }

    fn pool(affinity: Option<Duration>, local_only: bool) -> Pool {
        let pool = Pool::default();
        let targets = vec![target("10.244.0.2:80", "a"), target("10.244.0.3:80", "a"), target("10.244.1.2:80", "b")];
        pool.set(Backends { targets, affinity, local_only });
        pool
    }

    #[test]
    fn connections_go_round() {
        let pool = pool(None, false);
        let client = "10.244.0.9".parse().unwrap();
        let firsts: Vec<_> = (0..6).map(|_| pool.candidates(client, &[])[0]).collect();
        assert_eq!(firsts[..3], firsts[3..]);
        assert_eq!(firsts[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert_eq!(pool.candidates(client, &[]).len(), 3, "the others follow for retries");
    }

    #[test]
    fn a_client_stays_with_its_endpoint_while_it_is_there() {
        let pool = pool(Some(Duration::from_secs(60)), false);
        let client = "10.244.0.9".parse().unwrap();
        pool.connected(client, "10.244.1.2:80".parse().unwrap());
        for _ in 0..4 {
            let candidates = pool.candidates(client, &[]);
            assert_eq!(candidates[0].to_string(), "10.244.1.2:80");
            assert_eq!(candidates.len(), 3);
        }
        pool.set(Backends { targets: vec![target("10.244.0.2:80", "a")], ..Default::default() });
        assert_eq!(pool.candidates(client, &[])[0].to_string(), "10.244.0.2:80");
    }

    #[test]
    fn local_traffic_stays_on_its_node() {
        let pool = pool(None, true);
        let nodes =
            [("a".to_owned(), "10.244.0.0/24".parse().unwrap()), ("b".to_owned(), "10.244.1.0/24".parse().unwrap())];
        assert_eq!(pool.candidates("10.244.1.9".parse().unwrap(), &nodes).len(), 1);
        assert_eq!(pool.candidates("10.244.0.9".parse().unwrap(), &nodes).len(), 2);
    }
}
