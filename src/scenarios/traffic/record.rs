//! What became of the requests.

use crate::statistics::percentile;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Failures that a summary tells in words.
const TOLD: usize = 5;

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was due.
    pub due: Instant,
    /// From when it was due to the end of its answer.
    pub latency: Duration,
    /// Who served it, if the answer says; or why it failed.
    pub outcome: Result<Option<String>, String>,
}

/// Samples of one load, shared between its requests and those who look.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Vec<Sample>>>);

/// Numbers of a load.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Requests that have ended.
    pub requests: usize,
    /// Of them, those that failed.
    pub failed: usize,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// Latency from when they were due, milliseconds; failed ones too.
    pub p50_ms: u64,
    /// 95 of 100 are not slower.
    pub p95_ms: u64,
    /// 99 of 100 are not slower.
    pub p99_ms: u64,
    /// The slowest.
    pub max_ms: u64,
}

impl Record {
    /// Takes a request that has ended.
    pub fn add(&self, sample: Sample) {
        self.0.lock().push(sample);
    }

    /// Those due at or after `since`, of all when absent.
    pub fn samples(&self, since: Option<Instant>) -> Vec<Sample> {
        self.0.lock().iter().filter(|s| since.is_none_or(|at| s.due >= at)).cloned().collect()
    }

    /// Numbers of those due at or after `since`.
    pub fn summary(&self, since: Option<Instant>) -> Summary {
        let samples = self.samples(since);
        let mut latencies: Vec<u64> =
            samples.iter().map(|s| u64::try_from(s.latency.as_millis()).unwrap_or(u64::MAX)).collect();
        latencies.sort_unstable();
        let at = |share| percentile(&latencies, share).unwrap_or(0);
        let failures: Vec<&String> = samples.iter().filter_map(|s| s.outcome.as_ref().err()).collect();
        Summary {
            requests: samples.len(),
            failed: failures.len(),
            failures: failures.iter().take(TOLD).map(|f| (*f).clone()).collect(),
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }
}
