//! The pages that people see: sign-in, device code, notices, errors. No script but the one
//! that posts a form response; everything dynamic is escaped.

use super::{
    authorize::AuthorizeRequest,
    call::{Call, FORM_COOKIE, FormToken, Params, set_cookie},
    signing_failed,
};
use crate::{
    directory::{Application, User},
    error::EntraError,
    seal::Purpose,
};
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use std::{fmt::Write, time::Duration};
use url::Url;
use uuid::Uuid;

const STYLE: &str = include_str!("pages.css");
/// How long a form may stay open.
const FORM_LIFETIME: Duration = Duration::from_secs(3600);

/// What the sign-in page shows.
pub(super) struct SignIn {
    application: String,
    hidden: (&'static str, String),
    name: Option<String>,
    error: Option<String>,
    device: bool,
}

impl SignIn {
    /// For an application's authorization request; `params` are kept in the form.
    pub(super) fn for_application(request: &AuthorizeRequest, params: &Params) -> Self {
        Self {
            application: request.client.name.clone(),
            hidden: ("ctx", params.encode()),
            name: request.login_hint.clone(),
            error: None,
            device: false,
        }
    }
    /// For a device that shows `user_code`.
    pub(super) fn for_device(client: &Application, user_code: &str) -> Self {
        Self {
            application: client.name.clone(),
            hidden: ("user_code", user_code.to_owned()),
            name: None,
            error: None,
            device: true,
        }
    }
    /// With a name filled in.
    pub(super) fn with_name(mut self, name: Option<&str>) -> Self {
        self.name = name.map(str::to_owned).or(self.name);
        self
    }
    /// With what went wrong.
    pub(super) fn with_error(mut self, error: &EntraError) -> Self {
        self.error = Some(error.to_string());
        self
    }
}

/// The account picker with a form for name and password.
pub(super) fn sign_in(call: &Call, tenant: &str, form: &SignIn) -> Response {
    let directory = &call.server.directory;
    let mut accounts = String::new();
    for user in directory.users() {
        account(&mut accounts, user);
    }
    let alert = alert(form.error.as_deref());
    let lead = if form.device {
        format!(
            "Are you trying to sign in to <b>{}</b> on your device? Only go on if you asked for this code.",
            escaped(&form.application)
        )
    } else {
        format!("to continue to <b>{}</b>", escaped(&form.application))
    };
    let picker = if accounts.is_empty() {
        "<p class=\"note\">The directory has no users: add them under <code>[identity]</code>.</p>".to_owned()
    } else {
        format!("<ul class=\"accounts\" aria-label=\"Accounts\">{accounts}</ul>")
    };
    let body = |canary: &str| {
        format!(
            "<h1>Sign in</h1><p class=\"lead\">{lead}</p>{alert}\
             <form method=\"post\" action=\"/{tenant}/login\">{hidden}\
             <h2>Pick an account</h2>{picker}\
             </form>\
             <form method=\"post\" action=\"/{tenant}/login\" class=\"password\">{hidden}\
             <h2>Or use name and password</h2>\
             <label for=\"login\">User name</label>\
             <input id=\"login\" name=\"login\" autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\" \
              placeholder=\"someone@{domain}\" value=\"{name}\" required>\
             <label for=\"passwd\">Password</label>\
             <input id=\"passwd\" name=\"passwd\" type=\"password\" autocomplete=\"current-password\" required>\
             <div class=\"buttons\"><button class=\"primary\">Sign in</button>\
             <button name=\"cancel\" value=\"1\" formnovalidate>Cancel</button></div>\
             </form>\
             <p class=\"note\">Consent is not asked here: an application gets every permission it names.</p>",
            tenant = escaped(tenant),
            hidden = hidden(canary, &form.hidden),
            domain = escaped(&directory.tenant().domain),
            name = escaped(form.name.as_deref().unwrap_or_default()),
        )
    };
    let status = if form.error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    with_form(call, status, "Sign in", body)
}

fn account(out: &mut String, user: &User) {
    let initial: String = user.display_name.chars().take(1).collect();
    let roles = if user.roles.is_empty() {
        String::new()
    } else {
        format!("<span class=\"tag\">{}</span>", escaped(&user.roles.join(", ")))
    };
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "<li><button name=\"account\" value=\"{upn}\"><span class=\"avatar\" aria-hidden=\"true\">{initial}</span>\
         <span class=\"who\"><b>{name}</b><small>{upn}</small></span>{roles}</button></li>",
        upn = escaped(&user.principal_name),
        initial = escaped(&initial),
        name = escaped(&user.display_name),
    );
}

/// The page for a device's code.
pub(super) fn device_code(call: &Call, tenant: &str, code: &str, error: Option<&EntraError>) -> Response {
    let alert = alert(error.map(|e| e.message.as_str()));
    let body = |canary: &str| {
        format!(
            "<h1>Enter code</h1><p class=\"lead\">Enter the code displayed on your app or device.</p>{alert}\
             <form method=\"post\" action=\"/{tenant}/oauth2/deviceauth\" class=\"password\">\
             <input type=\"hidden\" name=\"canary\" value=\"{canary}\">\
             <label for=\"otc\">Code</label>\
             <input id=\"otc\" name=\"otc\" value=\"{code}\" autocomplete=\"off\" autocapitalize=\"characters\" \
              spellcheck=\"false\" maxlength=\"16\" required autofocus>\
             <div class=\"buttons\"><button class=\"primary\">Next</button></div></form>",
            tenant = escaped(tenant),
            canary = escaped(canary),
            code = escaped(code),
        )
    };
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    with_form(call, status, "Enter code", body)
}

/// A page that only says something.
pub(super) fn notice(title: &str, heading: &str, text: &str) -> Response {
    let body = format!("<h1>{}</h1><p class=\"lead\">{}</p>", escaped(heading), escaped(text));
    page(StatusCode::OK, title, &body, "")
}

/// An error that cannot be sent to the application.
pub(super) fn error(call: &Call, error: &EntraError) -> Response {
    let body = format!(
        "<h1>Sorry, but we’re having trouble signing you in.</h1>\
         <p class=\"alert\" role=\"alert\">{error}</p>\
         <dl><dt>Request Id</dt><dd>{id}</dd><dt>Correlation Id</dt><dd>{correlation}</dd></dl>",
        error = escaped(&error.to_string()),
        id = call.trace.id,
        correlation = call.trace.correlation,
    );
    page(error.kind.status, "Sign in to your account", &body, "")
}

/// `response_mode=form_post` (OAuth 2.0 Form Post Response Mode).
pub(super) fn form_post(to: &Url, fields: &[(&str, String)]) -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let inputs: String = fields
        .iter()
        .map(|(name, value)| format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escaped(name), escaped(value)))
        .collect();
    let body = format!(
        "<form method=\"post\" action=\"{}\" name=\"hiddenform\">{inputs}\
         <noscript><p>Scripts are off. Press Submit to continue.</p><button class=\"primary\">Submit</button></noscript>\
         </form><script nonce=\"{nonce}\">document.forms[0].submit();</script>",
        escaped(to.as_str()),
    );
    page(StatusCode::OK, "Working...", &body, &format!("script-src 'nonce-{nonce}'; "))
}

/// A page with a form, bound to this browser by a cookie.
fn with_form(call: &Call, status: StatusCode, title: &str, body: impl FnOnce(&str) -> String) -> Response {
    let known = call.cookie(FORM_COOKIE).and_then(|cookie| Uuid::try_parse(cookie).ok());
    let browser = known.unwrap_or_else(Uuid::new_v4);
    let canary = match call.server.seal.seal(Purpose::Form, FormToken { browser }, FORM_LIFETIME) {
        Ok(canary) => canary,
        Err(failure) => return error(call, &signing_failed(failure)),
    };
    let mut response = page(status, title, &body(&canary), "");
    if let Some(cookie) = set_cookie(FORM_COOKIE, &browser.to_string(), "Lax", FORM_LIFETIME.as_secs()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

fn hidden(canary: &str, (name, value): &(&'static str, String)) -> String {
    format!(
        "<input type=\"hidden\" name=\"canary\" value=\"{}\"><input type=\"hidden\" name=\"{name}\" value=\"{}\">",
        escaped(canary),
        escaped(value)
    )
}

fn alert(error: Option<&str>) -> String {
    error.map(|e| format!("<p class=\"alert\" role=\"alert\">{}</p>", escaped(e))).unwrap_or_default()
}

/// The frame around every page. No `form-action` in the policy: browsers apply it to the
/// redirect that follows a form, which leads to the application.
fn page(status: StatusCode, title: &str, body: &str, policy: &str) -> Response {
    let style = Uuid::new_v4().simple().to_string();
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title>\
         <style nonce=\"{style}\">{STYLE}</style></head><body><main>{body}</main>\
         <footer>aksim, standing in for Microsoft Entra ID on this machine. For development only.</footer>\
         </body></html>",
        title = escaped(title),
    );
    let policy =
        format!("default-src 'none'; {policy}style-src 'nonce-{style}'; frame-ancestors 'none'; base-uri 'none'");
    let mut response = (status, Html(html)).into_response();
    // ASCII without control characters.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Text as HTML shows it, in elements and quoted attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
