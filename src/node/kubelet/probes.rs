//! Startup, liveness and readiness probes of a running container: a task each, by their delays and
//! periods. A container that has not been healthy yet is looked at between its periods too: a
//! server that listens after 20 ms is not kept waiting for the second that a period is at least.
//! Such a look can find it healthy; that it finds nothing counts for nothing.

use super::{
    actions::{self, ActionResult, Target},
    events::{EventSink, Kind},
    pod::Role,
};
use k8s_openapi::api::core::v1::{Pod, Probe};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A threshold was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub container_id: String,
    pub kind: ProbeKind,
    pub healthy: bool,
}

/// What a probe's task needs.
#[derive(Clone)]
pub(super) struct ProbeContext {
    pub target: Target,
    pub pod: Arc<Pod>,
    pub role: Role,
    pub events: EventSink,
    pub verdicts: mpsc::Sender<Verdict>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
}

/// Consecutive results against the thresholds.
#[derive(Debug)]
struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
    told: Option<bool>,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        let threshold = |v: Option<i32>, default| v.and_then(|v| u32::try_from(v).ok()).unwrap_or(default).max(1);
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            run: 0,
            told: None,
        }
    }

    /// Whether no result was a success yet.
    fn never_healthy(&self) -> bool {
        self.told != Some(true) && self.last != Some(true)
    }

    /// The new verdict, if this result passes a threshold and changes it.
    fn count(&mut self, healthy: bool) -> Option<bool> {
        self.run = if self.last == Some(healthy) { self.run + 1 } else { 1 };
        self.last = Some(healthy);
        let threshold = if healthy { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.told == Some(healthy) {
            return None;
        }
        self.told = Some(healthy);
        Some(healthy)
    }
}

/// When the next look between two periods is due.
#[derive(Debug, PartialEq, Eq)]
struct EarlyLook {
    delay: Duration,
    period: Duration,
    due: Option<Instant>,
}

impl EarlyLook {
    const FIRST: Duration = Duration::from_millis(20);

    /// None is due before the first look of the period has failed, and none at all for liveness.
    fn new(period: Duration) -> Self {
        Self { delay: Self::FIRST, period, due: None }
    }

    /// A look found nothing: the next one waits twice as long, and none a whole period.
    fn after(&mut self, now: Instant) {
        self.due = (self.delay < self.period).then_some(now + self.delay);
        self.delay *= 2;
    }

    async fn wait(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

/// Probes until a final verdict (startup: either; liveness: failure) or until dropped.
pub(super) async fn run(context: ProbeContext, kind: ProbeKind, probe: Probe, started: jiff::Timestamp) {
    let age = Duration::try_from(jiff::Timestamp::now().duration_since(started)).unwrap_or_default();
    let first = Instant::now() + seconds(probe.initial_delay_seconds, 0).saturating_sub(age);
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let mut ticks = tokio::time::interval_at(first, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut counter = Counter::new(&probe);
    let mut early = EarlyLook::new(period);
    loop {
        let regular = tokio::select! {
            _ = ticks.tick() => true,
            () = early.wait() => false,
        };
        let result = once(&context.target, &probe).await;
        if result.is_ok() {
            early.due = None;
        } else if kind != ProbeKind::Liveness && counter.never_healthy() {
            early.after(Instant::now());
        }
        if let Err(message) = &result {
            if !regular {
                continue;
            }
            let path = Some(context.role.field_path(&context.target.container.name));
            let told = format!("{} probe failed: {}", kind.name(), message.trim_end());
            context.events.pod(&context.pod, path, Kind::Warning, "Unhealthy", told);
        }
        let Some(healthy) = counter.count(result.is_ok()) else { continue };
        let verdict = Verdict { container_id: context.target.container_id.clone(), kind, healthy };
        if context.verdicts.send(verdict).await.is_err() {
            return;
        }
        let finished = kind == ProbeKind::Startup || (kind == ProbeKind::Liveness && !healthy);
        if finished {
            return;
        }
    }
}

async fn once(target: &Target, probe: &Probe) -> ActionResult {
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    if let Some(action) = &probe.exec {
        return actions::exec(target, action, timeout).await;
    }
    let result = tokio::time::timeout(timeout, async {
        if let Some(action) = &probe.http_get {
            actions::http_get(target, action).await
        } else if let Some(action) = &probe.tcp_socket {
            actions::tcp(target, action).await
        } else if let Some(action) = &probe.grpc {
            actions::grpc(target, action).await
        } else {
            Err("missing probe handler".into())
        }
    });
    match result.await {
        Ok(result) => result,
        Err(_) => Err(format!("context deadline exceeded (timeout of {}s)", timeout.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_looks_become_rare_and_end() {
        let now = Instant::now();
        let mut early = EarlyLook::new(Duration::from_secs(1));
        let mut delays = Vec::new();
        loop {
            early.after(now);
            let Some(due) = early.due else { break };
            delays.push((due - now).as_millis());
        }
        assert_eq!(delays, [20, 40, 80, 160, 320, 640]);
    }

    #[test]
    fn thresholds_count_consecutive_results() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Default::default() };
        let mut counter = Counter::new(&probe);
        let results = [true, true, true, false, true, false, false, false, true, true];
        let verdicts: Vec<_> = results.into_iter().map(|r| counter.count(r)).collect();
        let mut want = vec![None; 10];
        want[1] = Some(true);
        want[6] = Some(false);
        want[9] = Some(true);
        assert_eq!(verdicts, want);
    }
}
