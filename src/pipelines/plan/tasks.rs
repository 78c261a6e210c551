//! The tasks, as data: `tasks.toml`. A task that is added, or a gap that is closed, is a line there.

use super::Standing;
use indexmap::IndexMap;
use serde::Deserialize;
use std::sync::OnceLock;

/// A task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Name, as Azure spells it.
    pub name: String,
    /// Major versions.
    pub versions: Vec<u32>,
    /// How it stands here.
    pub standing: Standing,
    /// What a user has to know; empty when it works.
    #[serde(default)]
    pub consequence: String,
    /// Inputs.
    #[serde(default, rename = "input")]
    pub inputs: Vec<Input>,
}

/// An input of a task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name, as the task reads it.
    pub name: String,
    /// Other names a file may use.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The value where the file gives none.
    #[serde(default)]
    pub default: Option<String>,
    /// The task fails without it.
    #[serde(default)]
    pub required: bool,
    /// It is needed, and its default counts, only when another input has one of these values: `name=a|b`; with
    /// `name=a&other=b` both must.
    #[serde(default)]
    pub when: Option<String>,
    /// All values it may have; empty means any.
    #[serde(default)]
    pub values: Vec<String>,
    /// Any value is not done here, with the consequence.
    #[serde(default)]
    pub gap: Option<String>,
    /// Values that are Azure's and not done here, with the consequence.
    #[serde(default)]
    pub gaps: IndexMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    task: Vec<Task>,
    /// Tasks that are not done, with what follows.
    gap: IndexMap<String, String>,
}

/// What checking inputs finds.
#[derive(Debug, Default)]
pub struct Checked {
    /// Inputs by the table's spelling, with defaults.
    pub inputs: IndexMap<String, String>,
    /// Names the table does not have.
    pub unknown: Vec<String>,
    /// Consequences of values that are not done here.
    pub gaps: Vec<String>,
    /// Messages and hints.
    pub errors: Vec<(String, String)>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE
        .get_or_init(|| toml::from_str(include_str!("tasks.toml")).expect("tasks.toml is well formed: a test reads it"))
}

/// All tasks of the table.
pub fn all() -> &'static [Task] {
    &table().task
}

/// Tasks that are not done here: names, and what follows.
pub fn gaps() -> &'static IndexMap<String, String> {
    &table().gap
}

/// A task by name, without case, and version (`2`, or pinned, `2.1.0`).
pub fn find(name: &str, version: &str) -> Option<&'static Task> {
    let major: u32 = version.split('.').next()?.parse().ok()?;
    table().task.iter().find(|task| task.name.eq_ignore_ascii_case(name) && task.versions.contains(&major))
}

/// What follows from a task that is not in the table.
pub fn unknown(name: &str) -> String {
    let known = table().gap.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let other = || table().task.iter().find(|task| task.name.eq_ignore_ascii_case(name));
    match (known, other()) {
        (Some((_, consequence)), _) => consequence.clone(),
        (None, Some(task)) => {
            let versions: Vec<String> = task.versions.iter().map(|v| format!("{}@{v}", task.name)).collect();
            format!("this version is not done here; {} is", versions.join(" and "))
        }
        (None, None) => "the task is not done here; the step cannot run".to_owned(),
    }
}

impl Task {
    /// Resolves names, fills defaults in, and checks what is needed and allowed. A value with a macro is taken as
    /// it is: only the run knows it.
    pub fn check(&self, given: &IndexMap<String, String>) -> Checked {
        let mut checked = Checked::default();
        for (key, value) in given {
            match self.inputs.iter().find(|input| input.is_called(key)) {
                Some(input) => drop(checked.inputs.insert(input.name.clone(), value.clone())),
                None => {
                    checked.unknown.push(key.clone());
                    checked.inputs.insert(key.clone(), value.clone());
                }
            }
        }
        for input in &self.inputs {
            self.check_input(input, &mut checked);
        }
        checked
    }

    fn check_input(&self, input: &Input, checked: &mut Checked) {
        if !input.counts(&checked.inputs) {
            return;
        }
        let Some(value) = checked.inputs.get(&input.name).filter(|value| !value.is_empty()).cloned() else {
            if let Some(default) = &input.default {
                checked.inputs.insert(input.name.clone(), default.clone());
            } else if input.required {
                let known = match &input.values[..] {
                    [] => format!("add `{}:` under `inputs:`", input.name),
                    values => format!("add `{}:` with one of: {}", input.name, values.join(", ")),
                };
                checked.errors.push((format!("Input required: {}", input.name), known));
            }
            return;
        };
        if let Some(gap) = &input.gap {
            checked.gaps.push(format!("{}: {gap}", input.name));
        }
        if value.contains("$(") || value.contains("$[") {
            return;
        }
        if let Some((_, consequence)) = input.gaps.iter().find(|(gap, _)| gap.eq_ignore_ascii_case(&value)) {
            checked.gaps.push(format!("{}: {value}: {consequence}", input.name));
        } else if !input.values.is_empty() {
            match input.values.iter().find(|allowed| allowed.eq_ignore_ascii_case(&value)) {
                // Azure compares without case; the run need not.
                Some(spelled) => drop(checked.inputs.insert(input.name.clone(), spelled.clone())),
                None => checked.errors.push((
                    format!("Unexpected value '{value}' for the input {} of {}", input.name, self.name),
                    format!("allowed: {}", input.values.join(", ")),
                )),
            }
        }
    }
}

impl Input {
    fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    }

    /// Whether `when` holds for the inputs so far; inputs it names stand before it in the table.
    fn counts(&self, inputs: &IndexMap<String, String>) -> bool {
        self.conditions().all(|(name, values)| {
            let value = inputs.get(name).map_or("", String::as_str);
            values.split('|').any(|allowed| allowed.eq_ignore_ascii_case(value))
        })
    }

    fn conditions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.when.as_deref().into_iter().flat_map(|when| when.split('&')).filter_map(|one| one.split_once('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for task in all() {
            assert_eq!(task.standing == Standing::Works, task.consequence.is_empty(), "{}", task.name);
            for (at, input) in task.inputs.iter().enumerate() {
                for (name, _) in input.conditions() {
                    assert!(task.inputs[..at].iter().any(|i| i.name == name), "{} {}", task.name, input.name);
                }
            }
        }
        assert!(unknown("azurecli").contains("az"));
        assert!(unknown("Docker").contains("Docker@2"));
    }

    #[test]
    fn inputs_are_named_checked_and_filled_in() {
        let docker = find("docker", "2.1.0").unwrap();
        let given = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let checked = docker.check(&given(&[("DOCKERFILE", "a/Dockerfile"), ("command", "BUILD"), ("x", "y")]));
        assert_eq!(checked.inputs["Dockerfile"], "a/Dockerfile");
        assert_eq!(checked.inputs["command"], "build");
        assert_eq!(checked.inputs["tags"], "$(Build.BuildId)");
        assert_eq!(checked.unknown, ["x"]);
        assert!(checked.errors.is_empty(), "{:?}", checked.errors);
        let bash = find("Bash", "3").unwrap();
        let errors = |pairs| bash.check(&given(pairs)).errors.into_iter().map(|(m, _)| m).collect::<Vec<_>>();
        assert_eq!(errors(&[("targetType", "inline")]), ["Input required: script"]);
        assert_eq!(errors(&[]), ["Input required: filePath"]);
        assert_eq!(errors(&[("targetType", "$(x)")]), [] as [&str; 0]);
        let manifest = find("KubernetesManifest", "1").unwrap();
        let errors = |pairs| manifest.check(&given(pairs)).errors.into_iter().map(|(m, _)| m).collect::<Vec<_>>();
        assert_eq!(errors(&[("action", "patch")]), ["Input required: resourceFileToPatch"]);
        assert_eq!(errors(&[("action", "patch"), ("resourceToPatch", "name")]), [] as [&str; 0]);
    }
}
