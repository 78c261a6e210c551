//! Runs nodes that wait for each other, as many at once as may.

use crate::store::record::Outcome;
use std::{collections::BTreeMap, future::Future};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A node and the nodes that end before it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Names that it waits for.
    pub after: Vec<String>,
}

/// All that `name` waits for, directly or not, nearest last.
pub fn ancestors(nodes: &[Node], name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<&str> = vec![name];
    while let Some(current) = open.pop() {
        let Some(node) = nodes.iter().find(|n| n.name == current) else { continue };
        for before in &node.after {
            if !found.contains(before) {
                found.push(before.clone());
                open.push(before);
            }
        }
    }
    found.retain(|f| f != name);
    found
}

/// Runs every node once those that it waits for have ended, and tells their outcomes. `start` decides by itself whether
/// the node is run or skipped. When `cancel` is cancelled, nodes that have not begun are started all the same: what
/// their conditions say then is theirs.
pub async fn run<F>(nodes: &[Node], cancel: &CancellationToken, start: impl Fn(usize) -> F) -> BTreeMap<String, Outcome>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut begun = vec![false; nodes.len()];
    let mut running = JoinSet::new();
    loop {
        for (index, node) in nodes.iter().enumerate() {
            let known = |name: &String| outcomes.contains_key(name) || !nodes.iter().any(|n| n.name == *name);
            if !begun[index] && node.after.iter().all(known) {
                begun[index] = true;
                let future = start(index);
                running.spawn(async move { (index, future.await) });
            }
        }
        match running.join_next_with_id().await {
            Some(Ok((_, (index, outcome)))) => {
                outcomes.insert(nodes[index].name.clone(), outcome);
            }
            Some(Err(error)) => {
                // A panic in a node is a bug; which node is told by what has begun and has no outcome.
                tracing::error!(%error, "a part of a pipeline run ended by a bug");
                for (index, node) in nodes.iter().enumerate() {
                    if begun[index] && running.is_empty() {
                        outcomes.entry(node.name.clone()).or_insert(Outcome::Failed);
                    }
                }
            }
            None => break,
        }
    }
    // A circle is refused when the plan is made; what is left of one here never ran.
    for node in nodes {
        outcomes.entry(node.name.clone()).or_insert(if cancel.is_cancelled() {
            Outcome::Canceled
        } else {
            Outcome::Skipped
        });
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn node(name: &str, after: &[&str]) -> Node {
        Node { name: name.into(), after: after.iter().map(|a| (*a).to_owned()).collect() }
    }

    #[tokio::test]
    async fn order_follows_what_is_waited_for() {
        let nodes = [node("d", &["b", "c"]), node("a", &[]), node("b", &["a"]), node("c", &["a"])];
        let order = Arc::new(Mutex::new(Vec::new()));
        let outcomes = run(&nodes, &CancellationToken::new(), |index| {
            let (order, name) = (order.clone(), nodes[index].name.clone());
            async move {
                order.lock().push(name);
                Outcome::Succeeded
            }
        })
        .await;
        assert_eq!(outcomes.len(), 4);
        let order = order.lock().clone();
        assert_eq!((order[0].as_str(), order[3].as_str()), ("a", "d"));
        let mut before = ancestors(&nodes, "d");
        before.sort();
        assert_eq!(before, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_circle_ends() {
        let nodes = [node("a", &["b"]), node("b", &["a"])];
        let outcomes = run(&nodes, &CancellationToken::new(), |_| async { Outcome::Succeeded }).await;
        assert!(outcomes.values().all(|o| *o == Outcome::Skipped));
        assert_eq!(ancestors(&nodes, "a"), ["b"]);
    }
}
