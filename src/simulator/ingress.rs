//! The front door of an environment.

use crate::{
    SimulatorError,
    ground::Ground,
    part::{Part, Run},
};
use aksim_cluster::provider::ClusterProvider;
use aksim_ingress::{Ingress, IngressConfig};
use aksim_model::endpoint::Endpoint;
use aksim_runtime::net::listen_loopback;
use async_trait::async_trait;
use std::{io, sync::Arc};
use tokio::net::TcpListener;

/// Port of the front door when none is asked for and it is free.
const PREFERRED_PORT: u16 = 8443;

/// The front door with its listener taken.
pub struct FrontDoor {
    listener: TcpListener,
    cluster: Arc<dyn ClusterProvider>,
    /// Where it listens on loopback.
    pub port: u16,
}

/// Takes the port asked for, else the one of last time, else 8443, else a free one.
///
/// # Errors
/// [`SimulatorError::Port`].
pub async fn bind(ground: &mut Ground, cluster: Arc<dyn ClusterProvider>) -> Result<FrontDoor, SimulatorError> {
    let failed = |source: io::Error| SimulatorError::Port { what: "ingress", source };
    let listener = match ground.config.ingress_port {
        Some(port) => listen_loopback(port).await.map_err(failed)?,
        None => {
            let preferred = match ground.state.port("ingress") {
                0 => PREFERRED_PORT,
                kept => kept,
            };
            match listen_loopback(preferred).await {
                Ok(listener) => listener,
                Err(_) => listen_loopback(0).await.map_err(failed)?,
            }
        }
    };
    let port = listener.local_addr().map_err(failed)?.port();
    ground.keep_port("ingress", port)?;
    Ok(FrontDoor { listener, cluster, port })
}

#[async_trait]
impl Part for FrontDoor {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        let access = self.cluster.access()?;
        let azure_names = run.ground.azure_names().borrow().clone();
        let ingress = Ingress::bind(IngressConfig {
            listener: self.listener,
            pki: run.ground.pki.clone(),
            azure_names,
            client: access.client,
            dialer: access.dialer,
        })?;
        let url = format!("https://{}", ingress.address());
        run.component(ingress, vec![Endpoint { name: "ingress".into(), url }]).await?;
        Ok(())
    }
}
