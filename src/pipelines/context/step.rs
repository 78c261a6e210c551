//! A step under way, as its task sees it.

use super::{
    commands,
    job::{HOOK_MARK, INCREMENT, JobContext},
};
use crate::{
    agent::{
        containers::{ContainerName, ContainerProcess, JobContainers},
        process::{self, ProcessError, ProcessSpec, Source},
    },
    logging::command::{self, LoggingCommand},
    plan::{Late, Step, TaskCall},
    store::{
        StepLog,
        record::{Issue, Outcome, OutputValue},
    },
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitStatus,
};
use tokio_util::sync::CancellationToken;

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
    /// Whether the step was told to end.
    pub fn cancelled(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Process(ProcessError::Cancelled))
    }
}

impl From<String> for TaskError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

/// What a step's output has told the agent.
#[derive(Default)]
pub struct Told {
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
    /// Its place among the job's steps.
    pub index: usize,
    /// Lifecycle hook that it is of.
    pub hook: Option<&'static str>,
    /// What its output has told.
    pub told: Mutex<Told>,
    /// The task with its inputs expanded; none for checkout.
    pub call: Option<TaskCall>,
}

/// An issue without a place.
pub fn issue(kind: &str, message: &str) -> Issue {
    Issue { kind: kind.to_owned(), message: message.to_owned(), source: None, line: None }
}

impl StepContext<'_> {
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

    /// Copies the files that logging commands named.
    pub fn upload(&self) {
        let uploads = std::mem::take(&mut self.told.lock().uploads);
        for command in uploads {
            if let Err(message) = commands::upload(self, &command) {
                self.log.warning(&format!("{}: {message}", command.name()));
            }
        }
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
            let output = OutputValue { value: value.to_owned(), secret };
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
