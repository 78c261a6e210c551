//! Which endpoints answer for a host and path: a pure function of Ingresses, Services and
//! EndpointSlices, by networking.k8s.io/v1.

use super::INGRESS_CLASS;
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::EndpointSlice,
    networking::v1::{HTTPIngressPath, Ingress, IngressBackend},
};
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// Service and port behind a path.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Backend {
    /// `namespace/service:port`, for people.
    pub name: String,
    /// Ready endpoints.
    pub endpoints: Vec<SocketAddr>,
}

/// How a path is compared (`pathType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// By path elements.
    Prefix,
    /// To the letter.
    Exact,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    path: String,
    kind: Match,
    backend: Backend,
}

/// Routes by host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    hosts: BTreeMap<String, Vec<Rule>>,
}

impl RouteTable {
    /// The table that the objects ask for. Ingresses of other classes are left out.
    pub fn build<'a>(
        ingresses: impl IntoIterator<Item = &'a Ingress>,
        services: &BTreeMap<(String, String), Service>,
        slices: &[&EndpointSlice],
    ) -> Self {
        let mut table = Self::default();
        for ingress in ingresses.into_iter().filter(|i| is_ours(i)) {
            let namespace = ingress.namespace().unwrap_or_default();
            let resolve = |backend: &IngressBackend| resolve(&namespace, backend, services, slices);
            let Some(spec) = &ingress.spec else { continue };
            if let Some(backend) = &spec.default_backend {
                table.add("", "/", Match::Prefix, resolve(backend));
            }
            for rule in spec.rules.iter().flatten() {
                let host = rule.host.as_deref().unwrap_or_default();
                for path in rule.http.iter().flat_map(|h| &h.paths) {
                    let HTTPIngressPath { backend, path, path_type } = path;
                    let kind = if path_type == "Exact" { Match::Exact } else { Match::Prefix };
                    table.add(host, path.as_deref().unwrap_or("/"), kind, resolve(backend));
                }
            }
        }
        for rules in table.hosts.values_mut() {
            // Longest path first; of equal ones the exact first.
            rules.sort_by_key(|rule| std::cmp::Reverse((rule.path.len(), rule.kind)));
        }
        table
    }

    fn add(&mut self, host: &str, path: &str, kind: Match, backend: Option<Backend>) {
        let rule = Rule { path: path.to_owned(), kind, backend: backend.unwrap_or_default() };
        self.hosts.entry(host.to_ascii_lowercase()).or_default().push(rule);
    }

    /// The backend for a host (without port) and path. The wildcard `*.x` covers one label.
    pub fn find(&self, host: &str, path: &str) -> Option<&Backend> {
        let host = host.to_ascii_lowercase();
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let candidates = [Some(host), wildcard, Some(String::new())];
        candidates
            .into_iter()
            .flatten()
            .find_map(|name| self.hosts.get(&name)?.iter().find(|rule| matches(rule, path)).map(|rule| &rule.backend))
    }

    /// Whether some rule has this host, wildcards included.
    pub fn has_host(&self, host: &str) -> bool {
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.hosts.contains_key(host) || wildcard.is_some_and(|w| self.hosts.contains_key(&w))
    }

    /// Hosts in order, without the nameless one.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str).filter(|h| !h.is_empty())
    }
}

/// Whether the front door serves this Ingress: its class, or none given.
pub fn is_ours(ingress: &Ingress) -> bool {
    let class = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
    class
        .or(ingress.annotations().get("kubernetes.io/ingress.class").map(String::as_str))
        .is_none_or(|c| c == INGRESS_CLASS)
}

fn matches(rule: &Rule, path: &str) -> bool {
    match rule.kind {
        Match::Exact => path == rule.path,
        Match::Prefix => {
            let prefix = rule.path.trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

fn resolve(
    namespace: &str,
    backend: &IngressBackend,
    services: &BTreeMap<(String, String), Service>,
    slices: &[&EndpointSlice],
) -> Option<Backend> {
    let wanted = backend.service.as_ref()?;
    let port = wanted.port.as_ref()?;
    let service = services.get(&(namespace.to_owned(), wanted.name.clone()))?;
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let service_port = ports.iter().find(|p| match (&port.name, port.number) {
        (Some(name), _) => p.name.as_ref() == Some(name),
        (None, Some(number)) => p.port == number,
        (None, None) => false,
    })?;
    let mut endpoints = BTreeSet::new();
    for slice in slices {
        let of_service = slice.namespace().as_deref() == Some(namespace)
            && slice.labels().get("kubernetes.io/service-name") == Some(&wanted.name);
        if !of_service {
            continue;
        }
        let same_name =
            |name: &Option<String>| name.as_deref().unwrap_or("") == service_port.name.as_deref().unwrap_or("");
        let Some(target) = slice.ports.iter().flatten().find(|p| same_name(&p.name)).and_then(|p| p.port) else {
            continue;
        };
        let ready = slice.endpoints.iter().flatten().filter(|e| {
            e.conditions.as_ref().is_none_or(|c| c.ready.unwrap_or(true) && !c.terminating.unwrap_or(false))
        });
        for address in ready.flat_map(|e| &e.addresses) {
            if let (Ok(ip), Ok(port)) = (address.parse(), u16::try_from(target)) {
                endpoints.insert(SocketAddr::new(ip, port));
            }
        }
    }
    let name = format!("{namespace}/{}:{}", wanted.name, service_port.port);
    Some(Backend { name, endpoints: endpoints.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> RouteTable {
        let ingress: Ingress = serde_json::from_value(json!({
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": {"ingressClassName": INGRESS_CLASS, "rules": [
                {"host": "shop.localhost", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
                    {"path": "/api", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"name": "http"}}}},
                    {"path": "/api/exact", "pathType": "Exact", "backend": {"service": {"name": "web", "port": {"number": 80}}}}
                ]}},
                {"host": "*.apps.localhost", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "gone", "port": {"number": 80}}}}
                ]}}
            ]}
        })).unwrap();
        let service = |name: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}))
            .unwrap()
        };
        let slice = |name: &str, ip: &str, ready: bool| -> EndpointSlice {
            serde_json::from_value(json!({"metadata": {"name": format!("{name}-{ip}"), "namespace": "default",
                "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
                "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}],
                "ports": [{"name": "http", "port": 8080}]}))
            .unwrap()
        };
        let services = ["web", "api"].map(|n| (("default".to_owned(), n.to_owned()), service(n))).into();
        let slices =
            [slice("web", "10.244.0.2", true), slice("web", "10.244.0.3", false), slice("api", "10.244.0.4", true)];
        RouteTable::build([&ingress], &services, &slices.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_longest_path_wins_and_only_ready_endpoints_answer() {
        let table = table();
        assert_eq!(table.find("shop.localhost", "/x").unwrap().endpoints, ["10.244.0.2:8080".parse().unwrap()]);
        assert_eq!(table.find("SHOP.localhost", "/api/1").unwrap().name, "default/api:80");
        assert_eq!(table.find("shop.localhost", "/api/exact").unwrap().name, "default/web:80");
        assert_eq!(table.find("shop.localhost", "/apix").unwrap().name, "default/web:80");
    }

    #[test]
    fn wildcards_cover_one_label_and_missing_services_have_no_endpoints() {
        let table = table();
        assert!(table.find("a.apps.localhost", "/").unwrap().endpoints.is_empty());
        assert!(table.find("a.b.apps.localhost", "/").is_none());
        assert!(table.has_host("a.apps.localhost"));
    }
}
