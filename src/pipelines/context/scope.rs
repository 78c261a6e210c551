//! What conditions and `$[ ]` see while a run is under way.

use crate::{
    expression::{Scope, Value, status_function},
    store::{
        RunStore,
        record::{JobRecord, Outcome, RunRecord, StageRecord},
    },
};
use std::ops::RangeInclusive;

/// Results that a condition asks about: those of all dependencies, direct or not.
pub struct Dependencies {
    /// By name; a job of several legs once with its result as a whole.
    pub results: Vec<(String, Option<Outcome>)>,
}

/// The scope of a stage's or job's condition, or of variables that are evaluated with it.
pub struct RunScope<'a> {
    /// `variables`.
    pub variables: Value,
    /// `dependencies`.
    pub dependencies: Value,
    /// `stageDependencies`.
    pub stage_dependencies: Value,
    /// `pipeline`.
    pub pipeline: Value,
    /// `resources`.
    pub resources: Value,
    /// What `succeeded()` and the others ask.
    pub results: Dependencies,
    /// Whether the run was told to end.
    pub canceled: bool,
    /// For `counter`.
    pub store: &'a RunStore,
    /// Pipeline whose counters they are.
    pub pipeline_name: &'a str,
}

impl RunScope<'_> {
    fn named(&self, arguments: &[Value]) -> Result<Vec<Option<Outcome>>, String> {
        if arguments.is_empty() {
            return Ok(self.results.results.iter().map(|(_, r)| *r).collect());
        }
        arguments
            .iter()
            .map(|argument| {
                let name = argument.text();
                let found = self.results.results.iter().find(|(n, _)| n.eq_ignore_ascii_case(&name));
                found.map(|(_, r)| *r).ok_or_else(|| format!("'{name}' is not a dependency"))
            })
            .collect()
    }
}

impl Scope for RunScope<'_> {
    fn context(&self, name: &str) -> Option<Value> {
        match name.to_ascii_lowercase().as_str() {
            "variables" => Some(self.variables.clone()),
            "dependencies" => Some(self.dependencies.clone()),
            "stagedependencies" => Some(self.stage_dependencies.clone()),
            "pipeline" => Some(self.pipeline.clone()),
            "resources" => Some(self.resources.clone()),
            _ => None,
        }
    }

    fn function(&self, name: &str) -> Option<RangeInclusive<usize>> {
        if name.eq_ignore_ascii_case("counter") {
            return Some(0..=2);
        }
        status_function(name, false)
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let bad = |o: &Option<Outcome>| matches!(o, Some(Outcome::Failed | Outcome::Lost));
        let good = |o: &Option<Outcome>| o.is_some_and(Outcome::good);
        let name = name.to_ascii_lowercase();
        let results = match name.as_str() {
            "always" => return Ok(true.into()),
            "canceled" => return Ok(self.canceled.into()),
            "counter" => return self.counter(arguments),
            _ => self.named(arguments)?,
        };
        let holds = match name.as_str() {
            "succeeded" => results.iter().all(good),
            "failed" => results.iter().any(bad),
            "succeededorfailed" => arguments.is_empty() || results.iter().any(|o| good(o) || bad(o)),
            _ => return Err(format!("Unrecognized value: '{name}'")),
        };
        Ok((holds && !self.canceled).into())
    }
}

impl RunScope<'_> {
    fn counter(&self, arguments: &[Value]) -> Result<Value, String> {
        let prefix = arguments.first().map(Value::text).unwrap_or_default();
        let seed = arguments.get(1).and_then(Value::number).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and seeds are small")]
        let next = self.store.next_counter(self.pipeline_name, &prefix, seed as i64).map_err(|e| e.to_string())?;
        Ok(Value::String(next.to_string()))
    }
}

/// The scope of a step's condition.
pub struct StepScope {
    /// `variables`.
    pub variables: Value,
    /// State of the job so far.
    pub status: Outcome,
}

impl Scope for StepScope {
    fn context(&self, name: &str) -> Option<Value> {
        name.eq_ignore_ascii_case("variables").then(|| self.variables.clone())
    }

    fn function(&self, name: &str) -> Option<RangeInclusive<usize>> {
        status_function(name, true)
    }

    fn call(&self, name: &str, _: &[Value]) -> Result<Value, String> {
        let value = match name.to_ascii_lowercase().as_str() {
            "always" => true,
            "canceled" => self.status == Outcome::Canceled,
            "succeeded" => self.status.good(),
            "failed" => self.status == Outcome::Failed,
            "succeededorfailed" => self.status != Outcome::Canceled,
            _ => return Err(format!("Unrecognized value: '{name}'")),
        };
        Ok(value.into())
    }
}

/// Result of a job whose legs have these results.
pub fn combined<'a>(records: impl IntoIterator<Item = &'a JobRecord>) -> Option<Outcome> {
    let mut all = None;
    for record in records {
        let result = record.result?;
        all = Some(all.map_or(result, |before: Outcome| before.and(result)));
    }
    all
}

/// `dependencies` of a job: the jobs that it waits for.
pub fn job_dependencies(stage: &StageRecord, names: &[String]) -> Value {
    names.iter().map(|name| (name.clone(), job_value(stage, name))).collect()
}

fn job_value(stage: &StageRecord, name: &str) -> Value {
    let legs: Vec<&JobRecord> = stage.jobs.iter().filter(|j| j.job == name).collect();
    let mut outputs = Vec::new();
    for record in &legs {
        for (key, output) in &record.outputs {
            let key = record.leg.as_ref().map_or_else(|| key.clone(), |leg| format!("{leg}.{key}"));
            outputs.push((key, Value::String(output.value.clone())));
        }
    }
    object([("result", result_value(combined(legs.iter().copied()))), ("outputs", outputs.into_iter().collect())])
}

/// `dependencies` of a stage: the stages that it waits for.
pub fn stage_dependencies(run: &RunRecord, names: &[String]) -> Value {
    let one = |name: &String| {
        let stage = run.stages.iter().find(|s| s.name == *name)?;
        let mut outputs = Vec::new();
        for record in &stage.jobs {
            for (key, output) in &record.outputs {
                let key = match &record.leg {
                    Some(leg) => format!("{}.{leg}.{key}", record.job),
                    None => format!("{}.{key}", record.job),
                };
                outputs.push((key, Value::String(output.value.clone())));
            }
        }
        let value = object([("result", result_value(stage.result)), ("outputs", outputs.into_iter().collect())]);
        Some((name.clone(), value))
    };
    names.iter().filter_map(one).collect()
}

/// `stageDependencies`: the jobs of all stages that are waited for, direct or not.
pub fn jobs_of_stages(run: &RunRecord, names: &[String]) -> Value {
    let one = |name: &String| {
        let stage = run.stages.iter().find(|s| s.name == *name)?;
        let mut jobs: Vec<String> = Vec::new();
        for record in &stage.jobs {
            if !jobs.contains(&record.job) {
                jobs.push(record.job.clone());
            }
        }
        Some((name.clone(), jobs.into_iter().map(|job| (job.clone(), job_value(stage, &job))).collect()))
    };
    names.iter().filter_map(one).collect()
}

fn result_value(result: Option<Outcome>) -> Value {
    result.map_or(Value::Null, |r| Value::String(if r == Outcome::Lost { "Failed" } else { r.name() }.to_owned()))
}

fn object<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
