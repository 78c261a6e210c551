//! Starting, running and stopping one environment.

use crate::{
    SimulatorError,
    cluster::{ControlPlane, Nodes, Reductions},
    control::{Control, ControlConfig},
    database, git,
    ground::{Ground, Options},
    images, ingress, issuer, kubeconfig,
    objects::SystemObjects,
    part::{Part, Run},
    pipelines::{GitConnection, PipelineService},
    providers, registry,
    secrets::{self, ServiceSecrets},
};
use aksim_cluster::provider::{Bound, ClusterProvider, Extent, Wiring};
use aksim_config::{Config, home::Home};
use aksim_database::Database;
use aksim_devloop::{BuildLine, DevLoop, logs::ServiceLogs};
use aksim_model::ids::ServiceName;
use aksim_runtime::{recorder::Recorder, supervisor::Supervisor};
use std::{sync::Arc, time::Duration};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// What a component gets to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running environment.
pub struct Simulator {
    ground: Ground,
    cluster: Arc<dyn ClusterProvider>,
    supervisor: Supervisor,
    control: Control,
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
        let provider = providers::provider(&config.provider)?;
        let mut ground = Ground::open(config, home, options).await?;
        let cluster = match provider.open(ground.place()).await {
            Ok(cluster) => cluster,
            Err(error) => return Err(ground.give_up(error.into())),
        };
        let mut supervisor = Supervisor::new(ground.recorder.clone(), STOP_DEADLINE);
        let started = tokio::select! {
            control = start(&mut ground, &cluster, &mut supervisor) => control,
            () = interrupted => Err(SimulatorError::Interrupted),
        };
        match started {
            Ok(control) => Ok(Self { ground, cluster, supervisor, control }),
            Err(error) => {
                supervisor.stop().await;
                let stopped = cluster.stop(Extent::New).await.map_err(SimulatorError::from);
                for left in [stopped, kubeconfig::give_back(&mut ground)].into_iter().filter_map(Result::err) {
                    tracing::warn!(error = %left, "cleaning up after a start that failed");
                }
                Err(ground.give_up(error))
            }
        }
    }

    /// The recorder of its events.
    pub fn recorder(&self) -> &Recorder {
        &self.ground.recorder
    }

    /// Cancelled when somebody asks it to stop.
    pub fn stop_requested(&self) -> CancellationToken {
        self.control.stop.clone()
    }

    /// Lines of builds from now on; a slow reader loses the oldest.
    pub fn build_output(&self) -> broadcast::Receiver<BuildLine> {
        self.control.context.output.subscribe()
    }

    /// Sends a log line source for a dashboard in the same process.
    pub fn logs(&self) -> ServiceLogs {
        ServiceLogs::new(self.control.context.client.clone())
    }

    /// Builds and deploys every service.
    ///
    /// # Errors
    /// The services that failed, with why.
    pub async fn deploy(&self) -> Result<(), Vec<(ServiceName, String)>> {
        DevLoop::deploy_all(&self.control.context, &self.control.plan, &self.control.stop).await
    }

    /// Waits until it is asked to stop, or a component fails.
    ///
    /// # Errors
    /// The failure of the component.
    pub async fn wait(&mut self) -> Result<(), SimulatorError> {
        tokio::select! {
            () = self.control.stop.cancelled() => Ok(()),
            failure = self.supervisor.wait_for_failure() => Err(failure.into()),
        }
    }

    /// Stops containers and components, and gives the kubeconfig back.
    ///
    /// # Errors
    /// [`SimulatorError`] when containers or the kubeconfig cannot be cleaned up.
    pub async fn stop(mut self) -> Result<(), SimulatorError> {
        self.control.stop.cancel();
        self.control.commands.shutdown().await;
        let aborted = self.supervisor.stop().await;
        if !aborted.is_empty() {
            tracing::warn!(components = aborted.join(", "), "did not stop in time");
        }
        let stopped = self.cluster.stop(Extent::All).await;
        kubeconfig::give_back(&mut self.ground)?;
        Ok(stopped?)
    }
}

async fn start(
    ground: &mut Ground,
    cluster: &Arc<dyn ClusterProvider>,
    supervisor: &mut Supervisor,
) -> Result<Control, SimulatorError> {
    let (parts, control) = wire(ground, cluster).await?;
    let mut run = Run { ground, supervisor };
    for part in parts {
        part.start(&mut run).await?;
    }
    Control::start(&mut run, control).await
}

/// Takes the listeners, so that the table of Azure names is whole before anything uses it, and wires the parts.
/// They are in the order in which they start; what makes the environment one to work with comes last.
async fn wire(
    ground: &mut Ground,
    cluster: &Arc<dyn ClusterProvider>,
) -> Result<(Vec<Box<dyn Part>>, ControlConfig), SimulatorError> {
    let (database, issuer) = tokio::join!(database::bind(ground), issuer::bind(ground));
    let (database, issuer) = (database?, issuer?);
    ground.answer(issuer.azure_names());
    ground.answer(database.as_ref().map(Database::azure_name));
    let registry = registry::bind(ground, &issuer).await?;
    ground.answer([registry::azure_name(&registry)]);
    ground.keep_port("identity", issuer.address().port())?;
    ground.keep_port("registry", registry.address().port())?;
    if let Some(database) = &database {
        ground.keep_port("database", database.address().port())?;
    }
    let http = ground.http()?;
    let git = git::bind(ground, &issuer, http.clone()).await?;
    let login = registry::login(&registry);
    let wiring = Wiring {
        port: ground.state.port("kubernetes"),
        issuer: issuer.issuer(),
        http: http.clone(),
        azure_names: ground.azure_names(),
        registry: login.clone(),
    };
    let Bound { port, reductions } = cluster.bind(wiring).await?;
    port.map_or(Ok(()), |port| ground.keep_port("kubernetes", port))?;
    let front_door = ingress::bind(ground, cluster.clone()).await?;
    let secrets = secrets::of_services(&ground.config, &issuer, database.as_ref())?;
    let images = images::builder(ground, &login, http.clone())?;
    let control = ControlConfig {
        cluster: cluster.clone(),
        images: images.clone(),
        ingress_port: front_door.port,
        secrets: secrets.clone(),
        rotation: database.as_ref().map(Database::rotation),
    };
    let objects = SystemObjects {
        registry: registry::azure_name(&registry),
        admin_groups: issuer::admin_groups(ground, &issuer),
    };
    let connection = git.as_ref().map(GitConnection::new);
    let parts: Vec<Box<dyn Part>> = vec![
        Box::new(issuer::server(issuer)),
        Box::new(registry::server(registry)),
        Box::new(git),
        Box::new(ControlPlane { cluster: cluster.clone(), objects }),
        Box::new(database.map(database::server)),
        Box::new(ServiceSecrets { cluster: cluster.clone(), secrets }),
        Box::new(Nodes(cluster.clone())),
        Box::new(front_door),
        Box::new(PipelineService { git: connection, http, images, registry: login, cluster: cluster.clone() }),
        Box::new(Reductions(reductions)),
    ];
    Ok((parts, control))
}
