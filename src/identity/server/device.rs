//! Device code flow (RFC 8628): the code endpoint and the page where its user types it.

use super::{
    call::{Call, Params},
    pages,
    pages::SignIn,
    token, unknown_application,
};
use crate::{
    codes::{DEVICE_LIFETIME, DeviceState},
    directory::User,
    error::{EntraError, MALFORMED},
    scope::Grant,
    seal::Session,
};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, RawQuery},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Seconds between two polls, as Entra asks for.
const INTERVAL: u64 = 5;

/// POST `/{tenant}/oauth2/v2.0/devicecode`
pub(super) async fn code(call: Call, Path(tenant): Path<String>, body: Bytes) -> Response {
    match issue(&call, &tenant, &body) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => error.response(&call.trace),
    }
}

fn issue(call: &Call, tenant: &str, body: &[u8]) -> Result<Value, EntraError> {
    let server = &call.server;
    server.check_tenant(tenant)?;
    let params = Params::form(body)?;
    let client_id = params.require("client_id")?;
    let client = server.directory.client(client_id).ok_or_else(|| unknown_application(&server.directory, client_id))?;
    if !client.is_public() {
        token::authenticate(call, &params)?;
    }
    let scope = params.require("scope")?;
    let grant = Grant::delegated(&server.directory, client, scope)?;
    let (device_code, user_code) = server.devices.issue(client.client_id, scope, grant);
    let page = format!("{}/common/oauth2/deviceauth", call.front_channel);
    Ok(json!({
        "user_code": user_code,
        "device_code": device_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?otc={user_code}"),
        "expires_in": DEVICE_LIFETIME.as_secs(),
        "interval": INTERVAL,
        "message": format!(
            "To sign in, use a web browser to open the page {page} and enter the code {user_code} to authenticate."
        ),
    }))
}

pub(super) fn invalid_code() -> EntraError {
    MALFORMED.because("That code didn't work. Check the code and try again; it may have expired.")
}

/// GET `/{tenant}/oauth2/deviceauth`
pub(super) async fn page(call: Call, Path(tenant): Path<String>, RawQuery(query): RawQuery) -> Response {
    let params = call.server.check_tenant(&tenant).and(Params::parse(query.as_deref().unwrap_or_default()));
    match params {
        Ok(params) => pages::device_code(&call, &tenant, params.get("otc").unwrap_or_default(), None),
        Err(error) => pages::error(&call, &error),
    }
}

/// POST `/{tenant}/oauth2/deviceauth`: the code typed; now who signs in?
pub(super) async fn choose(call: Call, Path(tenant): Path<String>, body: Bytes) -> Response {
    let params = match call.server.check_tenant(&tenant).and(Params::form(&body)) {
        Ok(params) if call.is_own_form(&params) => params,
        Ok(_) => return pages::device_code(&call, &tenant, "", Some(&invalid_code())),
        Err(error) => return pages::error(&call, &error),
    };
    let code = params.get("otc").unwrap_or_default().trim();
    let client = call.server.devices.waiting(code).and_then(|id| call.server.directory.client(&id.to_string()));
    match client {
        Some(client) => pages::sign_in(&call, &tenant, &SignIn::for_device(client, code)),
        None => pages::device_code(&call, &tenant, code, Some(&invalid_code())),
    }
}

/// The user signed in for the device.
pub(super) fn approve(call: &Call, user_code: &str, session: &Session, user: &User) -> Response {
    let state = DeviceState::Approved { user: session.user, sid: session.sid };
    match settle(call, user_code, state) {
        Some(client) => {
            call.server.record(true, format!("{} signed in to {client} by device code", user.principal_name));
            let title = format!("You have signed in to {client} on your device");
            pages::notice("Signed in", &title, "You can close this window.")
        }
        None => pages::error(call, &invalid_code()),
    }
}

/// The user refused.
pub(super) fn decline(call: &Call, user_code: &str) -> Response {
    match settle(call, user_code, DeviceState::Declined) {
        Some(client) => {
            pages::notice("Cancelled", &format!("{client} was not signed in"), "You can close this window.")
        }
        None => pages::error(call, &invalid_code()),
    }
}

fn settle(call: &Call, user_code: &str, state: DeviceState) -> Option<String> {
    let client = call.server.devices.settle(user_code, state)?;
    call.server.directory.client(&client.to_string()).map(|client| client.name.clone())
}
