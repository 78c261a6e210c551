//! What people and tools work an environment with: the control API, the inner loop and the commands.

use crate::{
    SimulatorError,
    commands::{self, Commands},
    file_sync::ContainerSync,
    images::BuiltinPackager,
    objects::ServiceSecret,
    part::Run,
};
use aksim_cluster::provider::ClusterProvider;
use aksim_database::PasswordRotation;
use aksim_devloop::{CycleContext, DevLoop, logs::ServiceLogs, plan::Plan};
use aksim_images::ImageBuilder;
use aksim_runtime::control::{ControlServer, Info};
use std::sync::Arc;
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Lines of builds that a slow reader may be behind.
const OUTPUT_LINES: usize = 1024;
/// Requests that may wait.
const REQUESTS: usize = 16;

/// What the inner loop and the commands work on.
pub struct ControlConfig {
    /// The cluster.
    pub cluster: Arc<dyn ClusterProvider>,
    /// Builds and pushes.
    pub images: ImageBuilder,
    /// Port of the front door.
    pub ingress_port: u16,
    /// The Secrets of the services, as they are now.
    pub secrets: Vec<ServiceSecret>,
    /// Passwords of the database, if there is one.
    pub rotation: Option<PasswordRotation>,
}

/// An environment that can be worked with.
pub struct Control {
    /// What every cycle uses.
    pub context: CycleContext,
    /// The services.
    pub plan: Arc<Plan>,
    /// Cancelled when somebody asks the environment to stop.
    pub stop: CancellationToken,
    /// Carries commands out.
    pub commands: JoinSet<()>,
}

impl Control {
    /// Starts it; everything else runs.
    ///
    /// # Errors
    /// [`SimulatorError::Control`], when the socket cannot be had, and those of components.
    pub async fn start(run: &mut Run<'_>, config: ControlConfig) -> Result<Self, SimulatorError> {
        let plan = Arc::new(Plan::new(&run.ground.config.root, run.ground.config.services.clone()));
        let context = config.cycle_context(run)?;
        let stop = CancellationToken::new();
        let (command_sender, requests) = mpsc::channel(REQUESTS);
        let info = Info {
            pid: std::process::id(),
            project: run.ground.config.root.clone(),
            name: run.ground.config.name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let (socket, recorder) = (run.ground.home.control_socket(), run.ground.recorder.clone());
        let logs = Arc::new(ServiceLogs::new(context.client.clone()));
        let server = ControlServer::bind(&socket, info, recorder, command_sender, logs);
        run.component(server.map_err(SimulatorError::Control)?, vec![]).await?;
        let (triggers, triggered) = mpsc::channel(REQUESTS);
        let (scratch, watch) = (run.ground.home.component("watch"), run.ground.options.watch);
        run.component(DevLoop::new(context.clone(), plan.clone(), scratch, triggered, watch), vec![]).await?;
        let mut serving = JoinSet::new();
        let commands = Commands {
            plan: plan.clone(),
            triggers,
            client: context.client.clone(),
            environment: context.environment.clone(),
            secrets: config.secrets,
            rotation: config.rotation,
            cluster: config.cluster,
        };
        serving.spawn(commands::serve(requests, commands, stop.clone()));
        Ok(Self { context, plan, stop, commands: serving })
    }
}

impl ControlConfig {
    fn cycle_context(&self, run: &Run<'_>) -> Result<CycleContext, SimulatorError> {
        let access = self.cluster.access()?;
        let id = run.ground.state.id();
        Ok(CycleContext {
            root: run.ground.config.root.clone(),
            state: run.ground.home.component("devloop"),
            environment: id.to_owned(),
            client: access.client,
            dialer: access.dialer,
            recorder: run.ground.recorder.clone(),
            packager: Arc::new(BuiltinPackager::new(self.images.clone(), id)),
            sync: Arc::new(ContainerSync::new(self.cluster.clone())),
            ingress_port: self.ingress_port,
            build_slot: Arc::new(Semaphore::new(1)),
            output: broadcast::Sender::new(OUTPUT_LINES),
        })
    }
}
