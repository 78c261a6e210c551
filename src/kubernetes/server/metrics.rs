//! metrics.k8s.io: use of nodes and pods, from the kubelets' `/stats/summary`.

use super::{
    api::{Api, Call},
    response,
    strategy::metadata::shown,
    verbs,
};
use crate::{
    request::{
        info::RequestInfo,
        selector::{FieldSelector, Selection, Selector},
        status::ApiError,
    },
    schema::{Resource, Verb},
    store::Object,
    stream,
};
use axum::body::Body;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

/// Largest summary that is read, bytes.
const SUMMARY_LIMIT: usize = 16 << 20;

/// Answers GET and LIST of `nodes` and `pods`.
///
/// # Errors
/// 404 for what has no metrics yet.
pub async fn handle(call: &Call, resource: &Arc<Resource>, verb: Verb) -> Result<Response<Body>, ApiError> {
    let (store, info) = (&call.api.store, &call.info);
    let of_nodes = resource.name == "nodes";
    let table = if of_nodes { "nodes" } else { "pods" };
    let state = store.snapshot();
    let query = &info.query;
    let selection = Selection {
        namespace: (!of_nodes && !info.namespace.is_empty()).then(|| info.namespace.clone()),
        labels: Selector::parse(query.get("labelSelector").unwrap_or_default())?,
        fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or_default(), table)?,
    };
    let one = (verb == Verb::Get).then_some(info.name.as_str());
    let objects: Vec<_> = state
        .table(store.table(table))
        .range(selection.namespace.as_deref(), None)
        .filter(|object| one.is_none_or(|name| object.key.name() == name) && selection.matches(object))
        .cloned()
        .collect();
    let summaries = summaries(&call.api, &objects, of_nodes).await;
    let metrics: Vec<_> = objects
        .iter()
        .filter_map(|object| if of_nodes { node(object, &summaries) } else { pod(object, &summaries) })
        .collect();
    match (verb, one) {
        (Verb::List, _) => verbs::list::shaped(call, resource, metrics, json!({})),
        (_, Some(name)) => match metrics.into_iter().next() {
            Some(found) => response::object(call, StatusCode::OK, resource, found),
            None => {
                let name = if of_nodes { name.to_owned() } else { format!("{}/{name}", info.namespace) };
                Err(ApiError::not_found(&resource.group_resource(), &name))
            }
        },
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Summaries of the nodes concerned, by name; nodes that do not answer are left out.
async fn summaries(api: &Api, objects: &[Arc<Object>], of_nodes: bool) -> HashMap<String, Value> {
    let mut nodes: Vec<String> = objects
        .iter()
        .map(|object| if of_nodes { object.key.name().to_owned() } else { object.header.fields[0].to_string() })
        .filter(|name| !name.is_empty())
        .collect();
    nodes.sort();
    nodes.dedup();
    let reading = nodes.into_iter().map(|name| async move {
        match summary(api, &name).await {
            Ok(summary) => Some((name, summary)),
            Err(error) => {
                tracing::debug!(node = name, %error, "no metrics");
                None
            }
        }
    });
    futures::future::join_all(reading).await.into_iter().flatten().collect()
}

async fn summary(api: &Api, node: &str) -> Result<Value, ApiError> {
    let info = RequestInfo { name: node.to_owned(), rest: "stats/summary".into(), ..RequestInfo::default() };
    let response = stream::node(&api.store, &api.upstream, &info, http::Request::new(Body::empty())).await?;
    if response.status() != StatusCode::OK {
        return Err(ApiError::internal(format!("the kubelet of {node} answered {}", response.status())));
    }
    let body = Limited::new(response.into_body(), SUMMARY_LIMIT).collect().await.map_err(ApiError::internal)?;
    serde_json::from_slice(&body.to_bytes()).map_err(ApiError::internal)
}

/// CPU in nanocores and memory in KiB, as metrics-server gives them.
fn usage(stats: &Value) -> Option<Value> {
    let cpu = stats["cpu"]["usageNanoCores"].as_u64()?;
    let memory = stats["memory"]["workingSetBytes"].as_u64()?;
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024)}))
}

fn measured(object: &Object, kind: &str, stats: &Value) -> Value {
    let mut metadata = json!({"name": object.key.name(), "creationTimestamp": shown(jiff::Timestamp::now())});
    if !object.key.namespace().is_empty() {
        metadata["namespace"] = object.key.namespace().into();
    }
    if !object.header.labels.is_empty() {
        metadata["labels"] = object
            .header
            .labels
            .iter()
            .map(|(k, v)| (k.to_string(), json!(v)))
            .collect::<serde_json::Map<_, _>>()
            .into();
    }
    let time = match &stats["cpu"]["time"] {
        Value::Null => shown(jiff::Timestamp::now()),
        time => time.clone(),
    };
    json!({"kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata, "timestamp": time, "window": "10s"})
}

fn node(object: &Object, summaries: &HashMap<String, Value>) -> Option<Value> {
    let stats = &summaries.get(object.key.name())?["node"];
    let mut metrics = measured(object, "NodeMetrics", stats);
    metrics["usage"] = usage(stats)?;
    Some(metrics)
}

fn pod(object: &Object, summaries: &HashMap<String, Value>) -> Option<Value> {
    let summary = summaries.get(&*object.header.fields[0])?;
    let stats = summary["pods"].as_array()?.iter().find(|pod| pod["podRef"]["uid"] == *object.header.uid)?;
    let containers: Vec<_> = stats["containers"]
        .as_array()?
        .iter()
        .filter_map(|container| Some(json!({"name": container["name"], "usage": usage(container)?})))
        .collect();
    if containers.is_empty() {
        return None;
    }
    let first = &stats["containers"][0];
    let mut metrics = measured(object, "PodMetrics", first);
    metrics["containers"] = containers.into();
    Some(metrics)
}
