//! Load balancers: a loopback address each, told in the service's status.

use super::table::{ServiceKey, is_balancer, key};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

/// Annotation that names where a load balancer's ports really listen when the wanted ones could
/// not be had: `80=127.0.128.7:38123`.
pub const ADDRESSES_ANNOTATION: &str = "aksim.dev/load-balancer-addresses";
/// Azure's annotation for a fixed address; a loopback one is honoured here.
const AZURE_ADDRESS: &str = "service.beta.kubernetes.io/azure-load-balancer-ipv4";
const FIRST: u32 = u32::from_be_bytes([127, 0, 128, 1]);
const COUNT: u32 = 127 * 256;

/// The address of each load balancer: the one it has, the one it asks for, else one by its uid.
pub(super) fn addresses<'a>(services: impl Iterator<Item = &'a Service> + Clone) -> BTreeMap<ServiceKey, Ipv4Addr> {
    let mut result = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let balancers = services.filter(|s| is_balancer(s));
    for service in balancers.clone() {
        if let Some(ip) = has(service).or_else(|| asks(service)) {
            taken.insert(ip);
            result.insert(key(service), ip);
        }
    }
    for service in balancers {
        if result.contains_key(&key(service)) {
            continue;
        }
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let mut offset = crc32fast::hash(uid.as_bytes()) % COUNT;
        while !taken.insert(Ipv4Addr::from(FIRST + offset)) {
            offset = (offset + 1) % COUNT;
        }
        result.insert(key(service), Ipv4Addr::from(FIRST + offset));
    }
    result
}

fn has(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    ingress.ip.as_ref()?.parse().ok().filter(Ipv4Addr::is_loopback)
}

fn asks(service: &Service) -> Option<Ipv4Addr> {
    let annotations = service.metadata.annotations.as_ref();
    let asked = annotations.and_then(|a| a.get(AZURE_ADDRESS));
    let asked = asked.or(service.spec.as_ref()?.load_balancer_ip.as_ref())?;
    asked.parse().ok().filter(Ipv4Addr::is_loopback)
}

/// Writes what differs: the address into the status, ports that had to move into the annotation.
pub(super) async fn tell(
    client: &Client,
    service: &Service,
    ip: Ipv4Addr,
    moved: &BTreeMap<u16, SocketAddr>,
) -> Result<(), kube::Error> {
    let (namespace, name) = key(service);
    let api: Api<Service> = Api::namespaced(client.clone(), &namespace);
    if has(service) != Some(ip) {
        let status =
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": ip.to_string(), "ipMode": "VIP" }] } } });
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    }
    let text: Vec<String> = moved.iter().map(|(port, address)| format!("{port}={address}")).collect();
    let text = (!text.is_empty()).then(|| text.join(","));
    let told = service.metadata.annotations.as_ref().and_then(|a| a.get(ADDRESSES_ANNOTATION));
    if told != text.as_ref() {
        let patch = json!({ "metadata": { "annotations": { ADDRESSES_ANNOTATION: text } } });
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_asked_for_or_derived() {
        let service = |name: &str, extra: serde_json::Value| -> Service {
            let mut all = json!({ "metadata": { "name": name, "namespace": "s", "uid": name }, "spec": { "type": "LoadBalancer" } });
            all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value(all).unwrap()
        };
        let services = [
            service("a", json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "127.0.128.9" }] } } })),
            service("b", json!({ "spec": { "type": "LoadBalancer", "loadBalancerIP": "127.0.0.5" } })),
            service("c", json!({ "spec": { "type": "LoadBalancer", "loadBalancerIP": "20.1.2.3" } })),
            service("d", json!({ "spec": { "type": "ClusterIP" } })),
        ];
        let found = addresses(services.iter());
        let of = |name: &str| found.get(&("s".to_owned(), name.to_owned())).map(ToString::to_string);
        assert_eq!(of("a").as_deref(), Some("127.0.128.9"));
        assert_eq!(of("b").as_deref(), Some("127.0.0.5"));
        assert!(of("c").unwrap().starts_with("127.0."));
        assert_eq!(of("d"), None);
    }
}
