//! The two calls of Microsoft Graph that sign-in libraries make.

use super::Server;
use super::call::Call;
use crate::{directory::User, wellknown::GRAPH};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value, json};

/// `/oidc/userinfo`
pub(super) async fn userinfo(call: Call) -> Response {
    match authorized(&call) {
        Some((user, claims)) => Json(json!({
            "sub": claims.get("sub"),
            "name": user.display_name,
            "given_name": user.display_name.split(' ').next(),
            "family_name": user.display_name.split_once(' ').map(|(_, family)| family),
            "email": user.principal_name,
        }))
        .into_response(),
        None => refused(&call),
    }
}

/// `/v1.0/me`
pub(super) async fn me(call: Call) -> Response {
    match authorized(&call) {
        Some((user, _)) => Json(json!({
            "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#users/$entity",
            "id": user.id,
            "displayName": user.display_name,
            "givenName": user.display_name.split(' ').next(),
            "surname": user.display_name.split_once(' ').map(|(_, family)| family),
            "userPrincipalName": user.principal_name,
            "mail": user.principal_name,
        }))
        .into_response(),
        None => refused(&call),
    }
}

/// The user of the bearer token, which must be for Microsoft Graph.
fn authorized(call: &Call) -> Option<(&User, Map<String, Value>)> {
    let header = call.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    let claims = scheme.eq_ignore_ascii_case("bearer").then(|| verified(&call.server, token.trim())).flatten()?;
    let user = call.server.directory.user(claims.get("oid")?.as_str()?)?;
    Some((user, claims))
}

fn verified(server: &Server, token: &str) -> Option<Map<String, Value>> {
    let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
    let keys = server.keys.keys();
    let key = keys.iter().find(|key| key.kid == kid)?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_nbf = true;
    validation.set_issuer(&[server.directory.issuer()]);
    validation.set_audience(&[GRAPH, "https://graph.microsoft.com", "https://graph.microsoft.com/"]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    Some(jsonwebtoken::decode(token, &key.decoding, &validation).ok()?.claims)
}

fn refused(call: &Call) -> Response {
    let body = json!({ "error": {
        "code": "InvalidAuthenticationToken",
        "message": "Access token is missing, has expired, or is not for Microsoft Graph.",
        "innerError": { "request-id": call.trace.id, "client-request-id": call.trace.correlation },
    }});
    let challenge = HeaderValue::from_static("Bearer realm=\"\", error=\"invalid_token\"");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], Json(body)).into_response()
}
