//! Which request goes where: the kubelet's own paths, ports of pods and services.

use super::{
    Upstream,
    forward::{Destination, forward},
};
use crate::{
    request::{
        info::{Query, RequestInfo},
        status::ApiError,
    },
    store::{Key, Store},
};
use axum::body::Body;
use http::{Request, Response, StatusCode};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use url::form_urlencoded::Serializer;

/// The kubelet's port unless its node says otherwise.
const KUBELET_PORT: u64 = 10_250;
/// What is read of a refusal of the kubelet, bytes.
const MAX_REFUSAL: usize = 64 * 1024;

fn object(store: &Store, resource: &str, namespace: &str, name: &str) -> Result<Value, ApiError> {
    let found = store.get(store.table(resource), &Key::new(namespace, name));
    Ok(found.ok_or_else(|| ApiError::not_found(resource, name))?.value())
}

/// `log`, `exec`, `attach`, `portforward` and `proxy` of a pod.
///
/// # Errors
/// 404, 400 for a container that is not there, 500 when the node cannot be reached.
pub async fn pod(
    store: &Store,
    upstream: &Arc<Upstream>,
    info: &RequestInfo,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let (name, port) = match (info.subresource.as_str(), split_port(&info.name)) {
        ("proxy", (name, port)) => (name, port),
        _ => (info.name.as_str(), None),
    };
    let pod = object(store, "pods", &info.namespace, name)?;
    let to = if info.subresource == "proxy" {
        let port =
            pod_port(&pod, port).ok_or_else(|| ApiError::bad_request(format!("no port of pod {name} to proxy to")))?;
        let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
        let address = format!("{ip}:{port}")
            .parse()
            .map_err(|_| ApiError::unavailable(format!("address not allowed or pod {name} has no address yet")))?;
        Destination { address, tls: false, path: rest(info) }
    } else {
        let path = kubelet_path(info, &pod)?;
        kubelet(store, pod["spec"]["nodeName"].as_str().unwrap_or_default(), name, path)?
    };
    let (parts, body) = request.into_parts();
    let answer = forward(upstream, parts, body, &to).await?;
    match info.subresource.as_str() {
        "log" => refused(answer, name).await,
        _ => Ok(answer),
    }
}

/// The kubelet says in plain text why there is no log; clients want a status.
async fn refused(answer: Response<Body>, pod: &str) -> Result<Response<Body>, ApiError> {
    let code = answer.status();
    if code.is_success() {
        return Ok(answer);
    }
    let text = axum::body::to_bytes(answer.into_body(), MAX_REFUSAL).await.map_err(ApiError::internal)?;
    let text = String::from_utf8_lossy(&text);
    Err(match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::new(
            code,
            "NotFound",
            format!("the server could not find the requested resource ( pods/log {pod}): {text}"),
        ),
        _ => ApiError::internal(text),
    })
}

/// `proxy` of a node: the kubelet itself.
///
/// # Errors
/// 404, 500.
pub async fn node(
    store: &Store,
    upstream: &Arc<Upstream>,
    info: &RequestInfo,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let to = kubelet(store, split_port(&info.name).0, "", rest(info))?;
    let (parts, body) = request.into_parts();
    forward(upstream, parts, body, &to).await
}

/// `proxy` of a service: one of its ready endpoints.
///
/// # Errors
/// 404, 503 without a ready endpoint, 500.
pub async fn service(
    store: &Store,
    upstream: &Arc<Upstream>,
    info: &RequestInfo,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let (name, port) = split_port(&info.name);
    let service = object(store, "services", &info.namespace, name)?;
    let unavailable = || ApiError::unavailable(format!("no endpoints available for service \"{name}\""));
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted = ports.iter().find(|entry| match port {
        None => true,
        Some(port) => entry["name"] == port || port.parse::<u64>().is_ok_and(|number| entry["port"] == number),
    });
    let wanted = wanted.ok_or_else(unavailable)?;
    let state = store.snapshot();
    let slices = state.table(store.table("endpointslices.discovery.k8s.io")).range(Some(&info.namespace), None);
    let address = slices
        .filter(|slice| slice.header.label("kubernetes.io/service-name") == Some(name))
        .find_map(|slice| ready_endpoint(&slice.value(), &wanted["name"]))
        .ok_or_else(unavailable)?;
    let (parts, body) = request.into_parts();
    forward(upstream, parts, body, &Destination { address, tls: false, path: rest(info) }).await
}

fn ready_endpoint(slice: &Value, port_name: &Value) -> Option<SocketAddr> {
    let same = |port: &&Value| port["name"].as_str().unwrap_or_default() == port_name.as_str().unwrap_or_default();
    let port = slice["ports"].as_array()?.iter().find(same)?["port"].as_u64()?;
    let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
    let endpoint = slice["endpoints"].as_array()?.iter().find(ready)?;
    format!("{}:{port}", endpoint["addresses"][0].as_str()?).parse().ok()
}

/// `[SCHEME:]NAME[:PORT]`.
fn split_port(name: &str) -> (&str, Option<&str>) {
    let parts: Vec<_> = name.split(':').collect();
    match parts.as_slice() {
        [_, name, port] => (name, Some(*port).filter(|port| !port.is_empty())),
        [name, port] => (name, Some(*port).filter(|port| !port.is_empty())),
        _ => (name, None),
    }
}

fn pod_port(pod: &Value, wanted: Option<&str>) -> Option<u64> {
    let ports = pod["spec"]["containers"].as_array()?.iter().flat_map(|c| c["ports"].as_array()).flatten();
    match wanted {
        Some(port) => port.parse().ok().or_else(|| {
            let mut ports = ports;
            ports.find(|p| p["name"] == port)?["containerPort"].as_u64()
        }),
        None => Some({ ports }.next()?["containerPort"].as_u64().unwrap_or(80)),
    }
}

fn rest(info: &RequestInfo) -> String {
    let query = info.query.encoded();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/{}{mark}{query}", info.rest)
}

/// The kubelet of a node.
fn kubelet(store: &Store, node: &str, pod: &str, path: String) -> Result<Destination, ApiError> {
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {pod} does not have a host assigned")));
    }
    let node_object = object(store, "nodes", "", node)?;
    let addresses = node_object["status"]["addresses"].as_array().into_iter().flatten();
    let internal = addresses.clone().find(|address| address["type"] == "InternalIP");
    let ip = internal.and_then(|address| address["address"].as_str()).unwrap_or_default();
    let port = node_object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(KUBELET_PORT);
    let address = format!("{ip}:{port}")
        .parse()
        .map_err(|_| ApiError::internal(format!("node {node} has no InternalIP to reach its kubelet at")))?;
    Ok(Destination { address, tls: true, path })
}

/// Parameters passed to the kubelet, by the name it has for them.
const LOG: &[(&str, &str)] = &[
    ("follow", "follow"),
    ("previous", "previous"),
    ("tailLines", "tailLines"),
    ("sinceSeconds", "sinceSeconds"),
    ("sinceTime", "sinceTime"),
    ("timestamps", "timestamps"),
    ("limitBytes", "limitBytes"),
    ("stream", "stream"),
];
const SESSION: &[(&str, &str)] =
    &[("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"), ("command", "command")];

fn kubelet_path(info: &RequestInfo, pod: &Value) -> Result<String, ApiError> {
    let (namespace, name) = (&info.namespace, &info.name);
    let (verb, parameters) = match info.subresource.as_str() {
        "log" => ("containerLogs", LOG),
        "exec" => ("exec", SESSION),
        "attach" => ("attach", SESSION),
        _ => {
            let query = info.query.encoded();
            return Ok(format!("/portForward/{namespace}/{name}?{query}"));
        }
    };
    let container = container(&info.query, pod, name)?;
    let mut query = Serializer::new(String::new());
    for (from, to) in parameters {
        for value in info.query.all(from) {
            // The kubelet takes `1` for yes, and nothing for no; a command may be `true`.
            let flag = verb != "containerLogs" && *to != "command";
            match value {
                "true" if flag => query.append_pair(to, "1"),
                "false" if flag => &mut query,
                value => query.append_pair(to, value),
            };
        }
    }
    Ok(format!("/{verb}/{namespace}/{name}/{container}?{}", query.finish()))
}

/// The container asked for, or the only one.
fn container(query: &Query, pod: &Value, name: &str) -> Result<String, ApiError> {
    let names = |list: &str| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let ephemeral = names("ephemeralContainers");
    match query.get("container") {
        Some(wanted) if [&main, &init, &ephemeral].iter().any(|list| list.iter().any(|have| have == wanted)) => {
            Ok(wanted.to_owned())
        }
        Some(wanted) => Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        None => match main.as_slice() {
            [only] => Ok(only.clone()),
            many => {
                let mut text =
                    format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
                if !init.is_empty() {
                    text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(ApiError::bad_request(text))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use serde_json::json;

    fn path(uri: &str) -> Result<String, String> {
        let (path, query) = uri.split_once('?').unwrap();
        let info = RequestInfo::parse(&Method::GET, path, query).unwrap();
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        kubelet_path(&info, &pod).map_err(|error| error.to_string())
    }

    #[test]
    fn the_kubelet_gets_its_own_parameters() {
        let exec =
            "/api/v1/namespaces/n/pods/p/exec?command=sh&command=-c&container=a&stdin=true&stdout=true&tty=false";
        assert_eq!(path(exec).unwrap(), "/exec/n/p/a?input=1&output=1&command=sh&command=-c");
        let log = "/api/v1/namespaces/n/pods/p/log?container=b&follow=true&tailLines=5";
        assert_eq!(path(log).unwrap(), "/containerLogs/n/p/b?follow=true&tailLines=5");
        let none = path("/api/v1/namespaces/n/pods/p/log?").unwrap_err();
        assert_eq!(none, "a container name must be specified for pod p, choose one of: [a b]");
        assert!(path("/api/v1/namespaces/n/pods/p/log?container=c").is_err());
        let command = "/api/v1/namespaces/n/pods/p/exec?command=false&command=true&container=a&stdout=true";
        assert_eq!(path(command).unwrap(), "/exec/n/p/a?output=1&command=false&command=true");
    }

    #[test]
    fn proxy_names() {
        assert_eq!(split_port("http:web:80"), ("web", Some("80")));
        assert_eq!(split_port("web:http"), ("web", Some("http")));
        assert_eq!(split_port("web"), ("web", None));
    }
}
