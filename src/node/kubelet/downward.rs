//! The downward API: fields and resources of a pod told to its containers.

use super::{config::NodeConfig, env::Addresses};
use aksim_model::quantity::{parse_milli, parse_units};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use std::collections::BTreeMap;

/// A field by its path; `addresses` is `None` in volumes, where addresses are not offered.
pub(super) fn field(pod: &Pod, path: &str, addresses: Option<Addresses>, node: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(text(map.and_then(|m| m.get(key))));
    }
    Ok(match (path, addresses) {
        ("metadata.name", _) => text(meta.name.as_ref()),
        ("metadata.namespace", _) => text(meta.namespace.as_ref()),
        ("metadata.uid", _) => text(meta.uid.as_ref()),
        ("metadata.labels", _) => lines(meta.labels.as_ref()),
        ("metadata.annotations", _) => lines(meta.annotations.as_ref()),
        ("spec.nodeName", Some(_)) => node.to_owned(),
        ("spec.serviceAccountName", Some(_)) => text(spec.and_then(|s| s.service_account_name.as_ref())),
        ("status.hostIP" | "status.hostIPs", Some(a)) => a.host.to_string(),
        ("status.podIP" | "status.podIPs", Some(a)) => a.pod.map(|ip| ip.to_string()).unwrap_or_default(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let each = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}"));
    each.collect::<Vec<_>>().join("\n")
}

/// A resource of a container in units of its divisor; the node's own amount where no limit is set.
pub(super) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    node: &NodeConfig,
) -> Result<String, String> {
    let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        Some(name) => spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name),
        None => own,
    }
    .ok_or_else(|| format!("container {} not found", named.unwrap_or_default()))?;
    let (list, resource) = selector.resource.split_once('.').ok_or("unsupported container resource")?;
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()).and_then(|m| m.get(resource));
    let request = resources.and_then(|r| r.requests.as_ref()).and_then(|m| m.get(resource));
    let quantity = match list {
        "limits" => limit,
        "requests" => request.or(limit),
        _ => return Err(format!("unsupported container resource: {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(|d| d.0.as_str()).filter(|d| !d.is_empty() && *d != "0").unwrap_or("1");
    let divisor = parse_milli(divisor).map_err(|e| e.to_string())?;
    if divisor <= 0 {
        return Err("the divisor must be positive".into());
    }
    let milli = match (quantity, list) {
        (Some(quantity), "requests" | "limits") if resource == "cpu" => {
            parse_milli(&quantity.0).map_err(|e| e.to_string())?
        }
        (Some(quantity), _) => i128::from(parse_units(&quantity.0).map_err(|e| e.to_string())?) * 1000,
        (None, "requests") => 0,
        (None, _) => match resource {
            "cpu" => i128::from(node.capacity.cpu_millis),
            "memory" => i128::from(node.capacity.memory_bytes) * 1000,
            "ephemeral-storage" => i128::from(node.capacity.ephemeral_bytes) * 1000,
            _ => 0,
        },
    };
    Ok(((milli + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::config::Capacity;

    fn node() -> NodeConfig {
        NodeConfig {
            name: "n".into(),
            labels: BTreeMap::new(),
            taints: vec![],
            provider_id: String::new(),
            internal_ip: "10.224.0.4".parse().unwrap(),
            pod_cidr: "10.244.0.0/24".parse().unwrap(),
            capacity: Capacity { cpu_millis: 4000, memory_bytes: 1 << 30, ephemeral_bytes: 0, pods: 110 },
        }
    }

    #[test]
    fn tells_fields_and_resources() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "d", "labels": { "a": "1", "b": "x\"y" } },
            "spec": { "containers": [{ "name": "c", "resources": { "limits": { "cpu": "1500m", "memory": "64Mi" } } }] }
        }))
        .unwrap();
        assert_eq!(field(&pod, "metadata.labels['a']", None, "n"), Ok("1".into()));
        assert_eq!(field(&pod, "metadata.labels", None, "n"), Ok("a=\"1\"\nb=\"x\\\"y\"".into()));
        assert!(field(&pod, "status.podIP", None, "n").is_err());
        let ask = |resource: &str, divisor: Option<&str>| {
            let divisor = divisor.map(|d| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into()));
            let selector = ResourceFieldSelector { resource: resource.into(), divisor, container_name: None };
            let container = &pod.spec.as_ref().unwrap().containers[0];
            super::resource(&pod, Some(container), &selector, &node())
        };
        assert_eq!(ask("limits.cpu", None), Ok("2".into()));
        assert_eq!(ask("limits.cpu", Some("1m")), Ok("1500".into()));
        assert_eq!(ask("requests.memory", Some("1Mi")), Ok("64".into()));
        assert!(ask("limits.cpu", Some("-1")).is_err());
    }
}
