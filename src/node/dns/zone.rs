//! The records of the cluster: Kubernetes' DNS specification 1.1, and the Azure names.

use crate::azure::virtual_addresses;
use aksim_model::endpoint::AzureName;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

/// A service port as SRV tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Srv {
    pub port: u16,
    pub target: String,
}

/// What a name has. Names are lower case without the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    A(Vec<Ipv4Addr>),
    Srv(Vec<Srv>),
    Ptr(String),
    /// Another name; its records are looked up in its place.
    Alias(String),
    /// The name exists, but not with this type.
    NoData,
    NoSuchName,
    /// Not ours: ask upstream.
    Elsewhere,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    A,
    Srv,
    Ptr,
    Other,
}

/// All records at one moment.
#[derive(Debug, Default)]
pub(super) struct Zone {
    domain: String,
    addresses: HashMap<String, BTreeSet<Ipv4Addr>>,
    services: HashMap<String, BTreeSet<Srv>>,
    pointers: HashMap<Ipv4Addr, String>,
    aliases: HashMap<String, String>,
    azure: HashMap<String, Ipv4Addr>,
    /// Every name above and every name between it and the domain.
    names: HashSet<String>,
}

impl Zone {
    pub fn new(
        domain: &str,
        services: &BTreeMap<(String, String), Service>,
        slices: &BTreeMap<(String, String), EndpointSlice>,
        azure: &[AzureName],
    ) -> Self {
        let mut zone = Self { domain: domain.to_owned(), ..Self::default() };
        zone.azure = virtual_addresses(azure).into_iter().collect();
        for top in ["svc", "pod"] {
            zone.note(&format!("{top}.{domain}"));
        }
        zone.note(domain);
        let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
        for ((namespace, _), slice) in slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|l| l.get("kubernetes.io/service-name")) {
                by_service.entry((namespace, name)).or_default().push(slice);
            }
        }
        for ((namespace, name), service) in services {
            let slices = by_service.get(&(namespace.as_str(), name.as_str())).map(Vec::as_slice).unwrap_or_default();
            zone.add(namespace, name, service, slices);
        }
        zone
    }

    fn note(&mut self, name: &str) {
        let mut rest = name;
        while rest.len() >= self.domain.len() && self.names.insert(rest.to_owned()) {
            match rest.split_once('.') {
                Some((_, parent)) => rest = parent,
                None => return,
            }
        }
    }

    fn add(&mut self, namespace: &str, name: &str, service: &Service, slices: &[&EndpointSlice]) {
        let Some(spec) = &service.spec else { return };
        let full = format!("{name}.{namespace}.svc.{}", self.domain);
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(target) = &spec.external_name {
                self.note(&full);
                self.aliases.insert(full, target.trim_end_matches('.').to_lowercase());
            }
            return;
        }
        let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
        if cluster_ip == "None" {
            let unready = spec.publish_not_ready_addresses == Some(true);
            return slices.iter().for_each(|slice| self.add_endpoints(&full, slice, unready));
        }
        let Ok(ip) = cluster_ip.parse::<Ipv4Addr>() else { return };
        self.add_address(&full, ip);
        self.pointers.insert(ip, full.clone());
        for port in spec.ports.iter().flatten() {
            let number = u16::try_from(port.port).unwrap_or(0);
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            self.add_srv(&full, port.name.as_deref(), protocol, Srv { port: number, target: full.clone() });
        }
    }

    fn add_endpoints(&mut self, full: &str, slice: &EndpointSlice, unready: bool) {
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false);
            if !ready && !unready {
                continue;
            }
            for ip in endpoint.addresses.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok()) {
                let host = endpoint.hostname.clone().unwrap_or_else(|| ip.to_string().replace('.', "-"));
                let own = format!("{host}.{full}");
                self.add_address(full, ip);
                self.add_address(&own, ip);
                self.pointers.insert(ip, own.clone());
                for port in slice.ports.iter().flatten() {
                    let number = port.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
                    let protocol = port.protocol.as_deref().unwrap_or("TCP");
                    self.add_srv(full, port.name.as_deref(), protocol, Srv { port: number, target: own.clone() });
                }
            }
        }
    }

    fn add_address(&mut self, name: &str, ip: Ipv4Addr) {
        self.note(name);
        self.addresses.entry(name.to_owned()).or_default().insert(ip);
    }

    fn add_srv(&mut self, full: &str, port: Option<&str>, protocol: &str, srv: Srv) {
        let Some(port) = port.filter(|p| !p.is_empty()) else { return };
        let name = format!("_{port}._{}.{full}", protocol.to_lowercase());
        self.note(&name);
        self.services.entry(name).or_default().insert(srv);
    }

    /// The addresses of a name, for the additional section.
    pub fn addresses_of(&self, name: &str) -> Vec<Ipv4Addr> {
        self.addresses.get(name).into_iter().flatten().copied().collect()
    }

    /// What the cluster says about a name.
    pub fn answer(&self, name: &str, wanted: Wanted) -> Answer {
        if let Some(ip) = self.azure.get(name) {
            return if wanted == Wanted::A { Answer::A(vec![*ip]) } else { Answer::NoData };
        }
        if let Some(ip) = reverse(name) {
            return match self.pointers.get(&ip) {
                Some(target) if wanted == Wanted::Ptr => Answer::Ptr(target.clone()),
                Some(_) => Answer::NoData,
                None if ip.octets()[0] == 10 => Answer::NoSuchName,
                None => Answer::Elsewhere,
            };
        }
        let inside = name == self.domain || name.strip_suffix(&self.domain).is_some_and(|rest| rest.ends_with('.'));
        if !inside {
            return Answer::Elsewhere;
        }
        if let Some(target) = self.aliases.get(name) {
            return Answer::Alias(target.clone());
        }
        if let Some(ip) = self.pod(name) {
            return if wanted == Wanted::A { Answer::A(vec![ip]) } else { Answer::NoData };
        }
        match wanted {
            Wanted::A if self.addresses.contains_key(name) => Answer::A(self.addresses_of(name)),
            Wanted::Srv if self.services.contains_key(name) => {
                Answer::Srv(self.services.get(name).into_iter().flatten().cloned().collect())
            }
            _ if self.names.contains(name) => Answer::NoData,
            _ => Answer::NoSuchName,
        }
    }

    /// `10-244-0-5.NAMESPACE.pod.DOMAIN`: the address is in the name.
    fn pod(&self, name: &str) -> Option<Ipv4Addr> {
        let rest = name.strip_suffix(&self.domain)?.strip_suffix(".pod.")?;
        let (ip, namespace) = rest.split_once('.')?;
        if namespace.is_empty() || namespace.contains('.') {
            return None;
        }
        ip.replace('-', ".").parse().ok()
    }
}

/// The address that a name under `in-addr.arpa` is about.
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let labels: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').collect();
    let octets: Vec<u8> = labels.iter().rev().map(|l| l.parse()).collect::<Result<_, _>>().ok()?;
    match IpAddr::from(<[u8; 4]>::try_from(octets).ok()?) {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn zone() -> Zone {
        let service = |name: &str, spec: serde_json::Value| {
            let service =
                serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec }));
            (("shop".to_owned(), name.to_owned()), service.unwrap())
        };
        let services = [
            service("web", json!({ "clusterIP": "10.0.0.7", "ports": [{ "name": "http", "port": 80 }] })),
            service("db", json!({ "clusterIP": "None", "ports": [{ "name": "sql", "port": 3306 }] })),
            service("old", json!({ "type": "ExternalName", "externalName": "Example.com." })),
        ]
        .into();
        let slice = serde_json::from_value(json!({
            "metadata": { "name": "db-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "db" } },
            "addressType": "IPv4", "ports": [{ "name": "sql", "port": 3306 }],
            "endpoints": [
                { "addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": { "ready": true } },
                { "addresses": ["10.244.0.6"], "conditions": { "ready": false } }
            ]
        }));
        let slices = [(("shop".to_owned(), "db-1".to_owned()), slice.unwrap())].into();
        let azure = AzureName { host: "shopacr.azurecr.io".into(), port: 443, target: "127.0.0.1:1".parse().unwrap() };
        Zone::new("cluster.local", &services, &slices, &[azure])
    }

    #[test]
    fn services_pods_and_azure_names_are_answered() {
        let zone = zone();
        let a = |name: &str| zone.answer(name, Wanted::A);
        let ip = |text: &str| Answer::A(vec![text.parse().unwrap()]);
        assert_eq!(a("web.shop.svc.cluster.local"), ip("10.0.0.7"));
        assert_eq!(a("db.shop.svc.cluster.local"), ip("10.244.0.5"));
        assert_eq!(a("db-0.db.shop.svc.cluster.local"), ip("10.244.0.5"));
        assert_eq!(a("10-244-0-9.shop.pod.cluster.local"), ip("10.244.0.9"));
        assert!(matches!(a("shopacr.azurecr.io"), Answer::A(_)));
        assert_eq!(a("old.shop.svc.cluster.local"), Answer::Alias("example.com".into()));
        let srv = zone.answer("_sql._tcp.db.shop.svc.cluster.local", Wanted::Srv);
        assert_eq!(srv, Answer::Srv(vec![Srv { port: 3306, target: "db-0.db.shop.svc.cluster.local".into() }]));
        let pointer = zone.answer("7.0.0.10.in-addr.arpa", Wanted::Ptr);
        assert_eq!(pointer, Answer::Ptr("web.shop.svc.cluster.local".into()));
    }

    #[test]
    fn search_paths_meet_the_right_kind_of_nothing() {
        let zone = zone();
        let other = |name: &str| zone.answer(name, Wanted::Other);
        assert_eq!(other("web.shop.svc.cluster.local"), Answer::NoData, "AAAA of a service");
        assert_eq!(other("shopacr.azurecr.io"), Answer::NoData);
        assert_eq!(other("shop.svc.cluster.local"), Answer::NoData, "a name between");
        assert_eq!(zone.answer("shopacr.azurecr.io.shop.svc.cluster.local", Wanted::A), Answer::NoSuchName);
        assert_eq!(zone.answer("web.other.svc.cluster.local", Wanted::A), Answer::NoSuchName);
        assert_eq!(zone.answer("example.com", Wanted::A), Answer::Elsewhere);
        assert_eq!(zone.answer("notcluster.local", Wanted::A), Answer::Elsewhere);
        assert_eq!(zone.answer("8.8.8.8.in-addr.arpa", Wanted::Ptr), Answer::Elsewhere);
    }
}
