//! The part of GitHub's REST API that CI systems and `aksim git` use, below `/api/v3` as on a
//! GitHub Enterprise Server; and `/api/v3/aksim/tokens`, which GitHub has on a page only.
//!
//! | method and path | needs |
//! | - | - |
//! | `GET /user` | a token |
//! | `GET, POST /orgs/ORG/repos` | read; admin |
//! | `GET /repos/ORG/REPO` | read |
//! | `GET /repos/ORG/REPO/branches`, `…/branches/BRANCH`, `…/branches/BRANCH/protection` | read |
//! | `PUT, DELETE …/branches/BRANCH/protection` | admin |
//! | `GET …/commits/REF`, `…/commits/REF/status`, `…/commits/REF/statuses` | read |
//! | `POST …/statuses/SHA` | write |
//! | `GET, POST …/hooks`; `GET, PATCH, DELETE …/hooks/ID`; `POST …/hooks/ID/pings` | admin |
//! | `GET …/hooks/ID/deliveries`, `…/deliveries/ID`; `POST …/deliveries/ID/attempts` | admin |
//! | `GET, POST /aksim/tokens`; `DELETE /aksim/tokens/ID` | own ones; admin for those of others |

mod commits;
mod error;
mod hooks;
mod repos;
mod tokens;

pub(super) use error::ApiError;

use super::{
    access::{Access, Principal},
    host::Host,
    name::RepositoryName,
    repository::Repository,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{StatusCode, request::Parts};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Largest body of a request, bytes.
const MAX_BODY: usize = 1 << 20;

/// An answer, or why there is none.
type Answer = Result<Response, ApiError>;

/// Routes of the API.
pub(super) fn router(host: Arc<Host>) -> Router {
    let hook = get(hooks::show).patch(hooks::edit).delete(hooks::remove);
    let repository = Router::new()
        .route("/", get(repos::show))
        .route("/branches", get(repos::branches))
        .route("/branches/{*branch}", get(repos::branch).put(repos::protect).delete(repos::unprotect))
        .route("/commits/{*revision}", get(commits::show))
        .route("/statuses/{sha}", post(commits::set_status).get(commits::statuses))
        .route("/hooks", get(hooks::list).post(hooks::create))
        .route("/hooks/{id}", hook)
        .route("/hooks/{id}/pings", post(hooks::ping))
        .route("/hooks/{id}/deliveries", get(hooks::deliveries))
        .route("/hooks/{id}/deliveries/{delivery}", get(hooks::delivery))
        .route("/hooks/{id}/deliveries/{delivery}/attempts", post(hooks::redeliver));
    let api = Router::new()
        .route("/user", get(tokens::user))
        .route("/orgs/{organization}/repos", get(repos::list).post(repos::create))
        .nest("/repos/{organization}/{repository}", repository)
        .route("/aksim/tokens", get(tokens::list).post(tokens::create))
        .route("/aksim/tokens/{id}", delete(tokens::revoke))
        .fallback(|_: Caller| async { ApiError::NotFound });
    Router::new().nest("/api/v3", api).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(host)
}

/// Who calls.
pub(super) struct Caller {
    host: Arc<Host>,
    principal: Principal,
}

impl FromRequestParts<Arc<Host>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, ApiError> {
        let principal = host.auth.authenticate(&parts.headers).await?;
        Ok(Self { host: host.clone(), principal })
    }
}

impl Caller {
    /// Holds the caller to a level of access.
    fn must(&self, needed: Access) -> Result<(), ApiError> {
        if self.principal.may(needed) {
            return Ok(());
        }
        let level = serde_json::to_value(needed).unwrap_or_default();
        let (login, level) = (&self.principal.login, level.as_str().unwrap_or_default());
        Err(ApiError::Forbidden(format!("Must have {level} rights; {login} has not")))
    }

    /// A repository that the caller has a level of access to; without reading there is none.
    fn repository(&self, organization: &str, name: &str, needed: Access) -> Result<Repository, ApiError> {
        let name = RepositoryName::new(organization, name).map_err(|_| ApiError::NotFound)?;
        if !self.principal.may(Access::Read) {
            return Err(ApiError::NotFound);
        }
        let repository = self.host.repositories.find(&name)?.ok_or(ApiError::NotFound)?;
        self.must(needed)?;
        Ok(repository)
    }
}

/// A JSON body whatever its content type says, as GitHub reads it.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::Json(e.to_string()))
}

fn json(status: StatusCode, value: serde_json::Value) -> Answer {
    Ok((status, Json(value)).into_response())
}

fn empty(status: StatusCode) -> Answer {
    Ok(status.into_response())
}
