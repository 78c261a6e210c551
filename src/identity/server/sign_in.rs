//! The sign-in form's target, and sign-out.

use super::{
    SESSION_LIFETIME, authorize,
    call::{Call, FORM_COOKIE, Params, SESSION_COOKIE, set_cookie},
    device, pages,
    pages::SignIn,
    reply, signing_failed,
};
use crate::{
    directory::User,
    error::{DECLINED, EntraError, MALFORMED},
    seal::{Purpose, Session},
};
use axum::{
    body::Bytes,
    extract::{Path, RawQuery},
    response::Response,
};
use http::header;
use url::Url;
use uuid::Uuid;

/// What a sign-in is for, once it has been checked.
enum Purposed {
    Application(Box<authorize::AuthorizeRequest>),
    Device(String),
}

/// POST `/{tenant}/login`: an account chosen, or name and password.
pub(super) async fn login(call: Call, Path(tenant): Path<String>, body: Bytes) -> Response {
    let params = match Params::form(&body) {
        Ok(params) => params,
        Err(error) => return pages::error(&call, &error),
    };
    if !call.is_own_form(&params) {
        return pages::error(
            &call,
            &MALFORMED.because("The sign-in page is out of date, or cookies are off. Go back and try again."),
        );
    }
    let (form, purpose) = match purpose(&call, &tenant, &params) {
        Ok(purpose) => purpose,
        Err(refusal) => return refusal.response(&call),
    };
    if params.get("cancel").is_some() {
        return cancel(&call, purpose);
    }
    match authenticate(&call, &params) {
        Ok(Some(user)) => signed_in(&call, user, purpose),
        Ok(None) => pages::sign_in(&call, &tenant, &form.with_name(params.get("account"))),
        Err(error) => pages::sign_in(&call, &tenant, &form.with_name(params.get("login")).with_error(&error)),
    }
}

fn purpose(call: &Call, tenant: &str, params: &Params) -> Result<(SignIn, Purposed), authorize::Refusal> {
    if let Some(user_code) = params.get("user_code") {
        let client =
            call.server.devices.waiting(user_code).and_then(|id| call.server.directory.client(&id.to_string()));
        let client = client.ok_or_else(|| authorize::Refusal::Page(device::invalid_code()))?;
        return Ok((SignIn::for_device(client, user_code), Purposed::Device(user_code.to_owned())));
    }
    let original = Params::parse(params.get("ctx").unwrap_or_default()).map_err(authorize::Refusal::Page)?;
    // Checked again: the form may have been altered.
    let request = authorize::check(call, tenant, &original)?;
    Ok((SignIn::for_application(&request, &original), Purposed::Application(Box::new(request))))
}

/// The user, or `None` if an account was chosen and its password is wanted too.
fn authenticate<'a>(call: &'a Call, params: &Params) -> Result<Option<&'a User>, EntraError> {
    if let Some(account) = params.get("account") {
        let user = call.server.directory.user(account).ok_or_else(|| super::unknown_user(&call.server.directory))?;
        return Ok((!call.server.settings.ask_password).then_some(user));
    }
    let (name, password) = (params.get("login").unwrap_or_default(), params.get("passwd").unwrap_or_default());
    call.server.check_password(name.trim(), password).map(Some)
}

fn signed_in(call: &Call, user: &User, purpose: Purposed) -> Response {
    let session = Session { user: user.id, sid: Uuid::new_v4() };
    let sealed = match call.server.seal.seal(Purpose::Session, &session, SESSION_LIFETIME) {
        Ok(sealed) => sealed,
        Err(error) => return pages::error(call, &signing_failed(error)),
    };
    let mut response = match purpose {
        Purposed::Application(request) => authorize::complete(call, &request, &session),
        Purposed::Device(user_code) => device::approve(call, &user_code, &session, user),
    };
    // `SameSite=None`: applications renew sessions from frames (`prompt=none`) and by form_post.
    if let Some(cookie) = set_cookie(SESSION_COOKIE, &sealed, "None", SESSION_LIFETIME.as_secs()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

fn cancel(call: &Call, purpose: Purposed) -> Response {
    match purpose {
        Purposed::Application(request) => authorize::Refusal::Reply(
            Box::new(request.reply),
            DECLINED.because("User declined to consent to access the app."),
        )
        .response(call),
        Purposed::Device(user_code) => device::decline(call, &user_code),
    }
}

/// `/{tenant}/oauth2/v2.0/logout`: forgets the session; goes on only to a registered URI.
pub(super) async fn logout(call: Call, Path(tenant): Path<String>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let params = match query.as_deref() {
        Some(query) => Params::parse(query),
        None => Params::form(&body),
    };
    let params = match call.server.check_tenant(&tenant).and(params) {
        Ok(params) => params,
        Err(error) => return pages::error(&call, &error),
    };
    let wanted = params.get("post_logout_redirect_uri").and_then(|uri| Url::parse(uri).ok());
    let registered = |uri: &Url| call.server.directory.applications().iter().any(|app| app.allows_redirect(uri));
    let mut response = match wanted.filter(registered) {
        Some(mut uri) => {
            if let Some(state) = params.get("state") {
                uri.query_pairs_mut().append_pair("state", state);
            }
            reply::redirect(uri.as_str())
        }
        None => pages::notice("Signed out", "You signed out of your account", "You can close this window."),
    };
    for (name, same_site) in [(SESSION_COOKIE, "None"), (FORM_COOKIE, "Lax")] {
        if let Some(cookie) = set_cookie(name, "", same_site, 0) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}
