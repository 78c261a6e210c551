//! The inner loop itself: one readable function from a change to the first request it serves.

use super::{
    build_command::{self, BuildCommandError},
    fingerprint::{self, LastBuild},
};
use aksim_cluster::{
    apply::FIELD_MANAGER,
    deploy::{self, Cluster, DeployError, Options, Step},
    manifests::{Manifest, ManifestError},
    templates::SERVICE_LABEL,
};
use aksim_config::ServiceConfig;
use aksim_model::{
    endpoint::Endpoint,
    event::{EventBody, FlowRow, ServiceState},
    ids::{JourneyId, ServiceName},
    image_ref::ImageRef,
    journey::{Hop, JourneyOutcome},
};
use aksim_runtime::{net::SharedDialer, recorder::Recorder};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::Value;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

/// How long a rollout may take.
const ROLLOUT_DEADLINE: Duration = Duration::from_secs(120);

/// A line that a build wrote.
#[derive(Clone, Debug)]
pub struct BuildLine {
    /// The service that is built.
    pub service: ServiceName,
    /// The line, without its end.
    pub line: String,
}

/// Takes lines of output as they come.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Builds and pushes images.
#[async_trait]
pub trait Packager: Send + Sync + 'static {
    /// Builds the service's image, telling what it does line by line. The result names it by a
    /// tag made from its content, so that equal content is an equal name.
    async fn build(&self, service: &ServiceConfig, on_line: LineSink) -> Result<ImageRef, String>;
    /// Pushes the image that `build` has made; its digest.
    async fn push(&self, image: &ImageRef) -> Result<String, String>;
}

/// Copies files into running containers.
#[async_trait]
pub trait FileSync: Send + Sync + 'static {
    /// Puts `content` (or removes the file, when `None`) at `path` in every container of the pod
    /// that runs the service's image; the number of containers.
    async fn put(&self, pod: &Pod, image: &ImageRef, path: &str, content: Option<&[u8]>) -> Result<usize, String>;
}

/// What every cycle of a project uses.
#[derive(Clone)]
pub struct CycleContext {
    /// Project folder.
    pub root: PathBuf,
    /// Folder for fingerprints.
    pub state: PathBuf,
    /// Environment's id, for labels.
    pub environment: String,
    /// The cluster.
    pub client: Client,
    /// Reaches pods.
    pub dialer: SharedDialer,
    /// Facts go here.
    pub recorder: Recorder,
    /// Image builder and registry.
    pub packager: Arc<dyn Packager>,
    /// Live sync.
    pub sync: Arc<dyn FileSync>,
    /// Port of the front door, for the URLs of services.
    pub ingress_port: u16,
    /// One build command at a time: compilers use all cores themselves.
    pub build_slot: Arc<Semaphore>,
    /// Lines of build commands and image builds, for whoever shows progress.
    pub output: broadcast::Sender<BuildLine>,
}

/// Why a cycle ended without serving the change.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// The build command failed.
    #[error(transparent)]
    BuildCommand(#[from] BuildCommandError),
    /// The image could not be built.
    #[error("{0}")]
    Image(String),
    /// The image could not be pushed.
    #[error("push: {0}")]
    Push(String),
    /// A manifest is not right.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The cluster refused an object, or the new version does not come up.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// A file could not be copied into a container.
    #[error("sync {path}: {message}")]
    Sync {
        /// Path in the container.
        path: String,
        /// Why.
        message: String,
    },
}

impl CycleError {
    fn superseded(&self) -> bool {
        match self {
            Self::BuildCommand(error) => matches!(error, BuildCommandError::Cancelled),
            Self::Deploy(error) => error.is_cancelled(),
            _ => false,
        }
    }
}

/// One change of one service on its way.
pub struct Cycle<'a> {
    context: &'a CycleContext,
    service: &'a ServiceConfig,
    journey: JourneyId,
    cancel: CancellationToken,
}

impl<'a> Cycle<'a> {
    /// Begins a journey: `saved` is the moment of its cause.
    pub fn begin(
        context: &'a CycleContext,
        service: &'a ServiceConfig,
        cause: &str,
        saved: Timestamp,
        cancel: CancellationToken,
    ) -> Self {
        let journey = JourneyId::new(format!("{:032x}", rand::random::<u128>()));
        context.recorder.record(EventBody::JourneyStarted {
            journey: journey.clone(),
            service: service.name.clone(),
            cause: cause.to_owned(),
            started: saved,
        });
        let cycle = Self { context, service, journey, cancel };
        cycle.hop(Hop::Saved, saved, cause);
        cycle
    }

    /// The journey's id.
    pub fn journey(&self) -> &JourneyId {
        &self.journey
    }

    /// Build, push, apply, wait until the new version answers. With `force`, an image is built
    /// even when no input has changed. `restarts` is how often a container may end on its way up.
    ///
    /// # Errors
    /// [`CycleError`], already recorded with its evidence; the old version keeps serving.
    pub async fn deploy(self, force: bool, restarts: i32) -> Result<(), CycleError> {
        let outcome = self.deploy_steps(force, restarts).await;
        self.end(outcome)
    }

    /// Apply the manifests with the image as it is.
    ///
    /// # Errors
    /// As [`Cycle::deploy`].
    pub async fn apply(self) -> Result<(), CycleError> {
        let outcome = self.deploy_steps(false, 0).await;
        self.end(outcome)
    }

    /// Copy files into running containers.
    ///
    /// # Errors
    /// As [`Cycle::deploy`].
    pub async fn sync(self, files: &[(PathBuf, String)]) -> Result<(), CycleError> {
        let outcome = self.sync_steps(files).await;
        self.end(outcome)
    }

    async fn deploy_steps(&self, force: bool, restarts: i32) -> Result<String, CycleError> {
        // Read first: a broken manifest should not cost a build.
        let manifests = deploy::load(&self.service.manifests, None)?;
        let endpoints = urls(&manifests, self.context.ingress_port);
        let image = self.image(force).await?;
        self.state(ServiceState::RollingOut, Some(&image), "applying manifests");
        self.roll_out(manifests, &image, restarts).await?;
        let version = image.tag.clone().unwrap_or_default();
        self.context.recorder.record(EventBody::Service {
            service: self.service.name.clone(),
            state: ServiceState::Ready,
            version: Some(version.clone()),
            message: String::new(),
            endpoints,
        });
        Ok(version)
    }

    async fn roll_out(&self, manifests: Vec<Manifest>, image: &ImageRef, restarts: i32) -> Result<(), DeployError> {
        let options = Options {
            field_manager: FIELD_MANAGER,
            service: Some(self.service.name.clone()),
            images: vec![image.clone()],
            pull_secrets: Vec::new(),
            deadline: ROLLOUT_DEADLINE,
            restarts,
        };
        let CycleContext { client, dialer, environment, .. } = self.context;
        let tell = |step: Step<'_>| match step {
            Step::Waiting { .. } => {
                let applied = format!("{} manifest(s)", self.service.manifests.len());
                self.hop(Hop::Applied, Timestamp::now(), &applied);
                self.flow(FlowRow::Deploy, true, format!("{} applied with {image}", self.service.name));
            }
            Step::Passed { hop, at, detail, .. } => self.hop(hop, at, &detail),
            Step::RolledOut { workload, note: Some(note) } => {
                let subject = format!("{} of service {}", workload.workload, self.service.name);
                self.context.recorder.record(EventBody::Warning { subject, message: note, hint: None });
            }
            Step::Applying(_) | Step::Configured(_) | Step::RolledOut { note: None, .. } => {}
        };
        deploy::deploy(Cluster { client, dialer, environment }, manifests, &options, &self.cancel, tell).await
    }

    /// The service's image in the registry: as it was when no input has changed, else built anew.
    async fn image(&self, force: bool) -> Result<ImageRef, CycleError> {
        let inputs = fingerprint::of(self.service);
        if !force
            && let Some(last) = fingerprint::load(&self.context.state, self.service)
            && last.inputs == inputs
        {
            self.hop(Hop::Built, Timestamp::now(), "unchanged");
            return Ok(last.image);
        }
        self.state(ServiceState::Building, None, "");
        let (service, output) = (self.service.name.clone(), self.context.output.clone());
        let on_line: LineSink = Arc::new(move |line: &str| {
            tracing::info!(target: "build", service = %service, "{line}");
            // Nobody may be looking.
            let _ = output.send(BuildLine { service: service.clone(), line: line.to_owned() });
        });
        if !self.service.build.is_empty() {
            let _slot = self.context.build_slot.acquire().await;
            build_command::run(&self.service.build, &self.context.root, &self.cancel, |line| on_line(line)).await?;
        }
        let image = self.context.packager.build(self.service, on_line).await.map_err(CycleError::Image)?;
        self.hop(Hop::Built, Timestamp::now(), image.tag.as_deref().unwrap_or_default());
        self.state(ServiceState::Pushing, Some(&image), "");
        let digest = self.context.packager.push(&image).await.map_err(CycleError::Push)?;
        self.hop(Hop::Pushed, Timestamp::now(), &digest);
        if let Err(error) =
            fingerprint::store(&self.context.state, self.service, &LastBuild { inputs, image: image.clone() })
        {
            tracing::warn!(%error, service = %self.service.name, "the next `up` will build again");
        }
        Ok(image)
    }

    async fn sync_steps(&self, files: &[(PathBuf, String)]) -> Result<String, CycleError> {
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let selector = ListParams::default().labels(&format!("{SERVICE_LABEL}={}", self.service.name));
        let failed = |path: &str, message: String| CycleError::Sync { path: path.to_owned(), message };
        let pods = api.list(&selector).await.map_err(|e| failed("pods", e.to_string()))?;
        let mut containers = 0;
        for (from, to) in files {
            let content = match std::fs::read(from) {
                Ok(content) => Some(content),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(to, error.to_string())),
            };
            for pod in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
                let put = self.context.sync.put(pod, &self.service.image, to, content.as_deref()).await;
                containers += put.map_err(|e| failed(to, format!("pod {}: {e}", pod.name_any())))?;
            }
        }
        let paths: Vec<&str> = files.iter().map(|(_, to)| to.as_str()).collect();
        if containers == 0 {
            return Err(failed(&paths.join(", "), "no running container of the service".into()));
        }
        self.hop(Hop::Synced, Timestamp::now(), &format!("{} in {containers} container(s)", paths.join(", ")));
        Ok(String::new())
    }

    fn end(self, outcome: Result<String, CycleError>) -> Result<(), CycleError> {
        let (ended, result) = match outcome {
            Ok(_) => (JourneyOutcome::Served, Ok(())),
            Err(error) if error.superseded() => (JourneyOutcome::Superseded, Err(error)),
            Err(error) => {
                let message = error.to_string();
                self.state(ServiceState::Failed, None, &message);
                (JourneyOutcome::Failed(message.lines().next().unwrap_or_default().to_owned()), Err(error))
            }
        };
        self.context.recorder.record(EventBody::JourneyEnded { journey: self.journey.clone(), outcome: ended });
        result
    }

    fn state(&self, state: ServiceState, image: Option<&ImageRef>, message: &str) {
        self.context.recorder.record(EventBody::Service {
            service: self.service.name.clone(),
            state,
            version: image.and_then(|i| i.tag.clone()),
            message: message.to_owned(),
            endpoints: Vec::new(),
        });
    }

    fn hop(&self, hop: Hop, passed: Timestamp, detail: &str) {
        self.context.recorder.record(EventBody::JourneyHop {
            journey: self.journey.clone(),
            hop,
            passed,
            detail: detail.to_owned(),
        });
    }

    fn flow(&self, row: FlowRow, ok: bool, message: String) {
        self.context.recorder.record(EventBody::Flow { row, ok, message });
    }
}

/// Where the Ingresses among the manifests are reached.
fn urls(manifests: &[Manifest], port: u16) -> Vec<Endpoint> {
    let ingresses = manifests.iter().filter(|manifest| manifest.kind() == "Ingress");
    let rules = ingresses.flat_map(|ingress| ingress.object["spec"]["rules"].as_array().into_iter().flatten());
    let hosts = rules.filter_map(|rule: &Value| rule["host"].as_str());
    hosts.map(|host| Endpoint { name: host.to_owned(), url: format!("https://{host}:{port}/") }).collect()
}
