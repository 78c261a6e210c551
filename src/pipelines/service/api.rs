//! REST API in the shape of Azure DevOps, as far as the command line needs it; loopback, bearer or PAT.
//!
//! | request | what |
//! | - | - |
//! | `POST /webhooks/github` | GitHub's webhooks |
//! | `GET /ORG/PROJECT/_apis/build/builds` | runs, newest first |
//! | `GET …/builds/ID` | a run with its timeline |
//! | `PATCH …/builds/ID` `{"status":"cancelling"}` | cancels it |
//! | `POST …/builds/ID/retry` | runs again what has failed |
//! | `GET …/builds/ID/logs/N` | log of a step |
//! | `GET …/builds/ID/log?follow=` | the whole log, JSON lines |
//! | `POST …/_apis/pipelines/NAME/runs` | queues a run |
//! | `PATCH …/_apis/pipelines/approvals` | answers an approval |
//! | `GET …/_apis/distributedtask/environments` | environments with their last deployment |

use super::webhook::{Inbox, LARGEST};
use crate::{
    engine::{Engine, EngineError},
    environments::{Approval, Checks},
    store::{
        StoreError,
        record::{RunRecord, RunRequest, State as RunState},
    },
};
use aksim_model::advice::Advice;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post, put},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{borrow::Cow, convert::Infallible, sync::Arc};

#[derive(Clone)]
struct App {
    engine: Arc<Engine>,
    inbox: Arc<Inbox>,
}

/// All routes.
pub(super) fn router(engine: Arc<Engine>, inbox: Arc<Inbox>) -> Router {
    let base = format!("/{}/{}/_apis", engine.config.organization, engine.config.project);
    let app = App { engine, inbox };
    let api = Router::new()
        .route("/build/builds", get(list))
        .route("/build/builds/{id}", get(show).patch(update))
        .route("/build/builds/{id}/retry", post(retry))
        .route("/build/builds/{id}/logs/{log}", get(step_log))
        .route("/build/builds/{id}/log", get(whole_log))
        .route("/pipelines/{name}/runs", post(queue))
        .route("/pipelines/approvals", patch(approve))
        .route("/distributedtask/environments", get(environments))
        .route("/distributedtask/environments/{name}/checks", put(checks))
        .route_layer(middleware::from_fn_with_state(app.clone(), authorized));
    Router::new()
        .nest(&base, api)
        .route("/webhooks/github", post(webhook).layer(DefaultBodyLimit::max(LARGEST)))
        .with_state(app)
}

/// An error in the shape of Azure DevOps.
struct Refused(StatusCode, String, Option<String>);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"$id": "1", "message": self.1, "hint": self.2, "errorCode": 0});
        (self.0, Json(body)).into_response()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::NoRun(_) => StatusCode::NOT_FOUND,
            StoreError::File { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string(), None)
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            other => {
                let hint = other.hint().map(Cow::into_owned);
                Self(StatusCode::BAD_REQUEST, other.to_string(), hint)
            }
        }
    }
}

/// `Authorization: Bearer TOKEN`, or Basic with the token as password (a PAT).
async fn authorized(State(app): State<App>, request: Request, next: Next) -> Response {
    if has_token(request.headers(), &app.engine.access_token) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"aksim pipelines\"")];
    (StatusCode::UNAUTHORIZED, challenge, Json(json!({"message": "TF400813: The user is not authorized."})))
        .into_response()
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else { return false };
    let Some((scheme, rest)) = value.split_once(' ') else { return false };
    let given = if scheme.eq_ignore_ascii_case("bearer") {
        rest.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let text = STANDARD.decode(rest.trim()).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
        text.split_once(':').map(|(_, password)| password.to_owned()).unwrap_or_default()
    } else {
        return false;
    };
    use sha2::{Digest, Sha256};
    // Hashes are of equal length and unrelated to the token: the time to compare them tells nothing.
    Sha256::digest(given) == Sha256::digest(token)
}

async fn webhook(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    match app.inbox.take(&app.engine.webhook_secret, &headers, &body) {
        Ok(delivery) if delivery.event == "ping" => {
            Json(json!({"message": "pong", "delivery": delivery.id})).into_response()
        }
        Ok(delivery) => (StatusCode::ACCEPTED, Json(json!({"delivery": delivery.id}))).into_response(),
        Err(refusal) => {
            tracing::info!(%refusal, "webhook");
            (refusal.status(), Json(json!({"message": refusal.to_string()}))).into_response()
        }
    }
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(rename = "$top")]
    top: Option<usize>,
}

async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Json<Value> {
    let runs: Vec<Value> =
        app.engine.store.list().into_iter().take(query.top.unwrap_or(100)).map(|r| build(&app.engine, r)).collect();
    Json(json!({"count": runs.len(), "value": runs}))
}

async fn show(State(app): State<App>, Path(id): Path<u64>) -> Result<Json<Value>, Refused> {
    Ok(Json(build(&app.engine, app.engine.store.get(id)?)))
}

/// A run with Azure's names of its fields, and the record itself under `run`.
fn build(engine: &Engine, record: RunRecord) -> Value {
    let result = record.result.map(|r| match r.name() {
        "SucceededWithIssues" => "partiallySucceeded".to_owned(),
        "Lost" => "failed".to_owned(),
        other => other.to_lowercase(),
    });
    json!({
        "id": record.id,
        "buildNumber": record.name,
        "status": crate::context::journey::state_name(record.state),
        "result": result,
        "queueTime": record.queued,
        "startTime": record.started,
        "finishTime": record.finished,
        "reason": record.request.reason.name(),
        "sourceBranch": record.request.reference,
        "sourceVersion": record.request.commit,
        "definition": {"name": record.request.pipeline},
        "requestedFor": {"displayName": record.request.requested_for},
        "_links": {"web": {"href": engine.run_url(record.id)}},
        "run": record.redacted(),
    })
}

#[derive(Deserialize)]
struct Update {
    status: String,
}

async fn update(
    State(app): State<App>,
    Path(id): Path<u64>,
    Json(update): Json<Update>,
) -> Result<Json<Value>, Refused> {
    if !update.status.eq_ignore_ascii_case("cancelling") {
        return Err(Refused(StatusCode::BAD_REQUEST, format!("status cannot become {}", update.status), None));
    }
    let record = app.engine.store.get(id)?;
    if record.state == RunState::Completed || !app.engine.cancel(id) {
        return Err(Refused(StatusCode::CONFLICT, format!("run {id} is not under way"), None));
    }
    let record = app.engine.store.change(id, |run| {
        if run.state != RunState::Completed {
            run.state = RunState::Canceling;
        }
        run.clone()
    })?;
    Ok(Json(build(&app.engine, record)))
}

async fn retry(State(app): State<App>, Path(id): Path<u64>) -> Result<Json<Value>, Refused> {
    let record = app.engine.rerun(id)?;
    Ok(Json(build(&app.engine, record)))
}

async fn step_log(State(app): State<App>, Path((id, log)): Path<(u64, u32)>) -> Result<Response, Refused> {
    let path = app.engine.store.log(id)?.step_path(log);
    let text = tokio::fs::read(&path).await;
    let text = text.map_err(|_| Refused(StatusCode::NOT_FOUND, format!("run {id} has no log {log}"), None))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

#[derive(Deserialize)]
struct LogQuery {
    #[serde(default)]
    follow: bool,
}

async fn whole_log(
    State(app): State<App>,
    Path(id): Path<u64>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refused> {
    let log = app.engine.store.log(id)?;
    let stream = futures::stream::unfold((log, 0u64), move |(log, position)| async move {
        let (lines, next) = log.read(position, query.follow).await.ok()?;
        (!lines.is_empty()).then(|| (Ok::<_, Infallible>(Bytes::from(lines)), (log, next)))
    });
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(stream)).into_response())
}

/// Body of a request for a run: Azure's, and what the local service needs to know.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueBody {
    /// `templateParameters`.
    pub template_parameters: std::collections::BTreeMap<String, Value>,
    /// Variables.
    pub variables: std::collections::BTreeMap<String, String>,
    /// Stages to skip.
    pub stages_to_skip: Vec<String>,
    /// `refs/heads/main`.
    pub reference: String,
    /// Commit; the branch's newest when empty.
    pub commit: String,
    /// `ORG/NAME`.
    pub repository: String,
    /// Folder to clone, when there is no Git host.
    pub clone_url: String,
    /// File of the pipeline; the configured one when empty.
    pub file: String,
    /// Who asks.
    pub requested_for: String,
    /// Go on without what is not supported.
    pub skip_unsupported: bool,
}

async fn queue(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(body): Json<QueueBody>,
) -> Result<Json<Value>, Refused> {
    let engine = &app.engine;
    let repository =
        if body.repository.is_empty() { format!("{}/{name}", engine.config.organization) } else { body.repository };
    let clone_url = match (&engine.config.git, body.clone_url.is_empty()) {
        (_, false) if std::path::Path::new(&body.clone_url).is_absolute() => body.clone_url,
        (Some(host), true) => format!("{}/{repository}", host.url),
        _ => {
            let message = "cloneUrl must be an absolute folder: there is no Git host".to_owned();
            return Err(Refused(StatusCode::BAD_REQUEST, message, None));
        }
    };
    let request = RunRequest {
        pipeline: name,
        repository,
        clone_url,
        reference: if body.reference.is_empty() { "refs/heads/main".into() } else { body.reference },
        commit: body.commit,
        message: String::new(),
        reason: crate::store::record::Reason::Manual,
        requested_for: body.requested_for,
        file: if body.file.is_empty() { engine.config.file.clone() } else { body.file },
        parameters: body.template_parameters,
        variables: body.variables,
        stages_to_skip: body.stages_to_skip,
        skip_unsupported: body.skip_unsupported,
    };
    let record = engine.queue(request).await?;
    Ok(Json(build(engine, record)))
}

/// Body of an answer to an approval.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalBody {
    /// Run.
    pub run: u64,
    /// Stage; the one that waits when absent.
    pub stage: Option<String>,
    /// `approved` or `rejected`.
    pub status: String,
    /// Who.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub comment: String,
}

async fn approve(State(app): State<App>, Json(body): Json<ApprovalBody>) -> Result<Json<Value>, Refused> {
    let record = app.engine.store.get(body.run)?;
    let named = |s: &&crate::store::record::StageRecord| {
        s.state == RunState::Waiting && body.stage.as_ref().is_none_or(|n| n.eq_ignore_ascii_case(&s.name))
    };
    let Some(stage) = record.stages.iter().find(named) else {
        return Err(Refused(StatusCode::CONFLICT, format!("no stage of run {} waits for an approval", body.run), None));
    };
    let approved = match body.status.as_str() {
        "approved" => true,
        "rejected" => false,
        other => {
            return Err(Refused(StatusCode::BAD_REQUEST, format!("status {other} is not approved or rejected"), None));
        }
    };
    let approval = Approval {
        run: body.run,
        stage: stage.name.clone(),
        attempt: stage.attempt,
        approved,
        by: body.by,
        comment: body.comment,
        at: Timestamp::now(),
    };
    app.engine.environments.answer(approval.clone())?;
    Ok(Json(json!({"run": approval.run, "stage": approval.stage, "status": body.status})))
}

async fn environments(State(app): State<App>) -> Json<Value> {
    let list: Vec<Value> = app
        .engine
        .environments
        .list()
        .into_iter()
        .map(|(name, checks, last)| json!({"name": name, "checks": checks, "lastDeployment": last}))
        .collect();
    Json(json!({"count": list.len(), "value": list}))
}

async fn checks(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(checks): Json<Checks>,
) -> Result<Json<Value>, Refused> {
    app.engine.environments.set_checks(&name, checks.clone())?;
    Ok(Json(json!({"name": name, "checks": checks})))
}
