//! Stages.

use super::{Inherited, Reader};
use crate::{
    error::Location,
    expression::Slot,
    plan::{Job, Stage},
    template::{Lazy, Map, Variables},
};

impl Stage {
    /// The one stage of a pipeline that names none.
    pub(super) fn default_stage(jobs: Vec<Job>, location: Location) -> Self {
        Self {
            name: "__default".to_owned(),
            display_name: None,
            depends_on: Vec::new(),
            condition: None,
            variables: Vec::new(),
            lock_behavior: None,
            manual: false,
            unskippable: false,
            jobs,
            location,
        }
    }
}

impl Reader<'_> {
    /// `stages:`, with templates.
    pub(super) fn stages(&mut self, value: &Lazy, known: &Variables, above: &Inherited) -> Vec<Stage> {
        let mut stages = Vec::new();
        self.stages_into(value, known, above, &mut stages);
        if stages.is_empty() && self.loader.errors.is_empty() {
            self.loader.error(&value.node.mark, "The pipeline must contain at least one stage");
        }
        stages
    }

    fn stages_into(&mut self, value: &Lazy, known: &Variables, above: &Inherited, stages: &mut Vec<Stage>) {
        for item in self.loader.items(value) {
            let Some(mut map) = self.loader.map(&item) else { continue };
            if let Some(reference) = map.take("template") {
                let arguments = map.take("parameters");
                self.loader.finish(map);
                let Some(mut inner) = self.loader.open(&reference, arguments) else { continue };
                match inner.take("stages") {
                    Some(value) => self.stages_into(&value, known, above, stages),
                    None => self.loader.error(&inner.mark.clone(), "Expected 'stages' in a template of stages"),
                }
                self.loader.finish(inner);
                self.loader.close();
                continue;
            }
            let before = stages.last().map(|stage: &Stage| stage.name.clone());
            let number = stages.len() + 1;
            let stage = self.stage(map, &item, known, above, (before, number));
            stages.push(stage);
        }
    }

    fn stage(
        &mut self,
        mut map: Map,
        item: &Lazy,
        known: &Variables,
        above: &Inherited,
        (before, number): (Option<String>, usize),
    ) -> Stage {
        if !map.has("stage") {
            self.loader.error_hint(
                &item.node.mark,
                "Expected a 'stage' or a 'template'",
                "a stage begins with `- stage: NAME`",
            );
        }
        let name = self.some_text(&mut map, "stage").unwrap_or_else(|| format!("Stage{number}"));
        let depends_on = match map.take("dependsOn") {
            Some(value) => self.texts(&value),
            None => before.into_iter().collect(),
        };
        let mut known = known.clone();
        let variables = map.take("variables").map(|v| self.variables(&v, &mut known, Slot::JobVariable));
        let mut inherited = above.clone();
        if let Some(pool) = map.take("pool") {
            inherited.pool = self.pool(&pool.with(&known));
        }
        let manual = match map.take("trigger") {
            Some(value) => {
                let text = self.loader.text(&value).unwrap_or_default();
                match text.as_str() {
                    "manual" | "automatic" => {}
                    _ => self.not_among(&value, &text, &["manual", "automatic"]),
                }
                if text == "manual" {
                    self.note("stage trigger: manual", &value.node.mark);
                }
                text == "manual"
            }
            None => false,
        };
        let condition = self.condition(&mut map, Slot::Condition);
        let lock_behavior = self.lock_behavior(&mut map);
        let unskippable = self.flag(&mut map, "isSkippable") == Some(false);
        if let Some(context) = map.take("templateContext") {
            let _ = self.loader.deep(&context);
        }
        let display_name = self.some_text(&mut map, "displayName");
        let jobs = match map.take("jobs") {
            Some(value) => self.jobs(&value.with(&known), &known, &inherited),
            None => {
                self.loader.error(&item.node.mark, format!("Stage {name} must contain at least one job."));
                Vec::new()
            }
        };
        self.loader.finish(map);
        Stage {
            name,
            display_name,
            depends_on,
            condition,
            variables: variables.unwrap_or_default(),
            lock_behavior,
            manual,
            unskippable,
            jobs,
            location: item.location(),
        }
    }
}
