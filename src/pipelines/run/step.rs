//! A step: inputs, environment, retries, time limit, and the task behind it.

use super::{
    commands, condition,
    job::{HOOK_MARK, INCREMENT, JobContext},
    variables::Variables,
};
use crate::{
    agent::{
        containers::{ContainerName, ContainerProcess, JobContainers},
        process::{self, ProcessError, ProcessSpec, Source},
    },
    logging::command::{self, LoggingCommand},
    plan::{Action, Late, Step, TaskCall},
    steps,
    store::{
        StepLog,
        record::{Issue, Outcome, State},
    },
};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Most tries of `retryCountOnTaskFailure`, as in Azure.
const MOST_RETRIES: u32 = 10;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// In the task's own words.
    #[error("{0}")]
    Failed(String),
    /// A process could not be run, or was told to end.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The step was told to end.
    #[error("The operation was canceled.")]
    Cancelled,
}

impl TaskError {
    /// With a path and what the system said.
    pub fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Failed(format!("{doing} {}: {error}", path.display()))
    }
    fn cancelled(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Process(ProcessError::Cancelled))
    }
}

impl From<String> for TaskError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

/// How a step ended.
pub struct StepEnd {
    /// Result.
    pub outcome: Outcome,
    /// Why it failed.
    pub message: String,
}

impl Default for StepEnd {
    fn default() -> Self {
        Self { outcome: Outcome::Succeeded, message: String::new() }
    }
}

impl StepEnd {
    /// A failure.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, message: message.into() }
    }
}

/// What a step's output has told the agent.
#[derive(Default)]
pub(super) struct Told {
    /// `task.complete`.
    pub result: Option<Outcome>,
    /// Its message.
    pub message: String,
    /// Commands that copy files: done when the step has ended.
    pub uploads: Vec<LoggingCommand>,
}

/// A step under way, as its task sees it.
pub struct StepContext<'a> {
    /// Its job.
    pub job: &'a JobContext,
    /// The step.
    pub step: &'a Step,
    /// Its log.
    pub log: StepLog,
    /// Ends it.
    pub cancel: CancellationToken,
    pub(super) index: usize,
    pub(super) hook: Option<&'static str>,
    pub(super) told: Mutex<Told>,
    call: Option<TaskCall>,
}

/// Whether a step checks out a repository.
pub fn is_checkout(step: &Step) -> bool {
    matches!(&step.action, Action::Checkout(c) if c.repository != "none") && step.enabled
}

/// `Docker@2`, `checkout`.
pub fn task_name(step: &Step) -> String {
    match &step.action {
        Action::Task(call) => call.reference(),
        Action::Checkout(_) => "checkout".to_owned(),
        Action::NoDownload {} => "download".to_owned(),
    }
}

/// What people see.
pub fn display_name(step: &Step, hook: Option<&str>, variables: &Variables) -> String {
    let name = match (&step.display_name, &step.action) {
        (Some(name), _) => variables.expand(name),
        (None, Action::Checkout(checkout)) => format!("Checkout {}", checkout.repository),
        (None, _) => {
            step.name.clone().unwrap_or_else(|| task_name(step).split('@').next().unwrap_or_default().to_owned())
        }
    };
    hook.map_or_else(|| name.clone(), |hook| format!("{hook}: {name}"))
}

/// An issue without a place.
pub fn issue(kind: &str, message: &str) -> Issue {
    Issue { kind: kind.to_owned(), message: message.to_owned(), source: None, line: None }
}

/// Runs a step whose condition holds.
pub(super) async fn run(job: &JobContext, index: usize, step: &Step, hook: Option<&'static str>) -> StepEnd {
    let number = job.run.record().ok().and_then(|r| Some(r.job(&job.stage, &job.name)?.steps.get(index)?.log));
    let opened = job
        .run
        .engine
        .store
        .log(job.run.id)
        .ok()
        .zip(number)
        .map(|(log, number)| StepLog::open(log, job.run.masker.clone(), &job.stage, &job.name, number));
    let log = match opened {
        Some(Ok(log)) => log,
        Some(Err(error)) => return StepEnd::failed(format!("the log cannot be written: {error}")),
        None => return StepEnd::failed("the run is gone"),
    };
    job.change_step(index, |record| {
        (record.state, record.started) = (State::InProgress, Some(Timestamp::now()));
    });
    job.run.tell();
    // A step that runs although the job was cancelled has until the job's last moment.
    let cancel = if job.cancel.is_cancelled() { job.hard.child_token() } else { CancellationToken::new() };
    let call = match &step.action {
        Action::Task(call) => Some(call.clone()),
        Action::Checkout(_) | Action::NoDownload {} => None,
    };
    let mut context = StepContext { job, step, log, cancel, index, hook, told: Mutex::new(Told::default()), call };
    context.expand_inputs();
    let shown = display_name(step, hook, &job.state.lock().variables);
    context.log.section(&format!("Starting: {shown}"));
    let mut end = context.tries().await;
    let continues = context.late_flag(step.continue_on_error.as_ref());
    if end.outcome == Outcome::Failed {
        if !end.message.is_empty() {
            context.log.error(&end.message);
        }
        if continues {
            end.outcome = Outcome::SucceededWithIssues;
        }
    }
    context.log.section(&format!("Finishing: {shown}"));
    end
}

impl StepContext<'_> {
    async fn tries(&self) -> StepEnd {
        let retries = self.late_number(self.step.retry_count_on_task_failure.as_ref()).min(MOST_RETRIES);
        for round in 0..=retries {
            let end = self.limited().await;
            if end.outcome != Outcome::Failed || round == retries || self.cancel.is_cancelled() {
                return end;
            }
            // One second, then four, then nine: documented with retryCountOnTaskFailure.
            let wait = self.job.run.engine.config.minute * (round + 1).pow(2) / 60;
            self.log.error(&end.message);
            self.log.warning(&format!(
                "RetryHelper encountered task failure, will retry (attempt #: {} out of {retries}) after {} ms",
                round + 1,
                wait.as_millis()
            ));
            *self.told.lock() = Told::default();
            tokio::select! {
                () = self.cancel.cancelled() => return StepEnd { outcome: Outcome::Canceled, ..end },
                () = self.job.cancel.cancelled() => return StepEnd { outcome: Outcome::Canceled, ..end },
                () = tokio::time::sleep(wait) => {}
            }
        }
        StepEnd::default()
    }

    /// Runs the task under the step's clock, and ends it when the job is cancelled and its condition
    /// does not hold then.
    async fn limited(&self) -> StepEnd {
        let minutes = self.late_number(self.step.timeout_in_minutes.as_ref());
        let far = Duration::from_secs(365 * 24 * 3600);
        let timer = tokio::time::sleep(if minutes == 0 { far } else { self.job.run.minutes(minutes) });
        tokio::pin!(timer);
        let task = self.task();
        tokio::pin!(task);
        // The job may have been cancelled since the step's condition was asked: it is asked again.
        let (mut timed_out, mut told) = (false, false);
        let result = loop {
            tokio::select! {
                result = &mut task => break result,
                () = self.job.cancel.cancelled(), if !told => {
                    told = true;
                    let goes_on = condition::holds(self.step.condition.as_deref(), &self.job.scope_if_cancelled());
                    if !goes_on.unwrap_or(false) {
                        self.cancel.cancel();
                    }
                }
                () = self.job.hard.cancelled(), if !self.cancel.is_cancelled() => self.cancel.cancel(),
                () = &mut timer, if !timed_out => {
                    timed_out = true;
                    self.cancel.cancel();
                }
            }
        };
        self.uploads().await;
        let told = std::mem::take(&mut *self.told.lock());
        match result {
            Err(_) if timed_out => StepEnd::failed("The task has timed out."),
            Err(error) if error.cancelled() => StepEnd { outcome: Outcome::Canceled, message: error.to_string() },
            Err(error) => StepEnd::failed(error.to_string()),
            Ok(()) => StepEnd { outcome: told.result.unwrap_or(Outcome::Succeeded), message: told.message },
        }
    }

    async fn task(&self) -> Result<(), TaskError> {
        steps::run(self).await
    }

    /// Files that logging commands named.
    async fn uploads(&self) {
        let uploads = std::mem::take(&mut self.told.lock().uploads);
        for command in uploads {
            if let Err(message) = commands::upload(self, &command) {
                self.log.warning(&format!("{}: {message}", command.name()));
            }
        }
    }

    fn expand_inputs(&mut self) {
        let state = self.job.state.lock();
        if let Some(call) = &mut self.call {
            for value in call.inputs.values_mut() {
                *value = state.variables.expand(value);
            }
        }
    }

    /// The task with its inputs expanded; none for checkout.
    pub fn call(&self) -> Option<&TaskCall> {
        self.call.as_ref()
    }

    /// An input that is given and not empty.
    pub fn input(&self, name: &str) -> Option<&str> {
        self.call.as_ref()?.input(name).map(str::trim).filter(|v| !v.is_empty())
    }

    /// An input that must be given.
    ///
    /// # Errors
    /// As Azure words it.
    pub fn required(&self, name: &str) -> Result<&str, TaskError> {
        self.input(name).ok_or_else(|| TaskError::Failed(format!("Input required: {name}")))
    }

    /// A Boolean input.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.input(name).map_or(default, |v| v.eq_ignore_ascii_case("true"))
    }

    /// The lines of an input that are not empty.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let lines = self.input(name).into_iter().flat_map(str::lines).map(str::trim);
        lines.filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }

    /// A path below the sources, or as it is when absolute.
    pub fn path(&self, text: &str) -> PathBuf {
        self.sources().join(text)
    }

    /// `Build.SourcesDirectory`.
    pub fn sources(&self) -> PathBuf {
        let state = self.job.state.lock();
        state.variables.get("Build.SourcesDirectory").map_or_else(|| self.job.workspace.sources.clone(), PathBuf::from)
    }

    /// A variable.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.job.state.lock().variables.get(name).map(str::to_owned)
    }

    /// Value of a text that may be late.
    pub fn late_flag(&self, late: Option<&Late<bool>>) -> bool {
        match late {
            Some(Late::Known(value)) => *value,
            Some(Late::Text(text)) => self.job.state.lock().variables.expand(text).trim().eq_ignore_ascii_case("true"),
            None => false,
        }
    }

    /// The same for numbers; 0 when absent or no number.
    pub fn late_number(&self, late: Option<&Late<u32>>) -> u32 {
        match late {
            Some(Late::Known(value)) => *value,
            Some(Late::Text(text)) => self.job.state.lock().variables.expand(text).trim().parse().unwrap_or(0),
            None => 0,
        }
    }

    /// Environment of the step's processes: the job's, and `env:` of the step.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.with_env(self.job.environment())
    }

    /// With `env:` of the step, and without what no process can have.
    fn with_env(&self, mut environment: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let state = self.job.state.lock();
        for (key, value) in &self.step.env {
            environment.insert(key.clone(), state.variables.expand(value));
        }
        environment.retain(|key, value| !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0'));
        environment
    }

    /// Runs a program in a folder, its output in the log and its logging commands obeyed.
    ///
    /// # Errors
    /// [`TaskError`]; a bad exit status is none.
    pub async fn exec(
        &self,
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        folder: &Path,
    ) -> Result<ExitStatus, TaskError> {
        self.exec_with(program, arguments, folder, BTreeMap::new(), |_| {}).await
    }

    /// The same with more in the environment; lines of standard error are also given to `on_error`.
    ///
    /// # Errors
    /// As [`StepContext::exec`].
    pub async fn exec_with(
        &self,
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        folder: &Path,
        more: BTreeMap<String, String>,
        mut on_error: impl FnMut(&str) + Send,
    ) -> Result<ExitStatus, TaskError> {
        let mut environment = self.environment();
        environment.extend(more);
        let program = found(program.into(), &environment);
        let arguments = arguments.into_iter().map(Into::into).collect();
        let spec = ProcessSpec { program, arguments, folder: folder.to_owned(), environment, input: None };
        let status = process::run(spec, self.log.masker(), &self.cancel, |source, line| {
            if source == Source::Stderr {
                on_error(line);
            }
            self.line(line);
        });
        Ok(status.await?)
    }

    /// The container that the step's scripts run in; none for the agent's machine.
    pub fn container(&self) -> Option<(&'_ JobContainers, ContainerName)> {
        Some((self.job.containers.get()?, self.job.needs.of_step(self.step)?))
    }

    /// As [`StepContext::exec_with`], in the container of the step or the job when it has one.
    ///
    /// # Errors
    /// As [`StepContext::exec`].
    pub async fn exec_in_target(
        &self,
        program: &str,
        arguments: Vec<OsString>,
        folder: &Path,
        mut on_error: impl FnMut(&str) + Send,
    ) -> Result<ExitStatus, TaskError> {
        let Some((containers, name)) = self.container() else {
            return self.exec_with(program, arguments, folder, BTreeMap::new(), on_error).await;
        };
        let mut environment = self.job.own_environment();
        environment.extend(self.job.prepended(None).map(|path| ("PATH".to_owned(), path)));
        let process = ContainerProcess {
            program: program.into(),
            arguments: arguments.into_iter().map(|a| a.to_string_lossy().into_owned()).collect(),
            folder: folder.to_owned(),
            environment: self.with_env(environment),
            temp: self.job.workspace.temp.clone(),
        };
        let status = containers.run(&name, process, self.log.masker(), &self.cancel, |source, line| {
            if source == Source::Stderr {
                on_error(line);
            }
            self.line(line);
        });
        Ok(status.await?)
    }

    /// A line that the step wrote.
    pub fn line(&self, line: &str) {
        match LoggingCommand::parse(line) {
            Some(command) => match commands::obey(self, &command) {
                Ok(true) => {}
                Ok(false) => self.log.write(line),
                Err(message) => {
                    let text = format!("Unable to process command '{}' successfully. {message}", command.name());
                    self.log.warning(&text);
                    self.add_issue(issue("warning", &text));
                }
            },
            None => {
                if let Some((command::Format::Error, text)) = command::format_of(line) {
                    self.add_issue(issue("error", text));
                }
                self.log.write(line);
            }
        }
    }

    /// Adds an issue to the step's record, masked.
    pub fn add_issue(&self, mut issue: Issue) {
        issue.message = self.log.masker().mask(&issue.message);
        self.job.change_step(self.index, |step| {
            // As Azure does, the first ten of a kind.
            if step.issues.iter().filter(|i| i.kind == issue.kind).count() < 10 {
                step.issues.push(issue);
            }
        });
    }

    /// Sets an output or variable, as `task.setvariable` does.
    ///
    /// # Errors
    /// When it is read-only.
    pub fn set_variable(
        &self,
        name: &str,
        value: &str,
        secret: bool,
        output: bool,
        readonly: bool,
    ) -> Result<(), String> {
        if secret {
            self.log.masker().add(value);
        }
        let mut state = self.job.state.lock();
        if output {
            let step = self.step.name.as_deref().unwrap_or_default();
            let hook = self.hook.unwrap_or_default();
            let round = state.variables.get(INCREMENT).map(|increment| format!("_{increment}")).unwrap_or_default();
            let key = format!("{hook}{round}{HOOK_MARK}{step}.{name}");
            let secret =
                secret || state.variables.iter().any(|v| v.secret && !v.value.is_empty() && value.contains(&v.value));
            let output = crate::store::record::OutputValue { value: value.to_owned(), secret };
            state.outputs.insert(key, output);
            let full = if step.is_empty() { name.to_owned() } else { format!("{step}.{name}") };
            state.variables.set(&full, value, secret, readonly).map_err(|e| e.to_string())
        } else {
            state.variables.set(name, value, secret, readonly).map_err(|e| e.to_string())
        }
    }
}

/// A bare name in `PATH` of the environment; as it is when not found, so that the error names it.
fn found(program: PathBuf, environment: &BTreeMap<String, String>) -> PathBuf {
    if program.components().count() > 1 {
        return program;
    }
    which(&program.to_string_lossy(), environment.get("PATH").map_or("", String::as_str)).unwrap_or(program)
}

/// A program in the folders of `path`.
pub fn which(name: &str, path: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable =
        |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).filter(|p| !p.as_os_str().is_empty()).map(|p| p.join(name)).find(executable)
}
