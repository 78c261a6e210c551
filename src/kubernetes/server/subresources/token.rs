//! `TokenRequest`: a token for a service account, bound to its account and, if asked, to a pod.

use crate::{
    auth::tokens::{Bound, BoundObject, Claims, ISSUER},
    request::{
        status::{ApiError, Cause},
        target::Target,
    },
    server::{api::Call, response, strategy::metadata::shown},
    store::Key,
};
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// Issues the token.
pub fn handle(call: &Call, target: &Target) -> Result<Response<Body>, ApiError> {
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let account =
        call.api.store.get(target.table, &target.key(namespace, name)).ok_or_else(|| target.not_found(name))?;
    let mut request = call.decode()?.value;
    let spec = &request["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(3600);
    if !(SHORTEST..=LONGEST).contains(&seconds) {
        let detail = if seconds < SHORTEST {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), detail);
        return Err(ApiError::invalid("TokenRequest.authentication.k8s.io", name, &[cause]));
    }
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
    let now = Timestamp::now();
    let mut bound = Bound {
        namespace: namespace.clone(),
        serviceaccount: BoundObject { name: name.clone(), uid: account.header.uid.to_string() },
        ..Bound::default()
    };
    bind(call, &spec["boundObjectRef"], &mut bound)?;
    let claims = Claims {
        aud: audiences.clone(),
        exp: now.as_second() + seconds,
        iat: now.as_second(),
        iss: ISSUER.into(),
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes: bound,
        nbf: now.as_second(),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let token = call.api.tokens.sign(&claims).map_err(ApiError::internal)?;
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": shown(now)});
    request["spec"]["audiences"] = audiences.into();
    request["spec"]["expirationSeconds"] = seconds.into();
    let expires = shown(now + SignedDuration::from_secs(seconds));
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    response::value(&call.accept, StatusCode::CREATED, &request)
}

/// Binds the token to the pod or secret of `reference`, which must be there.
fn bind(call: &Call, reference: &Value, bound: &mut Bound) -> Result<(), ApiError> {
    let Some(kind) = reference["kind"].as_str() else { return Ok(()) };
    let name = reference["name"].as_str().unwrap_or_default();
    let store = &call.api.store;
    let resource = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        other => {
            return Err(ApiError::bad_request(format!("cannot bind token for serviceaccount to object kind {other}")));
        }
    };
    let found = store
        .get(store.table(resource), &Key::new(&bound.namespace, name))
        .ok_or_else(|| ApiError::not_found(resource, name))?;
    if reference["uid"].as_str().is_some_and(|uid| !uid.is_empty() && *uid != *found.header.uid) {
        let cause = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. \
             The object might have been deleted and then recreated",
            reference["uid"].as_str().unwrap_or_default()
        );
        return Err(ApiError::conflict(resource, name, &cause));
    }
    let object = BoundObject { name: name.to_owned(), uid: found.header.uid.to_string() };
    if kind == "Secret" {
        bound.secret = Some(object);
        return Ok(());
    }
    let pod = found.value();
    if pod["spec"]["serviceAccountName"] != bound.serviceaccount.name.as_str() {
        let cause = format!(
            "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
            bound.serviceaccount.name
        );
        return Err(ApiError::bad_request(cause));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str() {
        let uid = store.get(store.table("nodes"), &Key::new("", node)).map(|node| node.header.uid.to_string());
        bound.node = Some(BoundObject { name: node.to_owned(), uid: uid.unwrap_or_default() });
    }
    bound.pod = Some(object);
    Ok(())
}
