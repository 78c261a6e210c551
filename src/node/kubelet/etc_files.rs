//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a pod.

use super::config::Paths;
use k8s_openapi::api::core::v1::Pod;
use std::{fmt::Write, net::IpAddr, path::Path};

/// Most search domains that resolvers take.
const MAX_SEARCH: usize = 32;
/// Most name servers that resolvers take.
const MAX_SERVERS: usize = 3;

/// Cluster DNS as pods are told of it.
#[derive(Clone, Copy)]
pub(super) struct ClusterDnsInfo<'a> {
    pub address: IpAddr,
    pub domain: &'a str,
}

/// Host name of a pod: its own, else its name, at most 63 characters.
pub(super) fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let own = spec.and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let mut name = own.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Writes the three files.
pub(super) fn write(paths: &Paths, pod: &Pod, address: Option<IpAddr>, dns: ClusterDnsInfo<'_>) -> std::io::Result<()> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    std::fs::create_dir_all(paths.pod(uid))?;
    let host_network = pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    std::fs::write(paths.hosts_file(uid), hosts(pod, address, host_network, dns.domain))?;
    let node = std::fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default();
    std::fs::write(paths.resolv_conf(uid), resolv_conf(pod, dns, &node))?;
    std::fs::write(paths.hostname_file(uid), format!("{}\n", hostname(pod)))
}

fn hosts(pod: &Pod, address: Option<IpAddr>, host_network: bool, domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let name = hostname(pod);
    let subdomain = pod.spec.as_ref().and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
    if let Some(address) = address.filter(|_| !host_network) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        // Writing to a String cannot fail.
        let _ = match subdomain {
            Some(sub) => writeln!(text, "{address}\t{name}.{sub}.{namespace}.svc.{domain}\t{name}"),
            None => writeln!(text, "{address}\t{name}"),
        };
    }
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_ref()).into_iter().flatten();
    let aliases: Vec<String> =
        aliases.map(|a| format!("{}\t{}\n", a.ip, a.hostnames.clone().unwrap_or_default().join("\t"))).collect();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.extend(aliases);
    }
    text
}

/// Keeps the order of the first occurrence.
fn distinct(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

fn resolv_conf(pod: &Pod, dns: ClusterDnsInfo<'_>, node: &str) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec.is_some_and(|s| s.host_network == Some(true));
    let (mut servers, mut search, mut options) = match policy {
        "None" => (vec![], vec![], vec![]),
        "Default" => parse(node),
        "ClusterFirst" if host_network => parse(node),
        _ => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let domain = dns.domain;
            let own = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            (vec![dns.address.to_string()], own, vec!["ndots:5".to_owned()])
        }
    };
    if let Some(config) = spec.and_then(|s| s.dns_config.as_ref()) {
        servers.extend(config.nameservers.iter().flatten().cloned());
        search.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            options.retain(|o: &String| o.split(':').next() != Some(name));
            options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    distinct(&mut servers);
    distinct(&mut search);
    servers.truncate(MAX_SERVERS);
    search.truncate(MAX_SEARCH);
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text.extend(servers.iter().map(|s| format!("nameserver {s}\n")));
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

fn parse(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut servers, mut search, mut options) = (vec![], vec![], vec![]);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().map(str::to_owned)),
            Some("search") => search = words.map(str::to_owned).collect(),
            Some("options") => options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    (servers, search, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        let meta = serde_json::json!({ "name": "web-0", "namespace": "shop" });
        serde_json::from_value(serde_json::json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    fn dns() -> ClusterDnsInfo<'static> {
        ClusterDnsInfo { address: "10.0.0.10".parse().unwrap(), domain: "cluster.local" }
    }

    #[test]
    fn resolvers_follow_the_policy() {
        let node = "nameserver 9.9.9.9\nsearch corp\n";
        let text = resolv_conf(&pod(serde_json::json!({ "containers": [] })), dns(), node);
        assert_eq!(
            text,
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.0.0.10\noptions ndots:5\n"
        );
        let text = resolv_conf(&pod(serde_json::json!({ "containers": [], "dnsPolicy": "Default" })), dns(), node);
        assert_eq!(text, "search corp\nnameserver 9.9.9.9\n");
        let config = serde_json::json!({ "nameservers": ["1.1.1.1"], "options": [{ "name": "ndots", "value": "2" }] });
        let spec = serde_json::json!({ "containers": [], "dnsConfig": config });
        let text = resolv_conf(&pod(spec), dns(), node);
        assert!(text.contains("nameserver 1.1.1.1\noptions ndots:2"), "{text}");
    }

    #[test]
    fn hosts_name_the_pod() {
        let spec = serde_json::json!({
            "containers": [], "subdomain": "db", "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }]
        });
        let text = hosts(&pod(spec), Some("10.244.0.5".parse().unwrap()), false, "cluster.local");
        assert!(text.contains("10.244.0.5\tweb-0.db.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.contains("1.2.3.4\ta\tb\n"));
    }
}
