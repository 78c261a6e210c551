//! Names and dependencies: of stages in the pipeline, of jobs in a stage.

use super::{Job, Stage};
use crate::error::{Location, PipelineError};
use aksim_model::suggest::nearest;
use std::collections::{HashMap, HashSet};

/// A named thing that depends on others.
struct Vertex<'a> {
    name: &'a str,
    depends_on: &'a [String],
    location: &'a Location,
}

/// Checks names, dependencies and cycles.
pub fn check(stages: &[Stage]) -> Vec<PipelineError> {
    let vertices: Vec<_> =
        stages.iter().map(|s| Vertex { name: &s.name, depends_on: &s.depends_on, location: &s.location }).collect();
    let mut errors = check_graph("Stage", "stage", "", &vertices);
    for stage in stages {
        let jobs: Vec<_> = stage
            .jobs
            .iter()
            .map(|j: &Job| Vertex { name: &j.name, depends_on: &j.depends_on, location: &j.location })
            .collect();
        let within = if stage.name == "__default" { String::new() } else { format!("Stage {} ", stage.name) };
        let title = if within.is_empty() { "Job" } else { "job" };
        errors.extend(check_graph(title, "job", &within, &jobs));
    }
    errors
}

fn check_graph(title: &str, kind: &str, within: &str, vertices: &[Vertex<'_>]) -> Vec<PipelineError> {
    let mut errors = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (at, vertex) in vertices.iter().enumerate() {
        let name = vertex.name;
        if !is_name(name) {
            let message = format!(
                "The {kind} name {name} is not valid. Valid names may only contain alphanumeric characters and '_' \
                 and may not start with a number."
            );
            errors.push(PipelineError::new(vertex.location.clone(), message));
        }
        if known.insert(name.to_lowercase(), at).is_some() {
            let capital = title.to_lowercase();
            let message = format!(
                "The {capital} name {name} appears more than once. {} names must be unique within a {}.",
                if kind == "stage" { "Stage" } else { "Job" },
                if kind == "stage" { "pipeline" } else { "stage" },
            );
            errors.push(PipelineError::new(vertex.location.clone(), message));
        }
    }
    for vertex in vertices {
        for needed in vertex.depends_on {
            let message = if needed.eq_ignore_ascii_case(vertex.name) {
                format!("{within}{title} {} depends on itself.", vertex.name)
            } else if known.contains_key(&needed.to_lowercase()) {
                continue;
            } else {
                format!("{within}{title} {} depends on unknown {kind} {needed}.", vertex.name)
            };
            let near = nearest(needed, vertices.iter().map(|v| v.name).filter(|name| *name != vertex.name));
            let error = PipelineError::new(vertex.location.clone(), message);
            errors.push(match near {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error,
            });
        }
    }
    if errors.is_empty() {
        errors.extend(cycle(title, kind, within, vertices, &known));
    }
    errors
}

/// The first cycle, walked without recursion: a chain of dependencies may be long.
fn cycle(
    title: &str,
    kind: &str,
    within: &str,
    vertices: &[Vertex<'_>],
    known: &HashMap<String, usize>,
) -> Option<PipelineError> {
    let mut done = HashSet::new();
    for start in 0..vertices.len() {
        let mut path = vec![(start, 0)];
        let mut open = HashSet::from([start]);
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            let Some(needed) = vertices[at].depends_on.get(*next) else {
                path.pop();
                open.remove(&at);
                done.insert(at);
                continue;
            };
            *next += 1;
            let Some(&to) = known.get(&needed.to_lowercase()) else { continue };
            if open.contains(&to) {
                let message = format!(
                    "{within}{title} {} depends on {kind} {} which creates a cycle in the dependency graph.",
                    vertices[at].name, vertices[to].name
                );
                return Some(PipelineError::new(vertices[at].location.clone(), message));
            }
            if !done.contains(&to) {
                open.insert(to);
                path.push((to, 0));
            }
        }
    }
    None
}

/// Letters, digits and `_`, not beginning with a digit.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
