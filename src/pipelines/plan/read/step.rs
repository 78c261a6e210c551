//! Steps: tasks, and the shortcuts for them.

use super::Reader;
use crate::{
    error::Location,
    expression::Slot,
    plan::{Action, Checkout, Standing, Step, StepTarget, TaskCall, is_name, tasks},
    template::{Lazy, Map},
    yaml::Kind,
};
use indexmap::IndexMap;

/// A shortcut: its key, the task it stands for, the input its value becomes, inputs that are always set, and keys
/// of the step that are inputs.
struct Shortcut {
    key: &'static str,
    task: &'static str,
    version: &'static str,
    input: &'static str,
    fixed: &'static [(&'static str, &'static str)],
    keys: &'static [&'static str],
}

const POWERSHELL_KEYS: [&str; 9] = [
    "errorActionPreference",
    "failOnStderr",
    "ignoreLASTEXITCODE",
    "workingDirectory",
    "warningPreference",
    "informationPreference",
    "verbosePreference",
    "debugPreference",
    "progressPreference",
];

const SHORTCUTS: [Shortcut; 7] = [
    Shortcut {
        key: "script",
        task: "CmdLine",
        version: "2",
        input: "script",
        fixed: &[],
        keys: &["workingDirectory", "failOnStderr"],
    },
    Shortcut {
        key: "bash",
        task: "Bash",
        version: "3",
        input: "script",
        fixed: &[("targetType", "inline")],
        keys: &["workingDirectory", "failOnStderr", "bashEnvValue"],
    },
    Shortcut {
        key: "pwsh",
        task: "PowerShell",
        version: "2",
        input: "script",
        fixed: &[("targetType", "inline"), ("pwsh", "true")],
        keys: &POWERSHELL_KEYS,
    },
    Shortcut {
        key: "powershell",
        task: "PowerShell",
        version: "2",
        input: "script",
        fixed: &[("targetType", "inline")],
        keys: &POWERSHELL_KEYS,
    },
    Shortcut {
        key: "publish",
        task: "PublishPipelineArtifact",
        version: "1",
        input: "targetPath",
        fixed: &[],
        keys: &["artifact"],
    },
    Shortcut {
        key: "downloadBuild",
        task: "DownloadBuildArtifacts",
        version: "0",
        input: "definition",
        fixed: &[("buildType", "specific")],
        keys: &["artifact", "path", "patterns"],
    },
    Shortcut {
        key: "getPackage",
        task: "DownloadPackage",
        version: "1",
        input: "definition",
        fixed: &[],
        keys: &["path"],
    },
];

/// Inputs that name a service connection.
const CONNECTIONS: [&str; 5] = [
    "containerRegistry",
    "kubernetesServiceConnection",
    "kubernetesServiceEndpoint",
    "azureSubscriptionConnection",
    "azureSubscription",
];

impl Step {
    /// A step that says nothing but what it does.
    pub fn of(action: Action, location: Location) -> Self {
        Self {
            action,
            name: None,
            display_name: None,
            condition: None,
            continue_on_error: None,
            enabled: true,
            timeout_in_minutes: None,
            retry_count_on_task_failure: None,
            target: None,
            env: IndexMap::new(),
            location,
        }
    }
}

impl Reader<'_> {
    /// `steps:`, with templates.
    pub(super) fn steps(&mut self, value: &Lazy) -> Vec<Step> {
        let mut steps = Vec::new();
        for item in self.loader.items(value) {
            let before = self.loader.errors.len();
            let Some(mut map) = self.loader.map(&item) else { continue };
            if let Some(reference) = map.take("template") {
                let arguments = map.take("parameters");
                self.loader.finish(map);
                let Some(mut inner) = self.loader.open(&reference, arguments) else { continue };
                match inner.take("steps") {
                    Some(value) => steps.extend(self.steps(&value)),
                    None => self.loader.error(&inner.mark.clone(), "Expected 'steps' in a template of steps"),
                }
                self.loader.finish(inner);
                self.loader.close();
                continue;
            }
            steps.extend(self.step(map, &item, before));
        }
        let mut seen = std::collections::HashSet::new();
        for step in &steps {
            let Some(name) = &step.name else { continue };
            if !seen.insert(name.to_lowercase()) {
                let message =
                    format!("The step name {name} appears more than once. Step names must be unique within a job.");
                self.loader.errors.push(crate::error::PipelineError::new(step.location.clone(), message));
            }
        }
        steps
    }

    /// `before` is how many mistakes there were before the step was opened.
    fn step(&mut self, mut map: Map, item: &Lazy, before: usize) -> Option<Step> {
        let action = self.action(&mut map, item);
        let silent = action.is_none() && self.loader.errors.len() == before;
        let mut step = Step::of(Action::NoDownload {}, item.location());
        step.name = self.step_name(&mut map);
        step.display_name = self.some_text(&mut map, "displayName");
        step.condition = self.condition(&mut map, Slot::StepCondition);
        step.continue_on_error = self.late_flag(&mut map, "continueOnError");
        step.enabled = self.flag(&mut map, "enabled").unwrap_or(true);
        step.timeout_in_minutes = self.late_number(&mut map, "timeoutInMinutes");
        step.retry_count_on_task_failure = self.late_number(&mut map, "retryCountOnTaskFailure");
        step.target = map.take("target").and_then(|v| self.target(&v));
        step.env = map.take("env").map(|v| self.dictionary(&v)).unwrap_or_default();
        if silent && map.is_empty() {
            let hint = "a step is a task, script, bash, pwsh, powershell, checkout, publish, download or template";
            self.loader.error_hint(&item.node.mark, "A step needs to say what it does", hint);
        }
        self.loader.finish(map);
        step.action = action?;
        Some(step)
    }

    fn step_name(&mut self, map: &mut Map) -> Option<String> {
        let value = map.take("name")?;
        let name = self.loader.text(&value)?;
        if !is_name(&name) {
            let message = format!(
                "The step name {name} is not valid. Valid names may only contain alphanumeric characters and '_' and \
                 may not start with a number."
            );
            self.loader.error(&value.node.mark, message);
        }
        Some(name)
    }

    fn action(&mut self, map: &mut Map, item: &Lazy) -> Option<Action> {
        if let Some(value) = map.take("task") {
            return self.task(&value, map);
        }
        if let Some(value) = map.take("checkout") {
            return self.checkout(&value, map);
        }
        if let Some(value) = map.take("download") {
            return self.download(&value, map, item);
        }
        if let Some(value) = map.take("reviewApp") {
            let name = self.loader.text(&value)?;
            let inputs = IndexMap::from([("resourceName".to_owned(), name)]);
            return Some(self.called("ReviewApp", "0", inputs, &value));
        }
        let shortcut = SHORTCUTS.iter().find(|shortcut| map.has(shortcut.key))?;
        let value = map.take(shortcut.key)?;
        let mut inputs: IndexMap<String, String> =
            shortcut.fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        inputs.insert(shortcut.input.to_owned(), self.loader.text(&value)?);
        for key in shortcut.keys {
            if let Some(text) = self.text_of(map, key) {
                inputs.insert((*key).to_owned(), text);
            }
        }
        Some(self.called(shortcut.task, shortcut.version, inputs, &value))
    }

    /// `download:` — `current`, `none`, or the alias of a pipeline resource.
    fn download(&mut self, value: &Lazy, map: &mut Map, item: &Lazy) -> Option<Action> {
        let source = self.loader.text(value)?;
        let mut inputs = IndexMap::new();
        for key in ["artifact", "patterns", "path"] {
            if let Some(text) = self.text_of(map, key) {
                inputs.insert(key.to_owned(), text);
            }
        }
        let mut folder = "$(Pipeline.Workspace)".to_owned();
        match source.as_str() {
            "none" => return Some(Action::NoDownload {}),
            "current" | "" => drop(inputs.insert("buildType".to_owned(), "current".to_owned())),
            alias => {
                let Some(pipeline) = self.pipelines.get(alias).cloned() else {
                    let hint = format!("declare it under `resources: pipelines: - pipeline: {alias}`");
                    let message = format!("No pipeline resource found by name {alias}");
                    self.loader.error_hint(&value.node.mark, message, hint);
                    return None;
                };
                self.note("download from another pipeline", &item.node.mark);
                folder = format!("{folder}/{alias}");
                inputs.insert("buildType".to_owned(), "specific".to_owned());
                inputs.insert("definition".to_owned(), pipeline);
            }
        }
        // Unlike the task, the shortcut puts an artifact into a folder of its name.
        if let (Some(artifact), None) = (inputs.get("artifact"), inputs.get("path")) {
            inputs.insert("path".to_owned(), format!("{folder}/{artifact}"));
        } else if source != "current" && !source.is_empty() && !inputs.contains_key("path") {
            inputs.insert("path".to_owned(), folder);
        }
        Some(self.called("DownloadPipelineArtifact", "2", inputs, value))
    }

    fn checkout(&mut self, value: &Lazy, map: &mut Map) -> Option<Action> {
        let repository = self.loader.text(value)?;
        let inline = repository.contains("://");
        if inline {
            self.note("checkout of an inline repository", &value.node.mark);
        } else if !["self", "none"].contains(&repository.as_str())
            && !repository.contains('$')
            && !self.loader.repositories.keys().any(|alias| alias.eq_ignore_ascii_case(&repository))
        {
            let hint = format!("declare it under `resources: repositories: - repository: {repository}`");
            let message = format!("No repository found by name {repository}");
            self.loader.error_hint(&value.node.mark, message, hint);
        }
        let checkout = Checkout {
            repository,
            clean: self.late_flag(map, "clean"),
            fetch_depth: self.late_number(map, "fetchDepth"),
            fetch_tags: self.late_flag(map, "fetchTags"),
            fetch_filter: self.some_text(map, "fetchFilter"),
            lfs: self.late_flag(map, "lfs"),
            submodules: self.some_text(map, "submodules"),
            path: self.some_text(map, "path"),
            persist_credentials: self.late_flag(map, "persistCredentials"),
            sparse_checkout_directories: self.some_text(map, "sparseCheckoutDirectories"),
            sparse_checkout_patterns: self.some_text(map, "sparseCheckoutPatterns"),
            workspace_repo: self.late_flag(map, "workspaceRepo"),
        };
        for (used, construct) in [
            (checkout.lfs == Some(crate::plan::Late::Known(true)), "checkout: lfs"),
            (checkout.fetch_filter.is_some(), "checkout: fetchFilter"),
        ] {
            if used {
                self.note(construct, &value.node.mark);
            }
        }
        Some(Action::Checkout(checkout))
    }

    fn task(&mut self, value: &Lazy, map: &mut Map) -> Option<Action> {
        let reference = self.loader.text(value)?;
        let inputs = map.take("inputs").map(|v| (self.dictionary(&v), v));
        let Some((name, version)) = reference.split_once('@').filter(|(name, version)| {
            !name.is_empty()
                && version.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        }) else {
            let hint = "a task is NAME@MAJOR, for example Docker@2";
            self.loader.error_hint(&value.node.mark, format!("Invalid task reference: '{reference}'"), hint);
            return None;
        };
        let (inputs, _) = inputs.unwrap_or_else(|| (IndexMap::new(), value.clone()));
        Some(self.called(name, version, inputs, value))
    }

    /// A call of a task: inputs by the table's spelling, checked, defaults filled in.
    fn called(&mut self, name: &str, version: &str, inputs: IndexMap<String, String>, at: &Lazy) -> Action {
        let mark = &at.node.mark;
        let Some(task) = tasks::find(name, version) else {
            let (what, consequence) = (format!("{name}@{version}"), tasks::unknown(name));
            self.gap(&what, Standing::Gap, &consequence, mark);
            return Action::Task(TaskCall { name: name.to_owned(), version: version.to_owned(), inputs });
        };
        let what = format!("{}@{version}", task.name);
        self.gap(&what, task.standing, &task.consequence, mark);
        let checked = task.check(&inputs);
        if CONNECTIONS.iter().any(|input| checked.inputs.get(*input).is_some_and(|value| !value.is_empty())) {
            self.note("service connections", mark);
        }
        for unknown in checked.unknown {
            let consequence =
                format!("{what} has no input '{unknown}'; it is handed to the task, which does not read it");
            self.gap(&what, Standing::Differs, &consequence, mark);
        }
        for gap in checked.gaps {
            self.gap(&what, Standing::Gap, &gap, mark);
        }
        for (message, hint) in checked.errors {
            self.loader.error_hint(mark, message, hint);
        }
        Action::Task(TaskCall { name: task.name.clone(), version: version.to_owned(), inputs: checked.inputs })
    }

    fn target_container(&mut self, container: Option<&str>, at: &Lazy) {
        if container.is_some_and(|name| name != "host") {
            self.note("step target: container", &at.node.mark);
        }
    }

    fn target(&mut self, value: &Lazy) -> Option<StepTarget> {
        let value = self.loader.resolved(value)?;
        if matches!(value.node.kind, Kind::Scalar(..)) {
            let container = self.loader.text(&value).filter(|t| !t.is_empty());
            self.target_container(container.as_deref(), &value);
            return Some(StepTarget { container, ..StepTarget::default() });
        }
        let mut map = self.loader.map(&value)?;
        let mut target = StepTarget { container: self.some_text(&mut map, "container"), ..StepTarget::default() };
        self.target_container(target.container.as_deref(), &value);
        if let Some(commands) = map.take("commands") {
            let text = self.loader.text(&commands)?;
            if !["any", "restricted"].contains(&text.as_str()) {
                self.not_among(&commands, &text, &["any", "restricted"]);
            }
            target.commands = Some(text);
        }
        if let Some(settable) = map.take("settableVariables") {
            let names = self.texts(&settable);
            target.settable_variables = Some(if names == ["none"] { Vec::new() } else { names });
        }
        self.loader.finish(map);
        Some(target)
    }
}
