//! Why an environment does not come up.

use crate::StateError;
use aksim_cluster::{kubeconfig::KubeconfigError, manifests::ManifestError, provider::ProviderError};
use aksim_database::DatabaseError;
use aksim_git::GitError;
use aksim_identity::IdentityError;
use aksim_images::BuildError;
use aksim_ingress::IngressError;
use aksim_model::advice::{Advice, DISK_FULL_HINT, ExitClass, is_disk_full};
use aksim_registry::RegistryError;
use aksim_runtime::{net::HttpClientError, pki::PkiError, supervisor::SupervisorError};
use std::{borrow::Cow, io};

/// Why an environment does not come up, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The event log.
    #[error("event log: {0}")]
    Events(#[source] io::Error),
    /// The certificate authority.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The issuer.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The pipelines.
    #[error(transparent)]
    Pipelines(#[from] aksim_pipelines::PipelinesError),
    /// The Git host.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The database server.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The cluster's provider.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// There is no such provider.
    #[error("cluster provider `{0}` is not available in this release")]
    NoProvider(String),
    /// The image builder.
    #[error(transparent)]
    Images(#[from] BuildError),
    /// The front door.
    #[error(transparent)]
    Ingress(#[from] IngressError),
    /// A port that was asked for cannot be had.
    #[error("{what}: {source}")]
    Port {
        /// Whose port.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A component failed.
    #[error(transparent)]
    Component(#[from] SupervisorError),
    /// The cluster refused an object of the system.
    #[error("cluster: {0}")]
    Cluster(#[source] Box<kube::Error>),
    /// A manifest is not right.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// kubeconfig.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// An HTTP client.
    #[error(transparent)]
    HttpClient(#[from] HttpClientError),
    /// The control socket.
    #[error("control socket: {0}")]
    Control(#[source] io::Error),
    /// Somebody asked it to stop before it was up.
    #[error("interrupted")]
    Interrupted,
}

impl From<kube::Error> for SimulatorError {
    fn from(error: kube::Error) -> Self {
        Self::Cluster(Box::new(error))
    }
}

impl SimulatorError {
    /// The error of a part that has advice of its own.
    fn part(&self) -> Option<&dyn Advice> {
        Some(match self {
            Self::State(error) => error,
            Self::Identity(error) => error,
            Self::Registry(error) => error,
            Self::Git(error) => error,
            Self::Database(error) => error,
            Self::Provider(error) => error,
            Self::Images(error) => error,
            Self::Manifest(error) => error,
            _ => return None,
        })
    }
}

impl Advice for SimulatorError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            error if is_disk_full(error) => Some(DISK_FULL_HINT.into()),
            Self::Port { .. } => Some("choose another port in aksim.toml, or stop what listens there".into()),
            error => error.part()?.hint(),
        }
    }

    fn class(&self) -> ExitClass {
        match self {
            error if is_disk_full(error) => ExitClass::Environment,
            Self::Port { .. } | Self::Events(_) => ExitClass::Environment,
            Self::Interrupted => ExitClass::Interrupted,
            error => error.part().map_or(ExitClass::Failure, Advice::class),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_environments_fault_wherever_it_shows() {
        let full = || io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let file = SimulatorError::State(StateError::File { path: "/x".into(), source: full() });
        let events = SimulatorError::Events(io::Error::other(full().to_string()));
        for error in [file, events] {
            assert_eq!(error.class(), ExitClass::Environment);
            assert_eq!(error.hint().as_deref(), Some(DISK_FULL_HINT));
        }
        let part = SimulatorError::from(ProviderError::part(full()));
        assert!(part.class() == ExitClass::Environment && part.hint().as_deref() == Some(DISK_FULL_HINT));
        let other = SimulatorError::Control(io::ErrorKind::NotFound.into());
        assert!(other.class() == ExitClass::Failure && other.hint().is_none());
    }

    #[test]
    fn the_advice_of_a_part_is_passed_on() {
        let missing = SimulatorError::Database(DatabaseError::NoEngine);
        assert_eq!((missing.class(), missing.hint()), (ExitClass::Environment, DatabaseError::NoEngine.hint()));
        assert!(missing.hint().is_some());
        let manifest = SimulatorError::Manifest(ManifestError::Empty { path: "/x".into() });
        assert_eq!(manifest.class(), ExitClass::Usage);
        assert!(manifest.hint().is_some());
    }

    #[test]
    fn what_a_cluster_lacks_is_the_machines_with_its_own_hint() {
        let lacking = ProviderError::Machine { source: "node: no namespaces".into(), hint: "allow them".into() };
        let error = SimulatorError::from(lacking);
        assert_eq!(error.class(), ExitClass::Environment);
        assert_eq!((error.to_string().as_str(), error.hint().as_deref()), ("node: no namespaces", Some("allow them")));
    }
}
