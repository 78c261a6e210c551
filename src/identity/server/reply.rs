//! How an authorization response goes back to the application: query, fragment or form.

use super::pages;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use url::Url;

/// `response_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseMode {
    Query,
    Fragment,
    FormPost,
}

impl ResponseMode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "query" => Some(Self::Query),
            "fragment" => Some(Self::Fragment),
            "form_post" => Some(Self::FormPost),
            _ => None,
        }
    }
}

/// A checked redirect URI and how to use it.
#[derive(Clone, Debug)]
pub(super) struct ReplyTo {
    /// Registered, so not an open redirect.
    pub redirect: Url,
    pub mode: ResponseMode,
    pub state: Option<String>,
}

impl ReplyTo {
    /// Sends the browser to the application with `fields` and the state.
    pub(super) fn send(&self, fields: Vec<(&'static str, String)>) -> Response {
        let state = self.state.iter().map(|state| ("state", state.clone()));
        let fields: Vec<(&str, String)> = fields.into_iter().chain(state).collect();
        if self.mode == ResponseMode::FormPost {
            return pages::form_post(&self.redirect, &fields);
        }
        let mut url = self.redirect.clone();
        if self.mode == ResponseMode::Query {
            url.query_pairs_mut().extend_pairs(&fields);
        } else {
            let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
            url.set_fragment(Some(&encoded));
        }
        redirect(url.as_str())
    }
}

/// `303 See Other`: after a form too the browser goes on with GET.
pub(super) fn redirect(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        // A parsed URL is ASCII without control characters.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
