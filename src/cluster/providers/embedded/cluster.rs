//! [`EmbeddedCluster`]: the contract of a provider.

use crate::{
    dialer::ClusterDialer,
    error::of_node,
    machines::PowerBoard,
    system,
    workers::{Workers, WorkersConfig},
};
use aksim_cluster::{
    kubeconfig::{Context, User},
    processes::signal_marked,
    provider::{
        AKS_SERVER_APPLICATION, Access, Bound, ClusterProvider, Extent, Intervention, Place, ProviderError, Reduction,
        Wiring,
    },
};
use aksim_kubernetes::{ApiServer, ApiServerConfig};
use aksim_model::endpoint::Endpoint;
use aksim_node::{
    container::ContainerRuntime,
    runtime::{NodeRuntime, RegistryCredentials},
};
use aksim_runtime::{
    net::SharedDialer,
    oidc::{OidcConfig, TokenVerifier},
    supervisor::Supervisor,
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// What a component gets to become ready.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Group of those who may do everything.
pub const MASTERS: &str = "system:masters";

/// The embedded cluster of one environment.
pub struct EmbeddedCluster {
    place: Place,
    runtime: Arc<ContainerRuntime>,
    dialer: SharedDialer,
    api_server: OnceLock<ApiServer>,
    /// What [`ClusterProvider::start_nodes`] takes.
    workers: Mutex<Option<Workers>>,
    power: OnceLock<PowerBoard>,
    access: OnceLock<Access>,
}

impl EmbeddedCluster {
    /// On a node that is open.
    pub fn new(place: Place, runtime: Arc<ContainerRuntime>) -> Self {
        Self {
            dialer: Arc::new(ClusterDialer::new(runtime.network())),
            place,
            runtime,
            api_server: OnceLock::new(),
            workers: Mutex::default(),
            power: OnceLock::new(),
            access: OnceLock::new(),
        }
    }

    async fn bind_api_server(&self, wiring: &Wiring) -> Result<ApiServer, ProviderError> {
        let mut config = ApiServerConfig::new(self.place.home.component("kubernetes"), self.place.pki.clone());
        config.port = wiring.port;
        config.kubelet_dialer = Some(self.dialer.clone());
        config.oidc = Some(TokenVerifier::new(OidcConfig {
            issuer: wiring.issuer.clone(),
            audiences: vec![AKS_SERVER_APPLICATION.to_owned()],
            http: wiring.http.clone(),
        }));
        ApiServer::bind(config).await.map_err(ProviderError::part)
    }

    fn attach_registry(&self, wiring: &Wiring) {
        let login = &wiring.registry;
        self.runtime.set_azure_names(wiring.azure_names.borrow().clone());
        let (username, password) = (login.username.clone(), login.password.clone());
        self.runtime.set_credentials(&login.host, RegistryCredentials::Basic { username, password });
    }

    fn reductions(&self) -> Vec<Reduction> {
        self.runtime.reductions().into_iter().map(|(what, hint)| Reduction { what, hint }).collect()
    }

    fn administrator(&self, api_server: &ApiServer) -> Result<Access, ProviderError> {
        let pki = &self.place.pki;
        let identity = pki.issue_client("aksim-admin", &[MASTERS]).map_err(ProviderError::part)?;
        Ok(Access {
            context: Context {
                name: self.place.context.clone(),
                server: api_server.url(),
                ca_pem: pki.ca_pem().to_owned(),
                user: User::Certificate { certificate_pem: identity.certificate_pem, key_pem: identity.key_pem },
            },
            client: api_server.in_process_client("aksim", &[MASTERS]),
            dialer: self.dialer.clone(),
        })
    }

    async fn kill_container(&self, id: &str) -> Result<String, ProviderError> {
        let sandboxes = self.runtime.sandboxes().await.map_err(ProviderError::part)?;
        let found = sandboxes.iter().flat_map(|s| &s.containers).find(|c| c.id == id);
        let missing = || ProviderError::Unknown { kind: "container", name: id.to_owned(), known: Vec::new() };
        let container = found.ok_or_else(missing)?;
        self.runtime.stop_container(&container.id, Duration::ZERO).await.map_err(ProviderError::part)?;
        Ok(format!("container {} is killed", container.name))
    }
}

#[async_trait]
impl ClusterProvider for EmbeddedCluster {
    async fn bind(&self, wiring: Wiring) -> Result<Bound, ProviderError> {
        self.attach_registry(&wiring);
        let api_server = self.bind_api_server(&wiring).await?;
        let workers = Workers::bind(WorkersConfig {
            place: &self.place,
            runtime: self.runtime.clone(),
            api_server: &api_server,
            azure_names: wiring.azure_names,
        })
        .await?;
        let port = Some(api_server.address().port());
        // Nobody binds twice; a second time the first one holds.
        let (_, _) = (self.power.set(workers.power()), self.api_server.set(api_server));
        *self.workers.lock() = Some(workers);
        Ok(Bound { port, reductions: self.reductions() })
    }

    async fn start(&self, supervisor: &mut Supervisor) -> Result<(), ProviderError> {
        let api_server = self.api_server.get().ok_or(ProviderError::NotStarted)?;
        let endpoint = Endpoint { name: "API server".into(), url: api_server.url() };
        supervisor.start(api_server.clone(), vec![endpoint], DEADLINE).await?;
        let access = self.administrator(api_server)?;
        system::apply_dns(&access.client, &self.place.id).await?;
        self.access.get_or_init(|| access);
        Ok(())
    }

    async fn start_nodes(&self, supervisor: &mut Supervisor) -> Result<Vec<String>, ProviderError> {
        let workers = self.workers.lock().take().ok_or(ProviderError::NotStarted)?;
        let names = workers.power().nodes();
        workers.start(supervisor).await?;
        Ok(names)
    }

    async fn stop(&self, extent: Extent) -> Result<(), ProviderError> {
        match extent {
            Extent::New if self.runtime.found_pods() => Ok(()),
            Extent::New | Extent::All => self.runtime.teardown().await.map_err(of_node),
        }
    }

    fn access(&self) -> Result<Access, ProviderError> {
        self.access.get().cloned().ok_or(ProviderError::NotStarted)
    }

    async fn load_image(&self, layout: &Path) -> Result<(), ProviderError> {
        self.runtime.import_oci_layout(layout, None).await.map(drop).map_err(ProviderError::part)
    }

    async fn put_file(
        &self,
        pod: &Pod,
        container: &str,
        path: &Path,
        content: Option<&[u8]>,
    ) -> Result<(), ProviderError> {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let id = statuses.into_iter().find(|s| s.name == container).and_then(|s| s.container_id.as_deref());
        let missing = || ProviderError::Unknown { kind: "container", name: container.to_owned(), known: Vec::new() };
        let (_, id) = id.and_then(|id| id.split_once("://")).ok_or_else(missing)?;
        self.runtime.put_file(id, path, content).await.map_err(ProviderError::part)
    }

    async fn intervene(&self, intervention: Intervention) -> Result<String, ProviderError> {
        match intervention {
            Intervention::Power { node, on } => {
                self.power.get().ok_or(ProviderError::NotStarted)?.switch(&node, on).await?;
                Ok(format!("node {node} has {} power", if on { "its" } else { "no" }))
            }
            Intervention::KillContainer { id } => self.kill_container(&id).await,
            Intervention::Signal { mark, signal } => {
                // The containers' processes are processes of this machine.
                let met = signal_marked(&mark, signal).await;
                Ok(format!("{signal} is sent to {} process(es)", met.len()))
            }
        }
    }
}
