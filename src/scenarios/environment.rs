//! The running environment as a scenario reaches it: with what a user has.

use super::ScenarioError;
use aksim_config::{Config, home::Home};
use aksim_model::world::World;
use aksim_runtime::{control::ControlClient, pki::Pki};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{
    Api, Client, ResourceExt,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    discovery::{Discovery, Scope},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::sync::OnceCell;
use url::Url;

/// Where a load balancer's ports really listen, when the wanted ones could not be had.
const MOVED_PORTS: &str = "aksim.dev/load-balancer-addresses";

/// A running environment.
pub struct Environment {
    /// The project.
    pub config: Config,
    /// Its state folder.
    pub home: Home,
    /// Its control API.
    pub control: ControlClient,
    /// Its cluster, as administrator.
    pub client: Client,
    /// This program, to look at what it prints.
    pub exe: PathBuf,
    kinds: OnceCell<Discovery>,
}

/// An address that requests are sent to, with a client that reaches it.
#[derive(Clone)]
pub struct Door {
    /// URL.
    pub url: Url,
    /// Client.
    pub client: reqwest::Client,
}

impl Environment {
    /// The environment of a project, by its clients.
    pub fn new(config: Config, home: Home, control: ControlClient, client: Client, exe: PathBuf) -> Self {
        Self { config, home, control, client, exe, kinds: OnceCell::new() }
    }

    /// Port of a component on loopback.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when the component has no endpoint.
    pub fn port(&self, world: &World, component: &str) -> Result<u16, ScenarioError> {
        let status = world.components.iter().find(|(name, _)| name.as_str() == component).map(|(_, s)| s);
        let url = status.and_then(|s| s.endpoints.first()).and_then(|e| Url::parse(&e.url).ok());
        url.and_then(|u| u.port_or_known_default())
            .ok_or_else(|| ScenarioError::Missing(format!("{component} has no endpoint")))
    }

    /// The environment's certificate authority.
    ///
    /// # Errors
    /// [`ScenarioError::Pki`].
    pub fn pki(&self) -> Result<Pki, ScenarioError> {
        Ok(Pki::open(&self.home.pki(), "aksim CA")?)
    }

    /// A kind by its plural, singular or kind, with the client of its objects.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when the cluster has no such kind.
    pub async fn objects(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>, ScenarioError> {
        let (resource, scope) = self.kind(kind).await?;
        Ok(match scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// A kind by its plural, singular or kind.
    ///
    /// # Errors
    /// As [`Environment::objects`].
    pub async fn kind(&self, kind: &str) -> Result<(ApiResource, Scope), ScenarioError> {
        let discover = async || Discovery::new(self.client.clone()).run().await;
        let all = self.kinds.get_or_try_init(discover).await.map_err(ScenarioError::cluster("kinds of the cluster"))?;
        let wanted = kind.to_ascii_lowercase();
        let resources = all.groups().flat_map(|g| g.recommended_resources());
        let found = resources
            .filter(|(r, _)| r.plural == wanted || r.kind.to_ascii_lowercase() == wanted)
            // An Event of the core group before one of a younger group.
            .min_by_key(|(r, _)| (!r.group.is_empty(), r.group.clone()));
        found
            .map(|(resource, capabilities)| (resource, capabilities.scope))
            .ok_or_else(|| ScenarioError::Missing(format!("the cluster has no kind {kind:?}")))
    }

    /// A kind by group, version and kind of a manifest.
    ///
    /// # Errors
    /// As [`Environment::objects`].
    pub async fn objects_of(&self, object: &DynamicObject) -> Result<Api<DynamicObject>, ScenarioError> {
        let types = object.types.as_ref().ok_or_else(|| ScenarioError::Missing("the object has no kind".into()))?;
        let wanted = GroupVersionKind::try_from(types).map_err(|e| ScenarioError::Missing(e.to_string()))?;
        let (resource, scope) = self.kind(&wanted.kind).await?;
        let resource = ApiResource::from_gvk_with_plural(&wanted, &resource.plural);
        let namespace = object.namespace().unwrap_or_else(|| "default".into());
        Ok(match scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), &namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// The door to a host of the ingress.
    ///
    /// # Errors
    /// [`ScenarioError`] when the environment has no ingress.
    pub async fn ingress(&self, host: &str, path: &str, client: ClientKind) -> Result<Door, ScenarioError> {
        let port = self.port(&self.control.world().await?, "ingress")?;
        let url = url(&format!("https://{host}:{port}{path}"))?;
        let builder = client.builder().tls_backend_preconfigured(self.pki()?.client_config(None)?);
        let builder = builder.resolve(host, SocketAddr::from(([127, 0, 0, 1], port)));
        Ok(Door { url, client: builder.build()? })
    }

    /// The door to a Service of type LoadBalancer, which is the one kind that is reached from outside.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when it has no address.
    pub async fn balancer(
        &self,
        namespace: &str,
        name: &str,
        path: &str,
        client: ClientKind,
    ) -> Result<Door, ScenarioError> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let service = services.get(name).await.map_err(ScenarioError::cluster(format!("service {name}")))?;
        let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref()?.first());
        let missing = |what: &str| ScenarioError::Missing(format!("service {name} {what}"));
        let ip: IpAddr = status
            .and_then(|i| i.ip.as_ref()?.parse().ok())
            .ok_or_else(|| missing("has no address outside the cluster; it must be of type LoadBalancer"))?;
        let port = service.spec.as_ref().and_then(|s| s.ports.as_ref()?.first().map(|p| p.port));
        let port = port.and_then(|p| u16::try_from(p).ok()).ok_or_else(|| missing("has no port"))?;
        let moved = service.annotations().get(MOVED_PORTS).and_then(|text| {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(from, _)| *from == port.to_string()).find_map(|(_, to)| to.parse::<SocketAddr>().ok())
        });
        let address = moved.unwrap_or(SocketAddr::new(ip, port));
        Ok(Door { url: url(&format!("http://{address}{path}"))?, client: client.builder().build()? })
    }

    /// What a service connects to its database with, by its Secret.
    ///
    /// # Errors
    /// [`ScenarioError::Missing`] when there is none.
    pub async fn database(&self, namespace: &str, service: &str) -> Result<mysql_async::OptsBuilder, ScenarioError> {
        let name = format!("{service}-database");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = secrets.get(&name).await.map_err(ScenarioError::cluster(format!("secret {name}")))?;
        let value = |key: &str| {
            let data = secret.data.as_ref().and_then(|d| d.get(key));
            let text = data.map(|v| String::from_utf8_lossy(&v.0).into_owned());
            text.ok_or_else(|| ScenarioError::Missing(format!("secret {name} has no {key}")))
        };
        let tls = mysql_async::SslOpts::default()
            .with_root_certs(vec![self.home.pki().join("ca.crt").into()])
            .with_disable_built_in_roots(true)
            .with_danger_tls_hostname_override(Some(value("host")?));
        Ok(mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port(&self.control.world().await?, "database")?)
            .prefer_socket(false)
            .user(Some(value("username")?))
            .pass(Some(value("password")?))
            .db_name(Some(value("database")?))
            .ssl_opts(tls))
    }
}

fn url(text: &str) -> Result<Url, ScenarioError> {
    Url::parse(text).map_err(|e| ScenarioError::Missing(format!("{text} is no URL: {e}")))
}

/// How a client treats connections.
#[derive(Clone, Copy, Debug)]
pub struct ClientKind {
    /// A new connection for every request: what a Service balances is connections.
    pub fresh: bool,
    /// How long a request may take.
    pub timeout: Duration,
}

impl ClientKind {
    fn builder(self) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder().no_proxy().timeout(self.timeout);
        if self.fresh { builder.pool_max_idle_per_host(0) } else { builder }
    }
}
