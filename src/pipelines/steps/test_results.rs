//! `PublishTestResults@2`: JUnit, NUnit 3, xUnit.net 2 and VSTest (TRX) files.

use super::{Task, glob};
use crate::{
    context::{StepContext, TaskError},
    store::record::{TestCase, TestOutcome},
};
use async_trait::async_trait;
use roxmltree::{Document, Node, ParsingOptions};

/// Largest file that is read, bytes.
const LARGEST: u64 = 64 << 20;

/// `PublishTestResults@2`.
pub struct PublishTestResults;

#[async_trait]
impl Task for PublishTestResults {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let format = step.input("testResultsFormat").unwrap_or("JUnit").to_ascii_lowercase();
        let reader = READERS.iter().find(|(name, _)| *name == format).map(|(_, read)| *read);
        let reader =
            reader.ok_or_else(|| TaskError::Failed(format!("testResultsFormat: {format} is not supported.")))?;
        let root = step.input("searchFolder").map_or_else(|| step.sources(), |f| step.path(f));
        let mut lines = step.lines("testResultsFiles");
        if lines.is_empty() {
            lines = vec!["**/TEST-*.xml".into()];
        }
        let files = glob::find(&root, &lines)?;
        if files.is_empty() {
            let message = format!("No test result files matching '{}' were found.", lines.join(" "));
            if step.flag("failTaskOnMissingResultsFile", false) {
                return Err(TaskError::Failed(message));
            }
            step.log.warning(&message);
            return Ok(());
        }
        let mut cases = Vec::new();
        for file in &files {
            let size = std::fs::metadata(file).map_or(0, |m| m.len());
            if size > LARGEST {
                return Err(TaskError::Failed(format!(
                    "{}: {size} bytes are too many for a test result file",
                    file.display()
                )));
            }
            let text = std::fs::read_to_string(file).map_err(|e| TaskError::file("read", file, &e))?;
            match parse(&text, reader) {
                Ok(found) => cases.extend(found),
                Err(error) => {
                    let message = format!("Failed to read {}. Error: {error}.", file.display());
                    if step.flag("failTaskOnFailureToPublishResults", false) {
                        return Err(TaskError::Failed(message));
                    }
                    step.log.warning(&message);
                }
            }
        }
        publish(step, cases)
    }
}

fn publish(step: &StepContext<'_>, mut cases: Vec<TestCase>) -> Result<(), TaskError> {
    let count = |outcome| cases.iter().filter(|c| c.outcome == outcome).count();
    let (passed, failed, skipped) =
        (count(TestOutcome::Passed), count(TestOutcome::Failed), count(TestOutcome::Skipped));
    let total = cases.len();
    step.log.write(&format!("Result: {total} tests, {passed} passed, {failed} failed, {skipped} skipped"));
    for case in &mut cases {
        case.job = format!("{}.{}", step.job.stage, step.job.name);
        case.message = step.log.masker().mask(&case.message);
    }
    let named: Vec<String> = cases
        .iter()
        .filter(|c| c.outcome == TestOutcome::Failed)
        .map(|c| format!("{}.{}: {}", c.class, c.name, c.message.lines().next().unwrap_or_default()))
        .collect();
    step.job.run.change(|run| run.tests.extend(cases));
    for line in named.iter().take(20) {
        step.log.error(line);
    }
    if failed > 0 && step.flag("failTaskOnFailedTests", false) {
        return Err(TaskError::Failed("There are one or more test failures detected in result files.".into()));
    }
    Ok(())
}

type Read = fn(Node<'_, '_>) -> Vec<TestCase>;

const READERS: &[(&str, Read)] = &[("junit", junit), ("nunit", nunit), ("xunit", xunit), ("vstest", trx)];

fn parse(text: &str, read: Read) -> Result<Vec<TestCase>, roxmltree::Error> {
    let options = ParsingOptions { allow_dtd: false, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text.trim_start_matches('\u{feff}'), options)?;
    Ok(read(document.root_element()))
}

fn attribute(node: Node<'_, '_>, name: &str) -> String {
    node.attribute(name).unwrap_or_default().to_owned()
}

fn seconds(text: Option<&str>) -> f64 {
    text.and_then(|t| t.replace(',', "").trim().parse::<f64>().ok()).filter(|s| s.is_finite()).unwrap_or(0.0)
}

fn named<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.descendants().filter(move |n| n.is_element() && n.tag_name().name() == name)
}

fn child<'a, 'i>(node: Node<'a, 'i>, names: &[&str]) -> Option<Node<'a, 'i>> {
    node.children().find(|n| n.is_element() && names.contains(&n.tag_name().name()))
}

fn all_text(node: Node<'_, '_>) -> String {
    node.descendants().filter_map(|n| n.text().filter(|_| n.is_text())).collect::<String>().trim().to_owned()
}

fn junit(root: Node<'_, '_>) -> Vec<TestCase> {
    let case = |node: Node<'_, '_>| {
        let bad = child(node, &["failure", "error"]);
        let outcome = match bad {
            Some(_) => TestOutcome::Failed,
            None if child(node, &["skipped"]).is_some() => TestOutcome::Skipped,
            None => TestOutcome::Passed,
        };
        let message = bad.map_or_else(String::new, |n| {
            n.attribute("message").filter(|m| !m.is_empty()).map_or_else(|| all_text(n), str::to_owned)
        });
        let suite = node.parent().filter(|p| p.tag_name().name() == "testsuite");
        TestCase {
            suite: suite.map_or_else(String::new, |s| attribute(s, "name")),
            class: attribute(node, "classname"),
            name: attribute(node, "name"),
            outcome,
            seconds: seconds(node.attribute("time")),
            message,
            job: String::new(),
        }
    };
    named(root, "testcase").map(case).collect()
}

fn nunit(root: Node<'_, '_>) -> Vec<TestCase> {
    let case = |node: Node<'_, '_>| TestCase {
        suite: String::new(),
        class: attribute(node, "classname"),
        name: attribute(node, "name"),
        outcome: outcome(node.attribute("result").unwrap_or_default()),
        seconds: seconds(node.attribute("duration")),
        message: child(node, &["failure"]).map_or_else(String::new, all_text),
        job: String::new(),
    };
    named(root, "test-case").map(case).collect()
}

fn xunit(root: Node<'_, '_>) -> Vec<TestCase> {
    let case = |node: Node<'_, '_>| TestCase {
        suite: String::new(),
        class: attribute(node, "type"),
        name: attribute(node, "name"),
        outcome: outcome(node.attribute("result").unwrap_or_default()),
        seconds: seconds(node.attribute("time")),
        message: child(node, &["failure"]).map_or_else(String::new, all_text),
        job: String::new(),
    };
    named(root, "test").map(case).collect()
}

fn trx(root: Node<'_, '_>) -> Vec<TestCase> {
    let case = |node: Node<'_, '_>| {
        let message = named(node, "Message").next().map_or_else(String::new, all_text);
        let duration = node.attribute("duration").unwrap_or_default();
        // hh:mm:ss.fffffff
        let time = duration.split(':').fold(0.0, |sum, part| sum * 60.0 + seconds(Some(part)));
        TestCase {
            suite: String::new(),
            class: String::new(),
            name: attribute(node, "testName"),
            outcome: outcome(node.attribute("outcome").unwrap_or_default()),
            seconds: time,
            message,
            job: String::new(),
        }
    };
    named(root, "UnitTestResult").map(case).collect()
}

fn outcome(text: &str) -> TestOutcome {
    match text.to_ascii_lowercase().as_str() {
        "passed" | "pass" | "success" => TestOutcome::Passed,
        "skipped" | "skip" | "notexecuted" | "inconclusive" | "ignored" => TestOutcome::Skipped,
        _ => TestOutcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_files() {
        let text = r#"<?xml version="1.0"?><testsuites><testsuite name="s" tests="3">
            <testcase classname="a.B" name="good" time="0.5"/>
            <testcase classname="a.B" name="bad" time="1,000.25"><failure message="1 != 2">trace</failure></testcase>
            <testcase classname="a.B" name="not"><skipped/></testcase>
        </testsuite></testsuites>"#;
        let cases = parse(text, junit).unwrap();
        let told: Vec<_> = cases.iter().map(|c| (c.name.as_str(), c.outcome, c.seconds, c.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("good", TestOutcome::Passed, 0.5, ""),
                ("bad", TestOutcome::Failed, 1000.25, "1 != 2"),
                ("not", TestOutcome::Skipped, 0.0, ""),
            ]
        );
        assert_eq!(cases[0].suite, "s");
    }

    #[test]
    fn other_formats() {
        let text = r#"<TestRun xmlns="http://microsoft.com/schemas/VisualStudio/TeamTest/2010"><Results>
            <UnitTestResult testName="t" outcome="Failed" duration="00:01:02.5"><Output><ErrorInfo><Message>no</Message></ErrorInfo></Output></UnitTestResult>
        </Results></TestRun>"#;
        let cases = parse(text, trx).unwrap();
        assert_eq!((cases[0].outcome, cases[0].seconds, cases[0].message.as_str()), (TestOutcome::Failed, 62.5, "no"));
        let text = r#"<test-run><test-suite><test-case name="n" classname="c" result="Passed" duration="0.1"/></test-suite></test-run>"#;
        assert_eq!(parse(text, nunit).unwrap()[0].outcome, TestOutcome::Passed);
        let text = r#"<assemblies><assembly><collection><test name="x" type="T" result="Skip" time="0"/></collection></assembly></assemblies>"#;
        assert_eq!(parse(text, xunit).unwrap()[0].outcome, TestOutcome::Skipped);
    }

    #[test]
    fn bombs_are_refused() {
        let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><testsuite>&a;</testsuite>"#;
        assert!(parse(bomb, junit).is_err());
        assert!(parse("<testsuite>", junit).is_err());
    }
}
