//! Ways to what pipelines use: Git host, registries, cluster.

use aksim_cluster::provider::ClusterProvider;
use aksim_runtime::net::SharedDialer;
use std::{path::PathBuf, sync::Arc};

/// The Git host whose repositories are built.
#[derive(Clone, Debug)]
pub struct GitHost {
    /// `https://127.0.0.1:3000`, without a slash at its end; repositories are at `/ORG/NAME.git`.
    pub url: String,
    /// User name of the service.
    pub username: String,
    /// Its personal access token.
    pub token: String,
    /// Certificate authority that the host's certificate is of.
    pub ca: Option<PathBuf>,
    /// Where commit statuses are posted (GitHub's REST API); none when absent.
    pub api_url: Option<String>,
}

/// A registry that `Docker@2` signs in to.
#[derive(Clone)]
pub struct RegistryConnection {
    /// `shopacr.azurecr.io`.
    pub login_server: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for RegistryConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryConnection").field("login_server", &self.login_server).finish_non_exhaustive()
    }
}

/// The cluster that pipelines deploy to.
#[derive(Clone)]
pub struct ClusterConnection {
    /// The API.
    pub client: kube::Client,
    /// Reaches pods.
    pub dialer: SharedDialer,
    /// Id of the environment, for labels.
    pub environment: String,
    /// For kubectl and helm.
    pub kubeconfig: Option<PathBuf>,
    /// Reaches processes in containers, which have no API.
    pub provider: Arc<dyn ClusterProvider>,
}

impl ClusterConnection {
    /// A client whose connections can be upgraded, for `exec`: that of the kubeconfig, for the one in this process has
    /// no connections.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read or used.
    pub async fn streaming_client(&self) -> Result<kube::Client, String> {
        let Some(path) = &self.kubeconfig else { return Ok(self.client.clone()) };
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let kubeconfig = kube::config::Kubeconfig::read_from(path).map_err(|e| failed(&e))?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| failed(&e))?;
        kube::Client::try_from(config).map_err(|e| failed(&e))
    }
}
