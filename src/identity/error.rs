//! Entra ID's errors: AADSTS codes and the JSON body that clients parse.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

/// A row of Entra's error table: AADSTS code, OAuth error, HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub code: u32,
    pub oauth: &'static str,
    pub status: StatusCode,
}

const fn bad_request(code: u32, oauth: &'static str) -> Kind {
    Kind { code, oauth, status: StatusCode::BAD_REQUEST }
}
const fn unauthorized(code: u32, oauth: &'static str) -> Kind {
    Kind { code, oauth, status: StatusCode::UNAUTHORIZED }
}

pub(super) const REDIRECT_MISMATCH: Kind = bad_request(50011, "invalid_request");
pub(super) const ASSERTION_SIGNATURE: Kind = unauthorized(50013, "invalid_client");
pub(super) const UNKNOWN_USER: Kind = bad_request(50034, "invalid_grant");
pub(super) const UNKNOWN_INSTANCE: Kind = bad_request(50049, "invalid_instance");
pub(super) const NO_SESSION: Kind = bad_request(50058, "login_required");
pub(super) const WRONG_PASSWORD: Kind = bad_request(50126, "invalid_grant");
pub(super) const CODE_REDEEMED: Kind = bad_request(54005, "invalid_grant");
pub(super) const DECLINED: Kind = bad_request(65004, "access_denied");
pub(super) const DEVICE_DECLINED: Kind = bad_request(65004, "authorization_declined");
pub(super) const INVALID_GRANT: Kind = bad_request(70000, "invalid_grant");
pub(super) const UNSUPPORTED_GRANT: Kind = bad_request(70003, "unsupported_grant_type");
pub(super) const UNSUPPORTED_MODE: Kind = bad_request(70007, "invalid_request");
pub(super) const GRANT_EXPIRED: Kind = bad_request(70008, "invalid_grant");
pub(super) const INVALID_SCOPE: Kind = bad_request(70011, "invalid_scope");
pub(super) const DEVICE_PENDING: Kind = bad_request(70016, "authorization_pending");
pub(super) const DEVICE_EXPIRED: Kind = bad_request(70019, "expired_token");
pub(super) const FIELD_MISSING: Kind = bad_request(90014, "invalid_request");
pub(super) const UNKNOWN_TENANT: Kind = bad_request(90002, "invalid_request");
pub(super) const SEVERAL_RESOURCES: Kind = bad_request(28000, "invalid_scope");
pub(super) const PARAMETER_MISSING: Kind = bad_request(900144, "invalid_request");
pub(super) const ONLY_POST: Kind = bad_request(900561, "invalid_request");
pub(super) const UNKNOWN_RESOURCE: Kind = bad_request(500011, "invalid_resource");
pub(super) const REPLY_MISMATCH: Kind = bad_request(500112, "invalid_client");
pub(super) const WRONG_VERIFIER: Kind = bad_request(501481, "invalid_grant");
pub(super) const UNKNOWN_SCOPE: Kind = bad_request(650053, "invalid_client");
pub(super) const UNKNOWN_APPLICATION: Kind = bad_request(700016, "unauthorized_client");
pub(super) const ASSERTION_AUDIENCE: Kind = unauthorized(700023, "invalid_client");
pub(super) const ASSERTION_TIME: Kind = unauthorized(700024, "invalid_client");
pub(super) const PUBLIC_CLIENT: Kind = unauthorized(700025, "invalid_client");
pub(super) const ASSERTION_KEY: Kind = unauthorized(700027, "invalid_client");
pub(super) const UNSUPPORTED_RESPONSE: Kind = bad_request(700051, "unsupported_response_type");
pub(super) const NO_FEDERATION: Kind = unauthorized(700211, "invalid_client");
pub(super) const DEFAULT_SCOPE_ONLY: Kind = bad_request(1_002_012, "invalid_scope");
pub(super) const WRONG_SECRET: Kind = unauthorized(7_000_215, "invalid_client");
pub(super) const SECRET_NEEDED: Kind = unauthorized(7_000_216, "invalid_client");
pub(super) const CLIENT_AUTHENTICATION: Kind = unauthorized(7_000_218, "invalid_client");
pub(super) const MALFORMED: Kind = bad_request(9_002_313, "invalid_request");
pub(super) const PKCE_NEEDED: Kind = bad_request(9_002_325, "invalid_request");
pub(super) const SERVER_ERROR: Kind =
    Kind { code: 90033, oauth: "temporarily_unavailable", status: StatusCode::SERVICE_UNAVAILABLE };

impl Kind {
    /// This error with Entra's text for it, without the code.
    pub(super) fn because(self, message: impl Into<String>) -> EntraError {
        EntraError { kind: self, message: message.into() }
    }
}

/// An error as Entra ID answers it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AADSTS{}: {message}", kind.code)]
pub(super) struct EntraError {
    pub kind: Kind,
    pub message: String,
}

impl EntraError {
    /// `AADSTS…: message Trace ID: … Correlation ID: … Timestamp: …`, as in `error_description`.
    pub(super) fn description(&self, trace: &Trace) -> String {
        format!("{self} Trace ID: {} Correlation ID: {} Timestamp: {}", trace.id, trace.correlation, trace.timestamp())
    }

    /// The answer of an endpoint that programs call.
    pub(super) fn response(&self, trace: &Trace) -> Response {
        let body = json!({
            "error": self.kind.oauth,
            "error_description": self.description(trace),
            "error_codes": [self.kind.code],
            "timestamp": trace.timestamp(),
            "trace_id": trace.id.to_string(),
            "correlation_id": trace.correlation.to_string(),
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.kind.code),
        });
        (self.kind.status, Json(body)).into_response()
    }
}

/// Ids of one request, in errors and headers.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub id: Uuid,
    pub correlation: Uuid,
    at: Timestamp,
}

impl Trace {
    /// A new trace; the correlation id is the client's `client-request-id` if it sent one.
    pub(super) fn of(client_request_id: Option<&str>) -> Self {
        let correlation = client_request_id.and_then(|id| Uuid::try_parse(id).ok()).unwrap_or_else(Uuid::new_v4);
        Self { id: Uuid::new_v4(), correlation, at: Timestamp::now() }
    }
    fn timestamp(&self) -> String {
        self.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
    }
}
