//! Services: addresses, node ports, what is wrong with one.

use super::{Change, Part, names};
use crate::{
    request::status::{ApiError, Cause},
    server::{
        addresses::{AddressError, ServiceAddresses},
        api::Api,
    },
};
use serde_json::{Map, Value, json};
use std::{net::Ipv4Addr, sync::Arc};

/// Addresses taken for a write; given back when dropped, unless kept.
#[derive(Default)]
pub struct Reserved {
    api: Option<Arc<Api>>,
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Reserved {
    /// The write happened: the addresses stay taken.
    pub fn keep(mut self) {
        self.api = None;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(api) = &self.api {
            api.addresses.give_back(&self.addresses, &self.ports);
        }
    }
}

/// What goes with the type that a service no longer has.
pub fn prepare(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if value["spec"]["type"] == "LoadBalancer" {
        return Ok(());
    }
    if change.part == Part::Status {
        let told = value["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|ingress| !ingress.is_empty());
        if told {
            let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let why = "may only be used when `spec.type` is \"LoadBalancer\"";
            return Err(ApiError::invalid("Service", &name, &[Cause::forbidden("status.loadBalancer.ingress", why)]));
        }
    } else if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("loadBalancer".into(), json!({}));
    }
    if let (Some(old), Some(spec)) = (change.old, value["spec"].as_object_mut()) {
        drop_dependent(&old["spec"], spec);
    }
    Ok(())
}

/// Fields of the type before, where the client has not set them anew (kube-apiserver's
/// `dropTypeDependentFields`). Addresses and node ports: see [`reserve`].
fn drop_dependent(old: &Value, spec: &mut Map<String, Value>) {
    let mut fields = vec!["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"];
    if spec.get("type").is_none_or(|kind| kind != "NodePort") {
        fields.push("externalTrafficPolicy");
    }
    for field in fields {
        if spec.get(field).is_some_and(|now| *now == old[field]) {
            spec.remove(field);
        }
    }
}

/// Gives a service the addresses that its type has.
pub fn reserve(api: &Arc<Api>, change: &Change<'_>, value: &mut Value) -> Result<Reserved, ApiError> {
    let mut reserved = Reserved { api: Some(api.clone()), addresses: Vec::new(), ports: Vec::new() };
    let kind = value["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let refuse = |field: &str, shown: &Value, error: &AddressError| {
        ApiError::invalid("Service", &name, &[Cause::invalid(field, shown, &error.to_string())])
    };
    if kind == "ExternalName" {
        clear(value);
        return Ok(reserved);
    }
    cluster_ip(&api.addresses, change.old, value, &mut reserved)
        .map_err(|(shown, error)| refuse("spec.clusterIPs", &shown, &error))?;
    let wants_ports =
        kind == "NodePort" || (kind == "LoadBalancer" && value["spec"]["allocateLoadBalancerNodePorts"] != false);
    node_ports(&api.addresses, change.old, value, wants_ports, &mut reserved)
        .map_err(|(shown, error)| refuse("spec.ports[0].nodePort", &shown, &error))?;
    families(value);
    if kind == "LoadBalancer" && value["spec"]["externalTrafficPolicy"] == "Local" {
        let held = change.old.is_some_and(|old| !old["spec"]["healthCheckNodePort"].is_null());
        if !held {
            let port =
                api.addresses.take_port(None).map_err(|e| refuse("spec.healthCheckNodePort", &Value::Null, &e))?;
            reserved.ports.push(port);
            value["spec"]["healthCheckNodePort"] = port.into();
        }
    }
    Ok(reserved)
}

fn clear(value: &mut Value) {
    if let Some(spec) = value["spec"].as_object_mut() {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            spec.remove(field);
        }
    }
}

type Refused = (Value, AddressError);

fn cluster_ip(
    pool: &ServiceAddresses,
    old: Option<&Value>,
    value: &mut Value,
    reserved: &mut Reserved,
) -> Result<(), Refused> {
    // A client that replaces a service without naming the address keeps it.
    let before = old.and_then(|old| old["spec"]["clusterIP"].as_str()).filter(|ip| !ip.is_empty());
    let spec = &mut value["spec"];
    let wanted = spec["clusterIP"].as_str().filter(|ip| !ip.is_empty());
    let wanted = wanted.or_else(|| spec["clusterIPs"][0].as_str()).or(before).map(str::to_owned);
    let address = match wanted.as_deref() {
        Some("None") => "None".to_owned(),
        Some(same) if before == Some(same) => same.to_owned(),
        wanted => {
            let shown = json!([wanted]);
            let parsed = wanted.map(str::parse).transpose();
            let parsed = parsed.map_err(|_| (shown.clone(), AddressError::OutOfRange("IP", "IPs is IPv4".into())))?;
            let address = pool.take_address(parsed).map_err(|error| (shown, error))?;
            reserved.addresses.push(address);
            address.to_string()
        }
    };
    spec["clusterIP"] = address.as_str().into();
    spec["clusterIPs"] = json!([address]);
    Ok(())
}

fn node_ports(
    pool: &ServiceAddresses,
    old: Option<&Value>,
    value: &mut Value,
    wanted: bool,
    reserved: &mut Reserved,
) -> Result<(), Refused> {
    let before: Vec<&Value> = old.into_iter().flat_map(|old| old["spec"]["ports"].as_array()).flatten().collect();
    for port in value["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if !wanted {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
            continue;
        }
        let given = port["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        let same = before.iter().find(|b| b["port"] == port["port"] && b["protocol"] == port["protocol"]);
        let held = |number: u16| before.iter().any(|b| b["nodePort"] == number);
        let kept = same.and_then(|b| b["nodePort"].as_u64()).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        match given.or(kept) {
            Some(number) if held(number) || reserved.ports.contains(&number) => port["nodePort"] = number.into(),
            wanted => {
                let number = pool.take_port(wanted).map_err(|error| (json!(wanted), error))?;
                reserved.ports.push(number);
                port["nodePort"] = number.into();
            }
        }
    }
    Ok(())
}

fn families(value: &mut Value) {
    let spec = &mut value["spec"];
    if spec["ipFamilies"].is_null() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    if spec["internalTrafficPolicy"].is_null() {
        spec["internalTrafficPolicy"] = "Cluster".into();
    }
    if matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) && spec["externalTrafficPolicy"].is_null() {
        spec["externalTrafficPolicy"] = "Cluster".into();
    }
}

/// Ports, type, and the address that does not change.
pub fn validate(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &kinds));
    }
    let ports: Vec<_> = spec["ports"].as_array().into_iter().flatten().collect();
    let headless = spec["clusterIP"] == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" && spec["externalName"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        validate_port(index, port, &ports, causes);
    }
    if let Some(old) = change.old {
        let before = &old["spec"];
        let both = before["type"] != "ExternalName" && kind != "ExternalName";
        if both
            && before["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty())
            && before["clusterIP"] != spec["clusterIP"]
        {
            causes.push(Cause::invalid("spec.clusterIPs[0]", &spec["clusterIPs"], "may not change once set"));
        }
    }
}

fn validate_port(index: usize, port: &Value, all: &[&Value], causes: &mut Vec<Cause>) {
    let field = format!("spec.ports[{index}]");
    if !port["port"].as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
        let shown = if port["port"].is_null() { json!(0) } else { port["port"].clone() };
        causes.push(Cause::invalid(format!("{field}.port"), &shown, "must be between 1 and 65535, inclusive"));
    }
    let name = port["name"].as_str().unwrap_or_default();
    if name.is_empty() && all.len() > 1 {
        causes.push(Cause::required(format!("{field}.name"), ""));
    } else if !name.is_empty() && !names::is_dns_label(name) {
        causes.push(Cause::invalid(format!("{field}.name"), &port["name"], names::LABEL));
    } else if !name.is_empty() && all[..index].iter().any(|other| other["name"] == port["name"]) {
        causes.push(Cause::duplicate(format!("{field}.name"), &port["name"]));
    }
    let protocols = ["SCTP", "TCP", "UDP"];
    if port["protocol"].as_str().is_some_and(|protocol| !protocols.contains(&protocol)) {
        causes.push(Cause::not_supported(format!("{field}.protocol"), &port["protocol"], &protocols));
    }
    if all[..index].iter().any(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]) {
        let key = json!({"port": port["port"], "protocol": port["protocol"]});
        causes.push(Cause::duplicate(field, &key));
    }
}
