//! The tests that a run published, as JUnit XML.

use aksim_pipelines::record::{RunRecord, TestOutcome};

/// `3 tests, 2 passed, 1 failed, 0 skipped`.
pub fn summary(run: &RunRecord) -> String {
    let count = |outcome| run.tests.iter().filter(|t| t.outcome == outcome).count();
    format!(
        "{} tests, {} passed, {} failed, {} skipped",
        run.tests.len(),
        count(TestOutcome::Passed),
        count(TestOutcome::Failed),
        count(TestOutcome::Skipped)
    )
}

/// One suite a job.
pub fn render(run: &RunRecord) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(&format!("<testsuites name=\"{} {}\">\n", escape(&run.request.pipeline), escape(&run.name)));
    let mut jobs: Vec<&str> = run.tests.iter().map(|t| t.job.as_str()).collect();
    jobs.sort_unstable();
    jobs.dedup();
    for job in jobs {
        let tests: Vec<_> = run.tests.iter().filter(|t| t.job == job).collect();
        let count = |outcome| tests.iter().filter(|t| t.outcome == outcome).count();
        text.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">\n",
            escape(job),
            tests.len(),
            count(TestOutcome::Failed),
            count(TestOutcome::Skipped)
        ));
        for test in tests {
            let inner = match test.outcome {
                TestOutcome::Passed => String::new(),
                TestOutcome::Skipped => "<skipped/>".to_owned(),
                TestOutcome::Failed => format!("<failure message=\"{}\"/>", escape(&test.message)),
            };
            text.push_str(&format!(
                "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">{inner}</testcase>\n",
                escape(&test.class),
                escape(&test.name),
                test.seconds
            ));
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// Text of an attribute (XML 1.0): control characters that it cannot hold become spaces.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\n' => "&#10;".to_owned(),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_escaped() {
        assert_eq!(escape("a<b> & \"c\"\n\u{1}"), "a&lt;b&gt; &amp; &quot;c&quot;&#10; ");
    }
}
