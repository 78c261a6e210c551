//! `aksim doctor`: what this machine has and lacks, and `--fix` to install it.

mod install;
mod table;

use super::{
    args::DoctorArgs,
    failure::{Code, Failure},
    output::{self, Table},
};
use serde::Serialize;
pub use table::Need;
use table::{CHECKS, Check};

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    needed_for: &'static str,
    /// What was found; absent when nothing was.
    found: Option<String>,
    /// How to get it.
    hint: String,
}

/// Prints findings; installs what is missing with `--fix`.
pub async fn run(args: &DoctorArgs) -> Result<(), Failure> {
    if args.fix {
        install_missing(&[Need::Run, Need::Test, Need::Demo]).await?;
    }
    let findings: Vec<Finding> = CHECKS.iter().map(look).collect();
    let table = |_| {
        let mut table = Table::new(&["PART", "FOUND", "NEEDED FOR", "HINT"]);
        for f in &findings {
            let hint = if f.found.is_some() { String::new() } else { f.hint.clone() };
            table.row([f.name.into(), f.found.clone().unwrap_or_else(|| "-".into()), f.needed_for.into(), hint]);
        }
        table
    };
    let missing = || findings.iter().filter(|f| f.found.is_none());
    output::data(args.output.output, &findings, table, || missing().map(|f| f.name.to_owned()).collect())?;
    let required: Vec<&str> = CHECKS
        .iter()
        .zip(&findings)
        .filter(|(check, finding)| check.need == Need::Run && finding.found.is_none())
        .map(|(check, _)| check.name)
        .collect();
    if required.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::Environment, format!("missing: {}", required.join(", "))).hint("aksim doctor --fix"))
}

fn look(check: &Check) -> Finding {
    Finding { name: check.name, needed_for: check.need.name(), found: (check.find)(), hint: check.install.hint() }
}

/// Installs what is missing of the given needs, naming each thing first.
///
/// # Errors
/// When an installer is missing or fails, with its last lines; or when the thing is missing after all.
pub async fn install_missing(needs: &[Need]) -> Result<(), Failure> {
    let missing: Vec<&Check> = CHECKS.iter().filter(|c| needs.contains(&c.need) && (c.find)().is_none()).collect();
    install::all(&missing).await?;
    let still: Vec<&str> = missing.iter().filter(|c| (c.find)().is_none()).map(|c| c.name).collect();
    if still.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::Environment, format!("still missing after installing: {}", still.join(", "))))
}
