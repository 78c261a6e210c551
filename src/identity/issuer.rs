//! The issuer as a component: binds, opens its state, serves until told to stop.

use super::{
    directory::Directory,
    keys::KeyRing,
    seal::Seal,
    server::{self, Server},
    specs::{ApplicationKind, DirectorySpec},
};
use aksim_model::{
    advice::{Advice, ExitClass},
    endpoint::{AzureName, Endpoint},
};
use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    files::{PRIVATE, create_private_dir, write_atomic},
    http, net,
    pki::{Pki, PkiError},
};
use async_trait::async_trait;
use rand::distr::{Alphanumeric, SampleString};
use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use uuid::Uuid;

/// Host of authority and issuer.
pub(super) const LOGIN_HOST: &str = "login.microsoftonline.com";
/// Names served besides the first: aliases of the authority, and Microsoft Graph.
const OTHER_HOSTS: [&str; 4] = ["login.windows.net", "login.microsoft.com", "sts.windows.net", "graph.microsoft.com"];
/// Entra's default lifetime of an access token lies between 60 and 90 minutes.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// How an issuer is made.
#[derive(Clone)]
pub struct IdentityConfig {
    /// Folder of its own, for keys and made secrets.
    pub state_dir: PathBuf,
    /// Port on 127.0.0.1; 0 for a free one.
    pub port: u16,
    /// The environment's CA.
    pub pki: Pki,
    /// Tenant, users, groups, applications.
    pub directory: DirectorySpec,
    /// Lifetime of access and ID tokens.
    pub token_lifetime: Duration,
    /// Whether choosing an account on the sign-in page asks for its password too.
    pub ask_password: bool,
}

impl IdentityConfig {
    /// Free port, tokens of an hour, no password asked when an account is chosen.
    pub fn new(state_dir: impl Into<PathBuf>, pki: Pki, directory: DirectorySpec) -> Self {
        Self {
            state_dir: state_dir.into(),
            port: 0,
            pki,
            directory,
            token_lifetime: TOKEN_LIFETIME,
            ask_password: false,
        }
    }
}

/// Why there is no issuer.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory's description is wrong.
    #[error("identity: {0}")]
    Directory(String),
    /// A file of the state folder cannot be read or written.
    #[error("{path}: {source}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A signing key cannot be made or read.
    #[error("signing key: {0}")]
    Key(String),
    /// No listener.
    #[error(transparent)]
    Listen(std::io::Error),
    /// No certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl Advice for IdentityError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::Directory(_) => Some("correct [identity] in aksim.toml"),
            Self::State { .. } | Self::Key(_) => {
                Some("remove the file to have it made anew; tokens and sessions from before are then refused")
            }
            Self::Listen(_) => Some("choose another port, or stop what listens there"),
            Self::Pki(_) => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::Directory(_) => ExitClass::Usage,
            _ => ExitClass::Failure,
        }
    }
}

/// The issuer, bound and not yet serving.
pub struct Issuer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    directory: Arc<Directory>,
    keys: Arc<KeyRing>,
    seal: Seal,
    token_lifetime: Duration,
    ask_password: bool,
}

/// Acts on a running issuer.
#[derive(Clone)]
pub struct IssuerHandle {
    keys: Arc<KeyRing>,
}

impl IssuerHandle {
    /// Replaces the signing key; the old one stays published for a day.
    ///
    /// # Errors
    /// [`IdentityError`] when the new key cannot be made or kept; the old one then goes on.
    pub async fn rotate_keys(&self) -> Result<(), IdentityError> {
        let keys = self.keys.clone();
        blocking(move || keys.rotate()).await
    }
}

impl Issuer {
    /// Takes the listener and opens keys and secrets. The first time makes a key, which takes
    /// about half a second.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn bind(config: IdentityConfig) -> Result<Self, IdentityError> {
        let mut directory = Directory::build(&config.directory)?;
        let state_dir = config.state_dir.clone();
        create_private_dir(&state_dir).map_err(|source| IdentityError::State { path: state_dir.clone(), source })?;
        let listener = net::listen_loopback(config.port).await.map_err(IdentityError::Listen)?;
        let address = listener.local_addr().map_err(IdentityError::Listen)?;
        let names: Vec<&str> = [LOGIN_HOST].into_iter().chain(OTHER_HOSTS).chain(["localhost", "127.0.0.1"]).collect();
        let tls = config.pki.server_config(&names, false)?;
        let (keys, seal, directory) = blocking(move || {
            make_secrets(&state_dir.join("secrets.json"), &mut directory)?;
            Ok((KeyRing::open(&state_dir.join("keys.json"))?, Seal::open(&state_dir.join("seal.key"))?, directory))
        })
        .await?;
        Ok(Self {
            listener,
            address,
            tls,
            directory: Arc::new(directory),
            keys: Arc::new(keys),
            seal,
            token_lifetime: config.token_lifetime,
            ask_password: config.ask_password,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `login.microsoftonline.com`.
    pub fn azure_name(&self) -> AzureName {
        AzureName { host: LOGIN_HOST.to_owned(), port: 443, target: self.address }
    }

    /// All Azure names it answers for: the authority, its aliases, Microsoft Graph.
    pub fn azure_names(&self) -> Vec<AzureName> {
        let others = OTHER_HOSTS.iter();
        let others = others.map(|host| AzureName { host: (*host).to_owned(), port: 443, target: self.address });
        std::iter::once(self.azure_name()).chain(others).collect()
    }

    /// URL that a browser of this machine reaches it at, without slash at the end.
    pub fn local_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// `iss` of all its tokens.
    pub fn issuer(&self) -> String {
        self.directory.issuer()
    }

    /// Where people and clients on this machine find it.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let url = format!("{}/{}/v2.0", self.local_url(), self.directory.tenant().id);
        vec![Endpoint { name: "issuer".to_owned(), url }]
    }

    /// Users, groups and applications.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.clone()
    }

    /// The first client secret of a confidential application, by name or client id.
    pub fn client_secret(&self, application: &str) -> Option<&str> {
        self.directory.application(application)?.secrets.first().map(String::as_str)
    }

    /// To act on it while it runs.
    pub fn handle(&self) -> IssuerHandle {
        IssuerHandle { keys: self.keys.clone() }
    }
}

#[async_trait]
impl Component for Issuer {
    fn name(&self) -> &'static str {
        "identity"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let local = self.local_url();
        let server = Server::new(
            self.directory,
            self.keys,
            self.seal,
            server::Settings { local, token_lifetime: self.token_lifetime, ask_password: self.ask_password },
            context.recorder,
        );
        let router = server::router(Arc::new(server));
        context.readiness.ready();
        Ok(http::serve(self.listener, Some(self.tls), router, context.shutdown).await?)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IdentityError> + Send + 'static,
) -> Result<T, IdentityError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(IdentityError::Key(error.to_string())))
}

/// Gives every confidential application without secret and certificate a secret that stays.
fn make_secrets(path: &std::path::Path, directory: &mut Directory) -> Result<(), IdentityError> {
    let state = |source| IdentityError::State { path: path.to_owned(), source };
    let mut kept: BTreeMap<Uuid, String> = match std::fs::read(path) {
        Ok(content) => serde_json::from_slice(&content).map_err(|error| state(error.into()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(state(error)),
    };
    let before = kept.len();
    let lacking = |app: &&super::directory::Application| {
        app.kind == ApplicationKind::Confidential && app.secrets.is_empty() && app.certificates.is_empty()
    };
    let clients: Vec<Uuid> = directory.applications().iter().filter(lacking).map(|app| app.client_id).collect();
    for client in clients {
        let secret = kept.entry(client).or_insert_with(|| Alphanumeric.sample_string(&mut rand::rng(), 40));
        directory.set_secret(client, secret.clone());
    }
    if kept.len() == before {
        return Ok(());
    }
    let content = serde_json::to_vec_pretty(&kept).map_err(|error| state(error.into()))?;
    write_atomic(path, &content, PRIVATE).map_err(state)
}
