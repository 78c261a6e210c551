//! Where Services lead to a pod, and what to ask it there.

use super::{answer::Question, observed::Observed};
use k8s_openapi::{
    api::{
        core::v1::{Pod, Probe, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use std::net::{IpAddr, SocketAddr};

/// How a pod is reached through Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// No Service selects it.
    NoService,
    /// A Service does, but the pod is not among its endpoints, or at no port.
    NoEndpoint {
        /// For a person.
        why: String,
    },
    /// It is an endpoint of a Service without a TCP port.
    NothingToAsk {
        /// The Service.
        service: String,
        /// For a person.
        detail: String,
    },
    /// It can be asked.
    Ask {
        /// The Service.
        service: String,
        /// What.
        question: Question,
    },
}

/// How a pod is reached.
pub(super) fn lead(pod: &Pod, observed: &Observed) -> Lead {
    let namespace = pod.namespace().unwrap_or_default();
    let services: Vec<&Service> = observed.services_of(&namespace).filter(|service| selects(service, pod)).collect();
    let slices: Vec<&EndpointSlice> = observed.slices_of(&namespace).filter(|slice| holds(slice, pod)).collect();
    let name = pod.name_any();
    let Some(first) = slices.first() else {
        return match services.first() {
            Some(service) => Lead::NoEndpoint { why: format!("service {} has no endpoint {name}", service.name_any()) },
            None => Lead::NoService,
        };
    };
    let service = first.labels().get("kubernetes.io/service-name").cloned().unwrap_or_default();
    let Some(ip) = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).and_then(|ip| ip.parse::<IpAddr>().ok()) else {
        return Lead::NoEndpoint { why: format!("pod {name} has no address") };
    };
    let probe = readiness_probe(pod);
    let mut ports = tcp_ports(&slices);
    if ports.is_empty() {
        return match services.iter().find(|service| has_tcp_port(service)) {
            Some(service) => {
                let why = format!("no target port of service {} is a port of pod {name}", service.name_any());
                Lead::NoEndpoint { why }
            }
            None => Lead::NothingToAsk { service, detail: format!("{name}: endpoint; there is no TCP port to ask") },
        };
    }
    // Where the probe asks, HTTP is spoken.
    let probed = probe.and_then(|probe| probe_port(pod, probe));
    ports.sort_by_key(|port| Some(*port) != probed);
    let path = probe.and_then(|p| p.http_get.as_ref()).and_then(|get| get.path.clone()).unwrap_or_else(|| "/".into());
    let addresses = ports.into_iter().map(|port| SocketAddr::new(ip, port)).collect();
    Lead::Ask { service, question: Question { pod: name, addresses, path } }
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|s| !s.is_empty() && s.iter().all(|(key, value)| pod.labels().get(key) == Some(value)))
}

/// Whether the pod is an endpoint of the slice that is ready.
fn holds(slice: &EndpointSlice, pod: &Pod) -> bool {
    slice.endpoints.iter().flatten().any(|endpoint| {
        let target = endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref());
        target == Some(&pod.name_any()) && endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false))
    })
}

/// Ports in the order of the slices, each once.
fn tcp_ports(slices: &[&EndpointSlice]) -> Vec<u16> {
    let all = slices.iter().flat_map(|slice| slice.ports.iter().flatten());
    let tcp = all.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let mut ports = Vec::new();
    for port in tcp.filter_map(|port| port.port.and_then(|number| u16::try_from(number).ok())) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

fn has_tcp_port(service: &Service) -> bool {
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.any(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
}

fn readiness_probe(pod: &Pod) -> Option<&Probe> {
    pod.spec.iter().flat_map(|spec| &spec.containers).find_map(|container| container.readiness_probe.as_ref())
}

fn probe_port(pod: &Pod, probe: &Probe) -> Option<u16> {
    let number = match &probe.http_get.as_ref()?.port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|port| port.name.as_ref() == Some(name))?.container_port
        }
    };
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::super::observed::Seen;
    use super::*;
    use serde_json::{Value, json};

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web", "tier": "front"}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}}]},
            "status": {"podIP": "10.244.0.7"},
        }))
        .unwrap()
    }

    fn observed(service: Value, slice: Option<Value>) -> Observed {
        let mut observed = Observed::of(Vec::new());
        let key = || ("shop".to_owned(), "web".to_owned());
        observed.take(Seen::Service(key(), serde_json::from_value(service).unwrap()));
        if let Some(slice) = slice {
            observed.take(Seen::Slice(key(), serde_json::from_value(slice).unwrap()));
        }
        observed
    }

    fn service(selector: Value, ports: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": selector, "ports": ports}})
    }

    fn slice(ready: bool, ports: Value) -> Value {
        json!({"metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": ports, "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": "web-1"}}]})
    }

    #[test]
    fn a_pod_is_asked_where_its_probe_asks_first() {
        let ports = json!([{"port": 9090}, {"port": 53, "protocol": "UDP"}, {"port": 8080}, {"port": 9090}]);
        let observed = observed(service(json!({"app": "web"}), json!([{"port": 80}])), Some(slice(true, ports)));
        let addresses = ["10.244.0.7:8080", "10.244.0.7:9090"].map(|a| a.parse().unwrap()).to_vec();
        let question = Question { pod: "web-1".into(), addresses, path: "/ready".into() };
        assert_eq!(lead(&pod(), &observed), Lead::Ask { service: "web".into(), question });
    }

    #[test]
    fn without_an_endpoint_it_is_said_why() {
        let tcp = || json!([{"port": 80}]);
        let not_yet = observed(service(json!({"app": "web"}), tcp()), Some(slice(false, tcp())));
        assert_eq!(lead(&pod(), &not_yet), Lead::NoEndpoint { why: "service web has no endpoint web-1".into() });
        let unnamed = observed(service(json!({"app": "web"}), tcp()), Some(slice(true, json!([]))));
        let Lead::NoEndpoint { why } = lead(&pod(), &unnamed) else { panic!() };
        assert_eq!(why, "no target port of service web is a port of pod web-1");
    }

    #[test]
    fn services_that_do_not_select_it_do_not_count() {
        for selector in [json!({"app": "db"}), json!({}), json!({"app": "web", "more": "x"})] {
            assert_eq!(lead(&pod(), &observed(service(selector, json!([])), None)), Lead::NoService);
        }
    }

    #[test]
    fn a_service_without_tcp_has_nothing_to_be_asked() {
        let udp = json!([{"port": 53, "protocol": "UDP"}]);
        let dns = observed(service(json!({"app": "web"}), udp.clone()), Some(slice(true, udp)));
        assert!(matches!(lead(&pod(), &dns), Lead::NothingToAsk { .. }));
        let headless = observed(service(json!({"app": "web"}), json!(null)), Some(slice(true, json!([]))));
        assert!(matches!(lead(&pod(), &headless), Lead::NothingToAsk { .. }));
    }
}
