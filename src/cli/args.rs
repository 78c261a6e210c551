//! The command line as one table.

use super::{
    git::{CredentialArgs, GitArgs},
    output::Format,
};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Azure Kubernetes Service and everything around it, on one machine, offline.
#[derive(Debug, Parser)]
#[command(name = "aksim", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// Project folder or file; found in the current folder or above when absent.
    #[arg(long, short = 'C', global = true, value_name = "PATH", env = "AKSIM_PROJECT")]
    pub project: Option<PathBuf>,
    /// More on stderr; twice for everything.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Form of the data.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Form of the data on stdout.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write an aksim.toml for this folder.
    Init(InitArgs),
    /// Bring the environment up, deploy the services, redeploy what changes.
    Up(UpArgs),
    /// The same as `up`, and show the logs of the services.
    Dev(UpArgs),
    /// Stop the environment.
    Down(DownArgs),
    /// Components and services with their state.
    Status(OutputArgs),
    /// Log lines of the services.
    Logs(LogsArgs),
    /// Run a program in a container of a service.
    Exec(ExecArgs),
    /// Print a service's URL, and open it in a browser when there is one.
    Open(OpenArgs),
    /// Build and roll out a service now, or all.
    Trigger(TriggerArgs),
    /// What a change of a file would do, and why.
    Explain(ExplainArgs),
    /// The way of changes: each hop with its time.
    Journey(JourneyArgs),
    /// Terminal dashboard of the running environment.
    Dashboard(DashboardArgs),
    /// A token of the issuer.
    Token(TokenArgs),
    /// Print or merge the kubeconfig.
    Kubeconfig(KubeconfigArgs),
    /// Shell variables for tools that run beside the environment.
    Env,
    /// The Git host: statuses, tokens, webhooks.
    Git(GitArgs),
    /// Credential helper of git for the Git host.
    #[command(hide = true)]
    GitCredential(CredentialArgs),
    /// Images: base images for builds.
    Image(ImageArgs),
    /// Pipelines: run, list, logs, cancel, approve, plan.
    Pipeline(super::pipeline::PipelineArgs),
    /// What is emulated, what differs, what is not there.
    Fidelity(FidelityArgs),
    /// What this machine has and lacks.
    Doctor(DoctorArgs),
    /// Scenarios: a demonstration, a test and a lab in one file.
    Scenario(ScenarioArgs),
    /// The sample shop, from a saved file to a served request.
    Demo(DemoArgs),
    /// JSON schema of aksim.toml.
    Schema,
    /// Version.
    Version(OutputArgs),
    /// Shell completions, or the manual page.
    Completion(CompletionArgs),
}

/// `aksim init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Name of the environment; the folder's name when absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Write over an existing file.
    #[arg(long)]
    pub force: bool,
}

/// `aksim up`
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Run behind; return once everything answers.
    #[arg(long, short)]
    pub detach: bool,
    /// Plain lines even on a terminal.
    #[arg(long)]
    pub no_dashboard: bool,
    /// Do not watch files.
    #[arg(long)]
    pub no_watch: bool,
    /// Write this kubeconfig instead of merging into the user's.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// `aksim down`
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Remove all state too: objects, images, data, certificates.
    #[arg(long)]
    pub purge: bool,
}

/// `aksim logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Of this service alone.
    pub service: Option<String>,
    /// Go on with new lines.
    #[arg(long, short)]
    pub follow: bool,
    /// Last lines of each container to begin with.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
}

/// `aksim exec`
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Service.
    pub service: String,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `aksim open`
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Service; every URL when absent.
    pub service: Option<String>,
}

/// `aksim trigger`
#[derive(Debug, Args)]
pub struct TriggerArgs {
    /// Service; all when absent.
    pub service: Option<String>,
}

/// `aksim explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// File.
    pub file: PathBuf,
    /// Form of the data.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `aksim journey`
#[derive(Debug, Args)]
pub struct JourneyArgs {
    /// The newest alone, hop by hop.
    #[arg(long)]
    pub last: bool,
    /// Of this service alone.
    #[arg(long)]
    pub service: Option<String>,
    /// Form of the data.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `aksim dashboard`
#[derive(Debug, Args)]
pub struct DashboardArgs {
    /// Write a picture of it (SVG) to this file and return.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// `aksim token`
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// User to sign in; the first of aksim.toml when absent.
    #[arg(long)]
    pub user: Option<String>,
    /// Scope or resource; the cluster's when absent.
    #[arg(long)]
    pub scope: Option<String>,
    /// Print an ExecCredential, as kubectl wants it.
    #[arg(long)]
    pub exec_credential: bool,
}

/// `aksim kubeconfig`
#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    /// Merge into the user's kubeconfig instead of printing.
    #[arg(long)]
    pub merge: bool,
    /// As this user of the directory (by `aksim token`) instead of the administrator.
    #[arg(long)]
    pub user: Option<String>,
}

/// `aksim image`
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: ImageVerb,
}

/// `aksim image …`
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Images that builds can start from.
    List(OutputArgs),
    /// Build a Dockerfile, and push the image to the environment's registry if asked.
    Build(ImageBuildArgs),
    /// Take in an OCI archive or layout, or a `docker save` archive.
    Import {
        /// Archive or folder.
        path: PathBuf,
        /// Name to give it; the archive's own when absent.
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove build cache and images nothing uses.
    Prune,
}

/// `aksim image build`
#[derive(Debug, Args)]
pub struct ImageBuildArgs {
    /// Build context.
    #[arg(default_value = ".", value_name = "CONTEXT")]
    pub context: PathBuf,
    /// Name of the image; can be given more than once.
    #[arg(long = "tag", short = 't', required = true, value_name = "NAME")]
    pub tags: Vec<String>,
    /// Dockerfile; `Dockerfile` in the context when absent.
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Stage to build; the last when absent.
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Build argument, `NAME=VALUE`; `NAME` alone takes the value from the environment.
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub build_args: Vec<String>,
    /// Do every step again.
    #[arg(long)]
    pub no_cache: bool,
    /// Push it to the registry of the running environment.
    #[arg(long)]
    pub push: bool,
}

/// `aksim fidelity`
#[derive(Debug, Args)]
pub struct FidelityArgs {
    /// Everything, not only what this project uses.
    #[arg(long)]
    pub all: bool,
    /// Form of the data.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `aksim doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Install what is missing, naming each thing first.
    #[arg(long)]
    pub fix: bool,
    /// Form of the data.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `aksim demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Install what is missing first, naming each thing.
    #[arg(long)]
    pub fix: bool,
    /// Leave it running and say what to try next.
    #[arg(long)]
    pub keep: bool,
    /// Leave out the scenarios of the four properties (about two minutes).
    #[arg(long)]
    pub without_properties: bool,
    /// Working folder; one in the cache folder when absent.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Form of the data.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `aksim scenario`
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: ScenarioVerb,
}

/// `aksim scenario …`
#[derive(Debug, Subcommand)]
pub enum ScenarioVerb {
    /// Those that come with aksim and those in the project's folder `scenarios`.
    List(OutputArgs),
    /// The file of one, once it is right.
    Show {
        /// Name, or path of a file.
        name: String,
    },
    /// Carry one out against the running environment.
    Run(ScenarioRunArgs),
}

/// `aksim scenario run`
#[derive(Debug, Args)]
pub struct ScenarioRunArgs {
    /// Name, or path of a file.
    pub name: String,
    /// Apply the solutions instead of waiting for somebody to.
    #[arg(long)]
    pub auto: bool,
    /// Another value of a parameter; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub set: Vec<(String, String)>,
    /// Seed of the faults' choices instead of the file's.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Form of the report on stdout.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: super::scenario::ReportFormat,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `aksim completion`
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// `bash`, `zsh`, `fish`, `elvish`, `powershell`, or `man` for the manual page.
    pub shell: String,
}
