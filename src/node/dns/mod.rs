//! Cluster DNS at the address of the service `kube-system/kube-dns`.
//!
//! Services, headless pods and Azure names are answered here with a short time to live; all other
//! names go to the host's name servers. Without any, they do not exist.

mod upstream;
mod zone;

use crate::{proxy::objects::Objects, runtime::NodeNetwork};
use aksim_model::endpoint::AzureName;
use aksim_runtime::component::{Component, ComponentError, RunContext};
use async_trait::async_trait;
use futures::StreamExt;
use hickory_proto::{
    op::{Metadata, Query, ResponseCode},
    rr::{
        LowerName, Name, RData, Record, RecordType,
        rdata::{A, CNAME, PTR, SOA, SRV},
    },
};
use hickory_server::{
    Server,
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::RwLock;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};
use zone::{Answer, Wanted, Zone};

/// Time to live of our records, seconds.
const TTL: u32 = 5;
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_BUFFER: usize = 32;
/// Aliases followed before a loop is assumed.
const MAX_ALIASES: usize = 8;

/// Configuration of [`ClusterDns`].
pub struct DnsConfig {
    /// Client to the API server.
    pub client: Client,
    /// The network that pods are in.
    pub network: Arc<dyn NodeNetwork>,
    /// Address to listen on inside: 10.0.0.10, port 53.
    pub address: SocketAddr,
    /// `cluster.local`.
    pub domain: String,
    /// Azure names served in this environment.
    pub azure_names: watch::Receiver<Vec<AzureName>>,
    /// Name servers for all other names; those of the host's `/etc/resolv.conf` when `None`.
    pub upstream: Option<Vec<SocketAddr>>,
}

/// Why DNS could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cluster DNS cannot listen on {address} in the node network: {source}")]
pub struct DnsError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// The cluster's name server.
pub struct ClusterDns {
    config: DnsConfig,
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl ClusterDns {
    /// Takes the address, UDP and TCP.
    ///
    /// # Errors
    /// [`DnsError`] when it cannot be listened on.
    pub async fn bind(config: DnsConfig) -> Result<Self, DnsError> {
        let address = config.address;
        let failed = |source| DnsError { address, source };
        let udp = config.network.listen_udp(address).await.map_err(failed)?;
        // With port 0 (tests) TCP takes the port that UDP got.
        let port = udp.local_addr().map_err(failed)?.port();
        let tcp = config.network.listen_tcp(SocketAddr::new(address.ip(), port)).await.map_err(failed)?;
        Ok(Self { config, udp, tcp, address: SocketAddr::new(address.ip(), port) })
    }

    /// Where it listens inside.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl Component for ClusterDns {
    fn name(&self) -> &'static str {
        "cluster-dns"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let Self { config, udp, tcp, .. } = *self;
        let DnsConfig { client, domain, mut azure_names, upstream, .. } = config;
        let read_host = || {
            let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            upstream::servers(&text)
        };
        let handler = Handler {
            zone: Arc::new(RwLock::new(Arc::default())),
            upstream: Arc::new(upstream.unwrap_or_else(read_host)),
            domain: domain.clone(),
        };
        let zone = handler.zone.clone();
        let mut server = Server::new(handler);
        server.register_socket(udp);
        server.register_listener(tcp, TCP_TIMEOUT, TCP_BUFFER);
        let services = watcher(Api::<Service>::all(client.clone()), watcher::Config::default());
        let slices = watcher(Api::<EndpointSlice>::all(client), watcher::Config::default());
        let mut services = std::pin::pin!(services.default_backoff());
        let mut slices = std::pin::pin!(slices.default_backoff());
        let (mut known_services, mut known_slices) = (Objects::default(), Objects::default());
        loop {
            let changed = tokio::select! {
                () = context.shutdown.cancelled() => break,
                event = services.next() => take(&mut known_services, event)?,
                event = slices.next() => take(&mut known_slices, event)?,
                changed = azure_names.changed(), if azure_names.has_changed().is_ok() => changed.is_ok(),
            };
            if !changed || !known_services.known || !known_slices.known {
                continue;
            }
            let azure = azure_names.borrow_and_update().clone();
            *zone.write() = Arc::new(Zone::new(&domain, &known_services.all, &known_slices.all, &azure));
            context.readiness.ready();
        }
        server.shutdown_gracefully().await.map_err(Into::into)
    }
}

fn take<K: kube::Resource>(
    objects: &mut Objects<K>,
    event: Option<Result<watcher::Event<K>, watcher::Error>>,
) -> Result<bool, ComponentError> {
    match event {
        Some(Ok(event)) => Ok(objects.take(event)),
        Some(Err(error)) => {
            tracing::warn!(%error, "cluster DNS's watch");
            Ok(false)
        }
        None => Err("the watch of cluster DNS ended".into()),
    }
}

struct Handler {
    zone: Arc<RwLock<Arc<Zone>>>,
    upstream: Arc<Vec<SocketAddr>>,
    domain: String,
}

/// Sections of an answer.
#[derive(Default)]
struct Reply {
    code: Option<ResponseCode>,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Handler {
    async fn reply(&self, query: &Query, raw: &[u8]) -> Reply {
        let zone = self.zone.read().clone();
        let kind = query.query_type();
        let wanted = match kind {
            RecordType::A => Wanted::A,
            RecordType::SRV => Wanted::Srv,
            RecordType::PTR => Wanted::Ptr,
            _ => Wanted::Other,
        };
        let mut reply = Reply { authoritative: true, ..Reply::default() };
        let mut owner = query.name().clone();
        for _ in 0..MAX_ALIASES {
            let name = LowerName::from(&owner).to_string();
            match zone.answer(name.trim_end_matches('.'), wanted) {
                Answer::A(list) => {
                    let record = |ip| Record::from_rdata(owner.clone(), TTL, RData::A(A::from(ip)));
                    reply.answers.extend(list.into_iter().map(record));
                }
                Answer::Srv(list) => {
                    for srv in list {
                        let Ok(target) = Name::from_ascii(format!("{}.", srv.target)) else { continue };
                        let data = RData::SRV(SRV::new(0, 100, srv.port, target.clone()));
                        reply.answers.push(Record::from_rdata(owner.clone(), TTL, data));
                        let record = |ip| Record::from_rdata(target.clone(), TTL, RData::A(A::from(ip)));
                        reply.additionals.extend(zone.addresses_of(&srv.target).into_iter().map(record));
                    }
                }
                Answer::Ptr(target) => {
                    if let Ok(target) = Name::from_ascii(format!("{target}.")) {
                        reply.answers.push(Record::from_rdata(owner.clone(), TTL, RData::PTR(PTR(target))));
                    }
                }
                Answer::Alias(target) => {
                    let Ok(target) = Name::from_ascii(format!("{target}.")) else { break };
                    reply.answers.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
                    owner = target;
                    continue;
                }
                Answer::NoData => reply.authorities.extend(self.soa()),
                Answer::NoSuchName => {
                    reply.code = Some(ResponseCode::NXDomain);
                    reply.authorities.extend(self.soa());
                }
                Answer::Elsewhere => self.forward(&mut reply, query, owner, raw).await,
            }
            break;
        }
        reply
    }

    async fn forward(&self, reply: &mut Reply, query: &Query, owner: Name, raw: &[u8]) {
        reply.authoritative = false;
        if self.upstream.is_empty() {
            reply.code = Some(ResponseCode::NXDomain);
            return;
        }
        // An alias led here: ask for its target instead.
        let own;
        let asked = if owner == *query.name() {
            raw
        } else {
            let mut message = hickory_proto::op::Message::query();
            message.metadata.recursion_desired = true;
            message.queries.push(Query::query(owner, query.query_type()));
            own = message.to_vec().unwrap_or_default();
            &own
        };
        match upstream::ask(&self.upstream, asked).await {
            Ok(message) => {
                reply.code = Some(message.metadata.response_code);
                reply.answers.extend(message.answers);
                reply.authorities.extend(message.authorities);
            }
            Err(error) => {
                tracing::debug!(%error, name = %query.name(), "upstream name servers do not answer");
                reply.code = Some(ResponseCode::ServFail);
            }
        }
    }

    /// So that resolvers remember what does not exist no longer than what does.
    fn soa(&self) -> Option<Record> {
        let domain = Name::from_ascii(format!("{}.", self.domain)).ok()?;
        let server = Name::from_ascii(format!("ns.dns.{}.", self.domain)).ok()?;
        let contact = Name::from_ascii(format!("hostmaster.{}.", self.domain)).ok()?;
        Some(Record::from_rdata(domain, TTL, RData::SOA(SOA::new(server, contact, 1, 7200, 1800, 86400, TTL))))
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let builder = MessageResponseBuilder::from_message_request(request);
        let query = request.request_info().ok().map(|info| info.query.original().clone());
        let reply = match &query {
            Some(query) => self.reply(query, request.as_slice()).await,
            None => Reply { code: Some(ResponseCode::FormErr), ..Reply::default() },
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = reply.code.unwrap_or(ResponseCode::NoError);
        let none = std::iter::empty::<&Record>();
        let response = builder.build(metadata, &reply.answers, &reply.authorities, none, &reply.additionals);
        match handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "DNS response not sent");
                hickory_proto::op::Header { metadata, counts: Default::default() }.into()
            }
        }
    }
}

#[cfg(test)]
mod tests;
