//! What clients find before they sign anybody in: metadata, keys, instance and realm discovery.

use super::call::{Call, Params};
use crate::{
    error::{MALFORMED, UNKNOWN_INSTANCE},
    issuer::LOGIN_HOST,
};
use axum::{
    Json,
    extract::{Path, RawQuery},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// Any page may read these documents, as at Entra ID.
fn public(document: Value) -> Response {
    let mut response = Json(document).into_response();
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// `/{tenant}/v2.0/.well-known/openid-configuration`
pub(super) async fn configuration(call: Call, Path(tenant): Path<String>) -> Response {
    if let Err(error) = call.server.check_tenant(&tenant) {
        return error.response(&call.trace);
    }
    let id = call.server.directory.tenant().id.to_string();
    let shared = matches!(tenant.as_str(), "common" | "organizations");
    let (path, issued) = if shared { (tenant.as_str(), "{tenantid}") } else { (id.as_str(), id.as_str()) };
    let (back, front) = (&call.back_channel, &call.front_channel);
    let graph = if back.contains(LOGIN_HOST) { "https://graph.microsoft.com" } else { back.as_str() };
    public(json!({
        "token_endpoint": format!("{back}/{path}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": format!("{back}/{path}/discovery/v2.0/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": format!("https://{LOGIN_HOST}/{issued}/v2.0"),
        "request_uri_parameter_supported": false,
        "userinfo_endpoint": format!("{graph}/oidc/userinfo"),
        "authorization_endpoint": format!("{front}/{path}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{back}/{path}/oauth2/v2.0/devicecode"),
        "http_logout_supported": true,
        "frontchannel_logout_supported": true,
        "end_session_endpoint": format!("{front}/{path}/oauth2/v2.0/logout"),
        "code_challenge_methods_supported": ["S256", "plain"],
        "claims_supported": [
            "sub", "iss", "cloud_instance_name", "cloud_instance_host_name", "cloud_graph_host_name", "msgraph_host",
            "aud", "exp", "iat", "auth_time", "acr", "nonce", "preferred_username", "name", "tid", "ver", "at_hash",
            "c_hash", "email",
        ],
        "tenant_region_scope": if shared { Value::Null } else { json!("EU") },
        "cloud_instance_name": "microsoftonline.com",
        "cloud_graph_host_name": "graph.windows.net",
        "msgraph_host": "graph.microsoft.com",
        "rbac_url": "https://pas.windows.net",
    }))
}

/// `/{tenant}/discovery/v2.0/keys`
pub(super) async fn keys(call: Call, Path(tenant): Path<String>) -> Response {
    if let Err(error) = call.server.check_tenant(&tenant) {
        return error.response(&call.trace);
    }
    public(call.server.keys.jwks(&call.server.directory.issuer()))
}

/// `/common/discovery/instance`: how MSAL learns that an authority is Microsoft's.
pub(super) async fn instance(call: Call, RawQuery(query): RawQuery) -> Response {
    let params = match Params::parse(query.as_deref().unwrap_or_default()) {
        Ok(params) => params,
        Err(error) => return error.response(&call.trace),
    };
    let endpoint = params.get("authorization_endpoint").and_then(|endpoint| url::Url::parse(endpoint).ok());
    let Some(endpoint) = endpoint else {
        return MALFORMED.because("Invalid request. 'authorization_endpoint' is missing.").response(&call.trace);
    };
    let aliases = [LOGIN_HOST, "login.windows.net", "login.microsoft.com", "sts.windows.net"];
    let local = call.server.settings.local == format!("https://{}", endpoint.authority());
    if !local && !endpoint.host_str().is_some_and(|host| aliases.contains(&host)) {
        return UNKNOWN_INSTANCE.because("Unknown or invalid instance.").response(&call.trace);
    }
    let tenant = endpoint.path().trim_start_matches('/').split('/').next().unwrap_or("common");
    public(json!({
        "tenant_discovery_endpoint":
            format!("{}/{tenant}/v2.0/.well-known/openid-configuration", call.back_channel),
        "api-version": "1.1",
        "metadata": [{
            "preferred_network": LOGIN_HOST,
            "preferred_cache": "login.windows.net",
            "aliases": aliases,
        }],
    }))
}

/// `/common/userrealm/{user}`: every account here is managed, none federated.
pub(super) async fn user_realm(call: Call, Path((_, user)): Path<(String, String)>) -> Response {
    let directory = &call.server.directory;
    let domain = user.rsplit_once('@').map_or(directory.tenant().domain.as_str(), |(_, domain)| domain);
    Json(json!({
        "ver": "1.0",
        "account_type": if directory.user(&user).is_some() { "Managed" } else { "Unknown" },
        "domain_name": domain,
        "cloud_instance_name": "microsoftonline.com",
        "cloud_audience_urn": "urn:federation:MicrosoftOnline",
    }))
    .into_response()
}

/// Everything that is not emulated.
pub(super) async fn not_found(call: Call) -> Response {
    let error = MALFORMED.because("Invalid request. This endpoint does not exist, or aksim does not emulate it.");
    let mut response = error.response(&call.trace);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
