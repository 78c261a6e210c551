//! Errors of the API as clients see them: `metav1.Status` with kube-apiserver's own words.

use http::StatusCode;
use serde_json::{Value, json};
use std::fmt;

/// A request that was refused. Displays as its message.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Refusal>);

#[derive(Clone, Debug)]
struct Refusal {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    metadata: Value,
}

/// One cause of an invalid object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Field path as kube-apiserver writes it: `spec.containers[0].name`.
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid`, …
    pub reason: &'static str,
    /// `Required value`, `Invalid value: "x": must …`.
    pub message: String,
}

impl Cause {
    /// The field must be given; `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }
    /// The value is not allowed.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {detail}", shown(value)),
        }
    }
    /// The value occurs twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {}", shown(value)),
        }
    }
    /// The value is none of those supported.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        Self {
            field: field.into(),
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {}: supported values: {supported}", shown(value)),
        }
    }
    /// The field must not be given or changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {detail}") }
    }
    /// The value names something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self { field: field.into(), reason: "FieldValueNotFound", message: format!("Not found: {}", shown(value)) }
    }
}

/// A value as Go's validation prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        other => other.to_string(),
    }
}

fn named(group_resource: &str, name: &str) -> Value {
    let (resource, group) = group_resource.split_once('.').unwrap_or((group_resource, ""));
    let mut details = json!({"name": name, "kind": resource});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details
}

impl ApiError {
    /// An error with code, reason and message of the caller's choice.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Refusal { code, reason, message: message.into(), details: None, metadata: json!({}) }))
    }
    fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }
    /// 404: no such object. `group_resource` is `deployments.apps`.
    pub fn not_found(group_resource: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{group_resource} \"{name}\" not found"))
            .with_details(named(group_resource, name))
    }
    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
            .with_details(json!({}))
    }
    /// 409: the object exists already.
    pub fn already_exists(group_resource: &str, name: &str) -> Self {
        let message = format!("{group_resource} \"{name}\" already exists");
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).with_details(named(group_resource, name))
    }
    /// 409: the object changed since it was read, or another conflict in `cause`.
    pub fn conflict(group_resource: &str, name: &str, cause: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {group_resource} \"{name}\": {cause}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).with_details(named(group_resource, name))
    }
    /// 409: the resource version sent is not the current one.
    pub fn modified(group_resource: &str, name: &str) -> Self {
        let cause = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group_resource, name, cause)
    }
    /// 409 of server-side apply.
    pub fn apply_conflict(message: &str, causes: Vec<Value>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message).with_details(json!({"causes": causes}))
    }
    /// 422: the object breaks rules; `group_kind` is `Deployment.apps`.
    pub fn invalid(group_kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<_> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let all = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut details = named(group_kind, name);
        details["causes"] = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect::<Vec<_>>()
            .into();
        let message = format!("{group_kind} \"{name}\" is invalid: {all}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with_details(details)
    }
    /// 422 with one text.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }
    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }
    /// 403 on an object or collection.
    pub fn forbidden(group_resource: &str, name: &str, cause: &str) -> Self {
        let message = match name {
            "" => format!("{group_resource} is forbidden: {cause}"),
            name => format!("{group_resource} \"{name}\" is forbidden: {cause}"),
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(named(group_resource, name))
    }
    /// 403 on a path that is no resource.
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(json!({}))
    }
    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).with_details(json!({}))
    }
    /// 410: the revision asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }
    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }
    /// 415 for patches.
    pub fn unsupported_patch(accepted: &[&str]) -> Self {
        let accepted = accepted.join(", ");
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }
    /// 429: an eviction that a disruption budget does not allow now.
    pub fn too_many_requests(message: impl Into<String>, causes: Vec<Value>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).with_details(json!({"causes": causes}))
    }
    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {message}");
        let causes = json!({"causes": [{"message": message.clone()}]});
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).with_details(causes)
    }
    /// 501: real Kubernetes does this, aksim not yet.
    pub fn not_emulated(what: &str) -> Self {
        let message = format!("aksim does not emulate {what} yet; see `aksim fidelity`");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }
    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }
    /// The error with causes of its own.
    pub fn with_causes(mut self, causes: &[Value]) -> Self {
        let details = self.0.details.get_or_insert_with(|| json!({}));
        details["causes"] = causes.into();
        self
    }
    /// The error with a token to continue a list by.
    pub fn with_continue(mut self, token: &str) -> Self {
        self.0.metadata = json!({"continue": token});
        self
    }
    /// The error with the cause that clients know a resource version from the future by.
    pub fn with_too_large_version(self) -> Self {
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        self.with_details(json!({"causes": [cause], "retryAfterSeconds": 1}))
    }
    /// The error with the time after which clients ask again by themselves; without one they leave it at the answer.
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        let details = self.0.details.get_or_insert_with(|| json!({}));
        details["retryAfterSeconds"] = seconds.into();
        self
    }
    /// Seconds after which clients ask again by themselves.
    pub fn retry_after(&self) -> Option<u64> {
        self.0.details.as_ref()?["retryAfterSeconds"].as_u64()
    }
    /// HTTP code.
    pub fn code(&self) -> StatusCode {
        self.0.code
    }
    /// `NotFound`, `Conflict`, …
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }
    /// As `metav1.Status`.
    pub fn status(&self) -> Value {
        let refusal = &self.0;
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": refusal.metadata, "status": "Failure",
            "message": refusal.message, "reason": refusal.reason});
        if let Some(details) = &refusal.details {
            status["details"] = details.clone();
        }
        status["code"] = refusal.code.as_u16().into();
        status
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

/// `metav1.Status` of a removal that took effect at once.
pub fn deleted(group_resource: &str, name: &str, uid: &str) -> Value {
    let mut details = named(group_resource, name);
    details["uid"] = uid.into();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
