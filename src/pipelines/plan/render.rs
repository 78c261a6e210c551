//! A plan as the expanded pipeline, as Azure's preview gives it.

use super::{
    Action, Checkout, Container, ContainerRef, Deployment, DeploymentStrategy, Filter, Hook, Hooks, Job, Legs,
    OtherResource, Plan, Pool, Schedule, Stage, Step, Trigger, Variable, Work,
};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value as Json, json};

/// A mapping in the order it is written: `stage:`, `job:` and `task:` have to come first.
type Map = IndexMap<String, Tree>;

/// What is written.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Tree {
    Map(Map),
    List(Vec<Tree>),
    Leaf(Json),
}

impl Tree {
    /// The same, with texts that hold `${{` written as expressions that give them.
    fn escaped(self) -> Self {
        match self {
            Self::Map(map) => Self::Map(map.into_iter().map(|(key, value)| (escape(key), value.escaped())).collect()),
            Self::List(items) => items.into_iter().map(Self::escaped).collect(),
            Self::Leaf(Json::String(text)) => Self::Leaf(Json::String(escape(text))),
            Self::Leaf(Json::Array(items)) => items.into_iter().map(|item| Self::Leaf(item).escaped()).collect(),
            Self::Leaf(Json::Object(map)) => {
                Self::Map(map.into_iter().map(|(key, value)| (escape(key), Self::Leaf(value).escaped())).collect())
            }
            leaf => leaf,
        }
    }
}

fn escape(text: String) -> String {
    if text.contains("${{") { format!("${{{{ '{}' }}}}", text.replace('\'', "''")) } else { text }
}

impl From<Json> for Tree {
    fn from(json: Json) -> Self {
        Self::Leaf(json)
    }
}

impl From<Map> for Tree {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl FromIterator<Tree> for Tree {
    fn from_iter<I: IntoIterator<Item = Tree>>(items: I) -> Self {
        Self::List(items.into_iter().collect())
    }
}

/// The pipeline with nothing left to expand, as YAML that is itself a pipeline: reading it gives the same plan.
///
/// # Errors
/// When YAML cannot be written, which would be a mistake of this program.
pub fn final_yaml(plan: &Plan) -> Result<String, serde_saphyr::ser::Error> {
    let mut root = Map::new();
    put(&mut root, "name", &Some(&plan.name));
    if !plan.append_commit_message_to_run_name {
        root.insert("appendCommitMessageToRunName".into(), json!(false).into());
    }
    root.insert("trigger".into(), trigger(&plan.trigger, false));
    root.insert("pr".into(), trigger(&plan.pr, true));
    if !plan.schedules.is_empty() {
        root.insert("schedules".into(), plan.schedules.iter().map(schedule).collect());
    }
    if !plan.resources.is_empty() {
        root.insert("resources".into(), resources(plan));
    }
    put_variables(&mut root, &plan.variables);
    put(&mut root, "lockBehavior", &plan.lock_behavior);
    root.insert("stages".into(), plan.stages.iter().map(stage).collect());
    serde_saphyr::to_string(&Tree::Map(root).escaped())
}

fn tree<T: Serialize>(value: &T) -> Tree {
    // Every type of the model is a tree with text keys, which JSON can hold.
    Tree::Leaf(serde_json::to_value(value).unwrap_or(Json::Null))
}

fn put<T: Serialize>(map: &mut Map, key: &str, value: &Option<T>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), tree(value));
    }
}

fn texts(values: &IndexMap<String, String>) -> Tree {
    Tree::Map(values.iter().map(|(key, value)| (key.clone(), json!(value).into())).collect())
}

fn pairs<const N: usize>(pairs: [(&str, Tree); N]) -> Tree {
    Tree::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn put_list(map: &mut Map, key: &str, values: &[String]) {
    if !values.is_empty() {
        map.insert(key.to_owned(), json!(values).into());
    }
}

fn put_texts(map: &mut Map, key: &str, values: &IndexMap<String, String>) {
    if !values.is_empty() {
        map.insert(key.to_owned(), texts(values));
    }
}

fn put_variables(map: &mut Map, variables: &[Variable]) {
    if variables.is_empty() {
        return;
    }
    let items = variables.iter().map(|variable| match variable {
        Variable::Group { group, .. } => pairs([("group", json!(group).into())]),
        Variable::Value { name, value, readonly: true, .. } => {
            pairs([("name", json!(name).into()), ("value", json!(value).into()), ("readonly", json!(true).into())])
        }
        Variable::Value { name, value, .. } => pairs([("name", json!(name).into()), ("value", json!(value).into())]),
    });
    map.insert("variables".into(), items.collect());
}

fn schedule(schedule: &Schedule) -> Tree {
    let mut map = Map::from_iter([("cron".to_owned(), json!(schedule.cron).into())]);
    put(&mut map, "displayName", &schedule.display_name);
    put(&mut map, "branches", &Some(&schedule.branches).filter(|branches| !branches.is_empty()));
    map.insert("always".into(), json!(schedule.always).into());
    map.insert("batch".into(), json!(schedule.batch).into());
    map.into()
}

fn trigger(trigger: &Trigger, of_pull_requests: bool) -> Tree {
    if trigger.none {
        return json!("none").into();
    }
    let mut map = Map::new();
    if of_pull_requests {
        map.insert("autoCancel".into(), json!(trigger.auto_cancel).into());
        map.insert("drafts".into(), json!(trigger.drafts).into());
    } else {
        map.insert("batch".into(), json!(trigger.batch).into());
    }
    for (key, filter) in [("branches", &trigger.branches), ("paths", &trigger.paths), ("tags", &trigger.tags)] {
        if *filter != Filter::default() {
            map.insert(key.into(), tree(filter));
        }
    }
    map.into()
}

fn resources(plan: &Plan) -> Tree {
    let mut map = Map::new();
    let resources = &plan.resources;
    if !resources.repositories.is_empty() {
        let items = resources.repositories.iter().map(|repository| {
            let mut item = Map::from_iter([
                ("repository".into(), json!(repository.alias).into()),
                ("type".into(), json!(repository.kind).into()),
            ]);
            item.insert("name".into(), json!(repository.name).into());
            put(&mut item, "ref", &Some(&repository.reference).filter(|r| !r.is_empty()));
            put(&mut item, "endpoint", &repository.endpoint);
            if let Some(of) = &repository.trigger {
                item.insert("trigger".into(), trigger(of, false));
            }
            Tree::Map(item)
        });
        map.insert("repositories".into(), items.collect());
    }
    if !resources.containers.is_empty() {
        map.insert("containers".into(), resources.containers.iter().map(container).collect());
    }
    for (section, key, list) in [
        ("pipelines", "pipeline", &resources.pipelines),
        ("builds", "build", &resources.builds),
        ("packages", "package", &resources.packages),
        ("webhooks", "webhook", &resources.webhooks),
    ] {
        if !list.is_empty() {
            let items = list.iter().map(|OtherResource { alias, properties, .. }| {
                let mut item = Map::from_iter([(key.to_owned(), json!(alias).into())]);
                item.extend(properties.iter().map(|(key, value)| (key.clone(), tree(value))));
                Tree::Map(item)
            });
            map.insert(section.into(), items.collect());
        }
    }
    map.into()
}

fn container(container: &Container) -> Tree {
    let mut map = Map::new();
    put(&mut map, "container", &Some(&container.alias).filter(|a| !a.is_empty()));
    put(&mut map, "image", &Some(&container.image).filter(|i| !i.is_empty()));
    put(&mut map, "endpoint", &container.endpoint);
    put_texts(&mut map, "env", &container.env);
    put(&mut map, "options", &container.options);
    put_list(&mut map, "ports", &container.ports);
    put_list(&mut map, "volumes", &container.volumes);
    put(&mut map, "mapDockerSocket", &container.map_docker_socket);
    if !container.mount_read_only.is_empty() {
        let only = container.mount_read_only.iter().map(|key| (key.clone(), json!(true).into())).collect();
        map.insert("mountReadOnly".into(), Tree::Map(only));
    }
    map.extend(container.more.iter().map(|(key, value)| (key.clone(), tree(value))));
    map.into()
}

fn stage(stage: &Stage) -> Tree {
    let mut map = Map::from_iter([("stage".to_owned(), json!(stage.name).into())]);
    put(&mut map, "displayName", &stage.display_name);
    map.insert("dependsOn".into(), json!(stage.depends_on).into());
    put(&mut map, "condition", &stage.condition);
    put_variables(&mut map, &stage.variables);
    put(&mut map, "lockBehavior", &stage.lock_behavior);
    if stage.manual {
        map.insert("trigger".into(), json!("manual").into());
    }
    if stage.unskippable {
        map.insert("isSkippable".into(), json!(false).into());
    }
    map.insert("jobs".into(), stage.jobs.iter().map(job).collect());
    map.into()
}

fn job(job: &Job) -> Tree {
    let key = if matches!(job.work, Work::Deployment(_)) { "deployment" } else { "job" };
    let mut map = Map::from_iter([(key.to_owned(), json!(job.name).into())]);
    put(&mut map, "displayName", &job.display_name);
    put_list(&mut map, "dependsOn", &job.depends_on);
    put(&mut map, "condition", &job.condition);
    put(&mut map, "continueOnError", &job.continue_on_error);
    put(&mut map, "timeoutInMinutes", &job.timeout_in_minutes);
    put(&mut map, "cancelTimeoutInMinutes", &job.cancel_timeout_in_minutes);
    put(&mut map, "pool", &job.pool.as_ref().map(pool));
    put(&mut map, "container", &job.container.as_ref().map(container_ref));
    if !job.services.is_empty() {
        let services = job.services.iter().map(|(name, service)| (name.clone(), container_ref(service)));
        map.insert("services".into(), Tree::Map(services.collect()));
    }
    put(&mut map, "workspace", &job.workspace_clean.as_ref().map(|clean| json!({ "clean": clean })));
    put(&mut map, "uses", &Some(&job.uses).filter(|uses| !uses.is_empty()));
    put_variables(&mut map, &job.variables);
    put(&mut map, "templateContext", &job.template_context);
    match &job.work {
        Work::Steps(steps) => {
            put(&mut map, "strategy", &legs(&job.legs));
            map.insert("steps".into(), steps.iter().map(step).collect());
        }
        Work::Deployment(work) => deployment(&mut map, work),
    }
    map.into()
}

fn legs(legs: &Legs) -> Option<Tree> {
    let (mut map, max_parallel) = match legs {
        Legs::Single => return None,
        Legs::Matrix { legs, max_parallel } => {
            let legs = legs.iter().map(|(name, variables)| (name.clone(), texts(variables))).collect();
            (Map::from_iter([("matrix".to_owned(), Tree::Map(legs))]), max_parallel)
        }
        Legs::MatrixExpression { matrix, max_parallel } => {
            (Map::from_iter([("matrix".to_owned(), json!(matrix).into())]), max_parallel)
        }
        Legs::Parallel { count, max_parallel } => {
            (Map::from_iter([("parallel".to_owned(), tree(count))]), max_parallel)
        }
    };
    put(&mut map, "maxParallel", max_parallel);
    Some(map.into())
}

fn pool(pool: &Pool) -> Tree {
    if pool.server { json!("server").into() } else { tree(pool) }
}

fn container_ref(reference: &ContainerRef) -> Tree {
    match reference {
        ContainerRef::Alias(alias) => json!(alias).into(),
        ContainerRef::Inline(inline) => container(inline),
    }
}

fn deployment(map: &mut Map, work: &Deployment) {
    map.insert("environment".into(), tree(&work.environment));
    let (name, mut body, hooks) = match &work.strategy {
        DeploymentStrategy::RunOnce(hooks) => ("runOnce", Map::new(), hooks),
        DeploymentStrategy::Rolling { max_parallel, hooks } => {
            ("rolling", Map::from_iter([("maxParallel".to_owned(), json!(max_parallel).into())]), hooks)
        }
        DeploymentStrategy::Canary { increments, hooks } => {
            ("canary", Map::from_iter([("increments".to_owned(), json!(increments).into())]), hooks)
        }
    };
    put_hooks(&mut body, hooks);
    map.insert("strategy".into(), pairs([(name, body.into())]));
}

fn put_hooks(map: &mut Map, hooks: &Hooks) {
    let mut on = Map::new();
    for (name, hook) in hooks.all() {
        match name.strip_prefix("on.") {
            Some(outcome) => on.insert(outcome.to_owned(), hook_json(hook)),
            None => map.insert(name.to_owned(), hook_json(hook)),
        };
    }
    if !on.is_empty() {
        map.insert("on".into(), Tree::Map(on));
    }
}

fn hook_json(hook: &Hook) -> Tree {
    let mut map = Map::new();
    put(&mut map, "pool", &hook.pool.as_ref().map(pool));
    map.insert("steps".into(), hook.steps.iter().map(step).collect());
    map.into()
}

fn step(step: &Step) -> Tree {
    let mut map = Map::new();
    match &step.action {
        Action::Task(task) => {
            map.insert("task".into(), json!(task.reference()).into());
            put_texts(&mut map, "inputs", &task.inputs);
        }
        Action::Checkout(checkout) => put_checkout(&mut map, checkout),
        Action::NoDownload {} => drop(map.insert("download".into(), json!("none").into())),
    }
    put(&mut map, "name", &step.name);
    put(&mut map, "displayName", &step.display_name);
    put(&mut map, "condition", &step.condition);
    put(&mut map, "continueOnError", &step.continue_on_error);
    if !step.enabled {
        map.insert("enabled".into(), json!(false).into());
    }
    put(&mut map, "timeoutInMinutes", &step.timeout_in_minutes);
    put(&mut map, "retryCountOnTaskFailure", &step.retry_count_on_task_failure);
    if let Some(target) = &step.target {
        let mut value = Map::new();
        put(&mut value, "container", &target.container);
        put(&mut value, "commands", &target.commands);
        if let Some(names) = &target.settable_variables {
            value
                .insert("settableVariables".into(), if names.is_empty() { json!("none") } else { json!(names) }.into());
        }
        map.insert("target".into(), Tree::Map(value));
    }
    put_texts(&mut map, "env", &step.env);
    map.into()
}

fn put_checkout(map: &mut Map, checkout: &Checkout) {
    map.insert("checkout".into(), json!(checkout.repository).into());
    if let Tree::Leaf(Json::Object(fields)) = tree(checkout) {
        let others = fields.into_iter().filter(|(key, _)| key != "repository");
        map.extend(others.map(|(key, value)| (key, value.into())));
    }
}
