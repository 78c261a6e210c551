//! Endpoints of a Service from its selector and pods. Pure.

use crate::pod::{Pod, PodIp};
use k8s_openapi::{
    api::{
        core::v1::{
            EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, ObjectReference, Service, ServicePort,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Most endpoints in one slice.
pub const MAX_PER_SLICE: usize = 100;
/// Most addresses in one Endpoints object; more are cut, and the object says so.
pub const MAX_LEGACY: usize = 1000;

/// Endpoints that share ports (named ports may differ between pods) and address family.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `IPv4` or `IPv6`.
    pub address_type: &'static str,
    /// Ports with their numbers in these pods.
    pub ports: Vec<EndpointPort>,
    /// The pods.
    pub endpoints: Vec<Endpoint>,
}

/// Address family of a text address.
fn family(address: &str) -> Option<&'static str> {
    Some(match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    })
}

/// Families that a Service has endpoints in.
pub fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.clone().unwrap_or_default();
    let named: Vec<_> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|f| match f.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    match named.is_empty() {
        false => named,
        true => vec![spec.cluster_ip.as_deref().and_then(family).unwrap_or("IPv4")],
    }
}

/// Whether a Service's endpoints are found by selector at all.
pub fn is_selected(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|s| !s.is_empty())
}

/// Whether a pod can be an endpoint: it has an address and has not ended; one that is being
/// deleted stays as a terminating endpoint while it still runs.
pub fn eligible(pod: &Pod) -> bool {
    !pod.is_finished()
        && (pod.status.pod_ip.as_deref().is_some_and(|ip| !ip.is_empty()) || !pod.status.pod_ips.is_empty())
}

/// The number of a Service's port in a pod; `None` when a named port is not there.
pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = |p: &Option<String>| p.clone().unwrap_or_else(|| "TCP".into());
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
    ports
        .find(|p| p.name.as_ref() == Some(name) && protocol(&p.protocol) == protocol(&port.protocol))
        .map(|p| p.container_port)
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let declared = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    declared
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

fn conditions(service: &Service, pod: &Pod) -> EndpointConditions {
    let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
    EndpointConditions {
        ready: Some(publishes_not_ready(service) || (serving && !terminating)),
        serving: Some(serving),
        terminating: Some(terminating),
    }
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pod's host name when the headless Service publishes it in DNS.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let name = service.metadata.name.as_deref();
    let governed = pod.spec.subdomain.as_deref() == name && pod.metadata.namespace == service.metadata.namespace;
    pod.spec.hostname.clone().filter(|h| !h.is_empty() && governed)
}

/// The endpoints of a Service, grouped by family and ports, in a stable order.
pub fn groups(service: &Service, pods: &[Arc<Pod>], zone: impl Fn(&str) -> Option<String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for address_type in families(service) {
        for pod in pods.iter().filter(|p| eligible(p)) {
            let addresses: Vec<String> =
                addresses(pod).filter(|a| family(a) == Some(address_type)).map(str::to_owned).collect();
            if addresses.is_empty() {
                continue;
            }
            let endpoint = Endpoint {
                addresses,
                conditions: Some(conditions(service, pod)),
                hostname: hostname(service, pod),
                node_name: pod.node().map(str::to_owned),
                target_ref: Some(target(pod)),
                zone: pod.node().and_then(&zone),
                ..Endpoint::default()
            };
            let ports = ports(service, pod);
            match groups.iter_mut().find(|g| g.address_type == address_type && g.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { address_type, ports, endpoints: vec![endpoint] }),
            }
        }
    }
    groups
}

fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let single = pod.status.pod_ip.as_deref().filter(|_| pod.status.pod_ips.is_empty());
    pod.status.pod_ips.iter().map(|PodIp { ip }| ip.as_str()).chain(single)
}

/// The subsets of the Endpoints object (core/v1): ready and other addresses, by ports. Pods being
/// deleted are left out unless not-ready ones are published. `true` when addresses were cut.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let address_type = families(service).first().copied().unwrap_or("IPv4");
    let tolerated = publishes_not_ready(service);
    let headless = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None");
    type ByPorts = BTreeMap<Vec<(String, i32, String, Option<String>)>, (Vec<EndpointAddress>, Vec<EndpointAddress>)>;
    let mut by_ports: ByPorts = BTreeMap::new();
    let (mut count, mut cut) = (0, false);
    for pod in pods.iter().filter(|p| eligible(p) && (tolerated || !p.is_terminating())) {
        let Some(ip) = addresses(pod).find(|a| family(a) == Some(address_type)) else { continue };
        let ports = ports(service, pod);
        if ports.is_empty() && !headless {
            continue;
        }
        if count == MAX_LEGACY {
            cut = true;
            break;
        }
        count += 1;
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, pod),
            node_name: pod.node().map(str::to_owned),
            target_ref: Some(target(pod)),
        };
        let key = ports
            .into_iter()
            .map(|p| (p.name.unwrap_or_default(), p.port.unwrap_or(0), p.protocol.unwrap_or_default(), p.app_protocol));
        let entry = by_ports.entry(key.collect()).or_default();
        if tolerated || pod.is_ready() { entry.0.push(address) } else { entry.1.push(address) }
    }
    let subsets = by_ports.into_iter().map(|(ports, (mut ready, mut other))| {
        ready.sort_by(|a, b| a.ip.cmp(&b.ip));
        other.sort_by(|a, b| a.ip.cmp(&b.ip));
        let ports: Vec<LegacyPort> = ports
            .into_iter()
            .map(|(name, port, protocol, app_protocol)| LegacyPort {
                name: Some(name).filter(|n| !n.is_empty()),
                port,
                protocol: Some(protocol),
                app_protocol,
            })
            .collect();
        EndpointSubset {
            addresses: (!ready.is_empty()).then_some(ready),
            not_ready_addresses: (!other.is_empty()).then_some(other),
            ports: (!ports.is_empty()).then_some(ports),
        }
    });
    (subsets.collect(), cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(more: Value) -> Service {
        let mut value = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.0.0.7", "selector": {"app": "web"},
                     "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        });
        json_patch::merge(&mut value, &more);
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, more: Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"nodeName": "node-0", "containers": [
                {"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                       "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        json_patch::merge(&mut value, &more);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn states(service: &Service, pods: &[Arc<Pod>]) -> Vec<(bool, bool, bool)> {
        groups(service, pods, |_| None)
            .iter()
            .flat_map(|g| &g.endpoints)
            .map(|e| e.conditions.as_ref().unwrap())
            .map(|c| (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap()))
            .collect()
    }

    #[test]
    fn conditions_follow_readiness_and_deletion() {
        let dying = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let pods = [
            pod("ready", "10.244.0.2", true, json!({})),
            pod("starting", "10.244.0.3", false, json!({})),
            pod("draining", "10.244.0.4", true, dying.clone()),
            pod("dying", "10.244.0.5", false, dying),
            pod("done", "10.244.0.6", false, json!({"status": {"phase": "Succeeded"}})),
            pod("no address", "", false, json!({"status": {"podIPs": []}})),
        ];
        let expected = [(true, true, false), (false, false, false), (false, true, true), (false, false, true)];
        assert_eq!(states(&service(json!({})), &pods), expected);
        let published = service(json!({"spec": {"publishNotReadyAddresses": true}}));
        assert!(states(&published, &pods).iter().all(|s| s.0));
        let (subsets, _) = subsets(&service(json!({})), &pods);
        let ips = |a: &Option<Vec<EndpointAddress>>| a.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>();
        assert_eq!(ips(&subsets[0].addresses), ["10.244.0.2"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.244.0.3"]);
    }

    #[test]
    fn named_ports_resolve_pod_by_pod() {
        let other =
            json!({"spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 9090}]}]}});
        let pods = [pod("a", "10.244.0.2", true, json!({})), pod("b", "10.244.0.3", true, other)];
        let groups = groups(&service(json!({})), &pods, |_| Some("westeurope-1".into()));
        let ports: Vec<_> = groups.iter().map(|g| g.ports[0].port.unwrap()).collect();
        assert_eq!(ports, [8080, 9090]);
        assert_eq!(groups[0].endpoints[0].zone.as_deref(), Some("westeurope-1"));
        let (subsets, cut) = subsets(&service(json!({})), &pods);
        assert_eq!((subsets.len(), cut), (2, false));
    }

    #[test]
    fn a_missing_named_port_leaves_no_port() {
        let missing = service(json!({"spec": {"ports": [{"name": "grpc", "port": 90, "targetPort": "grpc"}]}}));
        let pods = [pod("a", "10.244.0.2", true, json!({}))];
        assert!(groups(&missing, &pods, |_| None)[0].ports.is_empty());
        assert!(subsets(&missing, &pods).0.is_empty());
    }

    #[test]
    fn families_and_hostnames() {
        let dual = service(json!({"metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "ipFamilies": ["IPv4", "IPv6"], "ports": null}}));
        let more = json!({"spec": {"hostname": "db-0", "subdomain": "db"},
                          "status": {"podIPs": [{"ip": "10.244.0.2"}, {"ip": "fd00::2"}]}});
        let groups = groups(&dual, &[pod("db-0", "10.244.0.2", true, more)], |_| None);
        let found: Vec<_> = groups.iter().map(|g| (g.address_type, g.endpoints[0].addresses[0].as_str())).collect();
        assert_eq!(found, [("IPv4", "10.244.0.2"), ("IPv6", "fd00::2")]);
        assert_eq!(groups[0].endpoints[0].hostname.as_deref(), Some("db-0"));
    }
}
