//! Runs: queue, list, show, cancel, run again, approve.

use super::{
    RunArgs, ShowFormat,
    client::{PipelineClient, record},
    junit, logs, pair, parameter,
};
use crate::{
    args::OutputArgs,
    context::Context,
    failure::{Code, Failure},
    output::{self, Format, Table},
    status::age,
};
use aksim_pipelines::{
    ApprovalBody, QueueBody, first_error,
    record::{Outcome, RunRecord, State},
    state_name,
};
use reqwest::Method;
use serde_json::json;

/// Queues a run.
pub async fn run(context: &Context, args: RunArgs) -> Result<(), Failure> {
    let config = context.config()?;
    let client = PipelineClient::connect(context).await?;
    let folder = args.folder.as_ref().map(std::fs::canonicalize).transpose()?;
    let name = args.pipeline.clone().unwrap_or_else(|| config.name.to_string());
    let body = QueueBody {
        template_parameters: args.parameters.iter().map(|p| parameter(p)).collect::<Result<_, _>>()?,
        variables: args.variables.iter().map(|v| pair(v)).collect::<Result<_, _>>()?,
        stages_to_skip: args.skip_stages,
        reference: if args.branch.starts_with("refs/") { args.branch } else { format!("refs/heads/{}", args.branch) },
        commit: args.commit,
        repository: args.repository,
        clone_url: folder.map(|f| f.display().to_string()).unwrap_or_default(),
        file: args.file,
        requested_for: std::env::var("USER").unwrap_or_else(|_| "aksim".into()),
        skip_unsupported: args.skip_unsupported,
    };
    let run = record(&client.json(Method::POST, &format!("/pipelines/{name}/runs"), Some(&body)).await?)?;
    if args.follow {
        output::text(&format!("run {} of {}\n", run.id, run.request.pipeline))?;
        return logs::follow(&client, run.id).await;
    }
    output::data(args.output.output, &run, |_| table(std::slice::from_ref(&run)), || vec![run.id.to_string()])
}

/// Lists runs.
pub async fn list(context: &Context, args: OutputArgs) -> Result<(), Failure> {
    let runs = PipelineClient::connect(context).await?.runs().await?;
    output::data(args.output, &runs, |_| table(&runs), || runs.iter().map(|r| r.id.to_string()).collect())
}

fn table(runs: &[RunRecord]) -> Table {
    let mut table = Table::new(&["ID", "NUMBER", "PIPELINE", "BRANCH", "COMMIT", "REASON", "STATE", "AGE"]);
    for run in runs {
        table.row([
            run.id.to_string(),
            run.name.clone(),
            run.request.pipeline.clone(),
            run.branch().to_owned(),
            run.request.commit.chars().take(8).collect(),
            run.request.reason.name().to_owned(),
            state(run.state, run.result),
            age(run.queued),
        ]);
    }
    table
}

fn state(state: State, result: Option<Outcome>) -> String {
    result.map_or_else(|| state_name(state).to_owned(), |r| r.name().to_lowercase())
}

/// Shows a run.
pub async fn show(context: &Context, id: u64, format: ShowFormat) -> Result<(), Failure> {
    let run = PipelineClient::connect(context).await?.get(id).await?;
    let format = match format {
        ShowFormat::Junit => return output::text(&junit::render(&run)),
        ShowFormat::Json => Format::Json,
        ShowFormat::Yaml => Format::Yaml,
        ShowFormat::Table => return output::text(&tree(&run)),
    };
    output::data(format, &run, |_| Table::default(), Vec::new)
}

/// Stages, jobs and steps with their times.
fn tree(run: &RunRecord) -> String {
    let mut text = format!(
        "run {} ({}) of {}: {}\n{} {} on {}, {}\n",
        run.id,
        run.name,
        run.request.pipeline,
        state(run.state, run.result),
        run.request.commit.chars().take(12).collect::<String>(),
        run.request.message,
        run.branch(),
        run.request.reason.name(),
    );
    if let Some(error) = first_error(run) {
        text.push_str(&format!("error: {error}\n"));
    }
    let mut table = Table::new(&["WHAT", "STATE", "SECONDS", "LOG"]);
    let seconds = |from: Option<jiff::Timestamp>, to: Option<jiff::Timestamp>| {
        let milliseconds = from.zip(to).map(|(f, t)| t.as_millisecond() - f.as_millisecond());
        milliseconds.map_or_else(String::new, |m| format!("{}.{:03}", m / 1000, m % 1000))
    };
    for stage in &run.stages {
        let took = seconds(stage.started, stage.finished);
        table.row([stage.display_name.clone(), state(stage.state, stage.result), took, String::new()]);
        for job in &stage.jobs {
            let took = seconds(job.started, job.finished);
            table.row([format!("  {}", job.display_name), state(job.state, job.result), took, String::new()]);
            for step in &job.steps {
                let took = seconds(step.started, step.finished);
                table.row([
                    format!("    {}", step.display_name),
                    state(step.state, step.result),
                    took,
                    step.log.to_string(),
                ]);
            }
        }
    }
    text.push_str(&table.render());
    if !run.tests.is_empty() {
        text.push_str(&format!("tests: {}\n", junit::summary(run)));
    }
    for artifact in &run.artifacts {
        text.push_str(&format!("artifact: {} ({})\n", artifact.name, artifact.data));
    }
    text
}

/// Cancels a run.
pub async fn cancel(context: &Context, id: u64) -> Result<(), Failure> {
    let client = PipelineClient::connect(context).await?;
    client.send(Method::PATCH, &format!("/build/builds/{id}"), Some(&json!({"status": "cancelling"}))).await?;
    output::text(&format!("run {id} is being canceled\n"))
}

/// Runs again what has failed.
pub async fn rerun(context: &Context, id: u64) -> Result<(), Failure> {
    let client = PipelineClient::connect(context).await?;
    client.send(Method::POST, &format!("/build/builds/{id}/retry"), None::<&()>).await?;
    output::text(&format!("run {id} goes on with what has failed\n"))
}

/// Answers an approval.
pub async fn approve(
    context: &Context,
    id: u64,
    stage: Option<String>,
    reject: bool,
    comment: String,
) -> Result<(), Failure> {
    let client = PipelineClient::connect(context).await?;
    let status = if reject { "rejected" } else { "approved" };
    let by = std::env::var("USER").unwrap_or_else(|_| "aksim".into());
    let body = ApprovalBody { run: id, stage, status: status.to_owned(), by, comment };
    let answer = client.json(Method::PATCH, "/pipelines/approvals", Some(&body)).await?;
    output::text(&format!("stage {} of run {id} {status}\n", answer["stage"].as_str().unwrap_or_default()))
}

/// Lists environments, or sets the checks of one.
pub async fn environment(context: &Context, name: Option<String>, approval: Option<bool>) -> Result<(), Failure> {
    let client = PipelineClient::connect(context).await?;
    match (name, approval) {
        (Some(name), Some(approval)) => {
            let path = format!("/distributedtask/environments/{name}/checks");
            client.send(Method::PUT, &path, Some(&json!({"approval": approval}))).await?;
            output::text(&format!(
                "environment {name}: approval {}\n",
                if approval { "asked for" } else { "not asked for" }
            ))
        }
        (None, Some(_)) => Err(Failure::new(Code::Usage, "which environment is to ask for approvals?")),
        (name, None) => {
            let answer = client.json(Method::GET, "/distributedtask/environments", None::<&()>).await?;
            let mut table = Table::new(&["ENVIRONMENT", "APPROVAL", "LAST RUN", "RESULT"]);
            for environment in answer["value"].as_array().into_iter().flatten() {
                let shown = environment["name"].as_str().unwrap_or_default();
                if name.as_deref().is_none_or(|n| n == shown) {
                    let last = &environment["lastDeployment"];
                    let run = last["run"].as_u64().map_or_else(String::new, |r| r.to_string());
                    let result = last["result"].as_str().unwrap_or_default().to_lowercase();
                    table.row([shown.to_owned(), environment["checks"]["approval"].to_string(), run, result]);
                }
            }
            output::text(&table.render())
        }
    }
}
