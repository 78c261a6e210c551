//! Jobs.

use super::{Inherited, Reader};
use crate::{
    error::Location,
    expression::{Slot, runtime_text},
    plan::{Action, Checkout, Container, ContainerRef, Job, Legs, Pool, Step, Uses, Work},
    template::{Lazy, Map, Variables},
    yaml::{Kind, Mark},
};
use indexmap::IndexMap;

impl Reader<'_> {
    /// `jobs:`, with templates.
    pub(super) fn jobs(&mut self, value: &Lazy, known: &Variables, above: &Inherited) -> Vec<Job> {
        let mut jobs = Vec::new();
        self.jobs_into(value, known, above, &mut jobs);
        if jobs.is_empty() && self.loader.errors.is_empty() {
            self.loader.error(&value.node.mark, "The stage must contain at least one job");
        }
        jobs
    }

    fn jobs_into(&mut self, value: &Lazy, known: &Variables, above: &Inherited, jobs: &mut Vec<Job>) {
        for item in self.loader.items(value) {
            let Some(mut map) = self.loader.map(&item.with(known)) else { continue };
            if let Some(reference) = map.take("template") {
                let arguments = map.take("parameters");
                self.loader.finish(map);
                let Some(mut inner) = self.loader.open(&reference, arguments) else { continue };
                match inner.take("jobs") {
                    Some(value) => self.jobs_into(&value, known, above, jobs),
                    None => self.loader.error(&inner.mark.clone(), "Expected 'jobs' in a template of jobs"),
                }
                self.loader.finish(inner);
                self.loader.close();
                continue;
            }
            let kind = ["job", "deployment"].into_iter().find(|kind| map.has(kind));
            let Some(kind) = kind else {
                self.loader.error_hint(
                    &item.node.mark,
                    "Expected a 'job', a 'deployment' or a 'template'",
                    "a job begins with `- job: NAME`",
                );
                self.loader.finish(map);
                continue;
            };
            let name = self.some_text(&mut map, kind).unwrap_or_else(|| format!("Job{}", jobs.len() + 1));
            jobs.push(self.job(map, name, known, above, kind == "deployment"));
        }
    }

    /// The one job of a pipeline that has steps only.
    pub(super) fn only_job(&mut self, map: Map, known: &Variables, above: &Inherited) -> Option<Job> {
        Some(self.job(map, "Job".to_owned(), known, above, false))
    }

    fn job(&mut self, mut map: Map, name: String, known: &Variables, above: &Inherited, deployment: bool) -> Job {
        let mark = map.mark.clone();
        let mut known = known.clone();
        let variables = map.take("variables").map(|v| self.variables(&v, &mut known, Slot::JobVariable));
        let pool = match map.take("pool") {
            Some(value) => self.pool(&value.with(&known)),
            None => above.pool.clone(),
        };
        let on_server = pool.as_ref().is_some_and(|pool| pool.server);
        let inherited = Inherited { pool: pool.clone(), job: name.clone() };
        let display_name = self.some_text(&mut map, "displayName");
        let depends_on = self.texts_of(&mut map, "dependsOn");
        let condition = self.condition(&mut map, Slot::Condition);
        let continue_on_error = self.late_flag(&mut map, "continueOnError");
        let timeout_in_minutes = self.late_number(&mut map, "timeoutInMinutes");
        let cancel_timeout_in_minutes = self.late_number(&mut map, "cancelTimeoutInMinutes");
        let container = map.take("container").and_then(|v| {
            let container = self.container_ref(&v.with(&known))?;
            self.note("container jobs", &v.node.mark);
            Some(container)
        });
        let services = map.take("services").map(|v| self.services(&v.with(&known))).unwrap_or_default();
        let workspace_clean = map.take("workspace").and_then(|v| self.workspace(&v));
        let uses = map.take("uses").map(|v| self.uses(&v)).unwrap_or_default();
        let template_context =
            map.take("templateContext").and_then(|v| self.loader.deep(&v)).map(|node| node.value().to_json());
        let (legs, work) = if deployment {
            (Legs::Single, Work::Deployment(Box::new(self.deployment(&mut map, &mark, &known, &inherited))))
        } else {
            let legs = map.take("strategy").map(|v| self.legs(&v.with(&known))).unwrap_or_default();
            let mut steps = match map.take("steps") {
                Some(value) => self.steps(&value.with(&known)),
                None => Vec::new(),
            };
            if !on_server {
                add_checkout(&mut steps, &mark.location());
            }
            (legs, Work::Steps(steps))
        };
        self.loader.finish(map);
        Job {
            name,
            display_name,
            depends_on,
            condition,
            continue_on_error,
            timeout_in_minutes,
            cancel_timeout_in_minutes,
            pool,
            container,
            services,
            workspace_clean,
            uses,
            variables: variables.unwrap_or_default(),
            legs,
            template_context,
            work,
            location: mark.location(),
        }
    }

    /// `pool:` — a name, `server`, or a mapping.
    pub(super) fn pool(&mut self, value: &Lazy) -> Option<Pool> {
        let value = self.loader.resolved(value)?;
        self.note("pool", &value.node.mark);
        if matches!(value.node.kind, Kind::Scalar(..)) {
            let name = self.loader.text(&value)?;
            if name == "server" {
                self.note("pool: server", &value.node.mark);
                return Some(Pool { server: true, ..Pool::default() });
            }
            return Some(Pool { name: Some(name).filter(|n| !n.is_empty()), ..Pool::default() });
        }
        let mut map = self.loader.map(&value)?;
        let pool = Pool {
            name: self.some_text(&mut map, "name"),
            vm_image: self.some_text(&mut map, "vmImage"),
            demands: self.texts_of(&mut map, "demands"),
            server: false,
        };
        if !pool.demands.is_empty() {
            self.note("demands", &value.node.mark);
        }
        self.loader.finish(map);
        Some(pool)
    }

    /// `container:` of a job: an alias, an image, or a container written in place.
    pub(super) fn container_ref(&mut self, value: &Lazy) -> Option<ContainerRef> {
        let value = self.loader.resolved(value)?;
        if matches!(value.node.kind, Kind::Scalar(..)) {
            let text = self.loader.text(&value)?;
            if let Some(inner) = runtime_text(&text) {
                self.checked(inner, Slot::JobVariable, &value);
            }
            let is_image = text.contains(['/', ':', '$', '[']);
            return (!text.is_empty()).then(|| {
                let location = value.location();
                if is_image {
                    ContainerRef::Inline(Box::new(Container { image: text, location, ..Container::default() }))
                } else {
                    ContainerRef::Alias(text)
                }
            });
        }
        let map = self.loader.map(&value)?;
        Some(ContainerRef::Inline(Box::new(self.container(map, String::new()))))
    }

    fn services(&mut self, value: &Lazy) -> IndexMap<String, ContainerRef> {
        self.note("services", &value.node.mark);
        let Some(mut map) = self.loader.map(value) else { return IndexMap::new() };
        map.rest().into_iter().filter_map(|entry| Some((entry.key, self.container_ref(&entry.value)?))).collect()
    }

    fn workspace(&mut self, value: &Lazy) -> Option<String> {
        let mut map = self.loader.map(value)?;
        let clean = map.take("clean");
        self.loader.finish(map);
        let clean = clean?;
        let text = self.loader.text(&clean)?;
        let allowed = ["outputs", "resources", "all"];
        if !allowed.contains(&text.as_str()) {
            self.not_among(&clean, &text, &allowed);
        }
        Some(text)
    }

    fn uses(&mut self, value: &Lazy) -> Uses {
        let Some(mut map) = self.loader.map(value) else { return Uses::default() };
        let uses =
            Uses { repositories: self.texts_of(&mut map, "repositories"), pools: self.texts_of(&mut map, "pools") };
        self.loader.finish(map);
        uses
    }

    /// `strategy:` of an ordinary job.
    fn legs(&mut self, value: &Lazy) -> Legs {
        let Some(mut map) = self.loader.map(value) else { return Legs::Single };
        let mark = map.mark.clone();
        let max_parallel = self.late_number(&mut map, "maxParallel");
        let legs = if let Some(matrix) = map.take("matrix") {
            self.matrix(&matrix, max_parallel)
        } else if let Some(count) = self.late_number(&mut map, "parallel") {
            Legs::Parallel { count, max_parallel }
        } else {
            self.missing_strategy(&mark, &["matrix", "parallel"]);
            Legs::Single
        };
        self.loader.finish(map);
        legs
    }

    pub(super) fn missing_strategy(&mut self, mark: &Mark, names: &[&str]) {
        self.loader.error(mark, format!("A strategy is one of: {}", names.join(", ")));
    }

    fn matrix(&mut self, value: &Lazy, max_parallel: Option<crate::plan::Late<u32>>) -> Legs {
        let Some(value) = self.loader.resolved(value) else { return Legs::Single };
        if matches!(value.node.kind, Kind::Scalar(..)) {
            let text = self.loader.text(&value).unwrap_or_default();
            match runtime_text(&text) {
                Some(inner) => self.checked(inner, Slot::JobVariable, &value),
                None => self.unexpected(&value, &text),
            }
            return Legs::MatrixExpression { matrix: text, max_parallel };
        }
        let Some(mut map) = self.loader.map(&value) else { return Legs::Single };
        let mut legs = IndexMap::new();
        for entry in map.rest() {
            if !crate::plan::is_name(&entry.key) {
                let message = format!(
                    "The matrix configuration name {} is not valid. Valid names may only contain alphanumeric \
                     characters and '_' and may not start with a number.",
                    entry.key
                );
                self.loader.error(&entry.mark, message);
            }
            let variables = self.dictionary(&entry.value);
            legs.insert(entry.key, variables);
        }
        Legs::Matrix { legs, max_parallel }
    }
}

/// Puts the implicit `checkout: self` first, where a job says nothing about checkout.
fn add_checkout(steps: &mut Vec<Step>, location: &Location) {
    if !steps.iter().any(|step| matches!(step.action, Action::Checkout(_))) {
        let checkout = Checkout { repository: "self".to_owned(), ..Checkout::default() };
        steps.insert(0, Step::of(Action::Checkout(checkout), location.clone()));
    }
}
