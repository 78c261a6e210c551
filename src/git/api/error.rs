//! Errors in the form of GitHub's REST API.

use super::super::{GitError, access::Refusal, host::CHALLENGE};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde_json::json;

/// Why a request of the API is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nobody, or somebody who could not prove it.
    #[error("{0}")]
    Unauthorized(String),
    /// The issuer does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody who may not.
    #[error("{0}")]
    Forbidden(String),
    /// There is none, or none for the caller.
    #[error("Not Found")]
    NotFound,
    /// The body cannot be read.
    #[error("Problems parsing JSON: {0}")]
    Json(String),
    /// What is asked for cannot be.
    #[error("{0}")]
    Unprocessable(String),
    /// The host failed.
    #[error(transparent)]
    Internal(GitError),
}

impl From<GitError> for ApiError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Invalid { why, .. } => Self::Unprocessable(why),
            GitError::Name(error) => Self::Unprocessable(error.to_string()),
            error => Self::Internal(error),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Anonymous => Self::Unauthorized("Requires authentication".into()),
            Refusal::Credentials(why) => Self::Unauthorized(format!("Bad credentials: {why}")),
            Refusal::Unavailable(why) => Self::Unavailable(format!("the issuer cannot be asked: {why}")),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Json(_) => StatusCode::BAD_REQUEST,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal(error) => {
                tracing::warn!(target: "git", %error, "a request of the API failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let mut body = json!({"message": self.to_string(), "status": status.as_str()});
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            body["message"] = "Validation Failed".into();
            body["errors"] = json!([{"code": "custom", "message": self.to_string()}]);
        }
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response
    }
}
