//! Deployment jobs.

use super::{Inherited, Reader};
use crate::{
    plan::{Action, Deployment, DeploymentStrategy, Environment, Hook, Hooks, Step, TaskCall, tasks},
    template::{Lazy, Map, Variables},
    yaml::{Kind, Mark},
};
use indexmap::IndexMap;

impl Reader<'_> {
    /// `environment:` and `strategy:`.
    pub(super) fn deployment(
        &mut self,
        map: &mut Map,
        mark: &Mark,
        known: &Variables,
        above: &Inherited,
    ) -> Deployment {
        let environment = match map.take("environment") {
            Some(value) => self.environment(&value.with(known)).unwrap_or_default(),
            None => Environment::default(),
        };
        let strategy = match map.take("strategy") {
            Some(value) => self.deployment_strategy(&value.with(known)),
            None => {
                let hint = "for example `strategy: { runOnce: { deploy: { steps: […] } } }`";
                self.loader.error_hint(mark, format!("Job {} needs a 'strategy'", above.job), hint);
                None
            }
        };
        let mut strategy = strategy.unwrap_or_else(|| DeploymentStrategy::RunOnce(Hooks::default()));
        let hooks = match &mut strategy {
            DeploymentStrategy::RunOnce(hooks)
            | DeploymentStrategy::Rolling { hooks, .. }
            | DeploymentStrategy::Canary { hooks, .. } => hooks,
        };
        add_download(hooks, mark);
        Deployment { environment, strategy }
    }

    fn environment(&mut self, value: &Lazy) -> Option<Environment> {
        let value = self.loader.resolved(value)?;
        self.note("environments", &value.node.mark);
        let named = |text: String| match text.split_once('.') {
            Some((name, resource)) if !text.contains('$') => Environment {
                name: name.to_owned(),
                resource_name: Some(resource.to_owned()),
                ..Environment::default()
            },
            _ => Environment { name: text, ..Environment::default() },
        };
        if matches!(value.node.kind, Kind::Scalar(..)) {
            return self.loader.text(&value).map(named);
        }
        let mut map = self.loader.map(&value)?;
        let mut environment = named(self.text_of(&mut map, "name").unwrap_or_default());
        environment.resource_name = self.some_text(&mut map, "resourceName").or(environment.resource_name);
        environment.resource_id = self.some_text(&mut map, "resourceId");
        environment.tags = self.some_text(&mut map, "tags");
        if let Some(kind) = map.take("resourceType") {
            let text = self.loader.text(&kind)?;
            let known = ["virtualMachine", "kubernetes"].iter().any(|k| k.eq_ignore_ascii_case(&text));
            if !known {
                self.not_among(&kind, &text, &["VirtualMachine", "Kubernetes"]);
            } else if text.eq_ignore_ascii_case("virtualMachine") {
                self.note("environment of virtual machines", &kind.node.mark);
            }
            environment.resource_type = Some(text);
        }
        self.loader.finish(map);
        Some(environment)
    }

    fn deployment_strategy(&mut self, value: &Lazy) -> Option<DeploymentStrategy> {
        let mut map = self.loader.map(value)?;
        let mark = map.mark.clone();
        let strategy = if let Some(value) = map.take("runOnce") {
            let mut hooks = self.loader.map(&value)?;
            let read = self.hooks(&mut hooks);
            self.loader.finish(hooks);
            Some(DeploymentStrategy::RunOnce(read))
        } else if let Some(value) = map.take("rolling") {
            self.note("strategy: rolling", &value.node.mark);
            let mut hooks = self.loader.map(&value)?;
            let max_parallel = self.some_text(&mut hooks, "maxParallel").unwrap_or_else(|| "1".to_owned());
            let read = self.hooks(&mut hooks);
            self.loader.finish(hooks);
            Some(DeploymentStrategy::Rolling { max_parallel, hooks: read })
        } else if let Some(value) = map.take("canary") {
            self.note("strategy: canary", &value.node.mark);
            let mut hooks = self.loader.map(&value)?;
            let increments = self.increments(&mut hooks);
            let read = self.hooks(&mut hooks);
            self.loader.finish(hooks);
            Some(DeploymentStrategy::Canary { increments, hooks: read })
        } else {
            self.missing_strategy(&mark, &["runOnce", "rolling", "canary"]);
            None
        };
        self.loader.finish(map);
        strategy
    }

    fn increments(&mut self, map: &mut Map) -> Vec<u32> {
        let Some(value) = map.take("increments") else { return Vec::new() };
        let mut increments: Vec<u32> = Vec::new();
        for item in self.loader.items(&value) {
            let Some(text) = self.loader.text(&item) else { continue };
            match text.parse::<u32>() {
                Ok(percent) if (1..100).contains(&percent) && increments.last().is_none_or(|last| *last < percent) => {
                    increments.push(percent);
                }
                _ => {
                    let hint = "percentages between 1 and 99, ascending";
                    self.loader.error_hint(&item.node.mark, format!("Unexpected value '{text}'"), hint);
                }
            }
        }
        increments
    }

    fn hooks(&mut self, map: &mut Map) -> Hooks {
        let mut hooks = Hooks {
            pre_deploy: self.hook(map, "preDeploy"),
            deploy: self.hook(map, "deploy"),
            route_traffic: self.hook(map, "routeTraffic"),
            post_route_traffic: self.hook(map, "postRouteTraffic"),
            ..Hooks::default()
        };
        if let Some(mut on) = map.take("on").and_then(|value| self.loader.map(&value)) {
            hooks.on_failure = self.hook(&mut on, "failure");
            hooks.on_success = self.hook(&mut on, "success");
            self.loader.finish(on);
        }
        hooks
    }

    fn hook(&mut self, map: &mut Map, name: &'static str) -> Option<Hook> {
        let value = map.take(name)?;
        let mut map = self.loader.map(&value)?;
        let pool = map.take("pool").and_then(|v| self.pool(&v));
        let steps = map.take("steps").map(|v| self.steps(&v)).unwrap_or_default();
        self.loader.finish(map);
        Some(Hook { pool, steps })
    }
}

/// Puts the implicit download of the run's artifacts first in `deploy`, where no hook has a download.
fn add_download(hooks: &mut Hooks, mark: &Mark) {
    let downloads = |step: &Step| match &step.action {
        Action::NoDownload {} => true,
        Action::Task(task) => task.name == "DownloadPipelineArtifact",
        Action::Checkout(_) => false,
    };
    if hooks.all().any(|(_, hook)| hook.steps.iter().any(downloads)) {
        return;
    }
    if let Some(deploy) = &mut hooks.deploy {
        let given = IndexMap::from([("buildType".to_owned(), "current".to_owned())]);
        let inputs =
            tasks::find("DownloadPipelineArtifact", "2").map(|task| task.check(&given).inputs).unwrap_or(given);
        let task = TaskCall { name: "DownloadPipelineArtifact".to_owned(), version: "2".to_owned(), inputs };
        deploy.steps.insert(0, Step::of(Action::Task(task), mark.location()));
    }
}
