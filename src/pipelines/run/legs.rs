//! `strategy: matrix` and `parallel`: how often a job runs, and with which variables.

use crate::{
    context::{RunContext, variables::Variables},
    expression::{self, Value},
    plan::{Job, Late, Legs, Stage, Work},
    store::record::JobRecord,
};
use indexmap::IndexMap;

/// Most legs of a job, as in Azure.
const MOST: usize = 256;

/// One run of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// Leg's name; none for a job that runs once.
    pub name: Option<String>,
    /// Variables of the leg.
    pub variables: IndexMap<String, String>,
    /// `System.JobPositionInPhase`, from 1.
    pub position: usize,
    /// `System.TotalJobsInPhase`.
    pub total: usize,
}

/// All runs of a job.
#[derive(Debug)]
pub struct AllLegs {
    /// In order.
    pub legs: Vec<Leg>,
    /// How many at once.
    pub max_parallel: Option<usize>,
}

/// Name of the record of a leg.
pub fn record_name(job: &str, leg: Option<&str>) -> String {
    leg.map_or_else(|| job.to_owned(), |leg| format!("{job} {leg}"))
}

/// The record of a leg before it begins.
pub fn record(job: &Job, leg: Option<&str>) -> JobRecord {
    let shown = job.display_name.clone().unwrap_or_else(|| job.name.clone());
    let environment = match &job.work {
        Work::Deployment(deployment) => Some(deployment.environment.name.clone()),
        Work::Steps(_) => None,
    };
    JobRecord {
        name: record_name(&job.name, leg),
        job: job.name.clone(),
        leg: leg.map(str::to_owned),
        display_name: record_name(&shown, leg),
        attempt: 1,
        environment,
        ..JobRecord::default()
    }
}

/// Records of the legs that are known before the run; one for the job when they are not.
pub fn known_records(job: &Job) -> Vec<JobRecord> {
    match &job.legs {
        Legs::Matrix { legs, .. } => legs.keys().map(|leg| record(job, Some(leg))).collect(),
        Legs::Parallel { count: Late::Known(count), .. } if (*count as usize) <= MOST => {
            (1..=*count).map(|n| record(job, Some(&n.to_string()))).collect()
        }
        _ => vec![record(job, None)],
    }
}

/// The legs of a job, evaluated.
pub fn of(context: &RunContext, stage: &Stage, job: &Job, variables: &Variables) -> Result<AllLegs, String> {
    let number = |late: &Late<u32>| -> Result<usize, String> {
        match late {
            Late::Known(value) => Ok(*value as usize),
            Late::Text(text) => {
                let text = text_of(context, stage, job, variables, text)?;
                text.trim().parse().map_err(|_| format!("job {}: '{text}' is not a number", job.name))
            }
        }
    };
    let limit = |late: &Option<Late<u32>>| late.as_ref().map(&number).transpose().map(|n| n.filter(|n| *n > 0));
    let (legs, max_parallel) = match &job.legs {
        Legs::Single => (vec![(None, IndexMap::new())], None),
        Legs::Matrix { legs, max_parallel } => {
            let legs = legs.iter().map(|(name, values)| (Some(name.clone()), values.clone())).collect();
            (legs, limit(max_parallel)?)
        }
        Legs::MatrixExpression { matrix, max_parallel } => {
            let text = text_of(context, stage, job, variables, matrix)?;
            (parse(&text).map_err(|e| format!("job {}: matrix: {e}", job.name))?, limit(max_parallel)?)
        }
        Legs::Parallel { count, max_parallel } => {
            let count = number(count)?.min(MOST + 1);
            ((1..=count).map(|n| (Some(n.to_string()), IndexMap::new())).collect(), limit(max_parallel)?)
        }
    };
    if legs.is_empty() || legs.len() > MOST {
        return Err(format!("job {}: {} legs; 1 to {MOST} are possible", job.name, legs.len()));
    }
    let total = legs.len();
    let one = |(index, (name, variables))| Leg { name, variables, position: index + 1, total };
    let legs: Vec<Leg> = legs.into_iter().enumerate().map(one).collect();
    replace_records(context, stage, job, &legs);
    Ok(AllLegs { legs, max_parallel })
}

fn text_of(
    context: &RunContext,
    stage: &Stage,
    job: &Job,
    variables: &Variables,
    text: &str,
) -> Result<String, String> {
    let scope = context.job_scope(stage, job, variables).ok_or("the run is gone")?;
    let evaluated = expression::evaluate_runtime(text, &scope).map_err(|e| e.to_string())?;
    Ok(evaluated.map_or_else(|| variables.expand(text), |v| v.text()))
}

type Parsed = Vec<(Option<String>, IndexMap<String, String>)>;

fn parse(text: &str) -> Result<Parsed, String> {
    type Legs = IndexMap<String, IndexMap<String, serde_json::Value>>;
    // Azure reads single quotes too, and its documentation uses them: that is a flow mapping of YAML.
    let single_quoted = || serde_saphyr::from_str::<Legs>(text).ok().filter(|_| text.trim_start().starts_with('{'));
    let json = match serde_json::from_str::<Legs>(text) {
        Ok(json) => json,
        Err(e) => single_quoted().ok_or_else(|| format!("{text:?} is not a JSON object of objects: {e}"))?,
    };
    let values = |map: IndexMap<String, serde_json::Value>| {
        map.into_iter().map(|(key, value)| (key, Value::from_json(&value).text())).collect()
    };
    Ok(json.into_iter().map(|(name, map)| (Some(name), values(map))).collect())
}

/// Puts records of the legs in the place of the job's one record, when they were not known before.
fn replace_records(context: &RunContext, stage: &Stage, job: &Job, legs: &[Leg]) {
    context.change(|run| {
        let Some(stage) = run.stages.iter_mut().find(|s| s.name == stage.name) else { return };
        for leg in legs {
            let name = record_name(&job.name, leg.name.as_deref());
            if !stage.jobs.iter().any(|j| j.name == name) {
                stage.jobs.push(record(job, leg.name.as_deref()));
            }
        }
        let known = |name: &str| legs.iter().any(|l| record_name(&job.name, l.name.as_deref()) == name);
        stage.jobs.retain(|j| j.job != job.name || known(&j.name));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_an_expression() {
        let legs = parse(r#"{"a": {"x": 1, "y": true}, "b": {"x": "two"}}"#).unwrap();
        assert_eq!(legs[0].0.as_deref(), Some("a"));
        assert_eq!((legs[0].1["x"].as_str(), legs[0].1["y"].as_str()), ("1", "True"));
        let legs = parse("{'a':{'x':'1'},'b':{'x':'2'}}").unwrap();
        assert_eq!((legs[1].0.as_deref(), legs[1].1["x"].as_str()), (Some("b"), "2"));
        assert!(parse("[]").is_err() && parse("").is_err() && parse("a: {x: 1}").is_err() && parse("{'a':").is_err());
    }
}
