//! L7 front door on loopback: host and path routing by Ingress objects, TLS from the local CA,
//! spread over ready endpoints, no failed request while a rollout replaces them.
//!
//! Azure's own names cannot be looked up by a browser on the host, so the front door also answers
//! `NAME.localhost` for each of them, and redirects to an Azure name are sent there.

mod certificates;
mod proxy;
mod routes;
mod watch;

pub use routes::{Backend, Match, RouteTable};

use aksim_model::{endpoint::AzureName, event::EventBody, event::FlowRow};
use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    http::serve,
    net::SharedDialer,
    pki::{Pki, PkiError},
};
use async_trait::async_trait;
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::watch as channel};

/// Ingress class of AKS application routing, which this front door serves.
pub const INGRESS_CLASS: &str = "webapprouting.kubernetes.azure.com";

/// What the front door needs.
pub struct IngressConfig {
    /// Listener on loopback.
    pub listener: TcpListener,
    /// Issues certificates for the hosts.
    pub pki: Pki,
    /// Names also answered as `NAME.localhost`.
    pub azure_names: Vec<AzureName>,
    /// To read Ingresses, Services and EndpointSlices, and to set Ingress status.
    pub client: kube::Client,
    /// Reaches pods.
    pub dialer: SharedDialer,
}

/// Why the front door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// The listener has no address.
    #[error("ingress listener: {0}")]
    Listener(#[from] std::io::Error),
    /// Certificates cannot be issued.
    #[error("ingress: {0}")]
    Pki(#[from] PkiError),
}

/// The front door.
pub struct Ingress {
    config: IngressConfig,
    address: SocketAddr,
    routes: channel::Sender<Arc<RouteTable>>,
}

impl Ingress {
    /// Takes the listener.
    ///
    /// # Errors
    /// [`IngressError::Listener`].
    pub fn bind(config: IngressConfig) -> Result<Self, IngressError> {
        let address = config.listener.local_addr()?;
        Ok(Self { config, address, routes: channel::Sender::new(Arc::default()) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The routes as they are now and become.
    pub fn routes(&self) -> channel::Receiver<Arc<RouteTable>> {
        self.routes.subscribe()
    }
}

#[async_trait]
impl Component for Ingress {
    fn name(&self) -> &'static str {
        "ingress"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let Self { config, address, routes } = *self;
        let resolver =
            certificates::CertificateResolver::new(config.pki.clone(), routes.subscribe(), config.azure_names.clone())?;
        let tls = resolver.server_config();
        let recorder = context.recorder.clone();
        let proxy = proxy::Proxy::new(proxy::ProxyConfig {
            routes: routes.subscribe(),
            azure_names: config.azure_names,
            port: address.port(),
            dialer: config.dialer,
            tls: Arc::new(config.pki.client_config(None)?),
            on_change: Box::new(move |ok, message| {
                recorder.record(EventBody::Flow { row: FlowRow::Reach, ok, message });
            }),
        });
        let readiness = context.readiness.clone();
        tokio::select! {
            served = serve(config.listener, Some(tls), proxy.clone(), context.shutdown.clone()) => served?,
            () = watch::follow(config.client, routes, move || readiness.ready()) => {}
        }
        proxy.stop().await;
        Ok(())
    }
}
