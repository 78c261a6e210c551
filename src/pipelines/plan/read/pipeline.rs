//! The pipeline itself.

use super::{Inherited, Reader};
use crate::{
    plan::{Plan, Resources, Stage, Trigger, Variable},
    template::{FileRef, Lazy, Map, Variables},
    yaml::Node,
};
use indexmap::IndexMap;
use serde_json::Value as Json;
use std::{rc::Rc, sync::Arc};

/// Azure's run number when a file names none.
const DEFAULT_NAME: &str = "$(Date:yyyyMMdd)$(Rev:.r)";

/// What a pipeline and the template it extends share.
#[derive(Default)]
struct Content {
    variables: Vec<Variable>,
    stages: Vec<Stage>,
}

impl Reader<'_> {
    /// Reads the whole pipeline.
    pub(super) fn pipeline(
        &mut self,
        root: &Rc<Node>,
        file: FileRef,
        values: &IndexMap<String, Json>,
        mut variables: Variables,
    ) -> Option<Plan> {
        let (mut map, parameters) = self.loader.root(root, file, values, Arc::clone(&variables))?;
        let name = self.some_text(&mut map, "name").unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let append_commit_message_to_run_name = self.flag(&mut map, "appendCommitMessageToRunName").unwrap_or(true);
        let trigger = map.take("trigger").map(|value| self.trigger(&value, false)).unwrap_or_default();
        let pr = match map.take("pr") {
            Some(value) => self.trigger(&value, true),
            None => Trigger { auto_cancel: true, drafts: true, ..Trigger::default() },
        };
        let schedules = map.take("schedules").map(|value| self.schedules(&value)).unwrap_or_default();
        let mut resources = Resources::default();
        if let Some(value) = map.take("resources") {
            self.resources(&value, &mut resources);
        }
        let lock_behavior = self.lock_behavior(&mut map);
        let content = self.content(map, &mut variables, &mut resources, &Inherited::default());
        let parameters = match parameters.to_json() {
            Json::Object(map) => map.into_iter().collect(),
            _ => IndexMap::new(),
        };
        Some(Plan {
            name,
            append_commit_message_to_run_name,
            trigger,
            pr,
            schedules,
            resources,
            parameters,
            variables: content.variables,
            lock_behavior,
            stages: content.stages,
            gaps: Vec::new(),
        })
    }

    /// `lockBehavior`.
    pub(super) fn lock_behavior(&mut self, map: &mut Map) -> Option<String> {
        let value = map.take("lockBehavior")?;
        let text = self.loader.text(&value)?;
        let allowed = ["sequential", "runLatest"];
        if !allowed.contains(&text.as_str()) {
            self.not_among(&value, &text, &allowed);
        }
        self.note("lockBehavior", &value.node.mark);
        Some(text)
    }

    /// Variables and stages, of the pipeline or of the template it extends.
    fn content(
        &mut self,
        mut map: Map,
        variables: &mut Variables,
        resources: &mut Resources,
        above: &Inherited,
    ) -> Content {
        let mut content = Content::default();
        if let Some(value) = map.take("variables") {
            content.variables = self.variables(&value, variables, crate::expression::Slot::PipelineVariable);
        }
        let mut inherited = above.clone();
        let pool = map.take("pool");
        if let Some(value) = &pool {
            inherited.pool = self.pool(&value.with(variables));
        }
        if let Some(value) = map.take("extends") {
            let extended = self.extends(&value.with(variables), variables, resources, &inherited);
            content.variables.extend(extended.variables);
            content.stages = extended.stages;
            self.loader.finish(map);
        } else if let Some(value) = map.take("stages") {
            content.stages = self.stages(&value.with(variables), variables, &inherited);
            self.loader.finish(map);
        } else if let Some(value) = map.take("jobs") {
            let location = map.mark.location();
            let jobs = self.jobs(&value.with(variables), variables, &inherited);
            content.stages = vec![Stage::default_stage(jobs, location)];
            self.loader.finish(map);
        } else if map.has("steps") {
            let location = map.mark.location();
            let job = self.only_job(map, variables, &inherited);
            content.stages = vec![Stage::default_stage(job.into_iter().collect(), location)];
        } else {
            let mark = map.mark.clone();
            self.loader.finish(map);
            let message = "The pipeline must contain 'stages', 'jobs', 'steps' or 'extends'";
            self.loader.error(&mark, message);
        }
        content
    }

    fn extends(
        &mut self,
        value: &Lazy,
        variables: &mut Variables,
        resources: &mut Resources,
        above: &Inherited,
    ) -> Content {
        let Some(mut map) = self.loader.map(value) else { return Content::default() };
        let Some(reference) = map.take("template") else {
            self.loader.error(&map.mark.clone(), "Expected a 'template' to extend");
            return Content::default();
        };
        let arguments = map.take("parameters");
        self.loader.finish(map);
        let Some(mut inner) = self.loader.open(&reference.with(variables), arguments.map(|a| a.with(variables))) else {
            return Content::default();
        };
        if let Some(value) = inner.take("resources") {
            self.resources(&value, resources);
        }
        let content = self.content(inner, variables, resources, above);
        self.loader.close();
        content
    }
}
