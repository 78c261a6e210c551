//! Environment of a container: literals with `$(VAR)`, config maps, secrets, downward API and
//! the variables of services.

use super::{downward, objects::ObjectError, shared::Shared};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Service};
use std::{collections::BTreeMap, net::IpAddr};

/// Why an environment could not be made; becomes `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnvError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { key: String, kind: &'static str, namespace: String, name: String },
    #[error("environment variable {name}: {message}")]
    Downward { name: String, message: String },
}

/// Addresses that the downward API tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub pod: Option<IpAddr>,
    pub host: IpAddr,
}

/// All variables in the order they are set; a later one wins.
pub(super) async fn environment(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    addresses: Addresses,
    services: &[Service],
) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut known: BTreeMap<String, String> = service_variables(services, namespace, links).into_iter().collect();
    let mut result = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in env_from(shared, namespace, source).await? {
            result.push((format!("{prefix}{key}"), value));
        }
    }
    for (key, value) in &result {
        known.insert(key.clone(), value.clone());
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(_)) => match value_from(shared, pod, container, variable, addresses).await? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => expand(value.as_deref().unwrap_or_default(), &known),
        };
        known.insert(variable.name.clone(), value.clone());
        result.push((variable.name.clone(), value));
    }
    let set: std::collections::HashSet<&String> = result.iter().map(|(k, _)| k).collect();
    let mut all: Vec<(String, String)> =
        service_variables(services, namespace, links).into_iter().filter(|(k, _)| !set.contains(k)).collect();
    all.extend(result);
    Ok(all)
}

async fn env_from(
    shared: &Shared,
    namespace: &str,
    source: &k8s_openapi::api::core::v1::EnvFromSource,
) -> Result<BTreeMap<String, String>, EnvError> {
    if let Some(reference) = &source.config_map_ref {
        return match shared.config_maps.subscribe(namespace, &reference.name).get().await {
            Ok(map) => Ok(map.data.clone().unwrap_or_default()),
            Err(ObjectError::NotFound { .. }) if reference.optional == Some(true) => Ok(BTreeMap::new()),
            Err(error) => Err(error.into()),
        };
    }
    let Some(reference) = &source.secret_ref else { return Ok(BTreeMap::new()) };
    match shared.secrets.subscribe(namespace, &reference.name).get().await {
        Ok(secret) => Ok(secret
            .data
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned()))
            .collect()),
        Err(ObjectError::NotFound { .. }) if reference.optional == Some(true) => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

async fn value_from(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    addresses: Addresses,
) -> Result<Option<String>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let Some(source) = &variable.value_from else { return Ok(None) };
    let downward = |message: String| EnvError::Downward { name: variable.name.clone(), message };
    if let Some(field) = &source.field_ref {
        return downward::field(pod, &field.field_path, Some(addresses), &shared.node.name).map(Some).map_err(downward);
    }
    if let Some(resource) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), resource, &shared.node).map(Some).map_err(downward);
    }
    let (found, key, optional, kind, name) = if let Some(key) = &source.config_map_key_ref {
        let found = shared.config_maps.subscribe(namespace, &key.name).get().await;
        let found = found.map(|map| map.data.as_ref().and_then(|d| d.get(&key.key).cloned()));
        (found, &key.key, key.optional, "ConfigMap", &key.name)
    } else if let Some(key) = &source.secret_key_ref {
        let found = shared.secrets.subscribe(namespace, &key.name).get().await;
        let text = |d: &BTreeMap<String, k8s_openapi::ByteString>| {
            d.get(&key.key).map(|v| String::from_utf8_lossy(&v.0).into_owned())
        };
        (found.map(|secret| secret.data.as_ref().and_then(text)), &key.key, key.optional, "Secret", &key.name)
    } else {
        return Err(downward("no supported source (fileKeyRef is not emulated)".into()));
    };
    match found {
        Ok(Some(value)) => Ok(Some(value)),
        Ok(None) | Err(ObjectError::NotFound { .. }) if optional == Some(true) => Ok(None),
        Ok(None) => Err(EnvError::Key { key: key.clone(), kind, namespace: namespace.to_owned(), name: name.clone() }),
        Err(error) => Err(error.into()),
    }
}

/// Replaces `$(NAME)` of known names; `$$` is a dollar, unknown names stay as written.
pub(super) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match known.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

/// `NAME_SERVICE_HOST` and the Docker-link variables, for services that a pod of `namespace` sees.
pub(super) fn service_variables(services: &[Service], namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut result = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let api_server = own == "default" && name == "kubernetes";
        if !api_server && (own != namespace || !links) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(host) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let Some(first) = spec.ports.iter().flatten().next() else { continue };
        result.push((format!("{prefix}_SERVICE_HOST"), host.to_owned()));
        result.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
        for port in spec.ports.iter().flatten() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                result.push((format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string()));
            }
        }
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_lowercase();
            let url = format!("{lower}://{host}:{}", port.port);
            if index == 0 {
                result.push((format!("{prefix}_PORT"), url.clone()));
            }
            let each = format!("{prefix}_PORT_{}_{protocol}", port.port);
            result.push((each.clone(), url));
            result.push((format!("{each}_PROTO"), lower));
            result.push((format!("{each}_PORT"), port.port.to_string()));
            result.push((format!("{each}_ADDR"), host.to_owned()));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expands_as_kubernetes_does() {
        let known: BTreeMap<String, String> = [("A".into(), "1".into()), ("B".into(), "$(A)".into())].into();
        for (text, want) in [
            ("x$(A)y", "x1y"),
            ("$$(A)", "$(A)"),
            ("$(NO)", "$(NO)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("$(B)", "$(A)"),
            ("100$", "100$"),
        ] {
            assert_eq!(expand(text, &known), want, "{text}");
        }
    }

    #[test]
    fn services_are_told() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "my-db", "namespace": "shop" },
            "spec": { "clusterIP": "10.0.0.9", "ports": [{ "name": "sql", "port": 3306 }] }
        }))
        .unwrap();
        let all: BTreeMap<_, _> = service_variables(std::slice::from_ref(&service), "shop", true).into_iter().collect();
        assert_eq!(all["MY_DB_SERVICE_HOST"], "10.0.0.9");
        assert_eq!(all["MY_DB_SERVICE_PORT_SQL"], "3306");
        assert_eq!(all["MY_DB_PORT_3306_TCP"], "tcp://10.0.0.9:3306");
        assert!(service_variables(std::slice::from_ref(&service), "shop", false).is_empty());
        assert!(service_variables(&[service], "other", true).is_empty());
    }

    proptest! {
        #[test]
        fn expansion_never_panics(text in "[$()A-Z]{0,40}") {
            let known = [("A".to_owned(), "v".to_owned())].into();
            let _ = expand(&text, &known);
        }
    }
}
