//! The four properties of the reference architecture, each a scenario that fails where it does not hold.

use super::{Evidence, Shop};
use aksim_scenarios::{Environment, Options, Outcome, library, run};
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// The properties, each with its scenario.
pub const ALL: [(&str, &str); 4] = [
    ("horizontal scaling", "horizontal-scaling"),
    ("self-healing", "self-healing"),
    ("load balancing", "load-balancing"),
    ("secret management", "secret-management"),
];

/// Runs a scenario against the shop; what its load and its steps found.
pub async fn scenario(shop: &Shop, name: &str) -> Evidence {
    let text = |error: &dyn std::error::Error| error.to_string();
    let entry = library::find(&shop.config.root, name).map_err(|e| text(&e))?;
    let scenario = entry.read(&BTreeMap::new()).map_err(|e| text(&e))?;
    let exe = std::env::current_exe().map_err(|e| text(&e))?;
    let environment =
        Environment::new(shop.config.clone(), shop.home.clone(), shop.control.clone(), shop.client.clone(), exe);
    let options = Options { auto: true, seed: None, stop: CancellationToken::new(), tell: &|_| {} };
    let report = run(&environment, &scenario, &options).await.map_err(|e| text(&e))?;
    let loads = report.loads.iter().map(|load| {
        let n = &load.numbers;
        format!("{} requests, {} failed, p95 {} ms", n.requests, n.failed, n.p95_ms)
    });
    if report.outcome == Outcome::Passed {
        let steps = format!("{} steps hold", report.steps.len());
        return Ok(std::iter::once(steps).chain(loads).collect::<Vec<_>>().join("; "));
    }
    let failed = report.steps.iter().filter(|step| step.outcome == Outcome::Failed).flat_map(|step| {
        let checks = step.checks.iter().filter(|check| !check.holds);
        checks.map(move |check| format!("{}: {}: {}", step.id, check.claim, check.found))
    });
    let problems = failed.chain(report.problems.iter().cloned()).collect::<Vec<_>>();
    Err(if problems.is_empty() { format!("{:?}", report.outcome) } else { problems.join("; ") })
}
