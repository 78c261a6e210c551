//! How many replicas a CPU or memory metric asks for, with the rules for pods that are not ready
//! or have no metric yet. Pure.

use crate::pod::{Pod, Resources};
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// CPU (thousandths of a core) or memory (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `cpu`
    Cpu,
    /// `memory`
    Memory,
}

impl Resource {
    /// By name, if it is one that metrics.k8s.io has.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Self::Cpu),
            "memory" => Some(Self::Memory),
            _ => None,
        }
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
    /// The amount among others.
    pub fn of(self, resources: &Resources) -> Option<i64> {
        match self {
            Self::Cpu => resources.cpu,
            Self::Memory => resources.memory,
        }
    }
}

/// Use of a pod as metrics.k8s.io tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUse {
    /// When it was measured.
    pub at: Timestamp,
    /// Over how long.
    pub window: Duration,
    /// By container.
    pub containers: BTreeMap<String, Resources>,
}

/// What a metric aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Percent of the request.
    Utilization(i64),
    /// Amount a pod.
    AverageValue(i64),
}

/// How far from the target nothing is done, as a part of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Above.
    pub up: f64,
    /// Below.
    pub down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What a metric proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Replicas.
    pub replicas: i32,
    /// Present use in percent of the request, for [`Target::Utilization`].
    pub utilization: Option<i64>,
    /// Present use a pod.
    pub average: i64,
}

/// Settings of readiness after the start of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// CPU use of a pod counts only if measured while ready, this long after its start.
    pub cpu_initialization: Duration,
    /// A pod that was never ready this long after its start counts as not ready.
    pub initial_delay: Duration,
}

/// One metric of one workload.
pub struct Question<'a> {
    /// Which resource.
    pub resource: Resource,
    /// One container only.
    pub container: Option<&'a str>,
    /// The aim.
    pub target: Target,
    /// Replicas that the workload has.
    pub current: i32,
    /// When nothing is done.
    pub tolerance: Tolerance,
    /// Rules for young pods.
    pub readiness: Readiness,
}

#[derive(Default)]
struct Groups {
    /// Use of the pods that count.
    used: BTreeMap<String, i64>,
    unready: Vec<String>,
    missing: Vec<String>,
}

fn used(question: &Question, pod_use: &PodUse) -> Option<i64> {
    let containers = pod_use.containers.iter().filter(|(name, _)| question.container.is_none_or(|c| c == *name));
    let mut amounts = containers.map(|(_, amounts)| question.resource.of(amounts)).peekable();
    amounts.peek()?;
    amounts.sum()
}

/// What a pod requests of the resource.
fn requested(question: &Question, pod: &Pod) -> Result<i64, String> {
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers = pod.spec.containers.iter().chain(sidecars);
    containers
        .filter(|c| question.container.is_none_or(|name| name == c.name))
        .map(|c| {
            question.resource.of(&c.resources.requests).ok_or_else(|| {
                format!(
                    "missing request for {} in container {} of Pod {}",
                    question.resource.name(),
                    c.name,
                    pod.name()
                )
            })
        })
        .sum()
}

/// Whether the CPU use of a pod does not count, because it is starting.
fn is_unready(pod: &Pod, measured: &PodUse, readiness: Readiness, now: Timestamp) -> bool {
    let (Some(ready), Some(started)) = (pod.condition("Ready"), pod.status.start_time.as_ref()) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let after = |span: Duration| {
        let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        started.0.saturating_add(span).unwrap_or(Timestamp::MAX)
    };
    if after(readiness.cpu_initialization) > now {
        let window = SignedDuration::try_from(measured.window).unwrap_or(SignedDuration::ZERO);
        return ready.status != "True" || measured.at < changed.saturating_add(window).unwrap_or(Timestamp::MAX);
    }
    ready.status != "True" && after(readiness.initial_delay) > changed
}

fn group(question: &Question, pods: &[Arc<Pod>], uses: &BTreeMap<String, PodUse>, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods.iter().filter(|p| !p.is_terminating() && p.phase() != "Failed") {
        let name = pod.name().to_owned();
        if pod.phase() == "Pending" {
            groups.unready.push(name);
            continue;
        }
        let Some((measured, value)) = uses.get(&name).and_then(|u| Some((u, used(question, u)?))) else {
            groups.missing.push(name);
            continue;
        };
        if question.resource == Resource::Cpu && is_unready(pod, measured, question.readiness, now) {
            groups.unready.push(name);
        } else {
            groups.used.insert(name, value);
        }
    }
    groups
}

/// Ratio of use to target over the pods in `used`.
fn ratio(question: &Question, used: &BTreeMap<String, i64>, requests: &BTreeMap<String, i64>) -> f64 {
    let total: i64 = used.values().sum();
    match question.target {
        Target::Utilization(percent) => {
            let asked: i64 = used.keys().filter_map(|name| requests.get(name)).sum();
            (total * 100 / asked.max(1)) as f64 / percent.max(1) as f64
        }
        Target::AverageValue(value) => (total / used.len().max(1) as i64) as f64 / value.max(1) as f64,
    }
}

/// The number of replicas that the metric asks for.
///
/// # Errors
/// Why nothing can be said: no metrics, or a pod without request.
pub fn propose(
    question: &Question,
    pods: &[Arc<Pod>],
    uses: &BTreeMap<String, PodUse>,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err(format!(
            "no pods returned by selector while calculating replica count for {}",
            question.resource.name()
        ));
    }
    let groups = group(question, pods, uses, now);
    let mut requests = BTreeMap::new();
    if matches!(question.target, Target::Utilization(_)) {
        for pod in pods.iter().filter(|p| !p.is_terminating() && p.phase() != "Failed") {
            requests.insert(pod.name().to_owned(), requested(question, pod)?);
        }
    }
    if groups.used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let first = ratio(question, &groups.used, &requests);
    let total: i64 = groups.used.values().sum();
    let asked: i64 = groups.used.keys().filter_map(|name| requests.get(name)).sum();
    let utilization = matches!(question.target, Target::Utilization(_)).then(|| total * 100 / asked.max(1));
    let proposal = |replicas| Proposal { replicas, utilization, average: total / groups.used.len().max(1) as i64 };
    let up_with_unready = !groups.unready.is_empty() && first > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        if question.tolerance.covers(first) {
            return Ok(proposal(question.current));
        }
        return Ok(proposal(ceil(first * groups.used.len() as f64)));
    }
    // Pods of which nothing is known are assumed to hold against the direction.
    let mut used = groups.used.clone();
    for name in &groups.missing {
        let assumed = match question.target {
            _ if first > 1.0 => 0,
            Target::Utilization(percent) => requests.get(name).copied().unwrap_or(0) * percent.max(100) / 100,
            Target::AverageValue(value) => value,
        };
        if first != 1.0 {
            used.insert(name.clone(), assumed);
        }
    }
    if up_with_unready {
        used.extend(groups.unready.iter().map(|name| (name.clone(), 0)));
    }
    let second = ratio(question, &used, &requests);
    let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
    let replicas = ceil(second * used.len() as f64);
    let against = (second < 1.0 && replicas > question.current) || (second > 1.0 && replicas < question.current);
    let stays = question.tolerance.covers(second) || turned || against;
    Ok(proposal(if stays { question.current } else { replicas }))
}

fn ceil(value: f64) -> i32 {
    value.ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    /// `(name, phase, ready, use in millicores, started)`
    type Row<'a> = (&'a str, &'a str, bool, Option<i64>, &'a str);

    fn ask(target: Target, current: i32, rows: &[Row]) -> Result<Proposal, String> {
        let pods: Vec<Arc<Pod>> = rows
            .iter()
            .map(|(name, phase, ready, _, started)| {
                let ready = if *ready { "True" } else { "False" };
                let value = json!({
                    "metadata": {"name": name},
                    "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
                    "status": {"phase": phase, "startTime": started, "conditions": [
                        {"type": "Ready", "status": ready, "lastTransitionTime": started}]},
                });
                Arc::new(serde_json::from_value(value).unwrap())
            })
            .collect();
        let uses = rows.iter().filter_map(|(name, _, _, milli, _)| {
            let amounts = Resources { cpu: Some((*milli)?), ..Resources::default() };
            let containers = BTreeMap::from([("c".to_owned(), amounts)]);
            Some(((*name).to_owned(), PodUse { at: now(), window: Duration::from_secs(15), containers }))
        });
        let question = Question {
            resource: Resource::Cpu,
            container: None,
            target,
            current,
            tolerance: Tolerance { up: 0.1, down: 0.1 },
            readiness: Readiness {
                cpu_initialization: Duration::from_secs(300),
                initial_delay: Duration::from_secs(30),
            },
        };
        propose(&question, &pods, &uses.collect(), now())
    }

    const OLD: &str = "2026-06-01T10:00:00Z";
    const NEW: &str = "2026-06-01T11:59:55Z";

    #[test]
    fn the_documented_cases() {
        let half = Target::Utilization(50);
        let run = |name, milli| (name, "Running", true, milli, OLD);
        for (why, current, rows, want) in [
            ("twice the target doubles", 2, vec![run("a", Some(1000)), run("b", Some(1000))], 4),
            ("half the target halves", 2, vec![run("a", Some(250)), run("b", Some(250))], 1),
            ("within a tenth stays", 2, vec![run("a", Some(540)), run("b", Some(540))], 2),
            ("fractions round up", 3, vec![run("a", Some(700)), run("b", Some(700)), run("c", Some(700))], 5),
            (
                "unready pods count as idle when scaling up",
                2,
                vec![run("a", Some(1000)), ("b", "Running", false, Some(1000), NEW)],
                2,
            ),
            (
                "pending pods too",
                3,
                vec![run("a", Some(1600)), ("b", "Pending", false, None, NEW), run("c", Some(1600))],
                7,
            ),
            ("missing metrics count as full when scaling down", 2, vec![run("a", Some(100)), run("b", None)], 2),
            ("missing metrics count as idle when scaling up", 2, vec![run("a", Some(2000)), run("b", None)], 4),
            ("failed pods do not count", 2, vec![run("a", Some(1000)), ("b", "Failed", false, None, OLD)], 2),
        ] {
            assert_eq!(ask(half, current, &rows).map(|p| p.replicas), Ok(want), "{why}");
        }
    }

    #[test]
    fn average_value_and_reported_use() {
        let rows = [("a", "Running", true, Some(300), OLD), ("b", "Running", true, Some(500), OLD)];
        let proposal = ask(Target::AverageValue(200), 2, &rows).unwrap();
        assert_eq!(proposal, Proposal { replicas: 4, utilization: None, average: 400 });
        let proposal = ask(Target::Utilization(40), 2, &rows).unwrap();
        assert_eq!(proposal, Proposal { replicas: 2, utilization: Some(40), average: 400 });
    }

    #[test]
    fn nothing_can_be_said_without_metrics_or_pods() {
        assert!(
            ask(Target::Utilization(50), 1, &[("a", "Running", true, None, OLD)])
                .unwrap_err()
                .contains("did not receive")
        );
        assert!(ask(Target::Utilization(50), 1, &[]).unwrap_err().starts_with("no pods returned"));
    }
}
