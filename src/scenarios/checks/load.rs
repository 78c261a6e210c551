//! Numbers of a load: failures, latency, how many requests there were.

use super::{Check, Verdict};
use crate::{Period, Run, ScenarioError};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `load`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LoadNumbers {
    /// Which load.
    name: String,
    /// Since this step began alone.
    #[serde(default)]
    this_step: bool,
    /// Requests that must have ended, so that the other numbers mean something.
    #[serde(default = "default_requests")]
    requests_at_least: usize,
    /// Failed requests.
    #[serde(default)]
    failed_at_most: Option<usize>,
    /// Half of them are not slower.
    #[serde(default)]
    p50_at_most: Option<Period>,
    /// 95 of 100 are not slower.
    #[serde(default)]
    p95_at_most: Option<Period>,
    /// 99 of 100 are not slower.
    #[serde(default)]
    p99_at_most: Option<Period>,
}

fn default_requests() -> usize {
    1
}

#[async_trait]
impl Check for LoadNumbers {
    fn claim(&self) -> String {
        let mut parts = vec![format!("at least {} requests", self.requests_at_least)];
        parts.extend(self.failed_at_most.map(|n| format!("at most {n} failed")));
        for (name, bound) in [("p50", self.p50_at_most), ("p95", self.p95_at_most), ("p99", self.p99_at_most)] {
            parts.extend(bound.map(|b| format!("{name} at most {b}")));
        }
        format!("load {}: {}", self.name, parts.join(", "))
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let since = self.this_step.then(|| run.step_begun());
        let summary = run.record(&self.name)?.summary(since);
        let within = |bound: Option<Period>, ms: u64| bound.is_none_or(|b| Duration::from_millis(ms) <= b.0);
        let good = self.failed_at_most.is_none_or(|most| summary.failed <= most);
        let quick = within(self.p50_at_most, summary.p50_ms)
            && within(self.p95_at_most, summary.p95_ms)
            && within(self.p99_at_most, summary.p99_ms);
        let mut found = format!(
            "{} requests, {} failed, p50 {} ms, p95 {} ms, p99 {} ms",
            summary.requests, summary.failed, summary.p50_ms, summary.p95_ms, summary.p99_ms
        );
        if let Some(first) = summary.failures.first() {
            found.push_str(&format!("; first: {first}"));
        }
        let enough = summary.requests >= self.requests_at_least;
        // A failure does not go away; a percentile may come down.
        let verdict = Verdict::new(enough && good && quick, found);
        Ok(if good { verdict } else { Verdict { lost: true, ..verdict } })
    }
}
