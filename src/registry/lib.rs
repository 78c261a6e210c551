//! A registry that behaves like Azure Container Registry: OCI distribution specification 1.1, ACR's
//! token exchange, admin user, roles, and the metadata that `az acr` asks for.

mod api;
mod auth;
mod name;
mod storage;

#[cfg(test)]
mod tests;

pub use auth::{AcrRole, AdminCredentials, EntraConfig, RoleAssignment};
pub use name::{Digest, NameError, Reference, RepositoryName, Tag};
pub use storage::{Collected, StorageError};

use aksim_model::advice::{Advice, ExitClass};
use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    files::{PRIVATE, create_private_dir, write_atomic},
    http::serve,
    net::listen_loopback,
    pki::{Pki, PkiError},
};
use async_trait::async_trait;
use auth::{Authenticator, SigningKeyError, TokenSigner};
use axum::body::Body;
use hyper::body::Incoming;
use std::{
    borrow::Cow,
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use storage::{Storage, Uploads};
use tokio::net::TcpListener;

/// Why a registry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name is not one Azure would take.
    #[error("invalid registry name {0:?}: 5 to 50 lower-case letters and digits")]
    Name(String),
    /// The port is taken.
    #[error("registry: {0}")]
    Listen(#[source] std::io::Error),
    /// A file of the state folder cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The storage cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The token key cannot be used.
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    /// The certificate cannot be issued.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl Advice for RegistryError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::Listen(_) => Some("choose another port, or 0 for a free one"),
            Self::Name(_) => Some("change [registry] name in aksim.toml"),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::Name(_) => ExitClass::Usage,
            _ => ExitClass::Failure,
        }
    }
}

/// What a registry is made from.
pub struct RegistryConfig {
    /// Folder for content, keys and the admin password.
    pub state_dir: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// CA of the environment.
    pub pki: Pki,
    /// Name of the registry: `shopacr` is `shopacr.azurecr.io`.
    pub name: String,
    /// Tenant whose principals may sign in; without, only the admin user can.
    pub entra: Option<EntraConfig>,
    /// How often content that nothing needs is removed.
    pub gc_interval: Duration,
    /// Content younger than this, or asked for within it, stays even if nothing needs it.
    pub gc_grace: Duration,
}

impl RegistryConfig {
    /// A registry on a free port that only its admin user can enter, cleaned hourly.
    pub fn new(state_dir: impl Into<PathBuf>, pki: Pki, name: impl Into<String>) -> Self {
        Self {
            state_dir: state_dir.into(),
            port: 0,
            pki,
            name: name.into(),
            entra: None,
            gc_interval: Duration::from_secs(3600),
            gc_grace: Duration::from_secs(3600),
        }
    }
}

/// A registry with its listener taken.
pub struct Registry {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    login_server: String,
    storage: Arc<Storage>,
    auth: Arc<Authenticator>,
    gc_interval: Duration,
    gc_grace: Duration,
}

impl Registry {
    /// Takes the listener and opens the storage.
    ///
    /// # Errors
    /// [`RegistryError`] when the name is invalid, the port is taken, or the state folder cannot be used.
    pub async fn bind(config: RegistryConfig) -> Result<Self, RegistryError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(5..=50).contains(&config.name.len()) || !config.name.bytes().all(good) {
            return Err(RegistryError::Name(config.name));
        }
        let login_server = format!("{}.azurecr.io", config.name);
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| RegistryError::File { path, source }
        };
        let dir = config.state_dir;
        create_private_dir(&dir).map_err(file(&dir))?;
        let admin = admin_credentials(&dir.join("admin-password"), &config.name)?;
        let signer = TokenSigner::open(&dir.join("token.key"), &login_server)?;
        let storage = Arc::new(Storage::open(&dir)?);
        let tls = config.pki.server_config(&[&login_server, "localhost", "127.0.0.1"], false)?;
        let listener = listen_loopback(config.port).await.map_err(RegistryError::Listen)?;
        let address = listener.local_addr().map_err(RegistryError::Listen)?;
        Ok(Self {
            listener,
            address,
            tls,
            auth: Arc::new(Authenticator::new(login_server.clone(), admin, signer, config.entra)),
            login_server,
            storage,
            gc_interval: config.gc_interval,
            gc_grace: config.gc_grace,
        })
    }

    /// Where it listens, on loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `shopacr.azurecr.io`.
    pub fn login_server(&self) -> &str {
        &self.login_server
    }

    #[cfg(test)]
    fn storage(&self) -> Arc<Storage> {
        self.storage.clone()
    }

    /// Name and password of the admin user, as `az acr credential show` tells them.
    pub fn admin_credentials(&self) -> AdminCredentials {
        self.auth.admin().clone()
    }
}

/// The admin user's password, made once and kept 0600.
fn admin_credentials(path: &Path, name: &str) -> Result<AdminCredentials, RegistryError> {
    let file = |source| RegistryError::File { path: path.to_owned(), source };
    if !path.exists() {
        let password = hex::encode(rand::random::<[u8; 26]>());
        write_atomic(path, password.as_bytes(), PRIVATE).map_err(file)?;
    }
    let password = std::fs::read_to_string(path).map_err(file)?;
    Ok(AdminCredentials { username: name.to_owned(), password })
}

#[async_trait]
impl Component for Registry {
    fn name(&self) -> &'static str {
        "registry"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let app = Arc::new(api::App {
            storage: self.storage.clone(),
            uploads: Arc::new(Uploads::default()),
            auth: self.auth,
            recorder: context.recorder.clone(),
            login_server: self.login_server,
        });
        let service = tower::service_fn(move |request: http::Request<Incoming>| {
            let app = app.clone();
            async move { Ok::<_, Infallible>(app.handle(request.map(Body::new)).await) }
        });
        context.readiness.ready();
        let serving = serve(self.listener, Some(self.tls), service, context.shutdown.clone());
        let cleaning = collect_regularly(self.storage, self.gc_interval, self.gc_grace, context.shutdown.clone());
        let (served, ()) = tokio::join!(serving, cleaning);
        Ok(served?)
    }
}

/// Collects garbage at once, then at every interval, until shutdown.
async fn collect_regularly(
    storage: Arc<Storage>,
    interval: Duration,
    grace: Duration,
    shutdown: tokio_util::sync::CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let storage = storage.clone();
        match tokio::task::spawn_blocking(move || storage.collect_garbage(grace)).await {
            Ok(Ok(collected)) if collected != Collected::default() => {
                tracing::info!(target: "registry", ?collected, "garbage collected");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(target: "registry", %error, "garbage collection"),
            Err(error) => tracing::warn!(target: "registry", %error, "garbage collection"),
        }
    }
}
