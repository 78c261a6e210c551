//! Objects that a new cluster starts with, as data: namespaces, default roles, priority and
//! storage classes, the service `kubernetes`. They are created like any other object.

use super::api::{Api, InProcessUser};
use crate::{
    auth::{
        User,
        user::{API_SERVER, MASTERS},
    },
    request::status::ApiError,
    schema::GroupVersionKind,
    store::Key,
};
use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};

const RBAC: &str = "rbac.authorization.k8s.io";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    role: Vec<Role>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    name: String,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    aggregate: Vec<String>,
    #[serde(default)]
    gathers: Vec<String>,
    #[serde(default)]
    bind: Vec<String>,
}

/// Creates what is not there yet, and points the service `kubernetes` at `endpoint`.
///
/// # Errors
/// The first refusal, with the object's name.
pub async fn run(api: &Arc<Api>, endpoint: SocketAddr) -> Result<(), ApiError> {
    // Invariant: both files are part of the binary, and a test reads them.
    let objects: Vec<Value> = serde_json::from_str(include_str!("objects.json")).expect("objects.json is JSON");
    for object in objects.into_iter().chain(roles()) {
        ensure(api, &object).await?;
    }
    let address = api.addresses.range().nth(1);
    ensure(api, &kubernetes_service(&address.to_string())).await?;
    for object in api_services(api) {
        if ensure(api, &object).await? {
            renew(api, &object, "/status").await?;
        }
    }
    for object in endpoints(endpoint) {
        ensure(api, &object).await?;
        renew(api, &object, "").await?;
    }
    Ok(())
}

fn roles() -> impl Iterator<Item = Value> {
    let file: File = toml::from_str(include_str!("rbac.toml")).expect("rbac.toml is well-formed");
    let parsed: Vec<(Role, Vec<Value>)> = file
        .role
        .into_iter()
        .map(|role| {
            let rules = role.rules.iter().map(|text| rule(text)).collect();
            (role, rules)
        })
        .collect();
    let mut objects: Vec<Value> = Vec::new();
    for (role, own) in &parsed {
        let mut rules = own.clone();
        for wanted in &role.gathers {
            rules.extend(gathered(&parsed, wanted));
        }
        objects.push(cluster_role(role, rules));
        if !role.bind.is_empty() {
            objects.push(binding(role));
        }
    }
    objects.into_iter()
}

/// Rules of the roles that are aggregated to `wanted`, theirs included.
fn gathered(all: &[(Role, Vec<Value>)], wanted: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    for (role, own) in all.iter().filter(|(role, _)| role.aggregate.iter().any(|to| to == wanted)) {
        let further = role.gathers.iter().flat_map(|wanted| gathered(all, wanted));
        for rule in own.iter().cloned().chain(further) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

/// A rule of the table as a `PolicyRule`.
fn rule(text: &str) -> Value {
    let parts: Vec<_> = text.split_whitespace().collect();
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let verbs = match parts.first().copied().unwrap_or_default() {
        "rw" => list("create,delete,deletecollection,get,list,patch,update,watch"),
        "ro" => list("get,list,watch"),
        verbs => list(verbs),
    };
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    if part(1) == "path" {
        return json!({"verbs": verbs, "nonResourceURLs": list(part(2))});
    }
    let groups: Vec<_> = part(1).split(',').map(|group| if group == "core" { "" } else { group }).collect();
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": list(part(2))});
    if !part(3).is_empty() {
        rule["resourceNames"] = list(part(3)).into();
    }
    rule
}

fn labels(role: &Role) -> Value {
    let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for to in &role.aggregate {
        labels[format!("{RBAC}/aggregate-to-{to}")] = "true".into();
    }
    labels
}

fn cluster_role(role: &Role, rules: Vec<Value>) -> Value {
    let annotations = json!({format!("{RBAC}/autoupdate"): "true"});
    let mut object = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole",
        "metadata": {"name": role.name, "labels": labels(role), "annotations": annotations}, "rules": rules});
    if !role.gathers.is_empty() {
        let selectors: Vec<_> = role
            .gathers
            .iter()
            .map(|wanted| json!({"matchLabels": {format!("{RBAC}/aggregate-to-{wanted}"): "true"}}))
            .collect();
        object["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    }
    object
}

fn binding(role: &Role) -> Value {
    let subjects: Vec<_> = role
        .bind
        .iter()
        .filter_map(|subject| subject.split_once(' '))
        .map(|(kind, name)| match name.split_once('/') {
            Some((namespace, name)) if kind == "ServiceAccount" => {
                json!({"kind": kind, "namespace": namespace, "name": name})
            }
            _ => json!({"kind": kind, "apiGroup": RBAC, "name": name}),
        })
        .collect();
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": role.name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {format!("{RBAC}/autoupdate"): "true"}},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role.name}, "subjects": subjects})
}

fn kubernetes_service(address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": address,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443}]}})
}

/// The registration of every group and version, all served by this server itself.
fn api_services(api: &Api) -> Vec<Value> {
    let mut services = Vec::new();
    for (group, versions) in api.schema.groups() {
        for (place, version) in (0..).zip(versions.iter().rev()) {
            let condition = json!({"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available"});
            services.push(json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": format!("{version}.{group}"), "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
                "spec": {"group": group, "version": version, "groupPriorityMinimum": 17_000, "versionPriority": 1 + place},
                "status": {"conditions": [condition]}}));
        }
    }
    services
}

fn endpoints(endpoint: SocketAddr) -> [Value; 2] {
    let address = endpoint.ip().to_string();
    [
        json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address}],
                "ports": [{"name": "https", "port": endpoint.port(), "protocol": "TCP"}]}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": endpoint.port(), "protocol": "TCP"}]}),
    ]
}

/// Creates an object that is not there; whether it had to.
async fn ensure(api: &Arc<Api>, object: &Value) -> Result<bool, ApiError> {
    let (resource, collection, namespace, name) = locate(api, object)?;
    let table = api.store.table(&resource);
    if api.store.get(table, &Key::new(&namespace, &name)).is_some() {
        return Ok(false);
    }
    send(api, Method::POST, &collection, object).await?;
    Ok(true)
}

/// Replaces an object whose content may be another one after a restart.
async fn renew(api: &Arc<Api>, object: &Value, part: &str) -> Result<(), ApiError> {
    let (_, collection, _, name) = locate(api, object)?;
    send(api, Method::PUT, &format!("{collection}/{name}{part}"), object).await
}

fn locate(api: &Api, object: &Value) -> Result<(String, String, String, String), ApiError> {
    let kind = GroupVersionKind::of(object).ok_or_else(|| ApiError::internal("an object without kind"))?;
    let resource = api.schema.resource_of(&kind).ok_or_else(|| ApiError::internal(format!("{kind} is not served")))?;
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    let path = format!("/{}{scope}/{}", resource.group_version().path(), resource.name);
    Ok((resource.storage().group_resource(), path, namespace, name))
}

async fn send(api: &Arc<Api>, method: Method, path: &str, object: &Value) -> Result<(), ApiError> {
    let user = User::authenticated(API_SERVER, [MASTERS.to_owned()]);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-apiserver/v1.36.0")
        .extension(InProcessUser(Arc::new(user)))
        .body(Body::from(object.to_string()))
        .map_err(ApiError::internal)?;
    let response = api.clone().handle(request).await;
    if response.status().is_success() {
        return Ok(());
    }
    let code = response.status();
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = status["message"].as_str().unwrap_or_default();
    Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("{path}: {code}: {message}")))
}
