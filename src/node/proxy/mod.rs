//! The service proxy: listens on cluster IPs, node ports, load balancers and the virtual addresses
//! of Azure names, and carries each connection to a ready endpoint.

mod balancer;
mod forward;
pub(crate) mod objects;
mod pool;
mod table;

pub use balancer::ADDRESSES_ANNOTATION;

use crate::{kubelet::Cidr, runtime::NodeNetwork};
use aksim_model::endpoint::AzureName;
use aksim_runtime::component::{Component, ComponentError, RunContext};
use async_trait::async_trait;
use forward::Forwarder;
use futures::StreamExt;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use objects::Objects;
use pool::Pool;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use table::{Fixed, Front, PoolKey, Protocol, Side};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Wait before a listener that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Configuration of a [`ServiceProxy`]; one serves all nodes of a node network.
pub struct ProxyConfig {
    /// Client to the API server.
    pub client: Client,
    /// The network that pods are in.
    pub network: Arc<dyn NodeNetwork>,
    /// Internal addresses of the nodes, for node ports.
    pub node_addresses: Vec<IpAddr>,
    /// Nodes with their pod ranges, for `internalTrafficPolicy: Local`.
    pub nodes: Vec<(String, Cidr)>,
    /// Addresses that something else listens on inside: cluster DNS.
    pub reserved: Vec<SocketAddr>,
    /// The API server's loopback address behind `default/kubernetes`; from its EndpointSlice when `None`.
    pub api_server: Option<SocketAddr>,
    /// Azure names served in this environment.
    pub azure_names: watch::Receiver<Vec<AzureName>>,
}

/// Carries connections from service addresses to endpoints.
pub struct ServiceProxy {
    config: ProxyConfig,
}

struct Listening {
    close: CancellationToken,
    pool: PoolKey,
    /// Where it really listens.
    address: SocketAddr,
}

struct Running {
    client: Client,
    forwarder: Arc<Forwarder>,
    services: Objects<Service>,
    slices: Objects<EndpointSlice>,
    pools: HashMap<PoolKey, Arc<Pool>>,
    listening: HashMap<Front, Listening>,
    listeners: JoinSet<()>,
    /// Failures already told of.
    told: HashSet<Front>,
    retry: Option<Instant>,
}

impl ServiceProxy {
    /// A proxy that listens once it runs: its addresses come from the API.
    pub fn new(config: ProxyConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl Component for ServiceProxy {
    fn name(&self) -> &'static str {
        "service-proxy"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let Self { mut config } = *self;
        let services = watcher(Api::<Service>::all(config.client.clone()), watcher::Config::default());
        let slices = watcher(Api::<EndpointSlice>::all(config.client.clone()), watcher::Config::default());
        let mut services = std::pin::pin!(services.default_backoff());
        let mut slices = std::pin::pin!(slices.default_backoff());
        let forwarder = Forwarder { network: config.network.clone(), nodes: config.nodes.clone() };
        let mut running = Running {
            client: config.client.clone(),
            forwarder: Arc::new(forwarder),
            services: Objects::default(),
            slices: Objects::default(),
            pools: HashMap::new(),
            listening: HashMap::new(),
            listeners: JoinSet::new(),
            told: HashSet::new(),
            retry: None,
        };
        loop {
            let retry = running.retry;
            let changed = tokio::select! {
                () = context.shutdown.cancelled() => break,
                event = services.next() => take(&mut running.services, event)?,
                event = slices.next() => take(&mut running.slices, event)?,
                changed = config.azure_names.changed(), if config.azure_names.has_changed().is_ok() => changed.is_ok(),
                Some(_) = running.listeners.join_next() => false,
                () = sleep_until(retry) => true,
            };
            if !changed || !running.services.known || !running.slices.known {
                continue;
            }
            running.reconcile(&mut config).await;
            context.readiness.ready();
        }
        // Connections end with us; the pods stay.
        running.listeners.shutdown().await;
        Ok(())
    }
}

fn take<K: kube::Resource>(
    objects: &mut Objects<K>,
    event: Option<Result<watcher::Event<K>, watcher::Error>>,
) -> Result<bool, ComponentError> {
    match event {
        Some(Ok(event)) => Ok(objects.take(event)),
        Some(Err(error)) => {
            tracing::warn!(%error, "service proxy's watch");
            Ok(false)
        }
        None => Err("the watch of the service proxy ended".into()),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Running {
    /// Makes listeners and pools as the table wants them.
    async fn reconcile(&mut self, config: &mut ProxyConfig) {
        self.retry = None;
        let azure = config.azure_names.borrow_and_update().clone();
        let balancers = balancer::addresses(self.services.all.values());
        let fixed = Fixed {
            node_addresses: &config.node_addresses,
            reserved: &config.reserved,
            api_server: config.api_server,
            azure: &azure,
            balancers: &balancers,
        };
        let table = table::table(self.services.all.values(), &self.slices.all, &fixed);
        self.pools.retain(|key, _| table.pools.contains_key(key));
        for (key, backends) in table.pools {
            self.pools.entry(key).or_default().set(backends);
        }
        self.listening.retain(|front, listening| {
            let keep = table.fronts.get(front) == Some(&listening.pool);
            if !keep {
                listening.close.cancel();
            }
            keep
        });
        for (front, pool) in table.fronts {
            if !self.listening.contains_key(&front) {
                self.listen(front, pool).await;
            }
        }
        for (key, ip) in &balancers {
            let Some(service) = self.services.all.get(key) else { continue };
            let moved: BTreeMap<u16, SocketAddr> = self
                .listening
                .iter()
                .filter(|(front, l)| front.balancer.as_ref() == Some(key) && front.address != l.address)
                .map(|(front, l)| (front.address.port(), l.address))
                .collect();
            if let Err(error) = balancer::tell(&self.client, service, *ip, &moved).await {
                tracing::warn!(%error, service = key.1, "load balancer's address not told");
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }

    async fn listen(&mut self, front: Front, key: PoolKey) {
        let Some(pool) = self.pools.get(&key).cloned() else { return };
        let network = self.forwarder.network.clone();
        if front.virtual_address
            && let Err(error) = network.add_address(front.address.ip()).await
        {
            return self.failed(&front, &error);
        }
        let close = CancellationToken::new();
        let forwarder = self.forwarder.clone();
        let address = match front.protocol {
            Protocol::Tcp => match listen_tcp(&*network, &front).await {
                Ok((listener, address)) => {
                    self.listeners.spawn(forwarder.serve_tcp(listener, pool, close.clone()));
                    address
                }
                Err(error) => return self.failed(&front, &error),
            },
            Protocol::Udp => {
                let socket = match front.side {
                    Side::Inside => network.listen_udp(front.address).await,
                    Side::Host => UdpSocket::bind(front.address).await,
                };
                match socket {
                    Ok(socket) => {
                        self.listeners.spawn(forwarder.serve_udp(socket, pool, close.clone()));
                        front.address
                    }
                    Err(error) => return self.failed(&front, &error),
                }
            }
        };
        self.told.remove(&front);
        self.listening.insert(front, Listening { close, pool: key, address });
    }

    fn failed(&mut self, front: &Front, error: &io::Error) {
        if self.told.insert(front.clone()) {
            let side = front.side;
            tracing::warn!(%error, address = %front.address, ?side, "cannot listen for a service; trying again");
        }
        self.retry = Some(Instant::now() + RETRY);
    }
}

/// The wanted address; for a load balancer a free port when it is taken or needs a privilege.
async fn listen_tcp(network: &dyn NodeNetwork, front: &Front) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = match (front.side, &front.balancer) {
        (Side::Inside, _) => network.listen_tcp(front.address).await?,
        (Side::Host, None) => TcpListener::bind(front.address).await?,
        (Side::Host, Some(_)) => match TcpListener::bind(front.address).await {
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse) => {
                TcpListener::bind(SocketAddr::new(front.address.ip(), 0)).await?
            }
            bound => bound?,
        },
    };
    // The fake of tests listens elsewhere; what counts is what the front promised or moved to.
    let address = match front.side {
        Side::Inside => front.address,
        Side::Host => listener.local_addr()?,
    };
    Ok((listener, address))
}

#[cfg(test)]
mod tests;
