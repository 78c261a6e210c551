//! Expanded nodes → [`Plan`].

mod deployment;
mod job;
mod pipeline;
mod resources;
mod scalars;
mod stage;
mod step;
mod triggers;
mod variables;

use super::{Gap, Plan, Pool, Standing, graph};
use crate::{
    error::PipelineError,
    expression::Value,
    plan::fidelity,
    template::{FileRef, Loader, TemplateSource},
    yaml::{Mark, parse},
};
use indexmap::IndexMap;
use serde_json::Value as Json;
use std::{collections::HashMap, rc::Rc, sync::Arc};

/// Reads a pipeline and everything it includes.
///
/// `source` is the text of `root_file`, a path in the pipeline's own repository; `parameters` are the values of
/// this run by name (texts as people give them, or JSON); `variables` are the predefined and queue-time variables
/// that `${{ variables }}` sees.
///
/// # Errors
/// Everything that is wrong, in order of file and line.
pub fn load(
    source: &str,
    root_file: &str,
    files: &dyn TemplateSource,
    parameters: &IndexMap<String, Json>,
    variables: &IndexMap<String, String>,
) -> Result<Plan, Vec<PipelineError>> {
    let root = parse(source, root_file)?;
    let Some(root) = root else {
        let whole = Mark::file(root_file).location();
        return Err(vec![PipelineError::new(whole, "The pipeline is empty").hint("a pipeline has `steps:` at least")]);
    };
    let known = variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let file = FileRef { repository: "self".to_owned(), path: root_file.to_owned() };
    let mut reader = Reader { loader: Loader::new(files), gaps: Vec::new(), pipelines: HashMap::new() };
    let plan = reader.pipeline(&Rc::new(root), file, parameters, Arc::new(known));
    let mut errors = reader.loader.errors;
    match plan {
        Some(mut plan) => {
            errors.extend(graph::check(&plan.stages));
            if errors.is_empty() {
                reader.gaps.sort_by(|a, b| (&a.location, &a.what).cmp(&(&b.location, &b.what)));
                reader.gaps.dedup();
                plan.gaps = reader.gaps;
                return Ok(plan);
            }
        }
        None if errors.is_empty() => {
            errors.push(PipelineError::new(Mark::file(root_file).location(), "The pipeline is not valid."));
        }
        None => {}
    }
    errors.sort();
    errors.dedup();
    Err(errors)
}

/// Reads expanded nodes; notes what is not as in Azure.
struct Reader<'a> {
    loader: Loader<'a>,
    gaps: Vec<Gap>,
    /// `resources: pipelines`, by alias: the name of the pipeline.
    pipelines: HashMap<String, String>,
}

/// What a stage or job inherits.
#[derive(Clone, Debug, Default)]
struct Inherited {
    pool: Option<Pool>,
    /// Job name for messages.
    job: String,
}

impl Reader<'_> {
    /// Notes the use of a construct, when its table says that it is not as in Azure.
    fn note(&mut self, construct: &'static str, mark: &Mark) {
        if let Some(entry) = fidelity::construct(construct) {
            self.gap(construct, entry.standing, &entry.consequence, mark);
        }
    }

    fn gap(&mut self, what: &str, standing: Standing, consequence: &str, mark: &Mark) {
        if standing != Standing::Works {
            let (what, consequence) = (what.to_owned(), consequence.to_owned());
            self.gaps.push(Gap { what, standing, consequence, location: mark.location() });
        }
    }
}
