//! Cells of services, endpoints and ingresses.

use super::{Compute, Row, first_three, labels, none_if_empty, plain};
use serde_json::Value;

/// Cells by name.
pub(super) fn compute(name: &str) -> Option<Compute> {
    Some(match name {
        "service_cluster_ip" => {
            |row| none_if_empty(row.text_or("/spec/clusterIPs/0", row.text("/spec/clusterIP")).into()).into()
        }
        "service_external_ip" => service_external_ip,
        "service_ports" => service_ports,
        "endpoints" => endpoints,
        "slice_ports" => |row| {
            let ports: Vec<String> = row.list("/ports").iter().map(|p| plain(&p["port"])).collect();
            unset_if_empty(first_three(&ports))
        },
        "slice_endpoints" => |row| {
            let addresses: Vec<String> = row
                .list("/endpoints")
                .iter()
                .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
                .map(plain)
                .collect();
            unset_if_empty(first_three(&addresses))
        },
        "ingress_class" => |row| {
            let annotation = row.text("/metadata/annotations/kubernetes.io~1ingress.class");
            none_if_empty(row.text_or("/spec/ingressClassName", annotation).into()).into()
        },
        "ingress_hosts" => ingress_hosts,
        "ingress_address" => |row| load_balancer(row).into(),
        "ingress_ports" => |row| if row.count("/spec/tls") > 0 { "80, 443" } else { "80" }.into(),
        "ingress_parameters" => ingress_parameters,
        "address_parent" => address_parent,
        "policy_pod_selector" => |row| {
            let selector = row.at("/spec/podSelector");
            labels(&selector["matchLabels"]).into()
        },
        "cidrs" => |row| row.list("/spec/cidrs").iter().map(plain).collect::<Vec<_>>().join(",").into(),
        _ => return None,
    })
}

fn unset_if_empty(text: String) -> Value {
    if text.is_empty() { "<unset>".into() } else { text.into() }
}

/// Addresses of `status.loadBalancer`, each once, sorted.
fn load_balancer(row: &Row<'_>) -> String {
    let mut addresses: Vec<&str> = row
        .list("/status/loadBalancer/ingress")
        .iter()
        .filter_map(|i| i["ip"].as_str().filter(|ip| !ip.is_empty()).or_else(|| i["hostname"].as_str()))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}

fn service_external_ip(row: &Row<'_>) -> Value {
    let own = row.list("/spec/externalIPs").iter().map(plain).collect::<Vec<_>>().join(",");
    match row.text("/spec/type") {
        "ExternalName" => row.text("/spec/externalName").into(),
        "LoadBalancer" => {
            let balanced = load_balancer(row);
            let parts: Vec<String> = [balanced, own].into_iter().filter(|part| !part.is_empty()).collect();
            if parts.is_empty() { "<pending>".into() } else { parts.join(",").into() }
        }
        _ => none_if_empty(own).into(),
    }
}

/// `80/TCP,443:30443/TCP`
fn service_ports(row: &Row<'_>) -> Value {
    let port = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_i64() {
            None | Some(0) => format!("{}/{protocol}", plain(&port["port"])),
            Some(node) => format!("{}:{node}/{protocol}", plain(&port["port"])),
        }
    };
    none_if_empty(row.list("/spec/ports").iter().map(port).collect::<Vec<_>>().join(",")).into()
}

/// `10.0.0.1:80,10.0.0.2:80`
fn endpoints(row: &Row<'_>) -> Value {
    let mut all = Vec::new();
    for subset in row.list("/subsets") {
        let addresses =
            subset["addresses"].as_array().into_iter().flatten().map(|a| a["ip"].as_str().unwrap_or_default());
        let ports = subset["ports"].as_array().map_or(&[][..], Vec::as_slice);
        for address in addresses {
            // IPv6 addresses stand in brackets before a port.
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            if ports.is_empty() {
                all.push(host);
            } else {
                all.extend(ports.iter().map(|port| format!("{host}:{}", plain(&port["port"]))));
            }
        }
    }
    none_if_empty(first_three(&all)).into()
}

fn ingress_hosts(row: &Row<'_>) -> Value {
    let hosts: Vec<String> = row
        .list("/spec/rules")
        .iter()
        .filter_map(|rule| rule["host"].as_str().filter(|host| !host.is_empty()))
        .map(str::to_owned)
        .collect();
    if hosts.is_empty() { "*".into() } else { first_three(&hosts).into() }
}

/// `ingressparameters.example.com/name`
fn ingress_parameters(row: &Row<'_>) -> Value {
    let parameters = row.at("/spec/parameters");
    if parameters.is_null() {
        return "<none>".into();
    }
    let text = |key: &str| parameters[key].as_str().unwrap_or_default();
    let group = if text("apiGroup").is_empty() { String::new() } else { format!(".{}", text("apiGroup")) };
    format!("{}{group}/{}", text("kind"), text("name")).into()
}

/// `services/default/kubernetes`
fn address_parent(row: &Row<'_>) -> Value {
    let parent = row.at("/spec/parentRef");
    let parts = ["group", "resource", "namespace", "name"].map(|key| parent[key].as_str().unwrap_or_default());
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/").into()
}
