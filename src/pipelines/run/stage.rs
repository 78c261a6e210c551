//! A stage: condition, approvals, jobs.

use super::{
    condition,
    graph::{self, Node},
    job, legs,
};
use crate::{
    context::{
        RunContext,
        scope::{self, Dependencies, RunScope},
        variables::Variables,
    },
    environments::{Answer, lock::NotLocked},
    expression::Value,
    plan::{Job, Stage, Work},
    store::record::{Outcome, State},
};
use aksim_model::{event::FlowRow, journey::Hop};
use jiff::Timestamp;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

/// Azure refuses an approval by itself after 30 days.
const APPROVAL_DAYS: u64 = 30;

impl RunContext {
    /// Runs a stage to its end, or skips it.
    pub(super) async fn stage(self: Arc<Self>, index: usize) -> Outcome {
        let stage = &self.plan.stages[index];
        let before = self.record().ok().and_then(|r| r.stages.iter().find(|s| s.name == stage.name).cloned());
        if let Some(result) = before.filter(|s| s.state == State::Completed).and_then(|s| s.result) {
            return result;
        }
        let (outcome, message) = match self.decide_stage(stage) {
            Ok(Some(variables)) => match self.approved(stage, &variables).await {
                Ok(()) => match self.locked(stage, &variables).await {
                    Ok(_locks) => (self.jobs(index, variables).await, String::new()),
                    Err(message) => (Outcome::Canceled, message),
                },
                Err((outcome, message)) => (outcome, message),
            },
            Ok(None) => (self.not_run(), String::new()),
            Err(message) => (Outcome::Failed, message),
        };
        self.end_stage(stage, outcome, &message);
        outcome
    }

    fn not_run(&self) -> Outcome {
        if self.cancel.is_cancelled() { Outcome::Canceled } else { Outcome::Skipped }
    }

    /// Variables of the stage when its condition holds.
    fn decide_stage(&self, stage: &Stage) -> Result<Option<Variables>, String> {
        let record = self.record().map_err(|e| e.to_string())?;
        let skip = record.request.stages_to_skip.iter().any(|s| s.eq_ignore_ascii_case(&stage.name));
        if skip {
            return Ok(None);
        }
        let mut variables = self.variables.clone();
        let level = |variables: &Variables| self.stage_scope(stage, variables);
        self.add_variables(&mut variables, &stage.variables, level(&self.variables)).map_err(|e| e.to_string())?;
        variables.put_readonly("System.StageName", &stage.name);
        variables.put_readonly("System.StageDisplayName", stage.display_name.as_deref().unwrap_or(&stage.name));
        let attempt = record.stages.iter().find(|s| s.name == stage.name).map_or(1, |s| s.attempt);
        variables.put_readonly("System.StageAttempt", attempt.to_string());
        let holds = condition::holds(stage.condition.as_deref(), &level(&variables))
            .map_err(|e| format!("{}: condition of stage {}: {e}", stage.location, stage.name))?;
        Ok(holds.then_some(variables))
    }

    fn stage_scope(&self, stage: &Stage, variables: &Variables) -> RunScope<'_> {
        let all = graph::ancestors(&self.stage_nodes(), &stage.name);
        let record = self.record().ok();
        let results = all.iter().map(|name| {
            let found = record.as_ref().and_then(|r| r.stages.iter().find(|s| s.name == *name));
            (name.clone(), found.and_then(|s| s.result))
        });
        RunScope {
            variables: variables.context(),
            dependencies: record.as_ref().map_or(Value::Null, |r| scope::stage_dependencies(r, &all)),
            stage_dependencies: record.as_ref().map_or(Value::Null, |r| scope::jobs_of_stages(r, &all)),
            pipeline: self.pipeline_context(),
            resources: self.resources_context(),
            results: Dependencies { results: results.collect() },
            canceled: self.cancel.is_cancelled(),
            store: &self.engine.store,
            pipeline_name: self.variables.get("Build.DefinitionName").unwrap_or_default(),
        }
    }

    /// Waits for the approvals of all environments of the stage, as Azure does before the stage begins.
    async fn approved(&self, stage: &Stage, variables: &Variables) -> Result<(), (Outcome, String)> {
        let mut reasons: Vec<String> = Vec::new();
        let mut patience = Duration::from_secs(APPROVAL_DAYS * 24 * 3600);
        for job in &stage.jobs {
            let Work::Deployment(deployment) = &job.work else { continue };
            let name = variables.expand(&deployment.environment.name);
            let checks = self.engine.environments.checks(&name);
            if checks.approval && !reasons.contains(&name) {
                if checks.timeout_in_minutes > 0 {
                    patience = patience.min(self.minutes(checks.timeout_in_minutes));
                }
                reasons.push(name);
            }
        }
        if stage.manual {
            reasons.push(format!("stage {} (trigger: manual)", stage.name));
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let attempt = variables.get("System.StageAttempt").and_then(|a| a.parse().ok()).unwrap_or(1);
        self.set_stage(&stage.name, State::Waiting);
        self.tell();
        let wait = self.engine.environments.wait(self.id, &stage.name, attempt, patience, &self.cancel);
        match wait.await {
            Answer::Approved(by) => {
                tracing::info!(run = self.id, stage = stage.name, by, "approved");
                Ok(())
            }
            Answer::Rejected(by) => {
                Err((Outcome::Failed, format!("{by} rejected the deployment to {}", reasons.join(", "))))
            }
            Answer::TimedOut => Err((Outcome::Failed, format!("nobody approved {} in time", reasons.join(", ")))),
            Answer::Cancelled => Err((Outcome::Canceled, String::new())),
        }
    }

    /// With `lockBehavior`, the locks of the stage's environments, in the order they were asked for; when it does not
    /// get them, what there is to say.
    async fn locked(&self, stage: &Stage, variables: &Variables) -> Result<Vec<OwnedSemaphorePermit>, String> {
        let mut locks = Vec::new();
        let Some(behavior) = stage.lock_behavior.as_ref().or(self.plan.lock_behavior.as_ref()) else {
            return Ok(locks);
        };
        let pipeline = self.variables.get("Build.DefinitionName").unwrap_or_default();
        let names = stage.jobs.iter().filter_map(|job| match &job.work {
            Work::Deployment(deployment) => Some(variables.expand(&deployment.environment.name)),
            Work::Steps(_) => None,
        });
        // One order for everybody, so that two stages never wait for each other.
        for name in names.collect::<BTreeSet<_>>() {
            let lock = self.engine.locks.lock().entry(name.clone()).or_default().clone();
            let permit = match behavior.eq_ignore_ascii_case("runLatest") {
                true => lock.latest(pipeline, self.id, &self.cancel).await,
                false => lock.in_turn(&self.cancel).await,
            };
            locks.push(permit.map_err(|error| match error {
                NotLocked::Cancelled => String::new(),
                NotLocked::Newer(run) => format!("run {run} is newer and gets the environment {name} instead"),
            })?);
        }
        Ok(locks)
    }

    async fn jobs(self: &Arc<Self>, index: usize, variables: Variables) -> Outcome {
        let stage = &self.plan.stages[index];
        self.set_stage(&stage.name, State::InProgress);
        self.tell();
        let nodes: Vec<Node> =
            stage.jobs.iter().map(|j| Node { name: j.name.clone(), after: j.depends_on.clone() }).collect();
        let variables = Arc::new(variables);
        let outcomes = graph::run(&nodes, &self.cancel, |job| {
            let (context, variables) = (self.clone(), variables.clone());
            async move { context.job(index, job, &variables).await }
        })
        .await;
        outcomes.values().copied().reduce(Outcome::and).unwrap_or(Outcome::Succeeded)
    }

    /// All legs of a job.
    async fn job(self: Arc<Self>, stage_index: usize, job_index: usize, variables: &Variables) -> Outcome {
        let stage = &self.plan.stages[stage_index];
        let job = &stage.jobs[job_index];
        if job.pool.as_ref().is_some_and(|p| p.server) {
            // Refused before the run, unless it was to be left out.
            let message = "server jobs are not run by the local agent (--skip-unsupported)";
            return self.end_records(stage, job, Outcome::Skipped, message);
        }
        let late = self.cancel.is_cancelled();
        let decided = self.decide_job(stage, job, variables);
        let legs = match decided {
            Ok(Some(variables)) => legs::of(&self, stage, job, &variables).map(|legs| (legs, variables)),
            Ok(None) => return self.end_records(stage, job, self.not_run(), ""),
            Err(message) => Err(message),
        };
        let (legs, variables) = match legs {
            Ok(found) => found,
            Err(message) => return self.end_records(stage, job, Outcome::Failed, &message),
        };
        let slots = Arc::new(Semaphore::new(legs.max_parallel.unwrap_or(legs.legs.len()).max(1)));
        let mut running = JoinSet::new();
        for leg in legs.legs {
            let (context, variables, slots) = (self.clone(), variables.clone(), slots.clone());
            running.spawn(async move {
                // Never closed.
                let _slot = slots.acquire_owned().await;
                job::run(context, stage_index, job_index, leg, variables, late).await
            });
        }
        let mut outcome = Outcome::Skipped;
        while let Some(ended) = running.join_next().await {
            outcome = outcome.and(ended.unwrap_or_else(|error| {
                tracing::error!(%error, run = self.id, job = job.name, "a job ended by a bug");
                Outcome::Failed
            }));
        }
        outcome
    }

    /// Variables of the job when its condition holds.
    fn decide_job(&self, stage: &Stage, job: &Job, stage_variables: &Variables) -> Result<Option<Variables>, String> {
        let mut variables = stage_variables.clone();
        let before = self.job_scope(stage, job, stage_variables).ok_or("the run is gone")?;
        self.add_variables(&mut variables, &job.variables, before).map_err(|e| e.to_string())?;
        let scope = self.job_scope(stage, job, &variables).ok_or("the run is gone")?;
        let holds = condition::holds(job.condition.as_deref(), &scope)
            .map_err(|e| format!("{}: condition of job {}: {e}", job.location, job.name))?;
        Ok(holds.then_some(variables))
    }

    /// What a job's expressions see.
    pub(super) fn job_scope(&self, stage: &Stage, job: &Job, variables: &Variables) -> Option<RunScope<'_>> {
        let record = self.record().ok()?;
        let own = record.stages.iter().find(|s| s.name == stage.name)?;
        let nodes: Vec<Node> =
            stage.jobs.iter().map(|j| Node { name: j.name.clone(), after: j.depends_on.clone() }).collect();
        let all = graph::ancestors(&nodes, &job.name);
        let stages = graph::ancestors(&self.stage_nodes(), &stage.name);
        let result = |name: &String| {
            let result = scope::combined(own.jobs.iter().filter(|j| j.job == *name));
            (name.clone(), result)
        };
        Some(RunScope {
            variables: variables.context(),
            dependencies: scope::job_dependencies(own, &all),
            stage_dependencies: scope::jobs_of_stages(&record, &stages),
            pipeline: self.pipeline_context(),
            resources: self.resources_context(),
            results: Dependencies { results: all.iter().map(result).collect() },
            canceled: self.cancel.is_cancelled(),
            store: &self.engine.store,
            pipeline_name: self.variables.get("Build.DefinitionName").unwrap_or_default(),
        })
    }

    fn set_stage(&self, name: &str, state: State) {
        self.change(|run| {
            if let Some(stage) = run.stages.iter_mut().find(|s| s.name == name) {
                stage.state = state;
                stage.started.get_or_insert_with(Timestamp::now);
            }
        });
    }

    /// Ends the records of a job that has not begun.
    fn end_records(&self, stage: &Stage, job: &Job, outcome: Outcome, message: &str) -> Outcome {
        let mut kept = None;
        self.change(|run| {
            let Some(stage) = run.stages.iter_mut().find(|s| s.name == stage.name) else { return };
            for record in stage.jobs.iter_mut().filter(|j| j.job == job.name) {
                // A rerun keeps what has ended well.
                if record.state == State::Completed {
                    kept = record.result;
                    continue;
                }
                (record.state, record.result, record.finished) =
                    (State::Completed, Some(outcome), Some(Timestamp::now()));
                message.clone_into(&mut record.message);
            }
        });
        kept.unwrap_or(outcome)
    }

    fn end_stage(&self, stage: &Stage, outcome: Outcome, message: &str) {
        self.change(|run| {
            if !message.is_empty() && run.message.is_empty() {
                run.message = format!("stage {}: {message}", stage.name);
            }
            let Some(record) = run.stages.iter_mut().find(|s| s.name == stage.name) else { return };
            let now = Timestamp::now();
            for job in record.jobs.iter_mut().filter(|j| j.state != State::Completed) {
                (job.state, job.result, job.finished) = (State::Completed, Some(outcome), Some(now));
            }
            (record.state, record.result, record.finished) = (State::Completed, Some(outcome), Some(now));
        });
        let shown = stage.display_name.as_deref().unwrap_or(&stage.name);
        if outcome != Outcome::Skipped {
            self.journey.hop(&self.engine, Hop::Stage, &format!("{shown} {}", outcome.name().to_lowercase()));
            let flow = format!("run {}: stage {shown} {}", self.id, outcome.name().to_lowercase());
            self.journey.flow(&self.engine, FlowRow::Trigger, outcome.good(), flow);
        }
        self.tell();
    }
}
