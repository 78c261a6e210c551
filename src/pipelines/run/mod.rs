//! A run: plan → stages → jobs → steps, as one flow that can be read from top to bottom.

mod build_number;
mod condition;
mod graph;
mod job;
mod legs;
mod predefined;
mod stage;
mod statuses;
mod step;

use crate::{
    agent::git::Mirrors,
    context::{
        RunContext, RunJourney, journey,
        scope::{Dependencies, RunScope},
        variables::{self, Variables},
    },
    engine::{Engine, EngineError},
    expression::{self, Value},
    logging::mask::SecretMasker,
    plan::{self, Plan, Standing},
    store::{
        StoreError,
        record::{JobRecord, Outcome, RunRecord, RunRequest, StageRecord, State},
    },
};
use graph::Node;
use jiff::Timestamp;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Reads the plan of a request: fetches the commit and expands its pipeline.
///
/// # Errors
/// [`EngineError`]: the repository, or what is wrong with the pipeline.
pub async fn plan_of(engine: &Engine, request: &RunRequest) -> Result<Plan, EngineError> {
    let mirrors = Mirrors::new(engine.config.state_dir.join("mirrors"), engine.config.git.clone());
    let wanted = if request.commit.is_empty() { &request.reference } else { &request.commit };
    let snapshot = match mirrors.fetch(&request.clone_url, wanted).await {
        Ok(snapshot) => snapshot,
        // A host may serve branches alone; the commit is then in its branch.
        Err(error) if wanted == &request.commit => {
            let mut snapshot = mirrors.fetch(&request.clone_url, &request.reference).await.map_err(|_| error)?;
            snapshot.commit.clone_from(&request.commit);
            snapshot
        }
        Err(error) => return Err(error.into()),
    };
    let (file, parameters) = (request.file.clone(), request.parameters.clone().into_iter().collect());
    let variables = predefined::at_queue(engine, request);
    let loaded = tokio::task::spawn_blocking(move || {
        let source = snapshot.read_file(&file).map_err(|e| EngineError::Refused(e.to_string()))?;
        plan::load(&source, &file, &snapshot, &parameters, &variables).map_err(EngineError::Invalid)
    });
    loaded.await.map_err(|e| EngineError::Refused(format!("the plan could not be made: {e}")))?
}

/// What a run must refuse, unless told to leave it out.
pub fn refused(plan: &Plan) -> Vec<plan::Gap> {
    plan.gaps.iter().filter(|gap| gap.standing == Standing::Gap).cloned().collect()
}

/// Runs what the store has of a run: all of it, or, at a rerun, what has not ended well.
pub async fn execute(engine: Arc<Engine>, id: u64, cancel: CancellationToken) {
    let outcome = prepared(&engine, id, &cancel).await;
    let ended = match outcome {
        Ok(context) => {
            let outcome = context.stages().await;
            finish(&engine, id, outcome, None, Some(&context)).await
        }
        Err(error) => {
            let outcome = if cancel.is_cancelled() { Outcome::Canceled } else { Outcome::Failed };
            finish(&engine, id, outcome, Some(error.to_string()), None).await
        }
    };
    if let Err(error) = ended {
        tracing::error!(%error, run = id, "the end of a pipeline run could not be kept");
    }
    if let Err(error) = engine.store.retain(engine.config.keep_runs) {
        tracing::warn!(%error, "old pipeline runs could not be removed");
    }
}

/// Plan, number and variables of a run, before its first stage.
async fn prepared(engine: &Arc<Engine>, id: u64, cancel: &CancellationToken) -> Result<Arc<RunContext>, EngineError> {
    let record = engine.store.get(id)?;
    let journey = RunJourney::begin(engine, &record);
    statuses::post(engine, &record).await;
    let plan = tokio::select! {
        () = cancel.cancelled() => return Err(EngineError::Refused("The run was canceled.".into())),
        plan = plan_of(engine, &record.request) => plan?,
    };
    let gaps = refused(&plan);
    if !gaps.is_empty() && !record.request.skip_unsupported {
        return Err(EngineError::Unsupported(gaps));
    }
    let masker = Arc::new(SecretMasker::default());
    for secret in [&engine.access_token, &engine.webhook_secret] {
        masker.add(secret);
    }
    for connection in engine.config.registries.values() {
        masker.add(&connection.password);
    }
    masker.add(engine.config.git.as_ref().map_or("", |g| &g.token));
    let mut context = RunContext {
        engine: engine.clone(),
        id,
        plan,
        masker,
        cancel: cancel.clone(),
        variables: Variables::default(),
        journey,
    };
    context.variables = context.pipeline_variables(&record)?;
    let first = record.started.is_none();
    let name = if first { build_number::of(&context)? } else { record.name.clone() };
    context.variables.put_readonly("Build.BuildNumber", &name);
    engine.store.change(id, |run| {
        run.name = name;
        run.state = State::InProgress;
        run.started.get_or_insert_with(Timestamp::now);
        if run.stages.is_empty() {
            run.stages = context.plan.stages.iter().map(stage_record).collect();
        }
    })?;
    context.tell();
    Ok(Arc::new(context))
}

impl RunContext {
    async fn stages(self: &Arc<Self>) -> Outcome {
        let nodes = self.stage_nodes();
        let outcomes = graph::run(&nodes, &self.cancel, |index| {
            let context = self.clone();
            async move { context.stage(index).await }
        })
        .await;
        outcomes.values().copied().reduce(Outcome::and).unwrap_or(Outcome::Succeeded)
    }

    pub(super) fn stage_nodes(&self) -> Vec<Node> {
        let node = |s: &plan::Stage| Node { name: s.name.clone(), after: s.depends_on.clone() };
        self.plan.stages.iter().map(node).collect()
    }

    fn pipeline_variables(&self, record: &RunRecord) -> Result<Variables, EngineError> {
        let mut variables = predefined::of_run(self, record);
        let scope = RunScope {
            variables: Value::Null,
            dependencies: Value::Null,
            stage_dependencies: Value::Null,
            pipeline: self.pipeline_context(),
            resources: self.resources_context(),
            results: Dependencies { results: Vec::new() },
            canceled: false,
            store: &self.engine.store,
            pipeline_name: &record.request.pipeline,
        };
        self.add_variables(&mut variables, &self.plan.variables, scope)
            .map_err(|e| EngineError::Refused(e.to_string()))?;
        for (name, value) in &record.request.variables {
            let readonly = self.plan.variables.iter().any(|v| {
                matches!(v,
                plan::Variable::Value { name: n, readonly: true, .. } if n.eq_ignore_ascii_case(name))
            });
            if readonly {
                return Err(EngineError::Refused(format!("Overwriting readonly variable '{name}' is not permitted.")));
            }
            variables.put(name, value);
        }
        variables.teach(&self.masker);
        Ok(variables)
    }

    /// Adds the variables of a level, evaluating `$[ ]` with what is known at that moment.
    pub(super) fn add_variables(
        &self,
        variables: &mut Variables,
        level: &[plan::Variable],
        mut scope: RunScope<'_>,
    ) -> Result<(), EngineError> {
        for variable in level {
            match variable {
                plan::Variable::Value { name, value, readonly, .. } => {
                    scope.variables = variables.context();
                    let evaluated = expression::evaluate_runtime(value, &scope)
                        .map_err(|e| EngineError::Refused(format!("variable {name}: {e}")))?;
                    let value = evaluated.map_or_else(|| value.clone(), |v| v.text());
                    // What an expression makes of a secret is one.
                    let secret = variables.iter().any(|v| v.secret && !v.value.is_empty() && value.contains(&v.value));
                    variables.insert(variables::Variable { name: name.clone(), value, secret, readonly: *readonly });
                }
                plan::Variable::Group { group, location } => {
                    let Some(values) = self.engine.config.groups.get(group) else {
                        return Err(EngineError::Refused(format!(
                            "{location}: Variable group {group} could not be found. Declare it under [pipelines] in aksim.toml."
                        )));
                    };
                    for (name, value) in values {
                        let secret = value.secret;
                        let value = value.value.clone();
                        variables.insert(variables::Variable { name: name.clone(), value, secret, readonly: false });
                    }
                }
            }
        }
        variables.teach(&self.masker);
        Ok(())
    }

    /// `resources` of expressions: name, branch and kind of the repositories, `self` among them.
    fn resources_context(&self) -> Value {
        let own = self.record().ok().map(|r| r.request).map(|request| {
            let own = [("name", request.repository), ("ref", request.reference), ("version", request.commit)];
            ("self".to_owned(), texts(own))
        });
        let others = self.plan.resources.repositories.iter().map(|r| {
            let texts = texts([("name", r.name.clone()), ("ref", r.reference.clone()), ("type", r.kind.clone())]);
            (r.alias.clone(), texts)
        });
        let repositories: Value = own.into_iter().chain(others).collect();
        [("repositories".to_owned(), repositories)].into_iter().collect()
    }

    /// `pipeline` of expressions.
    pub(super) fn pipeline_context(&self) -> Value {
        let start = self.record().ok().map(|r| r.started.unwrap_or(r.queued).to_string()).unwrap_or_default();
        [("startTime".to_owned(), Value::String(start))].into_iter().collect()
    }
}

fn stage_record(stage: &plan::Stage) -> StageRecord {
    StageRecord {
        name: stage.name.clone(),
        display_name: stage.display_name.clone().unwrap_or_else(|| stage.name.clone()),
        attempt: 1,
        jobs: stage.jobs.iter().flat_map(legs::known_records).collect(),
        ..StageRecord::default()
    }
}

/// Keeps the end of a run and tells it: event, journey, commit status.
async fn finish(
    engine: &Arc<Engine>,
    id: u64,
    outcome: Outcome,
    message: Option<String>,
    context: Option<&Arc<RunContext>>,
) -> Result<(), StoreError> {
    let record = engine.store.change(id, |run| {
        run.state = State::Completed;
        run.result = Some(outcome);
        run.finished = Some(Timestamp::now());
        if let Some(message) = message {
            run.message = message;
        }
        run.clone()
    })?;
    engine.active.lock().remove(&id);
    engine.record(journey::event_of(&record));
    match context {
        Some(context) => context.journey.end(engine, &record),
        None => RunJourney::begin(engine, &record).end(engine, &record),
    }
    statuses::post(engine, &record).await;
    Ok(())
}

/// Makes what has not ended well pending again, one attempt later; `false` when there is nothing of the kind.
pub fn reset_failed(run: &mut RunRecord) -> bool {
    let failed = |result: Option<Outcome>| !result.is_some_and(Outcome::good);
    if run.state != State::Completed || !failed(run.result) {
        return false;
    }
    for stage in run.stages.iter_mut().filter(|s| failed(s.result)) {
        (stage.state, stage.result, stage.finished) = (State::Pending, None, None);
        stage.attempt += 1;
        for job in stage.jobs.iter_mut().filter(|j| failed(j.result)) {
            *job = JobRecord {
                name: std::mem::take(&mut job.name),
                job: std::mem::take(&mut job.job),
                leg: job.leg.take(),
                display_name: std::mem::take(&mut job.display_name),
                environment: job.environment.take(),
                attempt: job.attempt + 1,
                ..JobRecord::default()
            };
        }
    }
    (run.state, run.result, run.finished) = (State::Pending, None, None);
    run.message.clear();
    true
}

fn texts<const N: usize>(fields: [(&str, String); N]) -> Value {
    fields.into_iter().map(|(name, text)| (name.to_owned(), Value::String(text))).collect()
}
