//! The Git host: what GitHub is in the mirrored data flow (rows 1 and 2).
//!
//! Bare repositories at `https://127.0.0.1:PORT/ORGANIZATION/REPOSITORY.git` over smart HTTP,
//! personal and Entra access tokens, protected branches, webhooks, commit statuses, and the part
//! of GitHub's REST API that CI systems use (`api`).
//!
//! Differs from GitHub on purpose: every repository is private and everybody with access to the
//! host has the same access to all of them; `push` and `ping` are the only events; webhooks are
//! tried again by themselves; there are no pull requests, forks, Git LFS and no pages to look at.

mod access;
mod api;
mod body;
mod cgi;
mod error;
mod history;
mod host;
mod name;
mod program;
mod protection;
mod received;
mod records;
pub mod remote;
mod repository;
mod shapes;
mod smart_http;
mod statuses;
mod tokens;
mod webhooks;

pub use access::{Access, Account, Grant};
pub use error::GitError;
pub use name::{NameError, RepositoryName};
pub use protection::{BranchRule, run_hook};
pub use statuses::{CommitStatus, NewStatus, StatusState};
pub use tokens::TokenRecord;
pub use webhooks::{Attempt, ContentType, Delivery, DeliveryState, Hook, HookSpec, RetryPolicy, signature};

use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    files::create_private_dir,
    http::serve,
    net::{azure_http_client, listen_loopback},
    oidc::TokenVerifier,
    pki::Pki,
    recorder::Recorder,
};
use async_trait::async_trait;
use axum::body::Body;
use host::Host;
use hyper::body::Incoming;
use program::GitProgram;
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

/// Largest push when nothing else is said, bytes (GitHub's limit).
const MAX_PUSH: u64 = 2 << 30;
/// How long programs that answer requests may take to end when the host stops.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// File of the state folder that holds the project user's credential.
const CREDENTIAL_FILE: &str = "credential.json";

/// A repository that is to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositorySpec {
    /// Its own name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Branch that a clone checks out.
    pub default_branch: String,
    /// Rules of branches, in place of those it has; `None` leaves them.
    pub protected: Option<Vec<BranchRule>>,
    /// Webhooks, besides those it has.
    pub webhooks: Vec<HookSpec>,
}

impl RepositorySpec {
    /// An unprotected repository with `main`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            default_branch: "main".to_owned(),
            protected: None,
            webhooks: Vec::new(),
        }
    }
}

/// How a Git host is made.
#[derive(Clone)]
pub struct GitHostConfig {
    /// Everything it keeps.
    pub state_dir: PathBuf,
    /// The environment's CA: the host's certificate, and what webhooks trust.
    pub pki: Pki,
    /// Loopback port; 0 for a free one.
    pub port: u16,
    /// Names that the certificate has besides `localhost` and 127.0.0.1.
    pub host_names: Vec<String>,
    /// The one organization.
    pub organization: String,
    /// Repositories that exist from the start.
    pub repositories: Vec<RepositorySpec>,
    /// Verifies Entra access tokens; without, personal access tokens alone are taken.
    pub entra: Option<TokenVerifier>,
    /// People and services by name.
    pub accounts: Vec<Account>,
    /// Access of what the directory names.
    pub grants: Vec<Grant>,
    /// Pushes and deliveries are recorded.
    pub recorder: Recorder,
    /// This program: git starts it as a hook.
    pub exe: PathBuf,
    /// git; found on `PATH` when absent.
    pub git: Option<PathBuf>,
    /// Largest push, unpacked, bytes.
    pub max_push_bytes: u64,
    /// When webhooks are tried again.
    pub retry: RetryPolicy,
}

impl GitHostConfig {
    /// A host with nobody and nothing in it.
    pub fn new(state_dir: impl Into<PathBuf>, pki: Pki, exe: impl Into<PathBuf>, recorder: Recorder) -> Self {
        Self {
            state_dir: state_dir.into(),
            pki,
            port: 0,
            host_names: Vec::new(),
            organization: "contoso".to_owned(),
            repositories: Vec::new(),
            entra: None,
            accounts: Vec::new(),
            grants: Vec::new(),
            recorder,
            exe: exe.into(),
            git: None,
            max_push_bytes: MAX_PUSH,
            retry: RetryPolicy::default(),
        }
    }
}

/// A login with its token, as the credential helper gives it to git.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The one organization.
    pub organization: String,
    /// Login.
    pub username: String,
    /// Personal access token.
    pub password: String,
}

impl Credential {
    /// The credential that a host keeps for its environment's user; `None` when it never ran.
    ///
    /// # Errors
    /// [`GitError::File`].
    pub fn kept(state_dir: &Path) -> Result<Option<Self>, GitError> {
        records::read(&state_dir.join(CREDENTIAL_FILE))
    }
}

/// The Git host, bound to its port.
pub struct GitHost {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    host: Arc<Host>,
    http: reqwest::Client,
    retry: RetryPolicy,
    state_dir: PathBuf,
}

impl GitHost {
    /// Opens the state, makes the repositories, and takes the port.
    ///
    /// # Errors
    /// [`GitError`]; [`GitError::GitMissing`] where there is no git.
    pub async fn bind(config: GitHostConfig) -> Result<Self, GitError> {
        let dir = config.state_dir;
        let (home, hooks_dir) = (dir.join("home"), dir.join("hooks"));
        for dir in [&dir, &home, &hooks_dir] {
            create_private_dir(dir).map_err(GitError::file(dir))?;
        }
        // Whether the organization's name can be one is asked with a name that can.
        RepositoryName::new(&config.organization, "x")?;
        let git = GitProgram::find(config.git.as_deref(), &home, &hooks_dir).await?;
        protection::install(&hooks_dir, &config.exe)?;
        let mut names: Vec<&str> = config.host_names.iter().map(String::as_str).collect();
        names.extend(["localhost", "127.0.0.1"]);
        let tls = config.pki.server_config(&names, false)?;
        let http = azure_http_client(&config.pki, &[])?;
        let listener = listen_loopback(config.port).await.map_err(GitError::Listen)?;
        let address = listener.local_addr().map_err(GitError::Listen)?;
        let host = Arc::new(Host {
            url: format!("https://{address}"),
            organization: config.organization,
            repositories: repository::Repositories::open(&dir, git)?,
            auth: access::Authenticator {
                tokens: tokens::Tokens::open(&dir.join("tokens.json"))?,
                entra: config.entra,
                accounts: config.accounts,
                grants: config.grants,
            },
            webhooks: webhooks::Webhooks::open(&dir)?,
            statuses: statuses::Statuses::new(),
            recorder: config.recorder,
            max_push_bytes: config.max_push_bytes,
            hooks_dir,
            work: TaskTracker::new(),
            stopping: CancellationToken::new(),
            turns: parking_lot::Mutex::default(),
        });
        let bound = Self { listener, address, tls, host, http, retry: config.retry, state_dir: dir };
        let handle = bound.handle();
        for spec in config.repositories {
            handle.ensure_repository(spec).await?;
        }
        Ok(bound)
    }

    /// Where it listens, on loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.host.url
    }

    /// A handle for the parts that are wired with the host.
    pub fn handle(&self) -> GitHandle {
        GitHandle { host: self.host.clone(), state_dir: self.state_dir.clone() }
    }
}

/// Works on a host, whether it runs yet or not.
#[derive(Clone)]
pub struct GitHandle {
    host: Arc<Host>,
    state_dir: PathBuf,
}

impl GitHandle {
    fn name(&self, repository: &str) -> Result<RepositoryName, GitError> {
        Ok(RepositoryName::new(&self.host.organization, repository)?)
    }

    fn find(&self, repository: &str) -> Result<repository::Repository, GitError> {
        let none = || GitError::invalid("repository", format!("there is no repository {repository:?}"));
        self.host.repositories.find(&self.name(repository)?)?.ok_or_else(none)
    }

    /// Makes a repository be, with its rules and webhooks.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn ensure_repository(&self, spec: RepositorySpec) -> Result<(), GitError> {
        let name = self.name(&spec.name)?;
        self.host.repositories.create(&name, &spec.default_branch, &spec.description).await?;
        if let Some(protected) = spec.protected {
            self.host.repositories.change(&name, |record| record.protected = protected)?;
        }
        for hook in spec.webhooks {
            self.ensure_webhook(&spec.name, hook)?;
        }
        Ok(())
    }

    /// Makes a webhook of a repository be; one with the same URL is changed. It is not pinged.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn ensure_webhook(&self, repository: &str, spec: HookSpec) -> Result<Hook, GitError> {
        self.host.webhooks.ensure(&self.find(repository)?, spec)
    }

    /// URL that git clones a repository from.
    ///
    /// # Errors
    /// [`GitError::Name`].
    pub fn clone_url(&self, repository: &str) -> Result<String, GitError> {
        Ok(format!("{}.git", self.host.html_url(&self.name(repository)?)))
    }

    /// Makes a personal access token.
    ///
    /// # Errors
    /// [`GitError::Invalid`] when there is no such user; [`GitError::File`].
    pub fn issue_token(&self, user: &str, note: &str, access: Access) -> Result<String, GitError> {
        let none = || GitError::invalid("user", format!("the Git host has no user {user:?}"));
        let account = self.host.auth.account(user).ok_or_else(none)?;
        Ok(self.host.auth.tokens.issue(&account.login, note, access, None)?.0)
    }

    /// Keeps a credential of a user in the state folder (0600) for the credential helper and
    /// `aksim git`; the one that is kept stays while it is good.
    ///
    /// # Errors
    /// As [`GitHandle::issue_token`].
    pub fn keep_credential(&self, user: &str) -> Result<Credential, GitError> {
        self.keep(&self.state_dir.join(CREDENTIAL_FILE), user, "aksim on this machine", Access::Admin)
    }

    fn keep(&self, path: &Path, user: &str, note: &str, access: Access) -> Result<Credential, GitError> {
        let kept: Option<Credential> = records::read(path)?;
        let good = |c: &Credential| self.host.auth.tokens.verify(&c.password).is_some_and(|t| t.user == user);
        let password = match kept.as_ref().filter(|c| good(c)) {
            Some(credential) => credential.password.clone(),
            None => self.issue_token(user, note, access)?,
        };
        let credential = Credential {
            url: self.host.url.clone(),
            organization: self.host.organization.clone(),
            username: user.to_owned(),
            password,
        };
        if kept.as_ref() != Some(&credential) {
            records::write(path, &credential)?;
        }
        Ok(credential)
    }
}

#[async_trait]
impl Component for GitHost {
    fn name(&self) -> &'static str {
        "git"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let host = self.host;
        // A push that was taken in when the last host was killed is told about now.
        for repository in host.repositories.list()? {
            received::announce(&host, &repository).await?;
        }
        let api = api::router(host.clone());
        let requests = host.clone();
        let service = tower::service_fn(move |request: http::Request<Incoming>| {
            let (host, mut api) = (requests.clone(), api.clone());
            async move {
                let request = request.map(Body::new);
                match request.uri().path().starts_with("/api/") {
                    true => api.call(request).await,
                    false => Ok::<_, Infallible>(smart_http::handle(host, request).await),
                }
            }
        });
        context.readiness.ready();
        let serving = serve(self.listener, Some(self.tls), service, context.shutdown.clone());
        let sending = webhooks::sender::run(host.clone(), self.http, self.retry, context.shutdown.clone());
        let tidying = tidy(&host, &context.shutdown);
        let stopping = async {
            context.shutdown.cancelled().await;
            host.stopping.cancel();
        };
        let (served, (), (), ()) = tokio::join!(serving, sending, tidying, stopping);
        host.work.close();
        if tokio::time::timeout(STOP_DEADLINE, host.work.wait()).await.is_err() {
            tracing::warn!(target: "git", "requests did not end in time");
        }
        Ok(served?)
    }
}

/// Has git pack what many pushes have left loose. Nothing depends on it.
async fn tidy(host: &Host, shutdown: &CancellationToken) {
    let work = async {
        for repository in host.repositories.list().unwrap_or_default() {
            let git = host.repositories.git();
            if let Err(error) = git.output(&repository.dir, &["gc", "--auto", "--quiet"]).await {
                tracing::debug!(target: "git", %error, repository = %repository.name, "tidying up");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}
