//! A plan as text: the expanded pipeline, as Azure's preview gives it, and a short table.

use super::{
    Action, Checkout, Container, ContainerRef, Deployment, DeploymentStrategy, Filter, Hook, Hooks, Job, Late, Legs,
    OtherResource, Plan, Pool, Stage, Step, Trigger, Variable, Work,
};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

/// The pipeline with nothing left to expand, as YAML that is itself a pipeline: reading it gives the same plan.
///
/// # Errors
/// When YAML cannot be written, which would be a mistake of this program.
pub fn final_yaml(plan: &Plan) -> Result<String, serde_saphyr::ser::Error> {
    let mut root = Map::new();
    put(&mut root, "name", &Some(&plan.name));
    if !plan.append_commit_message_to_run_name {
        root.insert("appendCommitMessageToRunName".into(), json!(false));
    }
    root.insert("trigger".into(), trigger(&plan.trigger, false));
    root.insert("pr".into(), trigger(&plan.pr, true));
    if !plan.schedules.is_empty() {
        root.insert("schedules".into(), to_json(&plan.schedules));
    }
    if !plan.resources.is_empty() {
        root.insert("resources".into(), resources(plan));
    }
    put_variables(&mut root, &plan.variables);
    put(&mut root, "lockBehavior", &plan.lock_behavior);
    root.insert("stages".into(), plan.stages.iter().map(stage).collect());
    serde_saphyr::to_string(&Json::Object(root))
}

/// Stages, jobs and steps, a line each.
pub fn outline(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for stage in &plan.stages {
        let _ = writeln!(text, "stage {}{}", stage.name, after(&stage.depends_on));
        for job in &stage.jobs {
            let legs = match &job.legs {
                Legs::Single => String::new(),
                Legs::Matrix { legs, .. } => format!(" × {}", legs.len()),
                Legs::MatrixExpression { .. } => " × matrix of the run".to_owned(),
                Legs::Parallel { count: Late::Known(count), .. } => format!(" × {count}"),
                Legs::Parallel { count: Late::Text(count), .. } => format!(" × {count}"),
            };
            match &job.work {
                Work::Steps(steps) => {
                    let _ = writeln!(text, "  job {}{legs}{}", job.name, after(&job.depends_on));
                    outline_steps(&mut text, "    ", steps);
                }
                Work::Deployment(deployment) => {
                    let environment = &deployment.environment.name;
                    let after = after(&job.depends_on);
                    let _ = writeln!(text, "  deployment {} to {environment}{after}", job.name);
                    for (name, hook) in deployment.strategy.hooks().all() {
                        let _ = writeln!(text, "    {name}");
                        outline_steps(&mut text, "      ", &hook.steps);
                    }
                }
            }
        }
    }
    text
}

fn after(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" after {}", names.join(", ")) }
}

fn outline_steps(text: &mut String, indent: &str, steps: &[Step]) {
    for step in steps {
        let what = match &step.action {
            Action::Task(task) => task.reference(),
            Action::Checkout(checkout) => format!("checkout {}", checkout.repository),
            Action::NoDownload {} => "download none".to_owned(),
        };
        let name = step.display_name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
        let off = if step.enabled { "" } else { "  (disabled)" };
        let _ = writeln!(text, "{indent}{what}{name}{off}");
    }
}

fn to_json<T: Serialize>(value: &T) -> Json {
    // Every type of the model is a tree with text keys, which JSON can hold.
    serde_json::to_value(value).unwrap_or(Json::Null)
}

fn put<T: Serialize>(map: &mut Map<String, Json>, key: &str, value: &Option<T>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), to_json(value));
    }
}

fn put_list(map: &mut Map<String, Json>, key: &str, values: &[String]) {
    if !values.is_empty() {
        map.insert(key.to_owned(), json!(values));
    }
}

fn put_texts(map: &mut Map<String, Json>, key: &str, values: &IndexMap<String, String>) {
    if !values.is_empty() {
        map.insert(key.to_owned(), to_json(values));
    }
}

fn put_variables(map: &mut Map<String, Json>, variables: &[Variable]) {
    if variables.is_empty() {
        return;
    }
    let items = variables.iter().map(|variable| match variable {
        Variable::Group { group, .. } => json!({ "group": group }),
        Variable::Value { name, value, readonly: true, .. } => {
            json!({ "name": name, "value": value, "readonly": true })
        }
        Variable::Value { name, value, .. } => json!({ "name": name, "value": value }),
    });
    map.insert("variables".into(), items.collect());
}

fn trigger(trigger: &Trigger, of_pull_requests: bool) -> Json {
    if trigger.none {
        return json!("none");
    }
    let mut map = Map::new();
    if of_pull_requests {
        map.insert("autoCancel".into(), json!(trigger.auto_cancel));
        map.insert("drafts".into(), json!(trigger.drafts));
    } else {
        map.insert("batch".into(), json!(trigger.batch));
    }
    for (key, filter) in [("branches", &trigger.branches), ("paths", &trigger.paths), ("tags", &trigger.tags)] {
        if *filter != Filter::default() {
            map.insert(key.into(), to_json(filter));
        }
    }
    Json::Object(map)
}

fn resources(plan: &Plan) -> Json {
    let mut map = Map::new();
    let resources = &plan.resources;
    if !resources.repositories.is_empty() {
        let items = resources.repositories.iter().map(|repository| {
            let mut item = Map::from_iter([
                ("repository".into(), json!(repository.alias)),
                ("type".into(), json!(repository.kind)),
            ]);
            item.insert("name".into(), json!(repository.name));
            put(&mut item, "ref", &Some(&repository.reference).filter(|r| !r.is_empty()));
            put(&mut item, "endpoint", &repository.endpoint);
            if let Some(of) = &repository.trigger {
                item.insert("trigger".into(), trigger(of, false));
            }
            Json::Object(item)
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
                let mut item = Map::from_iter([(key.to_owned(), json!(alias))]);
                item.extend(properties.clone());
                Json::Object(item)
            });
            map.insert(section.into(), items.collect());
        }
    }
    Json::Object(map)
}

fn container(container: &Container) -> Json {
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
        let only = container.mount_read_only.iter().map(|key| (key.clone(), json!(true))).collect();
        map.insert("mountReadOnly".into(), Json::Object(only));
    }
    map.extend(container.more.clone());
    Json::Object(map)
}

fn stage(stage: &Stage) -> Json {
    let mut map = Map::from_iter([("stage".to_owned(), json!(stage.name))]);
    put(&mut map, "displayName", &stage.display_name);
    map.insert("dependsOn".into(), json!(stage.depends_on));
    put(&mut map, "condition", &stage.condition);
    put_variables(&mut map, &stage.variables);
    put(&mut map, "lockBehavior", &stage.lock_behavior);
    if stage.manual {
        map.insert("trigger".into(), json!("manual"));
    }
    if stage.unskippable {
        map.insert("isSkippable".into(), json!(false));
    }
    map.insert("jobs".into(), stage.jobs.iter().map(job).collect());
    Json::Object(map)
}

fn job(job: &Job) -> Json {
    let key = if matches!(job.work, Work::Deployment(_)) { "deployment" } else { "job" };
    let mut map = Map::from_iter([(key.to_owned(), json!(job.name))]);
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
        map.insert("services".into(), Json::Object(services.collect()));
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
    Json::Object(map)
}

fn legs(legs: &Legs) -> Option<Json> {
    let (mut map, max_parallel) = match legs {
        Legs::Single => return None,
        Legs::Matrix { legs, max_parallel } => (json!({ "matrix": legs }), max_parallel),
        Legs::MatrixExpression { matrix, max_parallel } => (json!({ "matrix": matrix }), max_parallel),
        Legs::Parallel { count, max_parallel } => (json!({ "parallel": count }), max_parallel),
    };
    if let (Json::Object(map), Some(most)) = (&mut map, max_parallel) {
        map.insert("maxParallel".into(), to_json(most));
    }
    Some(map)
}

fn pool(pool: &Pool) -> Json {
    if pool.server { json!("server") } else { to_json(pool) }
}

fn container_ref(reference: &ContainerRef) -> Json {
    match reference {
        ContainerRef::Alias(alias) => json!(alias),
        ContainerRef::Inline(inline) => container(inline),
    }
}

fn deployment(map: &mut Map<String, Json>, work: &Deployment) {
    map.insert("environment".into(), to_json(&work.environment));
    let (name, mut body, hooks) = match &work.strategy {
        DeploymentStrategy::RunOnce(hooks) => ("runOnce", Map::new(), hooks),
        DeploymentStrategy::Rolling { max_parallel, hooks } => {
            ("rolling", Map::from_iter([("maxParallel".to_owned(), json!(max_parallel))]), hooks)
        }
        DeploymentStrategy::Canary { increments, hooks } => {
            ("canary", Map::from_iter([("increments".to_owned(), json!(increments))]), hooks)
        }
    };
    put_hooks(&mut body, hooks);
    map.insert("strategy".into(), json!({ name: body }));
}

fn put_hooks(map: &mut Map<String, Json>, hooks: &Hooks) {
    let mut on = Map::new();
    for (name, hook) in hooks.all() {
        match name.strip_prefix("on.") {
            Some(outcome) => on.insert(outcome.to_owned(), hook_json(hook)),
            None => map.insert(name.to_owned(), hook_json(hook)),
        };
    }
    if !on.is_empty() {
        map.insert("on".into(), Json::Object(on));
    }
}

fn hook_json(hook: &Hook) -> Json {
    let mut map = Map::new();
    put(&mut map, "pool", &hook.pool.as_ref().map(pool));
    map.insert("steps".into(), hook.steps.iter().map(step).collect());
    Json::Object(map)
}

fn step(step: &Step) -> Json {
    let mut map = Map::new();
    match &step.action {
        Action::Task(task) => {
            map.insert("task".into(), json!(task.reference()));
            put_texts(&mut map, "inputs", &task.inputs);
        }
        Action::Checkout(checkout) => put_checkout(&mut map, checkout),
        Action::NoDownload {} => drop(map.insert("download".into(), json!("none"))),
    }
    put(&mut map, "name", &step.name);
    put(&mut map, "displayName", &step.display_name);
    put(&mut map, "condition", &step.condition);
    put(&mut map, "continueOnError", &step.continue_on_error);
    if !step.enabled {
        map.insert("enabled".into(), json!(false));
    }
    put(&mut map, "timeoutInMinutes", &step.timeout_in_minutes);
    put(&mut map, "retryCountOnTaskFailure", &step.retry_count_on_task_failure);
    if let Some(target) = &step.target {
        let mut value = Map::new();
        put(&mut value, "container", &target.container);
        put(&mut value, "commands", &target.commands);
        if let Some(names) = &target.settable_variables {
            value.insert("settableVariables".into(), if names.is_empty() { json!("none") } else { json!(names) });
        }
        map.insert("target".into(), Json::Object(value));
    }
    put_texts(&mut map, "env", &step.env);
    Json::Object(map)
}

fn put_checkout(map: &mut Map<String, Json>, checkout: &Checkout) {
    let Json::Object(mut fields) = to_json(checkout) else { return };
    fields.remove("repository");
    map.insert("checkout".into(), json!(checkout.repository));
    map.extend(fields);
}
