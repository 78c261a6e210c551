//! How every construct of Azure Pipelines stands here, as data: `constructs.toml`. Tasks have their own table,
//! [`super::plan::tasks`].

use super::plan::Standing;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for construct in constructs() {
            let said = construct.standing == Standing::Works || !construct.consequence.is_empty();
            assert!(said, "{} needs a consequence", construct.name);
        }
        // Every name the reader notes has a line, or a typing mistake would hide a gap.
        let sources = [
            include_str!("../plan/read/job.rs"),
            include_str!("../plan/read/deployment.rs"),
            include_str!("../plan/read/pipeline.rs"),
            include_str!("../plan/read/resources.rs"),
            include_str!("../plan/read/stage.rs"),
            include_str!("../plan/read/step.rs"),
            include_str!("../plan/read/triggers.rs"),
            include_str!("../plan/read/variables.rs"),
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
