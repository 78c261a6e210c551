//! The flexible server as a component: binds, runs the child, provisions, restarts it on a crash.

use super::{
    accounts::{self, ADMIN, Accounts, Credentials, SchemaSpec},
    child::{self, Child, Launch},
    engine::{Engine, EngineChoice, StandIn},
    provision,
    rotation::{PasswordRotation, SharedAccounts},
    settings::{self, Sku},
    template,
};
use aksim_model::{
    advice::{Advice, ExitClass},
    endpoint::{AzureName, Endpoint},
    event::{ComponentState, EventBody, FlowRow},
    ids::ComponentName,
};
use aksim_runtime::{
    component::{Component, ComponentError, RunContext},
    files::{PRIVATE, create_private_dir, write_atomic},
    pki::{Pki, PkiError},
};
use async_trait::async_trait;
use mysql_async::Conn;
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use std::{
    borrow::Cow,
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Port under the Azure name.
const PORT: u16 = 3306;
/// How long a start may take; after a crash the server replays its log first.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a clean stop may take before the server is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Pause before the first restart; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A server that ran this long has recovered: the pause starts over.
const STEADY: Duration = Duration::from_secs(30);
/// Starts in a row that may fail before the component gives up.
const MOST_FAILURES: u32 = 5;
/// Longest path of a Unix socket that every server takes, bytes (sun_path is 108).
const LONGEST_SOCKET: usize = 100;

/// How a server is made.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// Folder of its own, for data, certificates, passwords, log.
    pub state_dir: PathBuf,
    /// Cache shared by environments, for the template.
    pub cache_dir: PathBuf,
    /// Port on 127.0.0.1; 0 for a free one.
    pub port: u16,
    /// The environment's CA.
    pub pki: Pki,
    /// First label of `NAME.mysql.database.azure.com`.
    pub name: String,
    /// Which program to run.
    pub engine: EngineChoice,
    /// Schemas with their users.
    pub schemas: Vec<SchemaSpec>,
    /// Size.
    pub sku: Sku,
    /// Sync the log at every commit, so that a power cut loses nothing either; costs a disk flush a commit.
    pub sync_commits: bool,
}

impl DatabaseConfig {
    /// Free port, engine found, Azure's smallest usual size.
    pub fn new(state_dir: impl Into<PathBuf>, cache_dir: impl Into<PathBuf>, pki: Pki, name: &str) -> Self {
        Self {
            state_dir: state_dir.into(),
            cache_dir: cache_dir.into(),
            port: 0,
            pki,
            name: name.to_owned(),
            engine: EngineChoice::Auto,
            schemas: Vec::new(),
            sku: Sku::default(),
            sync_commits: false,
        }
    }
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No server program is installed.
    #[error("no MySQL-compatible server is installed")]
    NoEngine,
    /// A server program cannot be used.
    #[error("{path} {message}")]
    Engine {
        /// The program.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The data folder cannot be initialised.
    #[error("{engine} cannot initialise a data folder: {message}")]
    Initialise {
        /// Engine and version.
        engine: String,
        /// Last lines it said.
        message: String,
    },
    /// A name that cannot be used.
    #[error("database name {name:?} {why}")]
    Name {
        /// Which.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No port.
    #[error("cannot reserve 127.0.0.1:{port}: {source}")]
    Port {
        /// Which.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The program cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server ends before it is ready, or is not ready in time.
    #[error("the database server {what}\n{log}")]
    NotReady {
        /// How it ended.
        what: String,
        /// Last lines of its log.
        log: String,
    },
    /// A statement failed.
    #[error("database: {0}")]
    Sql(#[from] mysql_async::Error),
}

impl Advice for DatabaseError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::NoEngine => Some("run `aksim doctor --fix`, or `apt-get install mariadb-server`"),
            Self::Engine { .. } | Self::Initialise { .. } => {
                Some("install MariaDB 10.5 or MySQL 8.0 or newer, for example `apt-get install mariadb-server`")
            }
            Self::Port { .. } => Some("choose another port, or stop what listens there"),
            Self::NotReady { .. } => Some("see error.log in the database's state folder"),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::NoEngine | Self::Engine { .. } => ExitClass::Environment,
            _ => ExitClass::Failure,
        }
    }
}

/// A flexible server, bound and not yet running.
pub struct Database {
    config: DatabaseConfig,
    engine: Engine,
    accounts: SharedAccounts,
    address: SocketAddr,
    socket: PathBuf,
    // Bound, never listening: keeps the port from others while the server is down. Servers bind
    // with SO_REUSEADDR, which the kernel lets through as long as nobody listens.
    _reservation: Socket,
}

impl Database {
    /// Finds the engine, stops a server left behind, prepares data, passwords and certificate,
    /// and reserves the port. The first time on a machine initialises the template (seconds).
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn bind(config: DatabaseConfig) -> Result<Self, DatabaseError> {
        accounts::check(&config.schemas)?;
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if config.name.is_empty() || config.name.len() > 63 || !config.name.chars().all(label) {
            let why = "must be 1 to 63 lower-case letters, digits and hyphens";
            return Err(DatabaseError::Name { name: config.name, why });
        }
        let engine = Engine::find(&config.engine).await?;
        let file = |path: &Path, source| DatabaseError::File { path: path.to_owned(), source };
        let state = &config.state_dir;
        for folder in [state.clone(), state.join("tmp"), state.join("files")] {
            create_private_dir(&folder).map_err(|source| file(&folder, source))?;
        }
        let pid_file = state.join("server.pid");
        child::stop_stale(&pid_file, STOP_DEADLINE).await.map_err(|source| file(&pid_file, source))?;
        template::provide(&engine, &config.cache_dir, &state.join("data")).await?;
        let accounts = Accounts::open(&accounts_file(state), &config.schemas)?;
        let init = state.join("init.sql");
        write_atomic(&init, provision::init_file(&accounts).as_bytes(), PRIVATE).map_err(|e| file(&init, e))?;
        write_certificate(&config)?;
        let socket = socket_path(state)?;
        let (reservation, address) =
            reserve(config.port).map_err(|source| DatabaseError::Port { port: config.port, source })?;
        let accounts = Arc::new(Mutex::new(accounts));
        Ok(Self { config, engine, accounts, address, socket, _reservation: reservation })
    }

    /// Where it listens once it runs.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// `NAME.mysql.database.azure.com`.
    pub fn host(&self) -> String {
        host(&self.config.name)
    }
    /// Its Azure name.
    pub fn azure_name(&self) -> AzureName {
        AzureName { host: self.host(), port: PORT, target: self.address }
    }
    /// What the user of a schema connects with.
    pub fn credentials(&self, schema: &str) -> Option<Credentials> {
        let spec = self.config.schemas.iter().find(|spec| spec.schema.eq_ignore_ascii_case(schema))?;
        Some(self.account(&spec.user, &spec.schema))
    }
    /// What the administrator connects with.
    pub fn admin(&self) -> Credentials {
        self.account(ADMIN, "")
    }
    /// Gives users other passwords while it runs.
    pub fn rotation(&self) -> PasswordRotation {
        PasswordRotation {
            accounts: self.accounts.clone(),
            file: accounts_file(&self.config.state_dir),
            socket: self.socket.clone(),
            schemas: self.config.schemas.clone(),
            host: self.host(),
            port: PORT,
        }
    }
    /// The engine, and what it stands in for.
    pub fn stands_in_for(&self) -> StandIn {
        self.engine.stands_in_for()
    }
    /// Where people find it on this machine.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        vec![Endpoint { name: format!("database {}", self.config.name), url: format!("mysql://{}", self.address) }]
    }

    fn account(&self, user: &str, database: &str) -> Credentials {
        Credentials {
            host: self.host(),
            port: PORT,
            user: user.to_owned(),
            password: self.accounts.lock().password(user).to_owned(),
            database: database.to_owned(),
        }
    }

    fn launch(&self) -> Launch {
        let state = &self.config.state_dir;
        let option = |name: &str, file: &str| format!("--{name}={}", state.join(file).display());
        let mut arguments = vec!["--no-defaults".to_owned()];
        if nix::unistd::geteuid().is_root() {
            arguments.push("--user=root".to_owned());
        }
        arguments.extend([
            option("datadir", "data"),
            option("tmpdir", "tmp"),
            option("secure-file-priv", "files"),
            option("pid-file", "mysqld.pid"),
            option("init-file", "init.sql"),
            option("ssl-cert", "server.crt"),
            option("ssl-key", "server.key"),
            format!("--ssl-ca={}", self.config.pki.ca_path().display()),
            format!("--socket={}", self.socket.display()),
            format!("--bind-address={}", self.address.ip()),
            format!("--port={}", self.address.port()),
            "--skip-name-resolve".to_owned(),
        ]);
        arguments.extend(settings::options(&self.engine, self.config.sku, self.config.sync_commits));
        Launch {
            program: self.engine.path.clone(),
            arguments,
            log: state.join("error.log"),
            pid_file: state.join("server.pid"),
        }
    }

    /// Starts the server, waits until it serves, provisions it, and proves it over TLS.
    async fn start(&self) -> Result<Child, DatabaseError> {
        let mut child = Child::start(self.launch()).await?;
        let tail = child.tail.clone();
        let not_ready = |what: String| DatabaseError::NotReady { what, log: tail.text() };
        let serve = async {
            child.ready().await.map_err(not_ready)?;
            let accounts = self.accounts.lock().clone();
            let socket = provision::over_socket(&self.socket, &accounts);
            let (flavor, schemas) = (self.engine.flavor, &self.config.schemas);
            provision::provision(socket, flavor, &accounts, schemas).await?;
            let ca = self.config.pki.ca_path();
            let proof = provision::over_tls(self.address, &self.host(), ca, &accounts);
            Ok(Conn::new(proof).await?.disconnect().await?)
        };
        match tokio::time::timeout(START_DEADLINE, serve).await {
            Ok(Ok(())) => Ok(child),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(not_ready(format!("was not ready within {} s", START_DEADLINE.as_secs()))),
        }
    }

    fn record_start(&self, context: &RunContext) {
        let message = format!("{}: {} ({} schemas)", self.host(), self.stands_in_for(), self.config.schemas.len());
        context.recorder.record(EventBody::Flow { row: FlowRow::Store, ok: true, message });
    }

    fn record_state(&self, context: &RunContext, state: ComponentState, message: String) {
        let endpoints = if state == ComponentState::Ready { self.endpoints() } else { Vec::new() };
        let component = ComponentName::from("database");
        context.recorder.record(EventBody::Component { component, state, message, endpoints });
    }
}

#[async_trait]
impl Component for Database {
    fn name(&self) -> &'static str {
        "database"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let stopped = context.shutdown.clone();
        let (mut pause, mut failures, mut served) = (FIRST_PAUSE, 0, false);
        loop {
            let started = tokio::select! {
                started = self.start() => started,
                () = stopped.cancelled() => return Ok(()),
            };
            let why = match started {
                Ok(mut child) => {
                    if served {
                        self.record_state(&context, ComponentState::Ready, String::new());
                    } else {
                        self.record_start(&context);
                        context.readiness.ready();
                    }
                    (served, failures) = (true, 0);
                    let since = Instant::now();
                    let ended = tokio::select! {
                        ended = child.ended() => ended,
                        () = stopped.cancelled() => {
                            if !child.stop(STOP_DEADLINE).await {
                                tracing::warn!("the database server did not stop in time and was killed");
                            }
                            return Ok(());
                        }
                    };
                    if since.elapsed() > STEADY {
                        pause = FIRST_PAUSE;
                    }
                    format!("the database server {ended}; it is restarted")
                }
                // The first start must succeed; later ones may need a few attempts.
                Err(error) if !served || failures + 1 >= MOST_FAILURES => return Err(error.into()),
                Err(error) => {
                    failures += 1;
                    error.to_string()
                }
            };
            self.record_state(&context, ComponentState::Degraded, why);
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = stopped.cancelled() => return Ok(()),
            }
        }
    }
}

fn accounts_file(state: &Path) -> PathBuf {
    state.join("accounts.json")
}

fn host(name: &str) -> String {
    format!("{name}.mysql.database.azure.com")
}

/// A fresh certificate for this start.
fn write_certificate(config: &DatabaseConfig) -> Result<(), DatabaseError> {
    let identity = config.pki.issue_server(&[&host(&config.name), "localhost", "127.0.0.1"])?;
    for (name, content) in [("server.key", &identity.key_pem), ("server.crt", &identity.certificate_pem)] {
        let path = config.state_dir.join(name);
        write_atomic(&path, content.as_bytes(), PRIVATE).map_err(|source| DatabaseError::File { path, source })?;
    }
    Ok(())
}

/// Takes a port without listening on it.
fn reserve(port: u16) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

/// Path of the private socket: in the state folder, or, when that is too long for a socket, in a
/// folder of our own below the temporary one.
fn socket_path(state: &Path) -> Result<PathBuf, DatabaseError> {
    let near = state.join("mysql.sock");
    if near.as_os_str().len() <= LONGEST_SOCKET {
        return Ok(near);
    }
    let user = nix::unistd::geteuid();
    let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, state.as_os_str().as_encoded_bytes()).simple();
    let folder = std::env::temp_dir().join(format!("aksim-{user}-{name}"));
    let file = |source| DatabaseError::File { path: folder.clone(), source };
    create_private_dir(&folder).map_err(file)?;
    let found = std::fs::symlink_metadata(&folder).map_err(file)?;
    if !found.is_dir() || found.uid() != user.as_raw() || found.mode() & 0o077 != 0 {
        return Err(file(io::Error::other("is not a private folder of this user")));
    }
    Ok(folder.join("mysql.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_can_be_listened_on_with_reuse_and_is_kept_from_others() {
        let (_kept, address) = reserve(0).unwrap();
        let plain = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(plain.bind(&address.into()).is_err());
        let (server, same) = reserve(address.port()).unwrap();
        server.listen(1).unwrap();
        assert_eq!(same, address);
    }

    #[test]
    fn a_long_state_folder_gets_a_short_socket() {
        let dir = tempfile::tempdir().unwrap();
        assert!(socket_path(dir.path()).unwrap().starts_with(dir.path()));
        let long = dir.path().join("x".repeat(120));
        let socket = socket_path(&long).unwrap();
        assert!(socket.as_os_str().len() <= LONGEST_SOCKET);
        std::fs::remove_dir(socket.parent().unwrap()).unwrap();
    }
}
