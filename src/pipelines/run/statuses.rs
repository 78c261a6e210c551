//! Commit statuses at the Git host, as GitHub's REST API takes them.

use crate::{
    context::journey::first_error,
    engine::Engine,
    store::record::{Outcome, RunRecord, State},
};
use serde_json::json;
use std::time::Duration;

/// `context` of the statuses.
pub const CONTEXT: &str = "aksim/pipelines";
/// How long the host may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// GitHub's limit of a description, characters.
const DESCRIPTION: usize = 140;

/// Posts where a run stands: `pending`, `success`, `failure` or `error`. A host that cannot be reached is logged: the
/// run is what it is.
pub async fn post(engine: &Engine, record: &RunRecord) {
    let Some(host) = &engine.config.git else { return };
    let Some(api) = &host.api_url else { return };
    let (state, description) = status_of(record);
    let url = format!("{api}/repos/{}/statuses/{}", record.request.repository, record.request.commit);
    let body = json!({
        "state": state,
        "target_url": engine.run_url(record.id),
        "description": description.chars().take(DESCRIPTION).collect::<String>(),
        "context": CONTEXT,
    });
    let request = engine
        .config
        .http
        .post(&url)
        .basic_auth(&host.username, Some(&host.token))
        .header("accept", "application/vnd.github+json")
        .header("user-agent", "aksim")
        .json(&body);
    match tokio::time::timeout(DEADLINE, request.send()).await {
        Ok(Ok(answer)) if answer.status().is_success() => {}
        Ok(Ok(answer)) => tracing::warn!(status = %answer.status(), url, "commit status"),
        Ok(Err(error)) => tracing::warn!(%error, url, "commit status"),
        Err(_) => tracing::warn!(url, "commit status: no answer in time"),
    }
}

fn status_of(record: &RunRecord) -> (&'static str, String) {
    let run = format!("run {}", record.id);
    match (record.state, record.result) {
        (State::Completed, Some(result)) if result.good() => ("success", format!("{run} succeeded")),
        (State::Completed, Some(Outcome::Canceled)) => ("error", format!("{run} was canceled")),
        (State::Completed, Some(Outcome::Lost)) => ("error", format!("{run} was lost")),
        (State::Completed, Some(Outcome::Skipped)) => ("success", format!("{run} had nothing to do")),
        (State::Completed, _) => {
            let why = first_error(record).map(|e| format!(": {e}")).unwrap_or_default();
            ("failure", format!("{run} failed{why}"))
        }
        _ => ("pending", format!("{run} is under way")),
    }
}
