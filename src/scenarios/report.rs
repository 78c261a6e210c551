//! What a run has found.

use super::traffic::Summary;
use serde::Serialize;
use std::fmt::Write as _;

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All that must hold holds.
    Passed,
    /// Something does not hold.
    Failed,
    /// Not done, because something before it failed.
    Skipped,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Seed of its choices.
    pub seed: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Its steps.
    pub steps: Vec<StepReport>,
    /// What was broken.
    pub faults: Vec<FaultReport>,
    /// What was sent.
    pub loads: Vec<LoadReport>,
    /// Budgets that were passed over, and what could not be put back.
    pub problems: Vec<String>,
}

/// A step.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepReport {
    /// Its id.
    pub id: String,
    /// Its text.
    pub text: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds it took.
    pub seconds: f64,
    /// What its actions did, or why one failed.
    pub done: Vec<String>,
    /// Its checks.
    pub checks: Vec<CheckReport>,
}

/// A check.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    /// What must hold.
    pub claim: String,
    /// Whether it does.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

/// A fault.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FaultReport {
    /// Its name in the scenario.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it met.
    pub victim: String,
    /// Seconds after the run began.
    pub at: f64,
}

/// A load.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadReport {
    /// Its name.
    pub name: String,
    /// Its numbers, all steps together.
    #[serde(flatten)]
    pub numbers: Summary,
}

/// Reports as JUnit XML: a suite a scenario, a case a step.
pub fn junit(reports: &[Report]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let count = |outcome| report.steps.iter().filter(|s| s.outcome == outcome).count();
        let extra = usize::from(!report.problems.is_empty());
        // Writing to a string cannot fail.
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            escaped(&report.scenario),
            report.steps.len() + extra,
            count(Outcome::Failed) + extra,
            count(Outcome::Skipped),
            report.seconds
        );
        for step in &report.steps {
            case(&mut xml, report, step);
        }
        if extra == 1 {
            let text = escaped(&report.problems.join("\n"));
            let name = escaped(&report.scenario);
            let _ = writeln!(
                xml,
                "    <testcase classname=\"{name}\" name=\"budgets and cleaning up\"><failure message=\"{text}\"/></testcase>"
            );
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn case(xml: &mut String, report: &Report, step: &StepReport) {
    let (class, name) = (escaped(&report.scenario), escaped(&step.id));
    let _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{:.3}\">", step.seconds);
    match step.outcome {
        Outcome::Passed => {}
        Outcome::Skipped => xml.push_str("<skipped/>"),
        Outcome::Failed => {
            let broken = step.checks.iter().filter(|c| !c.holds).map(|c| format!("{}: {}", c.claim, c.found));
            let text: Vec<String> = step.done.iter().cloned().chain(broken).collect();
            let _ = write!(xml, "<failure message=\"{}\"/>", escaped(&text.join("\n")));
        }
    }
    xml.push_str("</testcase>\n");
}

/// Text as an attribute may hold it; what XML 1.0 does not allow becomes a question mark.
fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '"' => result.push_str("&quot;"),
            '\n' => result.push_str("&#10;"),
            c if (c as u32) < 0x20 || matches!(c as u32, 0xfffe | 0xffff) => result.push('?'),
            c => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_and_escaped() {
        let check = CheckReport { claim: "a < b".into(), holds: false, found: "\"no\"\u{1b}".into() };
        let step = |id: &str, outcome, checks| StepReport {
            id: id.into(),
            text: String::new(),
            outcome,
            seconds: 1.0,
            done: vec![],
            checks,
        };
        let report = Report {
            scenario: "s".into(),
            title: "S".into(),
            outcome: Outcome::Failed,
            seed: 1,
            seconds: 2.0,
            steps: vec![step("one", Outcome::Failed, vec![check]), step("two", Outcome::Skipped, vec![])],
            faults: vec![],
            loads: vec![],
            problems: vec!["step one took 2 s of 1 s".into()],
        };
        let xml = junit(&[report]);
        assert!(xml.contains("tests=\"3\" failures=\"2\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("a &lt; b: &quot;no&quot;?"), "{xml}");
    }
}
