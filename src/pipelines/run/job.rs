//! A job on an agent: folders, variables, steps one after the other, and what is left behind ended.

use super::{
    condition, legs, predefined,
    step::{self, StepEnd},
};
use crate::{
    agent::{
        containers::{JobContainers, Needs, Start},
        pool::Agent,
        process,
    },
    context::{HOOK_MARK, INCREMENT, JobContext, JobState, RunContext, issue, scope::StepScope, variables::Variables},
    environments::Deployed,
    expression,
    plan::{Deployment, DeploymentStrategy, Hook, Job, Late, Step, Work},
    store::{
        StepLog,
        record::{Outcome, OutputValue, State, StepRecord},
    },
};
use jiff::Timestamp;
use legs::Leg;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Minutes of a job, and of its end after a cancellation, when the pipeline says nothing.
const DEFAULT_TIMEOUT: u32 = 60;
const DEFAULT_CANCEL_TIMEOUT: u32 = 5;

/// A list of steps with variables of its own: the job's, or those of a lifecycle hook.
struct Phase<'a> {
    hook: Option<&'static str>,
    steps: &'a [Step],
    variables: Vec<(&'static str, String)>,
    when: When,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Succeeded,
    Failed,
}

/// Runs one leg of a job; its outcome as it counts for what follows. `late`: its condition held although the run had
/// been cancelled. That is asked once: a cancellation after it ends the job, however far that has got.
pub(super) async fn run(
    run: Arc<RunContext>,
    stage_index: usize,
    job_index: usize,
    leg: Leg,
    variables: Variables,
    late: bool,
) -> Outcome {
    let stage = &run.plan.stages[stage_index];
    let job = &stage.jobs[job_index];
    let name = legs::record_name(&job.name, leg.name.as_deref());
    let kept = run.record().ok().and_then(|r| {
        let record = r.job(&stage.name, &name)?;
        (record.state == State::Completed).then_some(record.result).flatten()
    });
    if let Some(result) = kept {
        return result;
    }
    // A job that is to run although its run was cancelled waits for its agent like any other.
    let cancel = if late { CancellationToken::new() } else { run.cancel.child_token() };
    let pipeline = variables.get("Build.DefinitionName").unwrap_or_default();
    let known_as = format!("{pipeline}/{}/{name}", stage.name);
    let ended = match run.engine.agents.acquire(&known_as, &cancel).await {
        Some(agent) => on_agent(&run, &stage.name, job, &leg, variables, &agent, cancel).await,
        None => Ended { outcome: Outcome::Canceled, ..Ended::default() },
    };
    let continues = matches!(&job.continue_on_error, Some(Late::Known(true)))
        || matches!(&job.continue_on_error, Some(Late::Text(t)) if ended.true_text(t));
    let outcome =
        if continues && ended.outcome == Outcome::Failed { Outcome::SucceededWithIssues } else { ended.outcome };
    run.change(|record| {
        let Some(record) = record.job_mut(&stage.name, &name) else { return };
        for step in record.steps.iter_mut().filter(|s| s.state != State::Completed) {
            (step.state, step.result) = (State::Completed, Some(Outcome::Skipped));
        }
        (record.state, record.result, record.finished) = (State::Completed, Some(outcome), Some(Timestamp::now()));
        record.outputs = ended.outputs.clone();
        if record.message.is_empty() {
            record.message.clone_from(&ended.message);
        }
    });
    if let Some(environment) = ended.environment {
        let deployed = Deployed {
            run: run.id,
            stage: stage.name.clone(),
            job: name,
            result: outcome.name().to_owned(),
            at: Timestamp::now(),
        };
        if let Err(error) = run.engine.environments.deployed(&environment, deployed) {
            tracing::warn!(%error, "a deployment is not in the environment's history");
        }
    }
    run.tell();
    outcome
}

struct Ended {
    outcome: Outcome,
    outputs: BTreeMap<String, OutputValue>,
    message: String,
    environment: Option<String>,
    variables: Variables,
}

impl Default for Ended {
    fn default() -> Self {
        Self {
            outcome: Outcome::Failed,
            outputs: BTreeMap::new(),
            message: String::new(),
            environment: None,
            variables: Variables::default(),
        }
    }
}

impl Ended {
    fn true_text(&self, text: &str) -> bool {
        self.variables.expand(text).trim().eq_ignore_ascii_case("true")
    }
    fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}

async fn on_agent(
    run: &Arc<RunContext>,
    stage: &str,
    job: &Job,
    leg: &Leg,
    mut variables: Variables,
    agent: &Agent,
    cancel: CancellationToken,
) -> Ended {
    let name = legs::record_name(&job.name, leg.name.as_deref());
    let pipeline = variables.get("Build.DefinitionName").unwrap_or("pipeline").to_owned();
    let prepared = run.engine.agents.prepare(agent, &pipeline, job.workspace_clean.as_deref());
    let workspace = match prepared {
        Ok(workspace) => workspace,
        Err(error) => return Ended::failed(format!("agent {}: work folder: {error}", agent.name)),
    };
    for (key, value) in &leg.variables {
        variables.put(key, value.clone());
    }
    predefined::of_job(&mut variables, run, job, &name, leg, agent, &workspace);
    let environment = match &job.work {
        Work::Deployment(deployment) => Some(predefined::of_environment(&mut variables, deployment, run.id)),
        Work::Steps(_) => None,
    };
    variables.expand_values();
    variables.teach(&run.masker);
    let phases = phases(&job.work);
    let steps: Vec<(&Phase<'_>, &Step)> = phases.iter().flat_map(|p| p.steps.iter().map(move |s| (p, s))).collect();
    let needs = match needs(run, job, &steps, &variables) {
        Ok(needs) => needs,
        Err(message) => return Ended::failed(message),
    };
    let context = JobContext {
        run: run.clone(),
        stage: stage.to_owned(),
        name,
        checkouts: phases.iter().flat_map(|p| p.steps).filter(|s| step::is_checkout(s)).count(),
        workspace,
        agent_home: agent.home.clone(),
        state: Mutex::new(JobState {
            variables: variables.clone(),
            prepends: Vec::new(),
            outputs: BTreeMap::new(),
            status: Outcome::Succeeded,
            checkouts: 0,
            restore: Vec::new(),
            caches: Vec::new(),
        }),
        cancel,
        hard: CancellationToken::new(),
        lookup: format!("vsts_{:032x}", rand::random::<u128>()),
        needs,
        containers: OnceLock::new(),
    };
    let log = match context.begin(&steps, &agent.name, environment.as_deref(), &variables) {
        Ok(log) => log,
        Err(message) => return Ended::failed(message),
    };
    run.tell();
    let minutes = |late: &Option<Late<u32>>, default: u32| match late {
        Some(Late::Known(minutes)) => *minutes,
        Some(Late::Text(text)) => variables.expand(text).trim().parse().unwrap_or(default),
        None => default,
    };
    let timeout = minutes(&job.timeout_in_minutes, DEFAULT_TIMEOUT);
    let grace = minutes(&job.cancel_timeout_in_minutes, DEFAULT_CANCEL_TIMEOUT);
    let message = context.watched(&phases, timeout, grace, &log).await;
    if context.state.lock().status.good() {
        crate::steps::cache::finish(&context);
    }
    context.leave(agent).await;
    if let Some(containers) = context.containers.into_inner() {
        log.section("Starting: Stop Containers");
        if let Err(left) = containers.stop().await {
            log.warning(&left);
        }
        log.section("Finishing: Stop Containers");
    }
    let state = context.state.into_inner();
    let outputs = match &job.work {
        Work::Deployment(deployment) => deployment_outputs(&job.name, deployment, state.outputs),
        Work::Steps(_) => state.outputs.into_iter().map(|(key, value)| (plain_key(&key), value)).collect(),
    };
    Ended { outcome: state.status, outputs, message, environment, variables: state.variables }
}

impl JobContext {
    /// Runs the phases under the job's clock; what there is to say about the clock.
    async fn watched(&self, phases: &[Phase<'_>], timeout: u32, grace: u32, log: &StepLog) -> String {
        let steps = async {
            let initialized = self.initialize_containers(log).await;
            if initialized.is_ok() {
                self.phases(phases).await;
            }
            initialized.err().unwrap_or_default()
        };
        tokio::pin!(steps);
        let far = Duration::from_secs(365 * 24 * 3600);
        let limit = if timeout == 0 { far } else { self.run.minutes(timeout) };
        let timer = tokio::time::sleep(limit);
        tokio::pin!(timer);
        let message = tokio::select! {
            message = &mut steps => return message,
            () = self.cancel.cancelled() => String::new(),
            () = &mut timer => {
                self.cancel.cancel();
                format!("The job running on agent {} ran longer than the maximum time of {timeout} minutes.",
                    self.agent_home.file_name().unwrap_or_default().to_string_lossy())
            }
        };
        if tokio::time::timeout(self.run.minutes(grace.max(1)), &mut steps).await.is_err() {
            self.hard.cancel();
            // Every step ends by its token: processes are killed, and waits give up.
            steps.await;
        }
        message
    }

    /// Starts the containers of the job, before its first step.
    async fn initialize_containers(&self, log: &StepLog) -> Result<(), String> {
        if self.needs.is_empty() {
            return Ok(());
        }
        let Some(cluster) = &self.run.engine.config.cluster else {
            self.state.lock().status = Outcome::Failed;
            return Err("containers of jobs run in the cluster, and there is none in this environment".to_owned());
        };
        let start = Start { cluster, needs: &self.needs, agent_home: &self.agent_home, run: self.run.id, log };
        match JobContainers::start(start, &self.cancel).await {
            Ok(containers) => {
                for (name, value) in &containers.variables {
                    self.state.lock().variables.put_readonly(name, value);
                }
                // Set once: a job initializes its containers once.
                let _ = self.containers.set(containers);
                Ok(())
            }
            Err(Some(message)) => {
                log.error(&message);
                self.state.lock().status = Outcome::Failed;
                Err(message)
            }
            Err(None) => {
                self.state.lock().status = Outcome::Canceled;
                Err(String::new())
            }
        }
    }

    async fn phases(&self, phases: &[Phase<'_>]) {
        let mut index = 0;
        let (mut all, mut failed) = (Outcome::Succeeded, false);
        for phase in phases {
            let wanted = match phase.when {
                When::Succeeded => !failed,
                When::Failed => failed,
            };
            if !wanted {
                index += phase.steps.len();
                continue;
            }
            if phase.hook.is_some() {
                // A hook is a job of its own: its conditions ask about its own steps.
                self.state.lock().status =
                    if self.cancel.is_cancelled() { Outcome::Canceled } else { Outcome::Succeeded };
                let mut state = self.state.lock();
                // Only the hooks that run once for each increment know it.
                state.variables.remove(INCREMENT);
                for (key, value) in &phase.variables {
                    state.variables.put_readonly(key, value);
                }
            }
            for step in phase.steps {
                self.step(index, step, phase.hook).await;
                index += 1;
            }
            let status = self.state.lock().status;
            failed |= !status.good();
            all = all.and(status);
        }
        self.state.lock().status = all;
    }

    /// One step: its condition, its run, and what follows for the job.
    async fn step(&self, index: usize, step: &Step, hook: Option<&'static str>) {
        if self.cancel.is_cancelled() {
            self.state.lock().status = Outcome::Canceled;
        }
        let holds = step.enabled.then(|| condition::holds(step.condition.as_deref(), &self.scope()));
        let end = match holds {
            None | Some(Ok(false)) => StepEnd { outcome: Outcome::Skipped, ..StepEnd::default() },
            Some(Ok(true)) => step::run(self, index, step, hook).await,
            Some(Err(error)) => StepEnd::failed(format!("{}: condition: {error}", step.location)),
        };
        self.end_step(index, &end);
        let mut state = self.state.lock();
        state.status = match (state.status, end.outcome) {
            (status, Outcome::Skipped | Outcome::Succeeded) => status,
            (Outcome::Canceled, _) => Outcome::Canceled,
            (_, Outcome::Canceled) => Outcome::Canceled,
            (status, outcome) => status.and(outcome),
        };
        let status = state.status.name();
        state.variables.put_readonly("Agent.JobStatus", status);
    }

    fn end_step(&self, index: usize, end: &StepEnd) {
        let message = self.run.masker.mask(&end.message);
        self.change_step(index, |step| {
            (step.state, step.result) = (State::Completed, Some(end.outcome));
            if end.outcome != Outcome::Skipped {
                step.finished = Some(Timestamp::now());
            }
            if !message.is_empty() && step.issues.iter().all(|i| i.message != message) {
                step.issues.push(issue("error", &message));
            }
        });
        self.run.tell();
    }

    fn begin(
        &self,
        steps: &[(&Phase<'_>, &Step)],
        agent: &str,
        environment: Option<&str>,
        variables: &Variables,
    ) -> Result<StepLog, String> {
        let mut first = 0;
        self.run.change(|run| {
            first = run.last_log + 1;
            run.last_log += u32::try_from(steps.len()).unwrap_or(0) + 1;
            let Some(job) = run.job_mut(&self.stage, &self.name) else { return };
            job.state = State::InProgress;
            job.started = Some(Timestamp::now());
            agent.clone_into(&mut job.agent);
            job.lookup.clone_from(&self.lookup);
            job.environment = environment.map(str::to_owned);
            let record = |(number, (phase, step)): (usize, &(&Phase<'_>, &Step))| StepRecord {
                name: step.name.clone().unwrap_or_default(),
                display_name: step::display_name(step, phase.hook, variables),
                task: step::task_name(step),
                log: first + 1 + u32::try_from(number).unwrap_or(0),
                ..StepRecord::default()
            };
            job.steps = steps.iter().enumerate().map(record).collect();
        });
        let run_log = self.run.engine.store.log(self.run.id).map_err(|e| e.to_string())?;
        let log = StepLog::open(run_log, self.run.masker.clone(), &self.stage, &self.name, first)
            .map_err(|e| format!("the log cannot be written: {e}"))?;
        log.section(&format!("Starting: {}", self.name));
        log.write(&format!("Agent name: '{agent}'"));
        log.write(&format!("Agent version: 'aksim/{}'", env!("CARGO_PKG_VERSION")));
        log.write(&format!("Current working folder: '{}'", self.workspace.root.display()));
        Ok(log)
    }

    /// Ends what the job left running, as the agent does, and empties the temporary folder.
    async fn leave(&self, agent: &Agent) {
        for (id, name) in process::end_orphans(&self.lookup).await {
            tracing::info!(agent = agent.name, id, name, "terminated an orphan process of a pipeline job");
        }
        for (path, text) in std::mem::take(&mut self.state.lock().restore) {
            if let Err(error) = aksim_runtime::files::write_atomic(&path, text.as_bytes(), aksim_runtime::files::PUBLIC)
            {
                tracing::error!(%error, path = %path.display(), "credentials stay in a git configuration");
            }
        }
        if let Err(error) = crate::agent::pool::remove_tree(&self.workspace.temp) {
            tracing::warn!(%error, "temporary folder of a pipeline job");
        }
    }
}

/// The containers that a job needs, with the values of its variables.
fn needs(run: &RunContext, job: &Job, steps: &[(&Phase<'_>, &Step)], variables: &Variables) -> Result<Needs, String> {
    let scope = StepScope { variables: variables.context(), status: Outcome::Succeeded };
    let expand = |text: &str| match expression::evaluate_runtime(text, &scope) {
        Ok(Some(value)) => Ok(value.text()),
        Ok(None) => Ok(variables.expand(text)),
        Err(error) => Err(format!("{}: container: {error}", job.location)),
    };
    let steps: Vec<&Step> = steps.iter().map(|(_, step)| *step).collect();
    Needs::of(job, &steps, &run.plan.resources.containers, &expand)
}

/// Phases of a job in the order they run.
fn phases(work: &Work) -> Vec<Phase<'_>> {
    let deployment = match work {
        Work::Steps(steps) => {
            return vec![Phase { hook: None, steps, variables: Vec::new(), when: When::Succeeded }];
        }
        Work::Deployment(deployment) => deployment,
    };
    let hooks = deployment.strategy.hooks();
    let mut phases = Vec::new();
    let mut add = |hook: &'static str, found: &Option<Hook>, when, variables: &[(&'static str, String)]| {
        if let Some(Hook { steps, .. }) = found_in(work, hook, found) {
            phases.push(Phase { hook: Some(hook), steps, variables: variables.to_vec(), when });
        }
    };
    let action = |action: &str, increment: Option<u32>| {
        let mut variables =
            vec![("Strategy.Name", strategy_name(deployment).to_owned()), ("Strategy.Action", action.to_owned())];
        variables.extend(increment.map(|i| (INCREMENT, i.to_string())));
        variables
    };
    add("preDeploy", &hooks.pre_deploy, When::Succeeded, &action("deploy", None));
    let rounds: Vec<Option<u32>> = match &deployment.strategy {
        DeploymentStrategy::Canary { increments, .. } => increments.iter().copied().chain([100]).map(Some).collect(),
        // An environment here has no machines: the one target is the cluster, so there is one round.
        DeploymentStrategy::RunOnce(_) | DeploymentStrategy::Rolling { .. } => vec![None],
    };
    for round in rounds {
        add("deploy", &hooks.deploy, When::Succeeded, &action("deploy", round));
        add("routeTraffic", &hooks.route_traffic, When::Succeeded, &action("deploy", round));
        add("postRouteTraffic", &hooks.post_route_traffic, When::Succeeded, &action("deploy", round));
    }
    add("on.failure", &hooks.on_failure, When::Failed, &action("reject", None));
    add("on.success", &hooks.on_success, When::Succeeded, &action("promote", None));
    phases
}

/// The hook with the lifetime of the job.
fn found_in<'a>(work: &'a Work, name: &str, found: &Option<Hook>) -> Option<&'a Hook> {
    found.as_ref()?;
    let Work::Deployment(deployment) = work else { return None };
    deployment.strategy.hooks().all().find(|(hook, _)| *hook == name).map(|(_, hook)| hook)
}

fn strategy_name(deployment: &Deployment) -> &'static str {
    match deployment.strategy {
        DeploymentStrategy::RunOnce(_) => "runOnce",
        DeploymentStrategy::Rolling { .. } => "rolling",
        DeploymentStrategy::Canary { .. } => "canary",
    }
}

fn plain_key(key: &str) -> String {
    key.split_once(HOOK_MARK).map_or(key, |(_, rest)| rest).to_owned()
}

/// Names of a deployment's outputs: `JOB.step.variable` for runOnce, `HOOK.step.variable`, with a resource
/// `HOOK_RESOURCE.step.variable`, and `HOOK_INCREMENT.step.variable` for the rounds of a canary.
fn deployment_outputs(
    job: &str,
    deployment: &Deployment,
    outputs: BTreeMap<String, OutputValue>,
) -> BTreeMap<String, OutputValue> {
    let mut named = BTreeMap::new();
    for (key, value) in outputs {
        let (hook, rest) = key.split_once(HOOK_MARK).unwrap_or(("", &key));
        let mut names = vec![format!("{job}.{rest}"), format!("{hook}.{rest}")];
        if let Some(resource) = &deployment.environment.resource_name {
            names.push(format!("{hook}_{resource}.{rest}"));
            // Azure documents the hook with a capital in examples of the rolling strategy.
            let mut letters = hook.chars();
            let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
            names.push(format!("{capital}_{resource}.{rest}"));
        }
        named.extend(names.into_iter().map(|name| (name, value.clone())));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_deployments_are_named_by_hook_resource_and_increment() {
        let deployment = |environment: serde_json::Value, strategy: serde_json::Value| -> Deployment {
            serde_json::from_value(serde_json::json!({"environment": environment, "strategy": strategy})).unwrap()
        };
        let names = |deployment: &Deployment, hook: &str| -> Vec<String> {
            let value = OutputValue { value: "1".into(), secret: false };
            let outputs = BTreeMap::from([(format!("{hook}{HOOK_MARK}set.v"), value)]);
            deployment_outputs("web", deployment, outputs).into_keys().collect()
        };
        let (plain, resource) =
            (serde_json::json!({"name": "aks"}), serde_json::json!({"name": "aks", "resourceName": "shop"}));
        let run_once = serde_json::json!({"runOnce": {}});
        assert_eq!(names(&deployment(plain.clone(), run_once.clone()), "deploy"), ["deploy.set.v", "web.set.v"]);
        assert!(names(&deployment(resource, run_once), "deploy").contains(&"Deploy_shop.set.v".to_owned()));
        let canary = serde_json::json!({"canary": {"increments": [10], "hooks": {}}});
        assert!(names(&deployment(plain, canary), "deploy_10").contains(&"deploy_10.set.v".to_owned()));
    }
}
