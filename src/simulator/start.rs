//! Starting, running and stopping one environment.

use super::{
    Environment, SimulatorError, commands, directory, file_sync::ContainerSync, git, images::BuiltinPackager, nodes,
    objects, pipelines, secrets, state::State,
};
use aksim_cluster::kubeconfig::{self, Context as KubeContext, User};
use aksim_config::{Config, home::Home};
use aksim_controllers::{Controllers, ControllersConfig};
use aksim_database::{Database, DatabaseConfig, EngineChoice, SchemaSpec};
use aksim_devloop::{BuildLine, CycleContext, DevLoop, logs::ServiceLogs, plan::Plan};
use aksim_identity::{IdentityConfig, Issuer};
use aksim_images::{Credentials, ImageBuilder, ImageBuilderConfig};
use aksim_ingress::{Ingress, IngressConfig};
use aksim_kubernetes::{ApiServer, ApiServerConfig};
use aksim_model::{
    advice::{Advice, ExitClass},
    endpoint::{AzureName, Endpoint},
    event::EventBody,
    ids::ServiceName,
};
use aksim_registry::{EntraConfig, Registry, RegistryConfig};
use aksim_runtime::{
    control::{ControlServer, Info},
    files::{PRIVATE, write_atomic},
    net::{azure_http_client, listen_loopback},
    oidc::{OidcConfig, TokenVerifier},
    pki::Pki,
    recorder::Recorder,
    supervisor::Supervisor,
    volumes::VolumeFolders,
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, broadcast, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// What a component gets to become ready, and to stop.
const DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Port of the front door when none is asked for and it is free.
const INGRESS_PORT: u16 = 8443;

/// Audiences of Entra tokens that an AKS cluster accepts: its server application, by id.
const CLUSTER_AUDIENCES: [&str; 1] = ["6dae42f8-4368-4678-94ff-3960e28e3630"];

/// Which kubeconfig is written besides the environment's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeconfigTarget {
    /// Merged into the user's.
    User,
    /// A file of its own.
    File(PathBuf),
    /// None.
    None,
}

/// How an environment is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Watch files.
    pub watch: bool,
    /// Which kubeconfig is written.
    pub kubeconfig: KubeconfigTarget,
    /// This program, started again for containers.
    pub exe: PathBuf,
}

/// A running environment.
pub struct Simulator {
    supervisor: Supervisor,
    recorder: Recorder,
    environment: Environment,
    context: CycleContext,
    plan: Arc<Plan>,
    node: nodes::Nodes,
    stop: CancellationToken,
    commands: JoinSet<()>,
    _names: watch::Sender<Vec<AzureName>>,
    state: State,
    home: Home,
}

/// Name of our kubeconfig context.
pub fn context_name(home: &Home) -> String {
    let name = home.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("aksim-{name}")
}

impl Simulator {
    /// Brings every component up; services are not deployed yet.
    ///
    /// # Errors
    /// [`SimulatorError`], of being `interrupted` too; what was started has been stopped again. Where
    /// a first start fails for the machine or the project, no file of the environment is left either.
    pub async fn start(
        config: Config,
        home: &Home,
        options: Options,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Self, SimulatorError> {
        let mut state = State::open(home).await?;
        let ground = match Ground::open(&config, home, &options, &state).await {
            Ok(ground) => ground,
            Err(error) => return Err(given_up(error, state)),
        };
        let mut supervisor = Supervisor::new(ground.recorder.clone(), STOP_DEADLINE);
        let started = tokio::select! {
            parts = start(&config, home, &options, &ground, &mut state, &mut supervisor) => parts,
            () = interrupted => Err(SimulatorError::Interrupted),
        };
        match started {
            Ok(parts) => Ok(Self {
                supervisor,
                recorder: ground.recorder,
                environment: parts.environment,
                context: parts.context,
                plan: parts.plan,
                node: ground.node,
                stop: parts.stop,
                commands: parts.commands,
                _names: parts.names,
                state,
                home: home.clone(),
            }),
            Err(error) => {
                supervisor.stop().await;
                let torn_down = ground.node.teardown_new().await;
                for left in [torn_down, give_kubeconfig_back(home, &mut state)].into_iter().filter_map(Result::err) {
                    tracing::warn!(error = %left, "cleaning up after a start that failed");
                }
                Err(given_up(error, state))
            }
        }
    }

    /// The recorder of its events.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Its addresses and names.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Cancelled when somebody asks it to stop.
    pub fn stop_requested(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Lines of builds from now on; a slow reader loses the oldest.
    pub fn build_output(&self) -> broadcast::Receiver<BuildLine> {
        self.context.output.subscribe()
    }

    /// Sends a log line source for a dashboard in the same process.
    pub fn logs(&self) -> ServiceLogs {
        ServiceLogs::new(self.context.client.clone())
    }

    /// Builds and deploys every service.
    ///
    /// # Errors
    /// The services that failed, with why.
    pub async fn deploy(&self) -> Result<(), Vec<(ServiceName, String)>> {
        DevLoop::deploy_all(&self.context, &self.plan, &self.stop).await
    }

    /// Waits until it is asked to stop, or a component fails.
    ///
    /// # Errors
    /// The failure of the component.
    pub async fn wait(&mut self) -> Result<(), SimulatorError> {
        tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            failure = self.supervisor.wait_for_failure() => Err(failure.into()),
        }
    }

    /// Stops containers and components, and gives the kubeconfig back.
    ///
    /// # Errors
    /// [`SimulatorError`] when containers or the kubeconfig cannot be cleaned up.
    pub async fn stop(mut self) -> Result<(), SimulatorError> {
        self.stop.cancel();
        self.commands.shutdown().await;
        let aborted = self.supervisor.stop().await;
        if !aborted.is_empty() {
            tracing::warn!(components = aborted.join(", "), "did not stop in time");
        }
        let torn_down = self.node.teardown().await;
        give_kubeconfig_back(&self.home, &mut self.state)?;
        torn_down
    }
}

/// Takes our context out of the user's kubeconfig.
fn give_kubeconfig_back(home: &Home, state: &mut State) -> Result<(), SimulatorError> {
    if let Some((path, previous)) = state.kubeconfig().cloned() {
        kubeconfig::remove(&path, &context_name(home), previous.as_deref())?;
        state.keep_kubeconfig(None)?;
    }
    Ok(())
}

/// The last of a start that failed. What a component has logged may be all there is to find out why;
/// what the machine lacks, or the project, has been said.
fn given_up(error: SimulatorError, state: State) -> SimulatorError {
    if matches!(error.class(), ExitClass::Environment | ExitClass::Usage) {
        state.forget_new();
    }
    error
}

/// What every start begins with. Short, and not cut off by an interruption: the node outlives us.
struct Ground {
    recorder: Recorder,
    pki: Pki,
    node: nodes::Nodes,
}

impl Ground {
    async fn open(config: &Config, home: &Home, options: &Options, state: &State) -> Result<Self, SimulatorError> {
        let recorder = Recorder::open(&home.events()).map_err(SimulatorError::Events)?;
        let pki = Pki::open(&home.pki(), &format!("aksim {} CA", config.name))?;
        let node = nodes::Nodes::open(home, options, state.id(), &pki).await?;
        Ok(Self { recorder, pki, node })
    }
}

struct Parts {
    environment: Environment,
    context: CycleContext,
    plan: Arc<Plan>,
    stop: CancellationToken,
    commands: JoinSet<()>,
    names: watch::Sender<Vec<AzureName>>,
}

/// The servers with their listeners taken, and the names they answer.
struct Servers {
    issuer: Issuer,
    registry: Registry,
    database: Option<Database>,
    azure_names: Vec<AzureName>,
}

async fn start(
    config: &Config,
    home: &Home,
    options: &Options,
    ground: &Ground,
    state: &mut State,
    supervisor: &mut Supervisor,
) -> Result<Parts, SimulatorError> {
    let Ground { recorder, pki, node } = ground;
    let servers = bind_servers(config, home, state, pki).await?;
    let azure_names = servers.azure_names.clone();
    let http = azure_http_client(pki, &azure_names)?;
    // The names do not change while it runs; the sender keeps the channel open.
    let (names_sender, names) = watch::channel(azure_names.clone());
    let git_host = git::bind(config, home, options, state.port("git"), pki, &servers.issuer, recorder).await?;
    if let Some(host) = &git_host {
        state.keep_port("git", host.address().port())?;
    }
    let admin_user = servers.registry.admin_credentials();
    node.attach_registry(&azure_names, servers.registry.login_server(), &admin_user.username, &admin_user.password);

    let mut api_config = ApiServerConfig::new(home.component("kubernetes"), pki.clone());
    api_config.port = state.port("kubernetes");
    api_config.kubelet_dialer = Some(node.dialer());
    api_config.oidc = Some(TokenVerifier::new(OidcConfig {
        issuer: servers.issuer.issuer(),
        audiences: CLUSTER_AUDIENCES.map(str::to_owned).to_vec(),
        http: http.clone(),
    }));
    let api_server = ApiServer::bind(api_config).await?;
    state.keep_port("kubernetes", api_server.address().port())?;
    let ingress_listener = ingress_listener(config.ingress_port, state).await?;
    let ingress_address =
        ingress_listener.local_addr().map_err(|source| SimulatorError::Port { what: "ingress", source })?;

    let environment = Environment {
        name: config.name.clone(),
        id: state.id().to_owned(),
        api_server: api_server.address(),
        registry: AzureName {
            host: servers.registry.login_server().to_owned(),
            port: 443,
            target: servers.registry.address(),
        },
        issuer: servers.issuer.azure_name(),
        database: servers.database.as_ref().map(Database::azure_name),
        azure_names: azure_names.clone(),
        ingress: ingress_address,
        ca: pki.ca_path().to_owned(),
        admin_groups: admin_groups(config, &servers.issuer),
    };
    let secrets = secrets::of_services(config, &servers.issuer, servers.database.as_ref())?;
    let credentials =
        Credentials::default().with(servers.registry.login_server(), &admin_user.username, &admin_user.password);
    let builder = ImageBuilder::new(ImageBuilderConfig {
        cache_dir: home.cache().join("images"),
        exe: options.exe.clone(),
        http: http.clone(),
        credentials,
    })?;

    let client = |user: &str, groups: &[&str]| api_server.in_process_client(user, groups);
    let admin = client("aksim", &["system:masters"]);
    let controllers = Controllers::new(
        client("system:kube-controller-manager", &["system:masters"]),
        ControllersConfig {
            root_ca_pem: pki.ca_pem().to_owned(),
            volumes: VolumeFolders::new(home.component("volumes")),
            ..ControllersConfig::default()
        },
    );
    let node_parts = node.bind(config, home, pki, api_server.address(), client, names).await?;
    let power = node_parts.power();
    let api_address = api_server.address();

    let url = |name: &str, url: String| vec![Endpoint { name: name.into(), url }];
    let https = |address: SocketAddr| format!("https://{address}");
    let issuer_url = servers.issuer.local_url();
    supervisor.start(servers.issuer, url("issuer", issuer_url), DEADLINE).await?;
    let registry_url = https(servers.registry.address());
    supervisor.start(servers.registry, url("registry", registry_url), DEADLINE).await?;
    let git_connection =
        git_host.as_ref().map(|host| pipelines::GitConnection { handle: host.handle(), url: host.url().to_owned() });
    if let Some(host) = git_host {
        let (handle, endpoint) = (host.handle(), url("Git host", host.url().to_owned()));
        supervisor.start(host, endpoint, DEADLINE).await?;
        git::connect(config, options, pki, &handle, recorder).await?;
    }
    supervisor.start(api_server, url("API server", https(api_address)), DEADLINE).await?;
    write_kubeconfigs(home, options, state, pki, api_address)?;
    objects::apply_system(&admin, &environment).await?;
    let rotation = servers.database.as_ref().map(Database::rotation);
    if let Some(database) = servers.database {
        let endpoint = url(&database.stands_in_for().to_string(), format!("mysql://{}", database.address()));
        supervisor.start(database, endpoint, DEADLINE).await?;
    }
    objects::apply_secrets(&admin, &environment.id, &secrets).await?;
    supervisor.start(controllers, vec![], DEADLINE).await?;
    node_parts.start(supervisor, DEADLINE).await?;
    let ingress = Ingress::bind(IngressConfig {
        listener: ingress_listener,
        pki: pki.clone(),
        azure_names,
        client: admin.clone(),
        dialer: node.dialer(),
    })?;
    supervisor.start(ingress, url("ingress", https(ingress_address)), DEADLINE).await?;
    let connections = pipelines::Connections {
        git: git_connection,
        http,
        images: builder.clone(),
        login_server: environment.registry.host.clone(),
        registry: admin_user,
        client: admin.clone(),
        dialer: node.dialer(),
    };
    let pipelines = pipelines::bind(config, home, state, pki, connections).await?;
    let pipelines_url = https(pipelines.address());
    supervisor.start(pipelines, url("pipelines", pipelines_url), DEADLINE).await?;
    for (what, hint) in node.reductions() {
        recorder.record(EventBody::Warning { subject: "node".into(), message: what, hint: Some(hint) });
    }

    let plan = Arc::new(Plan::new(&config.root, config.services.clone()));
    let context = CycleContext {
        root: config.root.clone(),
        state: home.component("devloop"),
        environment: environment.id.clone(),
        client: admin.clone(),
        dialer: node.dialer(),
        recorder: recorder.clone(),
        packager: Arc::new(BuiltinPackager::new(builder, &environment.id)),
        sync: Arc::new(ContainerSync::new(node.runtime())),
        ingress_port: ingress_address.port(),
        build_slot: Arc::new(Semaphore::new(1)),
        output: broadcast::Sender::new(1024),
    };
    let (trigger_sender, triggers) = mpsc::channel(16);
    let commands = commands::Commands {
        plan: plan.clone(),
        triggers: trigger_sender,
        client: admin.clone(),
        environment: environment.id.clone(),
        secrets,
        rotation,
        runtime: node.runtime(),
        power,
    };
    let (stop, commands) =
        start_control(config, home, recorder, supervisor, &context, commands, triggers, options).await?;
    Ok(Parts { environment, context, plan, stop, commands, names: names_sender })
}

async fn bind_servers(config: &Config, home: &Home, state: &mut State, pki: &Pki) -> Result<Servers, SimulatorError> {
    let port = |asked: Option<u16>, kept: u16| asked.unwrap_or(kept);
    let database = async {
        let Some(database) = &config.database else { return Ok(None) };
        let schemas = config.services.iter().filter_map(|s| s.database.clone());
        let schemas = schemas.map(|schema| SchemaSpec { user: schema.clone(), schema }).collect();
        let cache = home.cache().join("database");
        let mut settings = DatabaseConfig::new(home.component("database"), cache, pki.clone(), &database.name);
        settings.port = port(database.port, state.port("database"));
        settings.engine = database.binary.clone().map_or(EngineChoice::Auto, EngineChoice::Process);
        settings.schemas = schemas;
        Database::bind(settings).await.map(Some)
    };
    let identity = async {
        let mut identity = IdentityConfig::new(home.component("identity"), pki.clone(), directory::spec(config));
        identity.port = port(config.identity_port, state.port("identity"));
        Issuer::bind(identity).await
    };
    let (database, issuer) = tokio::join!(database, identity);
    let (database, issuer) = (database?, issuer?);
    let mut azure_names = issuer.azure_names();
    azure_names.extend(database.as_ref().map(Database::azure_name));
    let http = azure_http_client(pki, &azure_names)?;
    let mut registry = RegistryConfig::new(home.component("registry"), pki.clone(), &config.registry);
    registry.port = port(config.registry_port, state.port("registry"));
    registry.entra = Some(EntraConfig::new(&issuer.directory().tenant().id.to_string(), http, Vec::new()));
    let registry = Registry::bind(registry).await?;
    azure_names.push(AzureName { host: registry.login_server().to_owned(), port: 443, target: registry.address() });
    state.keep_port("identity", issuer.address().port())?;
    state.keep_port("registry", registry.address().port())?;
    if let Some(database) = &database {
        state.keep_port("database", database.address().port())?;
    }
    Ok(Servers { issuer, registry, database, azure_names })
}

/// The port asked for, else the one of last time, else 8443, else a free one.
async fn ingress_listener(asked: Option<u16>, state: &mut State) -> Result<TcpListener, SimulatorError> {
    let failed = |source: io::Error| SimulatorError::Port { what: "ingress", source };
    let listener = match asked {
        Some(port) => listen_loopback(port).await.map_err(failed)?,
        None => {
            let preferred = match state.port("ingress") {
                0 => INGRESS_PORT,
                kept => kept,
            };
            match listen_loopback(preferred).await {
                Ok(listener) => listener,
                Err(_) => listen_loopback(0).await.map_err(failed)?,
            }
        }
    };
    state.keep_port("ingress", listener.local_addr().map_err(failed)?.port())?;
    Ok(listener)
}

fn admin_groups(config: &Config, issuer: &Issuer) -> Vec<(String, String)> {
    let directory = issuer.directory();
    let groups = config.cluster_admin_groups.iter();
    groups.filter_map(|name| Some((name.clone(), directory.group(name)?.id.to_string()))).collect()
}

fn write_kubeconfigs(
    home: &Home,
    options: &Options,
    state: &mut State,
    pki: &Pki,
    api_server: SocketAddr,
) -> Result<(), SimulatorError> {
    let identity = pki.issue_client("aksim-admin", &["system:masters"])?;
    let context = KubeContext {
        name: context_name(home),
        server: format!("https://{api_server}"),
        ca_pem: pki.ca_pem().to_owned(),
        user: User::Certificate { certificate_pem: identity.certificate_pem, key_pem: identity.key_pem },
    };
    let write = |path: &Path| {
        write_atomic(path, kubeconfig::render(&context).as_bytes(), PRIVATE)
            .map_err(|source| super::StateError::File { path: path.to_owned(), source })
    };
    write(&home.kubeconfig())?;
    match &options.kubeconfig {
        KubeconfigTarget::None => {}
        KubeconfigTarget::File(path) => write(path)?,
        KubeconfigTarget::User => {
            let Some(path) = kubeconfig::default_path() else { return Ok(()) };
            // A run that was killed has left our context current: what was there before it counts.
            let before = state.kubeconfig().filter(|(p, _)| *p == path).and_then(|(_, previous)| previous.clone());
            let previous = kubeconfig::merge(&path, &context)?.or(before);
            state.keep_kubeconfig(Some((path, previous)))?;
        }
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)] // The parts of one start, each once.
async fn start_control(
    config: &Config,
    home: &Home,
    recorder: &Recorder,
    supervisor: &mut Supervisor,
    context: &CycleContext,
    commands: commands::Commands,
    triggers: mpsc::Receiver<ServiceName>,
    options: &Options,
) -> Result<(CancellationToken, JoinSet<()>), SimulatorError> {
    let stop = CancellationToken::new();
    let (command_sender, command_receiver) = mpsc::channel(16);
    let info = Info {
        pid: std::process::id(),
        project: config.root.clone(),
        name: config.name.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let logs = Arc::new(ServiceLogs::new(context.client.clone()));
    let control = ControlServer::bind(&home.control_socket(), info, recorder.clone(), command_sender, logs)
        .map_err(SimulatorError::Control)?;
    supervisor.start(control, vec![], DEADLINE).await?;
    let scratch = home.component("watch");
    let devloop = DevLoop::new(context.clone(), commands.plan.clone(), scratch, triggers, options.watch);
    supervisor.start(devloop, vec![], DEADLINE).await?;
    let mut serving = JoinSet::new();
    serving.spawn(commands::serve(command_receiver, commands, stop.clone()));
    Ok((stop, serving))
}
