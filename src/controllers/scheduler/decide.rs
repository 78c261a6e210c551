//! One decision: the best node for a pod, or why there is none. Pure.

use super::{
    cache::{Cache, NodeInfo},
    filter::{Situation, reasons},
    score::scores,
    shape::Shape,
};
use std::{collections::BTreeMap, sync::Arc};

/// Below this number of nodes all are looked at.
const LOOK_AT_ALL: usize = 100;

/// Why no node will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// Nodes there are.
    pub nodes: usize,
    /// Nodes by reason.
    pub reasons: BTreeMap<String, usize>,
}

impl std::fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut parts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, parts.join(", "))
    }
}

/// Feasible nodes that are enough to choose from, as in Kubernetes: half of a hundred nodes, fewer
/// of more, never below a twentieth.
fn enough(nodes: usize) -> usize {
    if nodes < LOOK_AT_ALL {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(LOOK_AT_ALL)
}

/// Chooses a node. `start` is where the search begins, moved on so that every node gets its turn.
///
/// # Errors
/// No node will do; the reasons say why.
pub fn decide(cache: &mut Cache, shape: &Shape, start: &mut usize) -> Result<Arc<str>, Unschedulable> {
    let terms = shape.spread.iter().map(|s| &s.term);
    let terms = terms.chain(&shape.affinity).chain(&shape.anti_affinity);
    cache.count_for(terms.chain(shape.preferred_pods.iter().map(|(_, t)| t)));
    let cache = &*cache;
    let situation = Situation::of(cache, shape);
    let count = cache.nodes().len();
    let wanted = enough(count);
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut looked_at = 0;
    while looked_at < count && feasible.len() < wanted {
        let Some((_, node)) = cache.nodes().get_index((*start + looked_at) % count) else { break };
        looked_at += 1;
        let reasons = reasons(shape, node, &situation);
        if reasons.is_empty() {
            feasible.push(node);
        }
        for reason in reasons {
            *refused.entry(reason).or_insert(0) += 1;
        }
    }
    if count > 0 {
        *start = (*start + looked_at) % count;
    }
    let best = match feasible.as_slice() {
        [] => return Err(Unschedulable { nodes: count, reasons: refused }),
        [only] => only,
        _ => {
            let scores = scores(cache, shape, &feasible);
            let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            feasible[best.map_or(0, |(i, _)| i)]
        }
    };
    Ok(best.name.clone())
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
