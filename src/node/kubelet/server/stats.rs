//! Use of resources: `/stats/summary` and `/metrics/resource`.

use super::Api;
use crate::{
    kubelet::{shared::Shared, table::PodView},
    runtime::{ContainerState, Usage},
};
use axum::{Json, extract::State, response::IntoResponse, response::Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Samples closer together than this give no useful rate; the last rate is told again.
const SPACING: Duration = Duration::from_secs(1);

/// CPU rates from the samples of one scrape to the next: no timer, whoever asks samples.
#[derive(Default)]
pub(super) struct Sampler {
    samples: Mutex<HashMap<String, Sample>>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    cpu_nanos: u64,
    rate: u64,
}

impl Sampler {
    /// Nanocores since the sample before; since the container's start when there is none.
    fn rate(&self, id: &str, usage: &Usage, age: Duration, now: Instant) -> u64 {
        let mut samples = self.samples.lock();
        let per_second = |nanos: u64, over: Duration| {
            let rate = u128::from(nanos) * 1_000_000_000 / over.as_nanos().max(1);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        let rate = match samples.get(id) {
            Some(last) if now.duration_since(last.at) < SPACING => return last.rate,
            Some(last) => per_second(usage.cpu_nanos.saturating_sub(last.cpu_nanos), now.duration_since(last.at)),
            None => per_second(usage.cpu_nanos, age.max(Duration::from_millis(100))),
        };
        samples.insert(id.to_owned(), Sample { at: now, cpu_nanos: usage.cpu_nanos, rate });
        rate
    }

    fn keep(&self, ids: &HashSet<String>) {
        self.samples.lock().retain(|id, _| ids.contains(id));
    }
}

struct ContainerStats {
    name: String,
    started: jiff::Timestamp,
    usage: Usage,
    rate: u64,
}

struct PodStats {
    view: Arc<PodView>,
    containers: Vec<ContainerStats>,
}

async fn collect(shared: &Shared, sampler: &Sampler) -> Vec<PodStats> {
    let mut ids = HashSet::new();
    let mut result = Vec::new();
    for view in shared.pods.all() {
        let mut containers = Vec::new();
        for current in view.containers.values().filter_map(|c| c.current.as_ref()) {
            let ContainerState::Running { started } = current.state else { continue };
            // One that ended in this moment is left out.
            let Ok(usage) = shared.runtime.usage(&current.id).await else { continue };
            let age = Duration::try_from(jiff::Timestamp::now().duration_since(started)).unwrap_or_default();
            let rate = sampler.rate(&current.id, &usage, age, Instant::now());
            ids.insert(current.id.clone());
            containers.push(ContainerStats { name: current.name.clone(), started, usage, rate });
        }
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        result.push(PodStats { view, containers });
    }
    sampler.keep(&ids);
    result
}

fn total(containers: &[&ContainerStats]) -> (Usage, u64) {
    containers.iter().fold((Usage::default(), 0), |(sum, rate), c| {
        let usage = Usage {
            cpu_nanos: sum.cpu_nanos + c.usage.cpu_nanos,
            memory_working_set: sum.memory_working_set + c.usage.memory_working_set,
            memory_usage: sum.memory_usage + c.usage.memory_usage,
        };
        (usage, rate + c.rate)
    })
}

fn figures(time: &str, usage: &Usage, rate: u64) -> (Value, Value) {
    let cpu = json!({ "time": time, "usageNanoCores": rate, "usageCoreNanoSeconds": usage.cpu_nanos });
    let memory = json!({
        "time": time, "usageBytes": usage.memory_usage, "workingSetBytes": usage.memory_working_set
    });
    (cpu, memory)
}

pub(super) async fn summary(State(api): State<Arc<Api>>) -> Response {
    let pods = collect(&api.shared, &api.stats).await;
    let time = jiff::Timestamp::now().to_string();
    let all: Vec<&ContainerStats> = pods.iter().flat_map(|p| &p.containers).collect();
    let (usage, rate) = total(&all);
    let (cpu, mut memory) = figures(&time, &usage, rate);
    memory["availableBytes"] = json!(api.shared.node.capacity.memory_bytes.saturating_sub(usage.memory_working_set));
    let pods: Vec<Value> = pods.iter().map(|pod| pod_summary(pod, &time)).collect();
    let node = json!({ "nodeName": api.shared.node.name, "startTime": time, "cpu": cpu, "memory": memory });
    Json(json!({ "node": node, "pods": pods })).into_response()
}

fn pod_summary(pod: &PodStats, time: &str) -> Value {
    let meta = &pod.view.pod.metadata;
    let (usage, rate) = total(&pod.containers.iter().collect::<Vec<_>>());
    let (cpu, memory) = figures(time, &usage, rate);
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|c| {
            let (cpu, memory) = figures(time, &c.usage, c.rate);
            json!({ "name": c.name, "startTime": c.started, "cpu": cpu, "memory": memory })
        })
        .collect();
    let start = pod.view.pod.status.as_ref().and_then(|s| s.start_time.clone());
    json!({
        "podRef": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid },
        "startTime": start, "containers": containers, "cpu": cpu, "memory": memory
    })
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let pods = collect(&api.shared, &api.stats).await;
    let mut cpu = String::from(
        "# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds\n\
         # TYPE container_cpu_usage_seconds_total counter\n",
    );
    let mut memory = String::from(
        "# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes\n\
         # TYPE container_memory_working_set_bytes gauge\n",
    );
    for pod in &pods {
        let meta = &pod.view.pod.metadata;
        let (name, namespace) =
            (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        for container in &pod.containers {
            let labels = format!("{{container=\"{}\",namespace=\"{namespace}\",pod=\"{name}\"}}", container.name);
            // Writing to a String cannot fail.
            let _ =
                writeln!(cpu, "container_cpu_usage_seconds_total{labels} {}", container.usage.cpu_nanos as f64 / 1e9);
            let _ =
                writeln!(memory, "container_memory_working_set_bytes{labels} {}", container.usage.memory_working_set);
        }
    }
    ([("content-type", "text/plain; version=0.0.4")], format!("{cpu}{memory}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_samples() {
        let sampler = Sampler::default();
        let now = Instant::now();
        let usage = |cpu_nanos| Usage { cpu_nanos, ..Default::default() };
        let first = sampler.rate("a", &usage(1_000_000_000), Duration::from_secs(10), now);
        assert_eq!(first, 100_000_000, "average since start");
        let soon = now + Duration::from_millis(10);
        assert_eq!(sampler.rate("a", &usage(1_100_000_000), Duration::from_secs(10), soon), first);
        let later = now + Duration::from_secs(10);
        assert_eq!(sampler.rate("a", &usage(6_000_000_000), Duration::from_secs(20), later), 500_000_000);
        sampler.keep(&HashSet::new());
        assert!(sampler.samples.lock().is_empty());
    }
}
