//! How good a node is for a pod, among those that it can run on. Pure.

use super::{
    cache::{Cache, NodeInfo, scored},
    filter::tolerates,
    shape::{Shape, term_matches},
};
use std::collections::HashMap;

/// Best score of one criterion.
const BEST: f64 = 100.0;
/// Sizes of all images of a pod between which their being there matters, bytes.
const IMAGE_BYTES: (f64, f64) = (23.0 * 1048576.0, 1000.0 * 1048576.0);
const ZONE: &str = "topology.kubernetes.io/zone";

/// Scores of the feasible nodes, in their order; higher is better. Weights are Kubernetes' own.
pub fn scores(cache: &Cache, shape: &Shape, feasible: &[&NodeInfo]) -> Vec<f64> {
    let mut total: Vec<f64> = feasible.iter().map(|n| resources(shape, n) + images(cache, shape, n)).collect();
    let mut add = |values: Vec<f64>, weight: f64| {
        for (sum, value) in total.iter_mut().zip(values) {
            *sum += weight * value;
        }
    };
    if feasible.iter().any(|n| n.taints.iter().any(|t| t.effect == "PreferNoSchedule")) {
        add(fewest(feasible.iter().map(|n| intolerable(shape, n)).collect()), 3.0);
    }
    if !shape.preferred_nodes.is_empty() {
        add(most(feasible.iter().map(|n| preferred(shape, n)).collect()), 2.0);
    }
    if !shape.preferred_pods.is_empty() {
        add(range(company(cache, shape, feasible)), 2.0);
    }
    add(spread(cache, shape, feasible), 2.0);
    total
}

/// Least allocated plus balanced, for CPU and memory.
fn resources(shape: &Shape, node: &NodeInfo) -> f64 {
    let (cpu, memory) = scored(&shape.requests);
    let have = (node.allocatable.cpu.unwrap_or(0) as f64, node.allocatable.memory.unwrap_or(0) as f64);
    let used = ((node.scored.0 + cpu) as f64, (node.scored.1 + memory) as f64);
    let share = |used: f64, have: f64| if have <= 0.0 { 1.0 } else { (used / have).min(1.0) };
    let (cpu, memory) = (share(used.0, have.0), share(used.1, have.1));
    let free = (1.0 - cpu + 1.0 - memory) / 2.0;
    let balance = 1.0 - (cpu - memory).abs() / 2.0;
    BEST * (free + balance)
}

/// How much of the pod's images the node has, scaled by how many nodes have them.
fn images(cache: &Cache, shape: &Shape, node: &NodeInfo) -> f64 {
    if node.images.is_empty() {
        return 0.0;
    }
    let bytes: f64 = shape
        .images
        .iter()
        .filter_map(|image| Some((image, *node.images.get(image)?)))
        .map(|(image, size)| {
            let having = cache.nodes().values().filter(|n| n.images.contains_key(image)).count();
            size as f64 * having as f64 / cache.nodes().len().max(1) as f64
        })
        .sum();
    let (least, most) = (IMAGE_BYTES.0, IMAGE_BYTES.1 * shape.images.len().max(1) as f64);
    BEST * (bytes.clamp(least, most) - least) / (most - least)
}

fn intolerable(shape: &Shape, node: &NodeInfo) -> f64 {
    let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    soft.filter(|t| !shape.tolerations.iter().any(|tolerance| tolerates(tolerance, t))).count() as f64
}

fn preferred(shape: &Shape, node: &NodeInfo) -> f64 {
    let matching = shape.preferred_nodes.iter().filter(|(_, term)| term_matches(term, &node.name, &node.labels));
    matching.map(|(weight, _)| *weight as f64).sum()
}

/// Weights of the pods that this one likes or dislikes, in each node's domain.
fn company(cache: &Cache, shape: &Shape, feasible: &[&NodeInfo]) -> Vec<f64> {
    let mut sums = vec![0.0; feasible.len()];
    for (weight, term) in &shape.preferred_pods {
        let Some(count) = cache.counted(term) else { continue };
        let by_domain = by_domain(cache, &term.topology_key, |n| count.by_node.get(&n.name).copied().unwrap_or(0));
        for (sum, node) in sums.iter_mut().zip(feasible) {
            let here = node.labels.get(&term.topology_key).and_then(|v| by_domain.get(v.as_str()));
            *sum += (*weight * here.copied().unwrap_or(0)) as f64;
        }
    }
    sums
}

fn by_domain<'a>(cache: &'a Cache, key: &str, count: impl Fn(&NodeInfo) -> i64) -> HashMap<&'a str, i64> {
    let mut counts = HashMap::new();
    for node in cache.nodes().values() {
        if let Some(value) = node.labels.get(key) {
            *counts.entry(value.as_str()).or_insert(0) += count(node);
        }
    }
    counts
}

/// Soft spread constraints; without any, siblings of one owner over nodes and zones.
fn spread(cache: &Cache, shape: &Shape, feasible: &[&NodeInfo]) -> Vec<f64> {
    let mut sums = vec![0.0; feasible.len()];
    let soft: Vec<_> = shape.spread.iter().filter(|s| !s.hard).collect();
    if !soft.is_empty() {
        for constraint in soft {
            let Some(count) = cache.counted(&constraint.term) else { continue };
            let counts = by_domain(cache, &constraint.key, |n| count.by_node.get(&n.name).copied().unwrap_or(0));
            // Many domains weigh more, since each holds few.
            let weight = ((counts.len() + 2) as f64).ln();
            for (sum, node) in sums.iter_mut().zip(feasible) {
                let here = node.labels.get(&constraint.key).and_then(|v| counts.get(v.as_str())).copied();
                // A node outside of every domain comes last.
                let here = here.map_or(f64::from(u16::MAX), |h| h as f64);
                *sum += here * weight + (constraint.max_skew - 1) as f64;
            }
        }
        return fewest(sums);
    }
    let Some(owner) = shape.owner.as_ref().filter(|_| shape.spread.is_empty()) else { return sums };
    let on_node = |n: &NodeInfo| n.siblings.get(owner).copied().unwrap_or(0);
    let zones = if feasible.iter().any(|n| n.labels.contains_key(ZONE)) {
        by_domain(cache, ZONE, on_node)
    } else {
        HashMap::new()
    };
    let weights = (((cache.nodes().len() + 2) as f64).ln(), ((zones.len() + 2) as f64).ln());
    for (sum, node) in sums.iter_mut().zip(feasible) {
        let in_zone = node.labels.get(ZONE).and_then(|z| zones.get(z.as_str())).copied().unwrap_or(0);
        *sum = on_node(node) as f64 * weights.0 + in_zone as f64 * weights.1;
    }
    fewest(sums)
}

/// Scales so that the smallest is best.
fn fewest(values: Vec<f64>) -> Vec<f64> {
    let (min, max) = bounds(&values);
    values.into_iter().map(|v| if max == 0.0 { BEST } else { BEST * (max + min - v) / max }).collect()
}

/// Scales so that the largest is best, zero worst.
fn most(values: Vec<f64>) -> Vec<f64> {
    let (_, max) = bounds(&values);
    values.into_iter().map(|v| if max == 0.0 { 0.0 } else { BEST * v / max }).collect()
}

/// Scales so that the largest is best, the smallest worst.
fn range(values: Vec<f64>) -> Vec<f64> {
    let (min, max) = bounds(&values);
    values.into_iter().map(|v| if max == min { 0.0 } else { BEST * (v - min) / (max - min) }).collect()
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)))
}
