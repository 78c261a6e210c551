//! `/{tenant}/oauth2/v2.0/token`: every grant, and who may ask.

use super::{
    REFRESH_LIFETIME, authorize::client_info, call::Call, call::Params, same_secret, signing_failed,
    unknown_application, unknown_user,
};
use crate::{
    assertion,
    codes::{Challenge, DeviceState, Redeemed},
    directory::{Application, User},
    error::{
        CLIENT_AUTHENTICATION, CODE_REDEEMED, DEVICE_DECLINED, DEVICE_EXPIRED, DEVICE_PENDING, EntraError,
        GRANT_EXPIRED, INVALID_GRANT, ONLY_POST, PUBLIC_CLIENT, REPLY_MISMATCH, SECRET_NEEDED, UNSUPPORTED_GRANT,
        WRONG_SECRET, WRONG_VERIFIER,
    },
    issuer::LOGIN_HOST,
    scope::Grant,
    seal::{Broken, Purpose, Refresh},
    specs::ApplicationKind,
    tokens::{ClientProof, Subject},
};
use axum::{
    Json,
    body::Bytes,
    extract::Path,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// POST, version 2.0.
pub(super) async fn v2(call: Call, Path(tenant): Path<String>, body: Bytes) -> Response {
    answer(&call, Params::form(&body).and_then(|params| issue(&call, &tenant, &params)))
}

/// POST, version 1.0: `resource` in place of `scope`, numbers as text.
pub(super) async fn v1(call: Call, Path(tenant): Path<String>, body: Bytes) -> Response {
    let issued = Params::form(&body).and_then(|mut params| {
        let resource = params.get("resource").map(str::to_owned);
        if let Some(resource) = &resource {
            params.set("scope", format!("{resource}/.default"));
        }
        let mut answer = issue(&call, &tenant, &params)?;
        let lifetime = answer["expires_in"].as_u64().unwrap_or_default();
        let now = jsonwebtoken::get_current_timestamp();
        answer["expires_in"] = json!(lifetime.to_string());
        answer["ext_expires_in"] = json!(lifetime.to_string());
        answer["expires_on"] = json!((now + lifetime).to_string());
        answer["not_before"] = json!(now.to_string());
        answer["resource"] = json!(resource);
        Ok(answer)
    });
    answer(&call, issued)
}

fn answer(call: &Call, issued: Result<Value, EntraError>) -> Response {
    let mut response = match issued {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => error.response(&call.trace),
    };
    allow_origin(call, &mut response);
    response
}

/// GET and others.
pub(super) async fn only_post(call: Call) -> Response {
    ONLY_POST.because("The endpoint only accepts POST requests. Received a GET request.").response(&call.trace)
}

/// OPTIONS: a single-page application asks whether it may.
pub(super) async fn preflight(call: Call) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if allow_origin(&call, &mut response) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
        if let Some(wanted) = call.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    response
}

/// Lets the origins of single-page applications read the answer, no others.
fn allow_origin(call: &Call, response: &mut Response) -> bool {
    let Some(origin) = call.headers.get(header::ORIGIN) else { return false };
    let Some(wanted) = origin.to_str().ok().and_then(|origin| url::Url::parse(origin).ok()) else { return false };
    let pages = call.server.directory.applications().iter().filter(|app| app.kind == ApplicationKind::SinglePage);
    let known = pages.flat_map(|app| &app.redirect_uris).any(|uri| uri.origin() == wanted.origin());
    if known {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    known
}

fn issue(call: &Call, tenant: &str, params: &Params) -> Result<Value, EntraError> {
    call.server.check_tenant(tenant)?;
    let grant_type = params.require("grant_type")?;
    let redeem = match grant_type {
        "authorization_code" => authorization_code,
        "client_credentials" => client_credentials,
        "refresh_token" => refresh_token,
        "password" => password,
        "urn:ietf:params:oauth:grant-type:device_code" | "device_code" => device_code,
        other => {
            let why = if other.ends_with(":jwt-bearer") { " On-behalf-of is not emulated." } else { "" };
            return Err(
                UNSUPPORTED_GRANT.because(format!("The app requested an unsupported grant type '{other}'.{why}"))
            );
        }
    };
    let (client, proof) = authenticate(call, params)?;
    redeem(call, params, client, proof)
}

/// Who asks, and how that is known.
pub(super) fn authenticate<'a>(call: &'a Call, params: &Params) -> Result<(&'a Application, ClientProof), EntraError> {
    let basic = basic_credentials(call);
    let client_id = match &basic {
        Some((client_id, _)) => client_id.as_str(),
        None => params.require("client_id")?,
    };
    let directory = &call.server.directory;
    let client = directory.client(client_id).ok_or_else(|| unknown_application(directory, client_id))?;
    let secret = basic.as_ref().map(|(_, secret)| secret.as_str()).or_else(|| params.get("client_secret"));
    match (secret, params.get("client_assertion")) {
        (None, None) if client.is_public() => Ok((client, ClientProof::None)),
        _ if client.is_public() => Err(PUBLIC_CLIENT
            .because("Client is public so neither 'client_assertion' nor 'client_secret' should be presented.")),
        (Some(secret), _) => {
            // All are compared, so that the time taken says nothing.
            let right = client.secrets.iter().fold(false, |right, known| same_secret(known, secret) | right);
            if right {
                return Ok((client, ClientProof::Secret));
            }
            call.server.record(false, format!("{} gave a wrong secret", client.name));
            Err(WRONG_SECRET.because(format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                 value, not the client secret ID, for a secret added to app '{}'.",
                client.client_id
            )))
        }
        (None, Some(assertion)) => {
            assertion::verify(client, assertion, &token_audiences(call))?;
            Ok((client, ClientProof::Certificate))
        }
        (None, None) if params.get("grant_type") == Some("client_credentials") => Err(SECRET_NEEDED.because(
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        )),
        (None, None) => Err(CLIENT_AUTHENTICATION
            .because("The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")),
    }
}

/// HTTP Basic with form-encoded parts (RFC 6749 §2.3.1).
fn basic_credentials(call: &Call) -> Option<(String, String)> {
    let header = call.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = header.strip_prefix("Basic ").or_else(|| header.strip_prefix("basic "))?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client_id, secret) = decoded.split_once(':')?;
    let plain = |part: &str| {
        let mut pairs = url::form_urlencoded::parse(part.as_bytes());
        pairs.next().map(|(value, _)| value.into_owned()).unwrap_or_default()
    };
    Some((plain(client_id), plain(secret)))
}

/// Audiences that a client assertion may name: the token endpoint, or the issuer.
fn token_audiences(call: &Call) -> Vec<String> {
    let tenant = call.server.directory.tenant();
    let id = tenant.id.to_string();
    let mut audiences = vec![call.server.directory.issuer()];
    for base in [format!("https://{LOGIN_HOST}"), call.back_channel.clone()] {
        for segment in [id.as_str(), &tenant.domain, &tenant.name, "common", "organizations"] {
            audiences.push(format!("{base}/{segment}/oauth2/v2.0/token"));
            audiences.push(format!("{base}/{segment}/oauth2/token"));
        }
    }
    audiences
}

fn authorization_code(
    call: &Call,
    params: &Params,
    client: &Application,
    proof: ClientProof,
) -> Result<Value, EntraError> {
    let authorized = match call.server.codes.redeem(params.require("code")?) {
        Redeemed::Now(authorized) if authorized.client == client.client_id => authorized,
        Redeemed::Before => {
            return Err(CODE_REDEEMED.because(
                "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an \
                 existing refresh token.",
            ));
        }
        Redeemed::Expired => return Err(expired()),
        Redeemed::Now(_) | Redeemed::Unknown => return Err(malformed_grant()),
    };
    let redirect_uri = params.require("redirect_uri")?;
    if redirect_uri != authorized.redirect_uri {
        return Err(REPLY_MISMATCH.because(format!(
            "The reply address '{redirect_uri}' does not match the reply address '{}' provided when requesting \
             Authorization code.",
            authorized.redirect_uri
        )));
    }
    check_verifier(authorized.challenge.as_ref(), params.get("code_verifier"))?;
    let mut grant = authorized.grant;
    if let Some(scope) = params.get("scope") {
        let asked = Grant::delegated(&call.server.directory, client, scope)?;
        grant = asked.with_openid_of(&grant);
    }
    let user = existing_user(call, authorized.user)?;
    respond(
        call,
        params,
        client,
        proof,
        &Signed {
            user,
            sid: authorized.sid,
            scope: &authorized.scope,
            grant: &grant,
            nonce: authorized.nonce.as_deref(),
        },
    )
}

fn check_verifier(challenge: Option<&Challenge>, verifier: Option<&str>) -> Result<(), EntraError> {
    let right = match (challenge, verifier) {
        (None, None) => true,
        (Some(Challenge::Plain(challenge)), Some(verifier)) => same_secret(challenge, verifier),
        (Some(Challenge::Sha256(challenge)), Some(verifier)) => {
            same_secret(challenge, &URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)))
        }
        // A verifier without challenge: the challenge was stripped on the way (RFC 9700 §4.8.2).
        (None, Some(_)) | (Some(_), None) => false,
    };
    if right {
        return Ok(());
    }
    Err(WRONG_VERIFIER
        .because("The Code_Verifier does not match the code_challenge supplied in the authorization request."))
}

fn client_credentials(
    call: &Call,
    params: &Params,
    client: &Application,
    proof: ClientProof,
) -> Result<Value, EntraError> {
    if proof == ClientProof::None {
        return Err(SECRET_NEEDED.because(
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        ));
    }
    let grant = Grant::application(&call.server.directory, params.require("scope")?)?;
    let minter = &call.server.minter;
    let token = minter.access_token(Subject::Application, client, proof, &grant).map_err(signing_failed)?;
    call.server.record(true, format!("{} got a token for {}", client.name, grant.audience));
    let lifetime = minter.lifetime.as_secs().saturating_sub(1);
    Ok(json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    }))
}

fn refresh_token(call: &Call, params: &Params, client: &Application, proof: ClientProof) -> Result<Value, EntraError> {
    let sealed = params.require("refresh_token")?;
    let refresh = match call.server.seal.unseal::<Refresh>(Purpose::Refresh, sealed) {
        Ok(refresh) if refresh.client == client.client_id => refresh,
        Err(Broken::Expired) => return Err(expired()),
        Ok(_) | Err(Broken::Forged) => return Err(malformed_grant()),
    };
    let original = Grant::delegated(&call.server.directory, client, &refresh.scope)?;
    let grant = match params.get("scope") {
        Some(scope) => Grant::delegated(&call.server.directory, client, scope)?.with_openid_of(&original),
        None => original,
    };
    let user = existing_user(call, refresh.user)?;
    respond(
        call,
        params,
        client,
        proof,
        &Signed { user, sid: refresh.sid, scope: &refresh.scope, grant: &grant, nonce: None },
    )
}

fn password(call: &Call, params: &Params, client: &Application, proof: ClientProof) -> Result<Value, EntraError> {
    let (name, password) = (params.require("username")?, params.require("password")?);
    let scope = params.require("scope")?;
    let grant = Grant::delegated(&call.server.directory, client, scope)?;
    let user = call.server.check_password(name, password)?;
    call.server.record(true, format!("{} signed in to {} by password grant", user.principal_name, client.name));
    respond(call, params, client, proof, &Signed { user, sid: Uuid::new_v4(), scope, grant: &grant, nonce: None })
}

fn device_code(call: &Call, params: &Params, client: &Application, proof: ClientProof) -> Result<Value, EntraError> {
    let code = params.get("device_code").or_else(|| params.get("code"));
    let code = code.map_or_else(|| params.require("device_code"), Ok)?;
    let device = match call.server.devices.poll(code, client.client_id) {
        Redeemed::Now(device) => device,
        Redeemed::Before => {
            return Err(CODE_REDEEMED.because("OAuth2 Authorization code was already redeemed."));
        }
        Redeemed::Expired => {
            return Err(DEVICE_EXPIRED.because("Verification code expired. Have the user retry the sign-in."));
        }
        Redeemed::Unknown => return Err(malformed_grant()),
    };
    match device.state {
        DeviceState::Approved { user, sid } => respond(
            call,
            params,
            client,
            proof,
            &Signed { user: existing_user(call, user)?, sid, scope: &device.scope, grant: &device.grant, nonce: None },
        ),
        DeviceState::Declined => Err(DEVICE_DECLINED.because("User declined to consent to access the app.")),
        DeviceState::Pending | DeviceState::Redeemed => {
            Err(DEVICE_PENDING.because("OAuth 2.0 device flow error. Authorization is pending. Continue polling."))
        }
    }
}

fn existing_user(call: &Call, id: Uuid) -> Result<&User, EntraError> {
    call.server.directory.user(&id.to_string()).ok_or_else(|| unknown_user(&call.server.directory))
}

fn expired() -> EntraError {
    GRANT_EXPIRED.because(
        "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive \
         authorization request for this user and resource.",
    )
}

fn malformed_grant() -> EntraError {
    INVALID_GRANT.because("Provided grant is invalid or malformed.")
}

/// A user's sign-in that tokens are made for.
struct Signed<'a> {
    user: &'a User,
    sid: Uuid,
    /// As first asked for; carried on in the refresh token.
    scope: &'a str,
    grant: &'a Grant,
    nonce: Option<&'a str>,
}

fn respond(
    call: &Call,
    params: &Params,
    client: &Application,
    proof: ClientProof,
    signed: &Signed<'_>,
) -> Result<Value, EntraError> {
    let (minter, grant) = (&call.server.minter, signed.grant);
    let subject = Subject::User(signed.user, signed.sid);
    let access = minter.access_token(subject, client, proof, grant).map_err(signing_failed)?;
    let lifetime = minter.lifetime.as_secs().saturating_sub(1);
    let mut answer = json!({
        "token_type": "Bearer",
        "scope": grant.granted(),
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": access,
    });
    if grant.has("offline_access") {
        let refresh = Refresh {
            user: signed.user.id,
            client: client.client_id,
            scope: signed.scope.to_owned(),
            sid: signed.sid,
            id: Uuid::new_v4(),
        };
        let sealed = call.server.seal.seal(Purpose::Refresh, &refresh, REFRESH_LIFETIME).map_err(signing_failed)?;
        answer["refresh_token"] = json!(sealed);
    }
    if grant.has("openid") {
        let token = minter.id_token(signed.user, signed.sid, client, grant, signed.nonce, None);
        answer["id_token"] = json!(token.map_err(signing_failed)?);
    }
    if params.get("client_info") == Some("1") {
        answer["client_info"] = json!(client_info(call, signed.user));
    }
    Ok(answer)
}
