//! `aksim pipeline`: runs of pipelines, and pipelines looked at without running them.

mod client;
mod junit;
mod logs;
mod offline;
mod runs;

use super::{args::OutputArgs, context::Context, failure::Failure};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `aksim pipeline`
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: PipelineVerb,
}

/// `aksim pipeline …`
#[derive(Debug, Subcommand)]
pub enum PipelineVerb {
    /// Queue a run.
    Run(RunArgs),
    /// Runs, newest first.
    List(OutputArgs),
    /// A run: stages, jobs, steps.
    Show {
        /// Run.
        id: u64,
        /// Form of the data; `junit` for the tests that were published.
        #[arg(long, short, value_enum, default_value_t)]
        output: ShowFormat,
    },
    /// The log of a run.
    Logs {
        /// Run; the newest when absent.
        id: Option<u64>,
        /// Go on until the run ends; the exit code is then the run's.
        #[arg(long, short)]
        follow: bool,
    },
    /// Cancel a run.
    Cancel {
        /// Run.
        id: u64,
    },
    /// Run again what has failed or was lost.
    Rerun {
        /// Run.
        id: u64,
    },
    /// Answer a stage that waits for an approval.
    Approve {
        /// Run.
        id: u64,
        /// Stage; the one that waits when absent.
        #[arg(long)]
        stage: Option<String>,
        /// Refuse it instead.
        #[arg(long)]
        reject: bool,
        /// Why.
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Environments: ask for approvals, or not.
    Environment {
        /// Environment; all are listed when absent.
        name: Option<String>,
        /// Ask for an approval before each deployment to it.
        #[arg(long)]
        approval: Option<bool>,
    },
    /// The expanded plan of a file, as YAML; nothing is run.
    Plan(FileArgs),
    /// Check a file; nothing is run.
    Validate(FileArgs),
}

/// `aksim pipeline run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of the pipeline; the repository's name when absent.
    pub pipeline: Option<String>,
    /// Branch.
    #[arg(long, default_value = "main")]
    pub branch: String,
    /// Commit; the branch's newest when absent.
    #[arg(long, default_value = "")]
    pub commit: String,
    /// Repository at the Git host, ORG/NAME.
    #[arg(long, default_value = "")]
    pub repository: String,
    /// Folder with a git repository, instead of one at the Git host.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// File of the pipeline in the repository.
    #[arg(long, default_value = "")]
    pub file: String,
    /// Parameter, NAME=VALUE; the value may be JSON.
    #[arg(long = "parameter", short = 'p', value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Variable, NAME=VALUE.
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// Stage to skip.
    #[arg(long = "skip-stage", value_name = "STAGE")]
    pub skip_stages: Vec<String>,
    /// Leave out what is not supported instead of refusing.
    #[arg(long)]
    pub skip_unsupported: bool,
    /// Show the log until the run ends.
    #[arg(long, short)]
    pub follow: bool,
    /// Form of the data.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `aksim pipeline plan`, `validate`
#[derive(Debug, Args)]
pub struct FileArgs {
    /// File.
    #[arg(default_value = "azure-pipelines.yml")]
    pub file: PathBuf,
    /// Parameter, NAME=VALUE; the value may be JSON.
    #[arg(long = "parameter", short = 'p', value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Variable known when the run is queued, NAME=VALUE.
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// What is not as in Azure, with file, line and consequence.
    #[arg(long)]
    pub fidelity: bool,
    /// Form of the data.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Form of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ShowFormat {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// The published tests as JUnit XML.
    Junit,
}

/// Does it.
pub async fn run(context: &Context, args: PipelineArgs) -> Result<(), Failure> {
    match args.verb {
        PipelineVerb::Run(args) => runs::run(context, args).await,
        PipelineVerb::List(output) => runs::list(context, output).await,
        PipelineVerb::Show { id, output } => runs::show(context, id, output).await,
        PipelineVerb::Logs { id, follow } => logs::run(context, id, follow).await,
        PipelineVerb::Cancel { id } => runs::cancel(context, id).await,
        PipelineVerb::Rerun { id } => runs::rerun(context, id).await,
        PipelineVerb::Approve { id, stage, reject, comment } => {
            runs::approve(context, id, stage, reject, comment).await
        }
        PipelineVerb::Environment { name, approval } => runs::environment(context, name, approval).await,
        PipelineVerb::Plan(args) => offline::plan(&args),
        PipelineVerb::Validate(args) => offline::validate(&args),
    }
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), Failure> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| Failure::new(super::failure::Code::Usage, format!("{text:?} is not NAME=VALUE")))
}

/// A parameter: JSON where it is an object, list, number or Boolean; else text.
fn parameter(text: &str) -> Result<(String, serde_json::Value), Failure> {
    let (name, value) = pair(text)?;
    let json = serde_json::from_str(&value).unwrap_or(serde_json::Value::String(value));
    Ok((name, json))
}
