//! How evenly the requests of a load were spread over the pods that were to serve them.

use super::{Check, Verdict};
use crate::{Run, ScenarioError, statistics};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;

/// `spread`
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EvenSpread {
    /// Which load; its answers name their pod in `x-served-by`.
    load: String,
    /// Label selector of the pods that are to serve, each of them.
    pods: String,
    /// Namespace of the pods.
    #[serde(default = "super::default_namespace")]
    namespace: String,
    /// Requests that must have been served.
    requests_at_least: usize,
    /// Largest distance of a pod's count from the even share, as a part of the even share.
    deviation_at_most: f64,
}

#[async_trait]
impl Check for EvenSpread {
    fn claim(&self) -> String {
        format!(
            "load {} is spread over all pods with {}, each within {:.0} % of the even share",
            self.load,
            self.pods,
            self.deviation_at_most * 100.0
        )
    }

    async fn look(&self, run: &Run<'_>) -> Result<Verdict, ScenarioError> {
        let api: Api<Pod> = Api::namespaced(run.environment.client.clone(), &self.namespace);
        let list = api.list(&ListParams::default().labels(&self.pods)).await.map_err(ScenarioError::cluster("pods"))?;
        let pods: BTreeSet<String> =
            list.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect();
        let samples = run.record(&self.load)?.samples(None);
        let served: Vec<String> = samples.into_iter().filter_map(|s| s.outcome.ok().flatten()).collect();
        let spread = statistics::spread(pods.iter().map(String::as_str), served.iter().map(String::as_str));
        let counts: Vec<String> = spread.counts.iter().map(|(pod, n)| format!("{pod} {n}")).collect();
        let found = format!(
            "{}; {:.1} % off the even share, chi-square {:.2} with {} degrees of freedom",
            counts.join(", "),
            spread.deviation * 100.0,
            spread.chi_square,
            spread.counts.len().saturating_sub(1)
        );
        let enough = served.len() >= self.requests_at_least;
        let holds = pods.len() > 1 && enough && spread.deviation <= self.deviation_at_most;
        // Judged once there are enough: waiting until chance makes it even would prove nothing.
        Ok(if enough { Verdict::final_(holds, found) } else { Verdict::new(false, found) })
    }
}
