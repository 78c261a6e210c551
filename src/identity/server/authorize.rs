//! `/{tenant}/oauth2/v2.0/authorize`: checks the request, signs in or asks to, answers.

use super::{
    call::{Call, Params},
    pages,
    reply::{ReplyTo, ResponseMode},
    signing_failed, unknown_application,
};
use crate::{
    codes::{Authorized, Challenge},
    directory::{Application, User},
    error::{
        EntraError, FIELD_MISSING, MALFORMED, NO_SESSION, PKCE_NEEDED, REDIRECT_MISMATCH, UNSUPPORTED_MODE,
        UNSUPPORTED_RESPONSE,
    },
    scope::Grant,
    seal::Session,
};
use axum::{
    body::Bytes,
    extract::{Path, RawQuery},
    response::Response,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use url::Url;

/// A request that has been checked.
pub(super) struct AuthorizeRequest {
    pub client: Application,
    pub reply: ReplyTo,
    pub login_hint: Option<String>,
    redirect_uri: String,
    scope: String,
    grant: Grant,
    nonce: Option<String>,
    prompt: Vec<String>,
    challenge: Option<Challenge>,
    with_code: bool,
    with_id_token: bool,
    client_info: bool,
}

/// A request that is refused: to the person while the redirect URI is not known to be the
/// application's, else to the application.
pub(super) enum Refusal {
    Page(EntraError),
    Reply(Box<ReplyTo>, EntraError),
}

impl Refusal {
    pub(super) fn response(&self, call: &Call) -> Response {
        match self {
            Self::Page(error) => pages::error(call, error),
            Self::Reply(to, error) => to.send(vec![
                ("error", error.kind.oauth.to_owned()),
                ("error_description", error.description(&call.trace)),
            ]),
        }
    }
}

/// GET, parameters in the query.
pub(super) async fn get(call: Call, Path(tenant): Path<String>, RawQuery(query): RawQuery) -> Response {
    begin(&call, &tenant, Params::parse(query.as_deref().unwrap_or_default()))
}

/// POST, parameters in the body.
pub(super) async fn post(call: Call, Path(tenant): Path<String>, body: Bytes) -> Response {
    begin(&call, &tenant, Params::form(&body))
}

fn begin(call: &Call, tenant: &str, params: Result<Params, EntraError>) -> Response {
    let checked = params.map_err(Refusal::Page).and_then(|params| {
        let request = check(call, tenant, &params)?;
        Ok((params, request))
    });
    match checked {
        Ok((params, request)) => proceed(call, tenant, &params, &request),
        Err(refusal) => refusal.response(call),
    }
}

/// Uses the browser's session, or asks the person to sign in.
fn proceed(call: &Call, tenant: &str, params: &Params, request: &AuthorizeRequest) -> Response {
    let asks = |prompt: &str| request.prompt.iter().any(|p| p == prompt);
    let wanted = request.login_hint.as_deref().and_then(|hint| call.server.directory.user(hint));
    let session = call.session().filter(|session| {
        let same = request.login_hint.is_none() || wanted.is_some_and(|user| user.id == session.user);
        same && !asks("login") && !asks("select_account")
    });
    match session {
        Some(session) => complete(call, request, &session),
        None if asks("none") => Refusal::Reply(
            Box::new(request.reply.clone()),
            NO_SESSION.because("A silent sign-in request was sent but no user is signed in."),
        )
        .response(call),
        None => pages::sign_in(call, tenant, &pages::SignIn::for_application(request, params)),
    }
}

/// Checks a request, in Entra's order: tenant, application, redirect URI, then the rest.
pub(super) fn check(call: &Call, tenant: &str, params: &Params) -> Result<AuthorizeRequest, Refusal> {
    let directory = &call.server.directory;
    call.server.check_tenant(tenant).map_err(Refusal::Page)?;
    let client_id = required(params, "client_id").map_err(Refusal::Page)?;
    let client = directory.client(client_id).ok_or_else(|| Refusal::Page(unknown_application(directory, client_id)))?;
    let redirect_uri = required(params, "redirect_uri").map_err(Refusal::Page)?;
    let redirect = checked_redirect(client, redirect_uri).map_err(Refusal::Page)?;
    let types: Vec<&str> = params.get("response_type").unwrap_or_default().split_ascii_whitespace().collect();
    let with_id_token = types.contains(&"id_token");
    let default = if with_id_token { ResponseMode::Fragment } else { ResponseMode::Query };
    let mode = params.get("response_mode").map_or(Some(default), ResponseMode::parse);
    let state = params.get("state").map(str::to_owned);
    let reply = ReplyTo { redirect, mode: mode.unwrap_or(default), state };
    let refuse = |error: EntraError| Refusal::Reply(Box::new(reply.clone()), error);
    if mode.is_none() || (with_id_token && mode == Some(ResponseMode::Query)) {
        let mode = params.get("response_mode").unwrap_or_default();
        return Err(refuse(
            UNSUPPORTED_MODE.because(format!("'{mode}' is not a supported value of 'response_mode' for this request.")),
        ));
    }
    check_types(&types).map_err(refuse)?;
    let scope = required(params, "scope").map_err(refuse)?.to_owned();
    let grant = Grant::delegated(directory, client, &scope).map_err(refuse)?;
    let challenge = challenge(client, params).map_err(refuse)?;
    if with_id_token && !grant.has("openid") {
        return Err(refuse(MALFORMED.because("Invalid request. An ID token needs the scope 'openid'.")));
    }
    if with_id_token {
        required(params, "nonce").map_err(refuse)?;
    }
    Ok(AuthorizeRequest {
        client: client.clone(),
        login_hint: params.get("login_hint").map(str::to_owned),
        redirect_uri: redirect_uri.to_owned(),
        scope,
        grant,
        nonce: params.get("nonce").map(str::to_owned),
        prompt: params.get("prompt").unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect(),
        challenge,
        with_code: types.contains(&"code"),
        with_id_token,
        client_info: params.get("client_info") == Some("1"),
        reply,
    })
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, EntraError> {
    params.get(name).ok_or_else(|| {
        FIELD_MISSING.because(format!(
            "The required field '{name}' is missing from the request. Ensure that you have all the necessary \
             parameters for the login request."
        ))
    })
}

fn checked_redirect(client: &Application, redirect_uri: &str) -> Result<Url, EntraError> {
    Url::parse(redirect_uri).ok().filter(|uri| client.allows_redirect(uri)).ok_or_else(|| {
        REDIRECT_MISMATCH.because(format!(
            "The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs configured \
             for the application '{}'. Make sure the redirect URI sent in the request matches one added to your \
             application in the Azure portal.",
            client.client_id
        ))
    })
}

fn check_types(types: &[&str]) -> Result<(), EntraError> {
    let known = types.iter().all(|t| matches!(*t, "code" | "id_token"));
    if !types.is_empty() && known {
        return Ok(());
    }
    let wrong = types.iter().find(|t| !matches!(**t, "code" | "id_token")).unwrap_or(&"");
    Err(UNSUPPORTED_RESPONSE.because(format!("response_type '{wrong}' is not enabled for the application.")))
}

/// The proof key. Public clients must send one (OAuth 2.1, RFC 9700 §2.1.1).
fn challenge(client: &Application, params: &Params) -> Result<Option<Challenge>, EntraError> {
    let Some(challenge) = params.get("code_challenge") else {
        if client.is_public() {
            return Err(PKCE_NEEDED.because(
                "Proof Key for Code Exchange is required for authorization code redemption of public clients.",
            ));
        }
        return Ok(None);
    };
    let letters = challenge.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c));
    if !(43..=128).contains(&challenge.len()) || !letters {
        return Err(MALFORMED.because("Invalid request. 'code_challenge' is not valid (RFC 7636 section 4.2)."));
    }
    match params.get("code_challenge_method").unwrap_or("plain") {
        "S256" => Ok(Some(Challenge::Sha256(challenge.to_owned()))),
        "plain" => Ok(Some(Challenge::Plain(challenge.to_owned()))),
        other => Err(MALFORMED.because(format!("Invalid request. 'code_challenge_method' {other} is not supported."))),
    }
}

/// Answers the application for a signed-in user.
pub(super) fn complete(call: &Call, request: &AuthorizeRequest, session: &Session) -> Response {
    let Some(user) = call.server.directory.user(&session.user.to_string()) else {
        return pages::error(call, &super::unknown_user(&call.server.directory));
    };
    match answer(call, request, session, user) {
        Ok(fields) => {
            call.server.record(true, format!("{} signed in to {}", user.principal_name, request.client.name));
            request.reply.send(fields)
        }
        Err(error) => Refusal::Reply(Box::new(request.reply.clone()), error).response(call),
    }
}

fn answer(
    call: &Call,
    request: &AuthorizeRequest,
    session: &Session,
    user: &User,
) -> Result<Vec<(&'static str, String)>, EntraError> {
    let mut fields = Vec::new();
    let code = request.with_code.then(|| {
        call.server.codes.issue(Authorized {
            client: request.client.client_id,
            redirect_uri: request.redirect_uri.clone(),
            user: user.id,
            sid: session.sid,
            scope: request.scope.clone(),
            grant: request.grant.clone(),
            nonce: request.nonce.clone(),
            challenge: request.challenge.clone(),
        })
    });
    if request.with_id_token {
        let nonce = request.nonce.as_deref();
        let minter = &call.server.minter;
        let token = minter.id_token(user, session.sid, &request.client, &request.grant, nonce, code.as_deref());
        fields.push(("id_token", token.map_err(signing_failed)?));
    }
    if let Some(code) = code {
        fields.insert(0, ("code", code));
    }
    if request.client_info {
        fields.push(("client_info", client_info(call, user)));
    }
    fields.push(("session_state", session.sid.to_string()));
    Ok(fields)
}

/// `client_info`: the account's home, which MSAL keys its cache by.
pub(super) fn client_info(call: &Call, user: &User) -> String {
    let info = json!({ "uid": user.id, "utid": call.server.directory.tenant().id });
    URL_SAFE_NO_PAD.encode(info.to_string())
}
