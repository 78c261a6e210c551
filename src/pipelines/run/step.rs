//! A step: inputs, environment, retries, time limit, and the task behind it.

use super::condition;
use crate::{
    context::{JobContext, StepContext, TaskError, Told, variables::Variables},
    plan::{Action, Step},
    steps,
    store::{
        StepLog,
        record::{Outcome, State},
    },
};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Most tries of `retryCountOnTaskFailure`, as in Azure.
const MOST_RETRIES: u32 = 10;

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
        self.upload();
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

    fn expand_inputs(&mut self) {
        let state = self.job.state.lock();
        if let Some(call) = &mut self.call {
            for value in call.inputs.values_mut() {
                *value = state.variables.expand(value);
            }
        }
    }
}
