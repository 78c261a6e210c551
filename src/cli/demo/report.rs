//! What the demonstration found: a table for people, JSON for programs.

use super::Evidence;
use crate::{
    failure::{Code, Failure},
    output::{self, Format, Table},
};
use serde::Serialize;
use std::time::{Duration, Instant};

/// A step with its outcome.
#[derive(Debug, Serialize)]
struct Step {
    /// Row, or rows, of the mirrored data flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<&'static str>,
    /// What was done or looked at.
    step: &'static str,
    ok: bool,
    ms: u64,
    /// What was found, or why the step failed.
    evidence: String,
}

/// All steps so far.
#[derive(Debug, Serialize)]
pub struct Report {
    ok: bool,
    ms: u64,
    /// The rows of the mirrored data flow.
    rows: Vec<Step>,
    /// The properties of the reference architecture.
    properties: Vec<Step>,
    #[serde(skip)]
    begun: Instant,
}

impl Report {
    /// Nothing yet, of a demonstration that began then.
    pub fn new(begun: Instant) -> Self {
        Self { ok: true, ms: 0, rows: Vec::new(), properties: Vec::new(), begun }
    }

    /// Time since it began.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Adds a step of a row; no row is the environment as a whole.
    pub fn row(&mut self, row: Option<&'static str>, step: &'static str, evidence: Evidence, took: Duration) {
        let step = self.step(row, step, evidence, took);
        self.rows.push(step);
    }

    /// Adds a property.
    pub fn property(&mut self, name: &'static str, evidence: Evidence, took: Duration) {
        let step = self.step(None, name, evidence, took);
        self.properties.push(step);
    }

    fn step(&mut self, row: Option<&'static str>, step: &'static str, evidence: Evidence, took: Duration) -> Step {
        let ok = evidence.is_ok();
        eprintln!("{}: {step}", if ok { "ok" } else { "FAILED" });
        self.ok &= ok;
        self.ms = milliseconds(self.begun.elapsed());
        let (Ok(evidence) | Err(evidence)) = evidence;
        Step { row, step, ok, ms: milliseconds(took), evidence }
    }

    /// Prints it; fails if a step did.
    ///
    /// # Errors
    /// [`Code::Check`] with the number of steps that failed; any error of writing.
    pub fn print(&self, format: Format) -> Result<(), Failure> {
        let names = || self.steps().map(|step| step.step.to_owned()).collect();
        output::data(format, self, |_| self.table(), names)?;
        match self.steps().filter(|step| !step.ok).count() {
            0 => Ok(()),
            failed => Err(Failure::new(Code::Check, format!("{failed} of {} steps failed", self.steps().count()))),
        }
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.rows.iter().chain(&self.properties)
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["ROW", "STEP", "MS", "EVIDENCE"]);
        for step in self.steps() {
            let evidence = match step.ok {
                true => step.evidence.clone(),
                false => format!("FAILED: {}", step.evidence),
            };
            table.row([step.row.unwrap_or("-").into(), step.step.into(), step.ms.to_string(), evidence]);
        }
        table
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(Instant::now());
        report.row(None, "environment up", Ok("4 services".into()), Duration::from_millis(41_000));
        report.row(Some("3-5"), "source is saved", Err("it is\nnot served".into()), Duration::from_millis(7));
        report.property("self-healing", Ok("7 steps hold".into()), Duration::from_secs(60));
        report
    }

    #[test]
    fn json_has_rows_and_properties_with_outcome_time_and_evidence() {
        let mut json = serde_json::to_value(report()).unwrap();
        assert!(json["ms"].take().is_u64());
        let wanted = serde_json::json!({
            "ok": false,
            "ms": null,
            "rows": [
                {"step": "environment up", "ok": true, "ms": 41_000, "evidence": "4 services"},
                {"row": "3-5", "step": "source is saved", "ok": false, "ms": 7, "evidence": "it is\nnot served"},
            ],
            "properties": [{"step": "self-healing", "ok": true, "ms": 60_000, "evidence": "7 steps hold"}],
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn a_failed_step_is_said_in_the_table_and_by_the_exit_code() {
        let report = report();
        let table = report.table().render();
        assert!(table.contains("-     environment up") && table.contains("FAILED: it is not served"), "{table}");
        let failure = report.print(Format::Name).unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (Code::Check, "1 of 3 steps failed"));
    }
}
