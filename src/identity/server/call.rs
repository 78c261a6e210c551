//! One request: its ids, the URL it came by, its cookies, its parameters.

use super::Server;
use crate::{
    error::{EntraError, MALFORMED, PARAMETER_MISSING, Trace},
    issuer::LOGIN_HOST,
    seal::{Purpose, Session},
};
use axum::{
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc};
use uuid::Uuid;

pub(super) const SESSION_COOKIE: &str = "ESTSAUTH";
pub(super) const FORM_COOKIE: &str = "ESTSFORM";

/// A request, with the server it came to.
pub(super) struct Call {
    pub server: Arc<Server>,
    pub trace: Trace,
    /// URL for endpoints that programs use, by the host the client used.
    pub back_channel: String,
    /// URL for endpoints that a browser uses.
    pub front_channel: String,
    pub headers: HeaderMap,
}

impl FromRequestParts<Arc<Server>> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Infallible> {
        let text = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
        let host = parts.uri.authority().map(|a| a.as_str()).or_else(|| text("host")).unwrap_or_default();
        let port = server.settings.local.rsplit_once(':').map_or("", |(_, port)| port);
        let local = host == format!("localhost:{port}") || host == format!("127.0.0.1:{port}");
        // Any other host is answered by the Azure name: a foreign one is never reflected.
        let back_channel = if local { format!("https://{host}") } else { format!("https://{LOGIN_HOST}") };
        let front_channel = if local { back_channel.clone() } else { server.settings.local.clone() };
        Ok(Self {
            server: server.clone(),
            trace: Trace::of(text("client-request-id")),
            back_channel,
            front_channel,
            headers: parts.headers.clone(),
        })
    }
}

impl Call {
    /// A cookie's value.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
        let mut pairs = pairs.flat_map(|cookies| cookies.split(';'));
        pairs.find_map(|pair| pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }

    /// The signed-in session of this browser, if its user still exists.
    pub(super) fn session(&self) -> Option<Session> {
        let session: Session = self.server.seal.unseal(Purpose::Session, self.cookie(SESSION_COOKIE)?).ok()?;
        self.server.directory.user(&session.user.to_string()).map(|_| session)
    }

    /// Whether a form came from a page that was served to this browser.
    pub(super) fn is_own_form(&self, params: &Params) -> bool {
        let sealed = params.get("canary").and_then(|c| self.server.seal.unseal::<FormToken>(Purpose::Form, c).ok());
        let cookie = self.cookie(FORM_COOKIE).and_then(|c| Uuid::try_parse(c).ok());
        sealed.is_some_and(|token| Some(token.browser) == cookie)
    }
}

/// Binds a form to the browser it was served to.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct FormToken {
    pub browser: Uuid,
}

/// Value of a `Set-Cookie` header: for this host, over TLS, out of reach of scripts.
pub(super) fn set_cookie(name: &str, value: &str, same_site: &str, seconds: u64) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}; Max-Age={seconds}"))
        .ok()
}

/// Parameters of a query or form; each at most once (RFC 6749 §3.1).
#[derive(Clone, Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Parses `application/x-www-form-urlencoded`.
    pub(super) fn parse(encoded: &str) -> Result<Self, EntraError> {
        let mut params = BTreeMap::new();
        for (key, value) in url::form_urlencoded::parse(encoded.as_bytes()) {
            if params.insert(key.to_string(), value.into_owned()).is_some() {
                return Err(MALFORMED.because(format!(
                    "Invalid request. Request is malformed or invalid: the parameter '{key}' is duplicated."
                )));
            }
        }
        Ok(Self(params))
    }
    /// Parses a form body.
    pub(super) fn form(body: &[u8]) -> Result<Self, EntraError> {
        let text = std::str::from_utf8(body)
            .map_err(|_| MALFORMED.because("Invalid request. Request is malformed or invalid."))?;
        Self::parse(text)
    }
    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
    /// A parameter that must be there.
    pub(super) fn require(&self, name: &str) -> Result<&str, EntraError> {
        self.get(name).ok_or_else(|| {
            PARAMETER_MISSING.because(format!("The request body must contain the following parameter: '{name}'."))
        })
    }
    /// Sets a parameter.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }
    /// Encoded again.
    pub(super) fn encode(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

/// Headers of every answer: nothing is cached, sniffed or framed. Deliberately without
/// `Strict-Transport-Security`, which would lock plain-HTTP servers of this machine out.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store, no-cache"),
        (header::PRAGMA, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
