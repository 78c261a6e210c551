//! From services and endpoint slices to addresses listened on: a pure function.

use super::pool::{Backends, Target};
use crate::azure::virtual_addresses;
use aksim_model::endpoint::AzureName;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10800;

/// Which network an address is listened on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Side {
    /// The node network, where pods are.
    Inside,
    /// The host's own.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Front {
    pub side: Side,
    pub protocol: Protocol,
    pub address: SocketAddr,
    /// The address must be given to the node network first.
    pub virtual_address: bool,
    /// Set for a load balancer: a free port will do when the wanted one cannot be had.
    pub balancer: Option<ServiceKey>,
}

/// Namespace and name of a service.
pub(super) type ServiceKey = (String, String);

/// A service port or an Azure name's port: what shares endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum PoolKey {
    Service(ServiceKey, String),
    Azure(String, u16),
}

/// Everything that is to be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Table {
    pub fronts: BTreeMap<Front, PoolKey>,
    pub pools: BTreeMap<PoolKey, Backends>,
}

/// What does not come from the API.
pub(super) struct Fixed<'a> {
    pub node_addresses: &'a [IpAddr],
    /// Addresses that something else listens on: cluster DNS.
    pub reserved: &'a [SocketAddr],
    /// The API server's own address, for the service `default/kubernetes`.
    pub api_server: Option<SocketAddr>,
    pub azure: &'a [AzureName],
    /// Loopback addresses given to load balancers.
    pub balancers: &'a BTreeMap<ServiceKey, Ipv4Addr>,
}

pub(super) fn key(service: &Service) -> ServiceKey {
    let meta = &service.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

pub(super) fn is_balancer(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer"))
}

/// The table for what is known now.
pub(super) fn table<'a>(
    services: impl Iterator<Item = &'a Service>,
    slices: &BTreeMap<(String, String), EndpointSlice>,
    fixed: &Fixed<'_>,
) -> Table {
    let mut by_service: BTreeMap<ServiceKey, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices.values() {
        let labels = slice.metadata.labels.as_ref();
        if let Some(name) = labels.and_then(|l| l.get(SERVICE_NAME)) {
            let key = (slice.metadata.namespace.clone().unwrap_or_default(), name.clone());
            by_service.entry(key).or_default().push(slice);
        }
    }
    let mut table = Table::default();
    for service in services {
        let slices = by_service.get(&key(service)).map(Vec::as_slice).unwrap_or_default();
        add_service(&mut table, service, slices, fixed);
    }
    add_azure(&mut table, fixed.azure);
    table
}

fn add_service(table: &mut Table, service: &Service, slices: &[&EndpointSlice], fixed: &Fixed<'_>) {
    let Some(spec) = &service.spec else { return };
    let owner = key(service);
    for port in spec.ports.iter().flatten() {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some(_) => continue,
        };
        let Ok(number) = u16::try_from(port.port) else { continue };
        let pool = PoolKey::Service(owner.clone(), format!("{}/{number}", port.name.as_deref().unwrap_or_default()));
        let mut fronts = Vec::new();
        let front = |side, address, balancer| Front { side, protocol, address, virtual_address: false, balancer };
        for ip in spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten()) {
            if let Ok(ip) = ip.parse() {
                fronts.push(front(Side::Inside, SocketAddr::new(ip, number), None));
            }
        }
        if let Some(node_port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
            let inside = fixed.node_addresses.iter().map(|ip| (Side::Inside, *ip));
            for (side, ip) in inside.chain([(Side::Host, IpAddr::from([127, 0, 0, 1]))]) {
                fronts.push(front(side, SocketAddr::new(ip, node_port), None));
            }
        }
        if let Some(ip) = fixed.balancers.get(&owner).filter(|_| is_balancer(service)) {
            fronts.push(front(Side::Host, SocketAddr::new((*ip).into(), number), Some(owner.clone())));
        }
        fronts.retain(|f| !fixed.reserved.contains(&f.address));
        if fronts.is_empty() {
            continue;
        }
        let own_api = owner.0 == "default" && owner.1 == "kubernetes";
        let targets = match fixed.api_server.filter(|_| own_api) {
            Some(address) => vec![Target { address, node: None }],
            None => targets(port, slices),
        };
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let seconds = config.and_then(|c| c.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
        let local_only = spec.internal_traffic_policy.as_deref() == Some("Local");
        table.pools.insert(pool.clone(), Backends { targets, affinity, local_only });
        table.fronts.extend(fronts.into_iter().map(|f| (f, pool.clone())));
    }
}

/// Ready endpoints of a port; when there is none, those that serve while they end.
fn targets(port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<Target> {
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let named = slice
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default());
        let fallback = match &port.target_port {
            Some(IntOrString::Int(number)) => Some(*number),
            _ => None,
        };
        let number = named.and_then(|p| p.port).or(fallback.filter(|_| named.is_some()));
        let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready) != Some(false);
            let serves = conditions.is_some_and(|c| c.serving == Some(true) && c.terminating == Some(true));
            for address in &endpoint.addresses {
                let Ok(ip) = address.parse() else { continue };
                let target = Target { address: SocketAddr::new(ip, number), node: endpoint.node_name.clone() };
                if is_ready {
                    ready.insert(target);
                } else if serves {
                    ending.insert(target);
                }
            }
        }
    }
    if ready.is_empty() { ending } else { ready }.into_iter().collect()
}

fn add_azure(table: &mut Table, names: &[AzureName]) {
    let addresses = virtual_addresses(names);
    for name in names {
        let Some(ip) = addresses.get(&name.host) else { continue };
        let pool = PoolKey::Azure(name.host.clone(), name.port);
        let front = Front {
            side: Side::Inside,
            protocol: Protocol::Tcp,
            address: SocketAddr::new((*ip).into(), name.port),
            virtual_address: true,
            balancer: None,
        };
        let targets = vec![Target { address: name.target, node: None }];
        table.pools.insert(pool.clone(), Backends { targets, ..Default::default() });
        table.fronts.insert(front, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        let meta = json!({ "name": "web", "namespace": "shop" });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    fn slice(endpoints: serde_json::Value) -> BTreeMap<(String, String), EndpointSlice> {
        let slice = serde_json::from_value(json!({
            "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080 }], "endpoints": endpoints
        }));
        [(("shop".to_owned(), "web-1".to_owned()), slice.unwrap())].into()
    }

    fn compute(service: Service, slices: &BTreeMap<(String, String), EndpointSlice>) -> Table {
        let balancers = [(("shop".to_owned(), "web".to_owned()), Ipv4Addr::new(127, 0, 128, 7))].into();
        let names = [AzureName { host: "x.azurecr.io".into(), port: 443, target: "127.0.0.1:5000".parse().unwrap() }];
        let fixed = Fixed {
            node_addresses: &["10.224.0.4".parse().unwrap()],
            reserved: &["10.0.0.10:53".parse().unwrap()],
            api_server: None,
            azure: &names,
            balancers: &balancers,
        };
        table([service].iter(), slices, &fixed)
    }

    #[test]
    fn every_way_in_leads_to_the_ready_endpoints() {
        let spec = json!({ "type": "LoadBalancer", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
            "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }] });
        let table = compute(
            service(spec),
            &slice(json!([
                { "addresses": ["10.244.0.5"], "conditions": { "ready": true } },
                { "addresses": ["10.244.0.6"], "conditions": { "ready": false } },
            ])),
        );
        let addresses: Vec<String> = table.fronts.keys().map(|f| format!("{:?} {}", f.side, f.address)).collect();
        for want in ["Inside 10.0.0.9:80", "Inside 10.224.0.4:30080", "Host 127.0.0.1:30080", "Host 127.0.128.7:80"] {
            assert!(addresses.contains(&want.to_owned()), "{want} in {addresses:?}");
        }
        let pool = &table.pools[&PoolKey::Service(("shop".into(), "web".into()), "http/80".into())];
        assert_eq!(pool.targets.len(), 1);
        assert_eq!(pool.targets[0].address.to_string(), "10.244.0.5:8080");
        let azure = table.fronts.iter().find(|(f, _)| f.virtual_address).unwrap();
        assert_eq!(table.pools[azure.1].targets[0].address.to_string(), "127.0.0.1:5000");
    }

    #[test]
    fn endpoints_that_end_serve_until_another_is_ready() {
        let spec = json!({ "clusterIP": "10.0.0.9", "ports": [{ "name": "http", "port": 80 }] });
        let ending = json!({ "addresses": ["10.244.0.5"], "conditions": { "ready": false, "serving": true, "terminating": true } });
        let key = PoolKey::Service(("shop".into(), "web".into()), "http/80".into());
        let table = compute(service(spec.clone()), &slice(json!([ending])));
        assert_eq!(table.pools[&key].targets.len(), 1);
        let ready = json!({ "addresses": ["10.244.0.6"], "conditions": { "ready": true } });
        let table = compute(service(spec), &slice(json!([ending, ready])));
        assert_eq!(table.pools[&key].targets[0].address.to_string(), "10.244.0.6:8080");
    }

    #[test]
    fn headless_and_reserved_addresses_are_left_alone() {
        let headless = json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] });
        assert_eq!(compute(service(headless), &BTreeMap::new()).fronts.len(), 1, "the Azure name alone");
        let dns = json!({ "clusterIP": "10.0.0.10", "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }] });
        assert_eq!(compute(service(dns), &BTreeMap::new()).fronts.len(), 1);
    }
}
