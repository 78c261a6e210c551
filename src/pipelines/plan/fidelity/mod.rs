//! How every construct of Azure Pipelines stands here, as data: `constructs.toml`. Tasks have their own table,
//! [`super::tasks`].

use super::{Standing, tasks};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// A construct of the language.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Construct {
    /// What it is, as the plan names it.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// What follows for a run; for what works, what it is.
    #[serde(default)]
    pub consequence: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    construct: Vec<Construct>,
}

/// Every construct.
pub fn constructs() -> &'static [Construct] {
    static TABLE: OnceLock<Table> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        toml::from_str(include_str!("constructs.toml")).expect("constructs.toml is well formed: a test reads it")
    });
    &table.construct
}

/// A construct by name.
pub fn construct(name: &str) -> Option<&'static Construct> {
    constructs().iter().find(|construct| construct.name == name)
}

/// The whole table: constructs, then tasks with their versions, then tasks that are not done.
pub fn rows() -> Vec<Construct> {
    let row = |name: String, standing, consequence: &str| Construct { name, standing, consequence: consequence.into() };
    let constructs = constructs().iter().map(|c| row(c.name.clone(), c.standing, &c.consequence));
    let tasks = tasks::all().iter().flat_map(|task| {
        task.versions
            .iter()
            .map(move |version| row(format!("{}@{version}", task.name), task.standing, &task.consequence))
    });
    let gaps = tasks::gaps().iter().map(|(name, consequence)| row(name.clone(), Standing::Gap, consequence));
    constructs.chain(tasks).chain(gaps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_names_everything_once() {
        let rows = rows();
        let names: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(names.contains(&"Docker@2".to_owned()) && names.contains(&"AzureCLI".to_owned()));
    }

    #[test]
    fn the_table_is_sound() {
        for construct in constructs() {
            let said = construct.standing == Standing::Works || !construct.consequence.is_empty();
            assert!(said, "{} needs a consequence", construct.name);
        }
        // Every name the reader notes has a line, or a typing mistake would hide a gap.
        let sources = [
            include_str!("../read/job.rs"),
            include_str!("../read/deployment.rs"),
            include_str!("../read/pipeline.rs"),
            include_str!("../read/resources.rs"),
            include_str!("../read/stage.rs"),
            include_str!("../read/step.rs"),
            include_str!("../read/triggers.rs"),
            include_str!("../read/variables.rs"),
        ];
        let mut found = 0;
        for text in sources {
            for (at, _) in text.match_indices("self.note(\"") {
                let name = text[at + 11..].split('"').next().unwrap();
                assert!(construct(name).is_some(), "{name} is not in constructs.toml");
                found += 1;
            }
        }
        assert!(found > 15, "{found}");
    }
}
