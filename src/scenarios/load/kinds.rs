//! The tables of steps, checks and faults, as the schema of a scenario file names them.

use crate::{checks, faults, steps};
use aksim_config::check::{Kinds, Known};
use serde_json::Value;

/// Makes the schema of a kind.
type MakesSchema = fn() -> Value;

/// The three tables.
pub struct Tables;

impl Kinds for Tables {
    fn find(&self, table: &str, name: &str) -> Known {
        let (schema, all): (Option<MakesSchema>, Vec<&str>) = match table {
            "steps" => (steps::find(name).map(|r| r.schema), steps::TABLE.iter().map(|r| r.name).collect()),
            "checks" => (checks::find(name).map(|r| r.schema), checks::TABLE.iter().map(|r| r.name).collect()),
            _ if faults::NOT_YET.contains(&name) => {
                return Known::NotYet { hint: "`aksim fidelity --all` lists what is missing".into() };
            }
            _ => (faults::find(name).map(|r| r.schema), faults::TABLE.iter().map(|r| r.name).collect()),
        };
        match schema {
            Some(schema) => Known::Kind(schema()),
            None => Known::Unknown(all.into_iter().map(str::to_owned).collect()),
        }
    }
}
