//! The list of clusters that an environment may have.

use crate::SimulatorError;
use aksim_cluster::provider::ClusterKind;

/// The kinds of cluster, a line each. `aksim.toml` takes the same names.
pub const PROVIDERS: &[&dyn ClusterKind] = &[&aksim_provider_embedded::Embedded];

/// The kind that a project asks for: `embedded`, or `context` of `context:NAME`.
///
/// # Errors
/// [`SimulatorError::NoProvider`].
pub fn provider(asked: &str) -> Result<&'static dyn ClusterKind, SimulatorError> {
    let kind = asked.split(':').next().unwrap_or(asked);
    let found = PROVIDERS.iter().find(|provider| provider.name() == kind);
    found.copied().ok_or_else(|| SimulatorError::NoProvider(asked.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aksim_config::project::CLUSTER_PROVIDERS;

    #[test]
    fn a_project_may_ask_for_what_there_is_and_for_nothing_else() {
        let names: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name()).collect();
        assert_eq!(names, CLUSTER_PROVIDERS);
        assert!(names.iter().all(|name| provider(name).is_ok_and(|found| found.name() == *name)));
        let error = provider("minikube").err().expect("there is no such provider");
        assert!(error.to_string().contains("`minikube`"), "{error}");
    }
}
