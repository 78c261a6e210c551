//! `aksim scenario`: lists, shows and runs scenarios.

use super::{
    args::{OutputArgs, ScenarioArgs, ScenarioRunArgs, ScenarioVerb},
    context::Context,
    failure::{self, Code, Failure},
    output::{self, Format, Table},
};
use aksim_scenarios::{Environment, Options, Outcome, Report, junit, library, run as run_scenario};
use clap::ValueEnum;
use serde_json::json;
use std::{collections::BTreeMap, io::Write as _, path::Path};
use tokio_util::sync::CancellationToken;

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Columns for people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// JUnit XML.
    Junit,
}

/// Runs the verb.
pub async fn run(context: &Context, args: ScenarioArgs) -> Result<(), Failure> {
    match args.verb {
        ScenarioVerb::List(args) => list(&context.config()?.root, args),
        ScenarioVerb::Show { name } => show(&context.config()?.root, &name),
        ScenarioVerb::Run(args) => execute(context, args).await,
    }
}

fn list(project: &Path, args: OutputArgs) -> Result<(), Failure> {
    let entries = library::list(project)?;
    // A file that is not right is listed too: `show` and `run` say what is wrong.
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| match entry.read(&BTreeMap::new()) {
            Ok(scenario) => (entry.name.clone(), scenario.steps.len(), scenario.title),
            Err(error) => (entry.name.clone(), 0, error.to_string()),
        })
        .collect();
    let data: Vec<_> =
        rows.iter().map(|(name, steps, title)| json!({"name": name, "steps": steps, "title": title})).collect();
    let table = |_| {
        let mut table = Table::new(&["NAME", "STEPS", "TITLE"]);
        rows.iter().for_each(|(name, steps, title)| table.row([name.clone(), steps.to_string(), title.clone()]));
        table
    };
    output::data(args.output, &data, table, || rows.iter().map(|(name, ..)| name.clone()).collect())
}

fn show(project: &Path, name: &str) -> Result<(), Failure> {
    let entry = library::find(project, name)?;
    entry.read(&BTreeMap::new())?;
    output::text(&entry.text)
}

async fn execute(context: &Context, args: ScenarioRunArgs) -> Result<(), Failure> {
    let (config, home, control) = context.running()?;
    let entry = library::find(&config.root, &args.name)?;
    let scenario = entry.read(&args.set.iter().cloned().collect())?;
    let client = context.kubernetes().await?;
    let environment = Environment::new(config, home, control, client, std::env::current_exe()?);
    let tell = |line: String| {
        // Standard error may be closed: the report still tells.
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    let stop = CancellationToken::new();
    let options = Options { auto: args.auto, seed: args.seed, stop: stop.clone(), tell: &tell };
    let mut running = std::pin::pin!(run_scenario(&environment, &scenario, &options));
    let report = tokio::select! {
        report = &mut running => report?,
        _ = tokio::signal::ctrl_c() => {
            tell("interrupted: putting everything back".into());
            stop.cancel();
            running.await?
        }
    };
    print(args.output, &report)?;
    if stop.is_cancelled() {
        return Err(Failure::new(Code::Interrupted, "interrupted"));
    }
    match report.outcome {
        Outcome::Passed => Ok(()),
        _ => Err(broken(&report)),
    }
}

fn print(format: ReportFormat, report: &Report) -> Result<(), Failure> {
    match format {
        ReportFormat::Json => output::data(Format::Json, report, |_| Table::default(), Vec::new),
        ReportFormat::Junit => output::text(&junit(std::slice::from_ref(report))),
        ReportFormat::Table => output::text(&table(report)),
    }
}

fn table(report: &Report) -> String {
    let mut steps = Table::new(&["STEP", "OUTCOME", "SECONDS", "FOUND"]);
    for step in &report.steps {
        let outcome = format!("{:?}", step.outcome).to_lowercase();
        let found = step.checks.iter().map(|c| c.found.as_str()).collect::<Vec<_>>().join("; ");
        steps.row([step.id.clone(), outcome, format!("{:.1}", step.seconds), found]);
    }
    let mut text = steps.render();
    for load in &report.loads {
        let n = &load.numbers;
        text.push_str(&format!(
            "load {}: {} requests, {} failed, p50 {} ms, p95 {} ms, p99 {} ms, max {} ms\n",
            load.name, n.requests, n.failed, n.p50_ms, n.p95_ms, n.p99_ms, n.max_ms
        ));
    }
    for fault in &report.faults {
        text.push_str(&format!("fault {}: {} {} at {:.1} s\n", fault.name, fault.kind, fault.victim, fault.at));
    }
    text
}

fn broken(report: &Report) -> Failure {
    let steps = report.steps.iter().filter(|s| s.outcome == Outcome::Failed).map(|step| {
        let checks = step.checks.iter().filter(|c| !c.holds).map(|c| format!("{}: {}", c.claim, c.found));
        let actions = step.done.iter().filter(|d| d.starts_with("failed: ")).cloned();
        (step.id.clone(), actions.chain(checks).collect::<Vec<_>>().join("\n"))
    });
    let problems = report.problems.iter().map(|p| ("scenario".to_owned(), p.clone()));
    failure::listed(Code::Check, &format!("scenario {} failed", report.scenario), steps.chain(problems))
}
