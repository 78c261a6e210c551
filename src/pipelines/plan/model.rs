//! What a pipeline comes to once `${{ }}` and templates are gone. Field names are Azure's.
//!
//! Order is kept everywhere: it is the order of the file. A text may still hold `$( )` macros, and where a
//! field says so `$[ ]`; they are the run's. [`Late`] holds values that are usually plain but may be such a text.

use crate::pipelines::error::Location;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A whole pipeline, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Run number format (`$(Date:yyyyMMdd)$(Rev:.r)`); that is also the default when the file names none.
    pub name: String,
    /// The commit's message follows the run number. Azure's default is true.
    pub append_commit_message_to_run_name: bool,
    /// What a push has to look like to start a run.
    pub trigger: Trigger,
    /// The same for pull requests.
    pub pr: Trigger,
    /// Runs by the clock. Named in the plan, started only when asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// What the pipeline uses from elsewhere.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Runtime parameters with the values of this run.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parameters: IndexMap<String, Json>,
    /// Variables of the pipeline, in order; a later one wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// `sequential` or `runLatest`, for exclusive locks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_behavior: Option<String>,
    /// Stages in order of the file; [`Stage::depends_on`] says which wait. A file without stages has one,
    /// named `__default`.
    pub stages: Vec<Stage>,
    /// What this pipeline uses that is not done, or done otherwise, here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// A value known when the plan is made, or a text with `$( )` or `$[ ]` that the run evaluates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Late<T> {
    /// Known.
    Known(T),
    /// To be evaluated before it is used.
    Text(String),
}

/// When a push or pull request starts a run. An empty include list takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trigger {
    /// `none`: nothing starts it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub none: bool,
    /// One run at a time; changes meanwhile are taken together. Pushes only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
    /// A newer commit cancels the running validation. Pull requests only; Azure's default is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_cancel: bool,
    /// Drafts count too. Pull requests only; Azure's default is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drafts: bool,
    /// Branch names, with or without `refs/heads/`, wildcards `*` and `?`.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub branches: Filter,
    /// Changed paths from the root of the repository.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub paths: Filter,
    /// Tag names. A push of a tag runs only when tags are included. Pushes only.
    #[serde(skip_serializing_if = "Filter::is_empty")]
    pub tags: Filter,
}

/// Include and exclude patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// What counts; empty means everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// What does not, although included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl Filter {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// A run by the clock, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Five fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// Name of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Branches that are run.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub branches: Filter,
    /// Run although nothing changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Run although the last scheduled run has not ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
}

/// `resources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Other repositories, for `checkout` and templates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// Images jobs run in and services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// Other pipelines whose artifacts are downloaded or whose runs trigger this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<OtherResource>,
    /// Builds of other systems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<OtherResource>,
    /// Packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<OtherResource>,
    /// Webhooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<OtherResource>,
}

impl Resources {
    /// Nothing is used.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `resources: repositories`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Repository {
    /// `repository:`, what the pipeline calls it.
    pub alias: String,
    /// `git`, `github`, `githubenterprise` or `bitbucket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ORG/REPO` or `PROJECT/REPO`.
    pub name: String,
    /// Branch or tag, `refs/heads/…`; empty means the default branch.
    #[serde(rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Service connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A push there starts this pipeline; absent means it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// Where it is written.
    pub location: Location,
}

/// A container: of `resources`, or written where it is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// `container:` under `resources`; empty when written in place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// Image reference; may hold macros. Empty for `type: ACR`.
    pub image: String,
    /// Service connection to the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Options of `docker create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// `HOST:CONTAINER`, or one port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// `HOST:CONTAINER[:ro]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// The Docker socket is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_docker_socket: Option<bool>,
    /// Which agent folders are mounted read-only: `work`, `externals`, `tools`, `tasks`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mount_read_only: Vec<String>,
    /// Other keys (`type: ACR` and what belongs to it, `trigger`), as written.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub more: IndexMap<String, Json>,
    /// Where it is written.
    pub location: Location,
}

/// A resource that is named and kept as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtherResource {
    /// Its alias.
    pub alias: String,
    /// Its other keys, as written.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub properties: IndexMap<String, Json>,
    /// Where it is written.
    pub location: Location,
}

/// A variable, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Variable {
    /// One variable.
    Value {
        /// Name, compared without case.
        name: String,
        /// Text; may hold `$( )`, or be one `$[ ]`.
        value: String,
        /// Neither scripts nor the queue may change it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        readonly: bool,
        /// Where it is written.
        location: Location,
    },
    /// A variable group; its values belong to the service, not the file, and may be secret.
    Group {
        /// Name of the group.
        group: String,
        /// Where it is written.
        location: Location,
    },
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Name, unique in the pipeline; `Stage1`, … where the file gives none.
    pub name: String,
    /// What people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Names of stages that end first. Resolved: a file that says nothing depends on the stage before.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// Condition; absent means `succeeded()`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Variables of the stage, over those of the pipeline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// `sequential` or `runLatest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_behavior: Option<String>,
    /// Starts only by hand (`trigger: manual`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
    /// May not be skipped by hand (`isSkippable: false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unskippable: bool,
    /// Jobs in order of the file; they run side by side unless [`Job::depends_on`] says otherwise.
    pub jobs: Vec<Job>,
    /// Where it is written.
    pub location: Location,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Name, unique in its stage; `Job1`, … where the file gives none.
    pub name: String,
    /// What people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Names of jobs of the same stage that end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Condition; absent means `succeeded()`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A failure counts as partial success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_on_error: Option<Late<bool>>,
    /// Minutes before the job is cancelled; 0 means no limit, absent means 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_in_minutes: Option<Late<u32>>,
    /// Minutes a cancelled job has to end; absent means 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_timeout_in_minutes: Option<Late<u32>>,
    /// Where it runs, already inherited from stage and pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Container the steps run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerRef>,
    /// Containers beside it, by the host name they answer to.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub services: IndexMap<String, ContainerRef>,
    /// What is cleaned before the job: `outputs`, `resources` or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_clean: Option<String>,
    /// Resources the job uses without naming them in a step (`uses:`).
    #[serde(default, skip_serializing_if = "Uses::is_empty")]
    pub uses: Uses,
    /// Variables of the job, over those of stage and pipeline. May hold `$[ ]` with `dependencies`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// How often it runs, and with what.
    #[serde(default, skip_serializing_if = "Legs::is_single")]
    pub legs: Legs,
    /// Template context of the job (`templateContext:`), as written; the agent has no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_context: Option<Json>,
    /// What it does.
    pub work: Work,
    /// Where it is written.
    pub location: Location,
}

/// `uses:` of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uses {
    /// Repository aliases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// Pool names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
}

impl Uses {
    /// Nothing is named.
    pub fn is_empty(&self) -> bool {
        self.repositories.is_empty() && self.pools.is_empty()
    }
}

/// `strategy: matrix` and `strategy: parallel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Legs {
    /// Once.
    #[default]
    Single,
    /// Once for each leg, with the leg's variables.
    #[serde(rename_all = "camelCase")]
    Matrix {
        /// Leg name → variables.
        legs: IndexMap<String, IndexMap<String, String>>,
        /// How many at once; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_parallel: Option<Late<u32>>,
    },
    /// Legs computed by the run: `$[ ]` that gives a JSON text of leg name → variables.
    #[serde(rename_all = "camelCase")]
    MatrixExpression {
        /// The `$[ ]` text.
        matrix: String,
        /// How many at once; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_parallel: Option<Late<u32>>,
    },
    /// `count` times, as `System.JobPositionInPhase` of `System.TotalJobsInPhase`.
    #[serde(rename_all = "camelCase")]
    Parallel {
        /// How often.
        count: Late<u32>,
        /// How many at once; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_parallel: Option<Late<u32>>,
    },
}

impl Legs {
    /// The job runs once.
    pub fn is_single(&self) -> bool {
        matches!(self, Self::Single)
    }
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// `job:`. The implicit `checkout: self` is in the list where the file has no checkout.
    Steps(Vec<Step>),
    /// `deployment:`.
    Deployment(Box<Deployment>),
}

/// What a deployment job does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Where to.
    pub environment: Environment,
    /// How.
    pub strategy: DeploymentStrategy,
}

/// `environment:` of a deployment job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// Its name; may hold macros.
    pub name: String,
    /// A resource in it (`name.resource` or `resourceName`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// The same by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// `VirtualMachine` or `Kubernetes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Comma-separated tags that choose machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
}

/// `strategy:` of a deployment job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeploymentStrategy {
    /// Hooks once.
    RunOnce(Hooks),
    /// Hooks for each target machine, some at once.
    #[serde(rename_all = "camelCase")]
    Rolling {
        /// A number, or a percentage such as `25%`.
        max_parallel: String,
        /// The hooks.
        hooks: Hooks,
    },
    /// `preDeploy` once, then `deploy`, `routeTraffic`, `postRouteTraffic` for each increment and for 100 %.
    Canary {
        /// Percentages, ascending, without the last 100.
        increments: Vec<u32>,
        /// The hooks.
        hooks: Hooks,
    },
}

impl DeploymentStrategy {
    /// Its lifecycle hooks.
    pub fn hooks(&self) -> &Hooks {
        match self {
            Self::RunOnce(hooks) | Self::Rolling { hooks, .. } | Self::Canary { hooks, .. } => hooks,
        }
    }
}

/// Lifecycle hooks, in the order they run. The implicit `download: current` is in `deploy` where the file has no
/// download step in the job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Before anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_deploy: Option<Hook>,
    /// The deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Hook>,
    /// Traffic to the new version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_traffic: Option<Hook>,
    /// After that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_route_traffic: Option<Hook>,
    /// `on: failure`, when a hook above failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Hook>,
    /// `on: success`, when all above succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Hook>,
}

impl Hooks {
    /// All that are written, with their names (`preDeploy`, …, `on.failure`, `on.success`).
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Hook)> {
        [
            ("preDeploy", &self.pre_deploy),
            ("deploy", &self.deploy),
            ("routeTraffic", &self.route_traffic),
            ("postRouteTraffic", &self.post_route_traffic),
            ("on.failure", &self.on_failure),
            ("on.success", &self.on_success),
        ]
        .into_iter()
        .filter_map(|(name, hook)| Some((name, hook.as_ref()?)))
    }
}

/// One lifecycle hook: a job of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Its pool, when not the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// `pool:`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pool {
    /// Name of a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image of a hosted agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_image: Option<String>,
    /// `Agent.OS -equals Linux`, or a capability's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub demands: Vec<String>,
    /// `pool: server`: no agent (Azure's server tasks only).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub server: bool,
}

/// A container where it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerRef {
    /// Alias of `resources: containers`.
    Alias(String),
    /// Written in place, or a bare image. A text with macros (`$[ variables['image'] ]`) is in `image`, and may
    /// turn out to be an alias.
    Inline(Box<Container>),
}

/// One step: always a task, whatever shortcut the file uses, except checkout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
    /// Name for output variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Condition; absent means `succeeded()`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A failure is a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_on_error: Option<Late<bool>>,
    /// `enabled: false` leaves it out.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub enabled: bool,
    /// Minutes before it is ended; 0 or absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_in_minutes: Option<Late<u32>>,
    /// How often a failure is tried again, at most 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_count_on_task_failure: Option<Late<u32>>,
    /// Where it runs, when not where the job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<StepTarget>,
    /// Environment variables; values may hold macros. Secrets reach scripts only this way.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Where it is written; for an implicit step, the job.
    pub location: Location,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_true(value: &bool) -> bool {
    *value
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// A task. Shortcuts are tasks: `script` CmdLine@2; `bash` Bash@3; `pwsh` and `powershell` PowerShell@2
    /// (`pwsh: true`); `publish` PublishPipelineArtifact@1; `download` DownloadPipelineArtifact@2;
    /// `downloadBuild` DownloadBuildArtifacts@0; `getPackage` DownloadPackage@1; `reviewApp` ReviewApp@0.
    Task(TaskCall),
    /// `checkout:`.
    Checkout(Checkout),
    /// `download: none`: nothing is downloaded by itself.
    NoDownload {},
}

/// A task with its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCall {
    /// Name as the task's table spells it (`Docker`); as written when unknown.
    pub name: String,
    /// Major version (`2`); a file may pin `2.1.0`, kept whole.
    pub version: String,
    /// Inputs by the task's own spelling, aliases resolved, and defaults of the task's table filled in where the
    /// file gives nothing. Values may hold macros.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, String>,
}

impl TaskCall {
    /// An input by name, without case.
    pub fn input(&self, name: &str) -> Option<&str> {
        self.inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// `Docker@2`.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// `checkout:`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Checkout {
    /// `self`, `none`, an alias of `resources: repositories`, or `git://PROJECT/REPO@REF` and alike in place.
    pub repository: String,
    /// `true`: `git clean -ffdx` first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Late<bool>>,
    /// Commits of history; 0 means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_depth: Option<Late<u32>>,
    /// Tags too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_tags: Option<Late<bool>>,
    /// Partial clone filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_filter: Option<String>,
    /// Large files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lfs: Option<Late<bool>>,
    /// `true` or `recursive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submodules: Option<String>,
    /// Folder below `$(Pipeline.Workspace)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The token stays in git's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist_credentials: Option<Late<bool>>,
    /// Sparse checkout, folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_checkout_directories: Option<String>,
    /// Sparse checkout, patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_checkout_patterns: Option<String>,
    /// It is the folder `Build.SourcesDirectory` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_repo: Option<Late<bool>>,
}

/// `target:` of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepTarget {
    /// `host`, or an alias of `resources: containers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// `any` or `restricted`: which logging commands count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<String>,
    /// Which variables may be set: absent means any, empty means none (`settableVariables: none`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settable_variables: Option<Vec<String>>,
}

/// How a construct or task stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As in Azure.
    Works,
    /// There, but behaves otherwise; the consequence says how.
    Differs,
    /// Not there: a run refuses it unless told to skip it.
    Gap,
}

/// A construct or task this pipeline uses that is not as in Azure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The construct (`schedules`) or task (`AzureCLI@2`).
    pub what: String,
    /// Differs or gap.
    pub standing: Standing,
    /// What follows for the run.
    pub consequence: String,
    /// Where it is used.
    pub location: Location,
}
