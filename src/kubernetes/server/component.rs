//! The API server as a component of an environment.

use super::{
    addresses::{Cidr, CidrError, ServiceAddresses},
    api::{Api, InProcessUser},
    bootstrap,
};
use crate::{
    auth::{Authenticator, Authorizer, TokenIssuer, User, tokens::TokenKeyError, user::MASTERS},
    request::{selector, status::ApiError},
    schema::Schema,
    store::{Store, StoreConfig, StoreError},
    stream::Upstream,
};
use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    files::create_private_dir,
    http,
    net::{SharedDialer, listen_loopback},
    oidc::TokenVerifier,
    pki::{Pki, PkiError},
};
use async_trait::async_trait;
use axum::body::Body;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long events are kept.
const EVENT_LIFE: Duration = Duration::from_secs(3600);
/// How often old events are removed.
const EVENT_SWEEP: Duration = Duration::from_secs(300);

/// How an API server is set up.
pub struct ApiServerConfig {
    /// Folder of its log, snapshots and service-account key.
    pub state_dir: PathBuf,
    /// Port on 127.0.0.1; 0 for a free one.
    pub port: u16,
    /// Issues the server's certificate and verifies those of clients.
    pub pki: Pki,
    /// Range of ClusterIPs; its first address is the service `kubernetes`.
    pub service_cidr: String,
    /// Further names and addresses that clients reach the server by.
    pub server_names: Vec<String>,
    /// Verifies tokens of the environment's issuer.
    pub oidc: Option<TokenVerifier>,
    /// Way to kubelets and pods; may also be set later.
    pub kubelet_dialer: Option<SharedDialer>,
    /// Token of a `system:masters` user, if wanted.
    pub admin_token: Option<String>,
    /// Address in the endpoints of the service `kubernetes`; the listener's own when `None`.
    pub endpoint: Option<SocketAddr>,
}

impl ApiServerConfig {
    /// The usual settings: a free port, AKS' service range, no issuer.
    pub fn new(state_dir: impl Into<PathBuf>, pki: Pki) -> Self {
        Self {
            state_dir: state_dir.into(),
            port: 0,
            pki,
            service_cidr: "10.0.0.0/16".into(),
            server_names: Vec::new(),
            oidc: None,
            kubelet_dialer: None,
            admin_token: None,
            endpoint: None,
        }
    }
}

/// Why an API server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// The store cannot be opened.
    #[error("object store: {0}")]
    Store(#[from] StoreError),
    /// The service-account key cannot be used.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
    /// Certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The service range is none.
    #[error("service range: {0}")]
    ServiceRange(#[from] CidrError),
    /// A port or folder cannot be had.
    #[error("API server: {0}")]
    Io(#[from] std::io::Error),
    /// An object of a new cluster was refused.
    #[error("bootstrap objects: {0}")]
    Bootstrap(#[source] ApiError),
}

/// The API server. Clones are the same server: one may run while another hands out clients.
#[derive(Clone)]
pub struct ApiServer {
    api: Arc<Api>,
    address: SocketAddr,
    listener: Arc<Mutex<Option<TcpListener>>>,
    tls: Arc<ServerConfig>,
}

impl ApiServer {
    /// Opens the store, takes the port, creates what a new cluster starts with. In-process
    /// clients work from here on; TCP clients once it runs.
    ///
    /// # Errors
    /// [`ApiServerError`].
    pub async fn bind(config: ApiServerConfig) -> Result<Self, ApiServerError> {
        create_private_dir(&config.state_dir)?;
        let listener = listen_loopback(config.port).await?;
        let address = listener.local_addr()?;
        let range: Cidr = config.service_cidr.parse()?;
        let tls = server_tls(&config, range)?;
        let store_config =
            StoreConfig { fields: selector::selectable, ..StoreConfig::new(config.state_dir.join("store")) };
        let store = Arc::new(Store::open(store_config)?);
        let tokens = Arc::new(TokenIssuer::open(&config.state_dir.join("service-account.key"))?);
        let identity = config.pki.issue_client("kube-apiserver-kubelet-client", &[MASTERS])?;
        let upstream = Arc::new(Upstream::new(&config.pki, &identity)?);
        if let Some(dialer) = config.kubelet_dialer {
            upstream.set_dialer(dialer);
        }
        let admin = config.admin_token.map(|token| (token, User::authenticated("admin", [MASTERS.to_owned()])));
        let static_tokens: HashMap<_, _> = admin.into_iter().collect();
        let addresses = ServiceAddresses::new(range);
        for service in store.snapshot().table(store.table("services")).range(None, None) {
            addresses.adopt(&service.value());
        }
        let api = Arc::new(Api {
            schema: Arc::new(Schema::builtin()),
            authenticator: Authenticator::new(store.clone(), tokens.clone(), config.oidc, static_tokens),
            authorizer: Authorizer::new(store.clone()),
            tokens,
            addresses,
            upstream,
            lists: Default::default(),
            quota: Default::default(),
            advertise: address.to_string(),
            metrics: Default::default(),
            shutdown: CancellationToken::new(),
            store,
        });
        bootstrap::run(&api, config.endpoint.unwrap_or(address)).await.map_err(ApiServerError::Bootstrap)?;
        Ok(Self { api, address, listener: Arc::new(Mutex::new(Some(listener))), tls })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The bytes of a stored object, as text.
    #[cfg(test)]
    pub(crate) fn stored_text(&self, table: &str, namespace: &str, name: &str) -> String {
        let store = &self.api.store;
        let key = crate::store::Key::new(namespace, name);
        String::from_utf8(store.get(store.table(table), &key).unwrap().bytes.to_vec()).unwrap()
    }

    /// A client over the same handlers, without TCP and TLS, as `user` in `groups`
    /// (`system:authenticated` is added). Requests must come from within a tokio runtime.
    pub fn in_process_client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let user = InProcessUser(Arc::new(User::authenticated(user, groups.iter().map(|g| (*g).to_owned()))));
        let api = self.api.clone();
        let service = tower::service_fn(move |mut request: ::http::Request<kube::client::Body>| {
            request.extensions_mut().insert(user.clone());
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.handle(request.map(Body::new)).await) }
        });
        kube::Client::new(service, "default")
    }
}

fn server_tls(config: &ApiServerConfig, range: Cidr) -> Result<Arc<ServerConfig>, PkiError> {
    let first = range.nth(1).to_string();
    let mut names = vec![
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        first.as_str(),
    ];
    names.extend(config.server_names.iter().map(String::as_str));
    config.pki.server_config(&names, true)
}

#[async_trait]
impl Component for ApiServer {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let listener = self.listener.lock().take().ok_or("the API server runs already")?;
        let api = self.api.clone();
        let service = tower::service_fn(move |request: ::http::Request<hyper::body::Incoming>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.handle(request.map(Body::new)).await) }
        });
        let serving = http::serve(listener, Some(self.tls.clone()), service, context.shutdown.clone());
        context.readiness.ready();
        let stop = self.api.shutdown.clone();
        let stopping = async {
            context.shutdown.cancelled().await;
            // Watches would keep their connections open.
            stop.cancel();
        };
        let sweeping = sweep_events(self.api.clone(), context.shutdown.clone());
        let (served, (), ()) = tokio::join!(serving, stopping, sweeping);
        self.api.upstream.close();
        served.map_err(Into::into)
    }
}

/// Removes events that are an hour old. An age is known by the revision that was current then.
async fn sweep_events(api: Arc<Api>, shutdown: CancellationToken) {
    let mut marks: VecDeque<(tokio::time::Instant, u64)> = VecDeque::new();
    let table = api.store.table("events");
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVENT_SWEEP) => {}
        }
        let state = api.store.snapshot();
        marks.push_back((tokio::time::Instant::now(), state.revision));
        let mut old = None;
        while marks.front().is_some_and(|(at, _)| at.elapsed() >= EVENT_LIFE) {
            old = marks.pop_front();
        }
        let Some((_, revision)) = old else { continue };
        for event in state.table(table).range(None, None).filter(|event| event.revision <= revision) {
            let write = crate::store::Write {
                table,
                key: event.key.clone(),
                expect: crate::store::Expect::Revision(event.revision),
                change: crate::store::Change::Delete(crate::store::Draft::new(
                    &event.value(),
                    api.store.fields("events"),
                )),
            };
            if let Err(error) = api.store.commit(write).await {
                tracing::debug!(%error, event = ?event.key, "old event stays");
            }
        }
    }
}
