//! Resources that are computed, not stored: access reviews, token reviews, component statuses.

use super::{api::Call, response, subresources, verbs};
use crate::{
    auth::{Attributes, User, tokens::ISSUER},
    request::{status::ApiError, target::Target},
    schema::{Resource, Verb},
};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a request for such a resource.
///
/// # Errors
/// 400, 404, 501.
pub async fn handle(call: &Call, resource: &Arc<Resource>, verb: Verb) -> Result<Response<Body>, ApiError> {
    match (resource.group.as_str(), resource.name.as_str(), verb) {
        ("authentication.k8s.io", "tokenreviews", Verb::Create) => token_review(call).await,
        ("authentication.k8s.io", "selfsubjectreviews", Verb::Create) => self_review(call),
        ("authorization.k8s.io", name, Verb::Create) => access_review(call, name),
        ("metrics.k8s.io", ..) => super::metrics::handle(call, resource, verb).await,
        ("", "componentstatuses", Verb::List) => {
            let metadata = json!({"resourceVersion": ""});
            verbs::list::shaped(call, resource, COMPONENTS.iter().map(|name| component(name)).collect(), metadata)
        }
        ("", "componentstatuses", Verb::Get) if COMPONENTS.contains(&call.info.name.as_str()) => {
            response::object(call, StatusCode::OK, resource, component(&call.info.name))
        }
        ("", "bindings", Verb::Create) => {
            let pods = call.api.schema.resource("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
            subresources::binding::handle(call, &Target::new(&call.api.store, pods)).await
        }
        (_, name, Verb::Get) => Err(ApiError::not_found(name, &call.info.name)),
        _ => Err(ApiError::method_not_allowed()),
    }
}

const COMPONENTS: &[&str] = &["controller-manager", "etcd-0", "scheduler"];

fn component(name: &str) -> Value {
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name, "creationTimestamp": null},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]})
}

fn body(call: &Call) -> Result<Value, ApiError> {
    let body = call.decode()?.value;
    if body.is_object() { Ok(body) } else { Err(ApiError::bad_request("the body of the request is not an object")) }
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

async fn token_review(call: &Call) -> Result<Response<Body>, ApiError> {
    let mut review = body(call)?;
    let wanted: Vec<String> = review["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let audiences: Vec<&str> =
        if wanted.is_empty() { vec![ISSUER] } else { wanted.iter().map(String::as_str).collect() };
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    review["status"] = match call.api.authenticator.token(token, &audiences).await {
        Some(user) => json!({"authenticated": true, "user": user_info(&user), "audiences": audiences}),
        None => json!({"user": {}, "error": "[invalid bearer token]"}),
    };
    response::value(&call.accept, StatusCode::CREATED, &review)
}

fn self_review(call: &Call) -> Result<Response<Body>, ApiError> {
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": null}, "status": {"userInfo": user_info(&call.user)}});
    response::value(&call.accept, StatusCode::CREATED, &review)
}

fn access_review(call: &Call, name: &str) -> Result<Response<Body>, ApiError> {
    let mut review = body(call)?;
    let spec = &review["spec"];
    let user = match name {
        "selfsubjectaccessreviews" => call.user.clone(),
        "selfsubjectrulesreviews" => {
            review["status"] = rules(call, spec["namespace"].as_str().unwrap_or_default());
            return response::value(&call.accept, StatusCode::CREATED, &review);
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => subject(spec)?,
        _ => return Err(ApiError::no_such_path()),
    };
    let (of_resource, of_path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if of_resource.is_object() == of_path.is_object() {
        return Err(ApiError::unprocessable(
            "spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    if name == "localsubjectaccessreviews" && of_resource["namespace"].as_str() != Some(&call.info.namespace) {
        return Err(ApiError::unprocessable(
            "spec.resourceAttributes.namespace: Invalid value: must match metadata.namespace",
        ));
    }
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let at = |field: &str| text(&of_resource[field]);
    let verb = text(&if of_path.is_object() { of_path["verb"].clone() } else { of_resource["verb"].clone() });
    let (group, resource, subresource) = (at("group"), at("resource"), at("subresource"));
    let (namespace, name, path) = (at("namespace"), at("name"), text(&of_path["path"]));
    let want = Attributes {
        verb: &verb,
        group: &group,
        resource: &resource,
        subresource: &subresource,
        namespace: &namespace,
        name: &name,
        path: &path,
    };
    let allowed = call.api.authorizer.allows(&user, &want);
    review["status"] =
        if allowed { json!({"allowed": true, "reason": "RBAC: allowed"}) } else { json!({"allowed": false}) };
    response::value(&call.accept, StatusCode::CREATED, &review)
}

fn subject(spec: &Value) -> Result<User, ApiError> {
    let texts = |value: &Value| {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (name, groups) = (spec["user"].as_str().unwrap_or_default().to_owned(), texts(&spec["groups"]));
    if name.is_empty() && groups.is_empty() {
        return Err(ApiError::unprocessable(
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(User { name, groups, ..User::default() })
}

fn rules(call: &Call, namespace: &str) -> Value {
    let (mut of_resources, mut of_paths) = (Vec::new(), Vec::new());
    for rule in call.api.authorizer.rules(&call.user, namespace) {
        let rule_value = json!(rule);
        if rule.non_resource_urls.is_empty() { of_resources.push(rule_value) } else { of_paths.push(rule_value) }
    }
    json!({"resourceRules": of_resources, "nonResourceRules": of_paths, "incomplete": false})
}
