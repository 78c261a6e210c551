//! The one way to deploy: load manifests, put images in their place, mark, apply, wait until what was applied
//! answers. The inner loop and the pipelines differ in the options alone.

use super::{
    apply::{Applier, ApplyError},
    manifests::{self, Manifest, ManifestError},
    rollout::{Rollout, RolloutError, Target, Told},
    templates,
    workload::{Kind, Workload},
};
use aksim_model::{ids::ServiceName, image_ref::ImageRef, journey::Hop};
use aksim_runtime::net::SharedDialer;
use jiff::Timestamp;
use kube::{Client, ResourceExt, api::DynamicObject};
use std::{path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

/// Why a deployment did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The cluster refused an object.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A new version does not come up.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
}

impl DeployError {
    /// Whether somebody took the task away, and nothing is wrong.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Rollout(RolloutError::Cancelled))
    }
}

/// The cluster that is deployed to.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    /// Its API.
    pub client: &'a Client,
    /// Reaches pods.
    pub dialer: &'a SharedDialer,
    /// Id of the environment, for labels.
    pub environment: &'a str,
}

/// How is deployed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who owns the fields that are applied.
    pub field_manager: &'static str,
    /// Service that all objects and pods are marked with.
    pub service: Option<ServiceName>,
    /// Images that take the place of those of the same repository.
    pub images: Vec<ImageRef>,
    /// Secrets that pods pull their images with, besides their own.
    pub pull_secrets: Vec<String>,
    /// How long the rollout of everything may take.
    pub deadline: Duration,
    /// How often a container may end on its way up before that is a failure.
    pub restarts: i32,
}

/// A workload that was applied and is waited for.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Which.
    pub workload: Workload,
    /// Service that it is marked with.
    pub service: Option<ServiceName>,
    /// Image that was put in its place.
    pub image: Option<ImageRef>,
}

/// What a deployment tells on its way.
pub enum Step<'a> {
    /// An object is about to be applied.
    Applying(&'a Manifest),
    /// It was.
    Configured(&'a Manifest),
    /// All of this many objects were; these are waited for.
    Waiting {
        /// How many objects.
        objects: usize,
        /// The workloads among them.
        workloads: &'a [Applied],
    },
    /// A workload has passed a hop.
    Passed {
        /// Which.
        workload: &'a Applied,
        /// The hop.
        hop: Hop,
        /// When its evidence arrived.
        at: Timestamp,
        /// The evidence.
        detail: String,
    },
    /// A workload is rolled out.
    RolledOut {
        /// Which.
        workload: &'a Applied,
        /// What of it was not waited for, and why.
        note: Option<String>,
    },
}

/// Reads manifests; with `namespace`, that is theirs.
///
/// # Errors
/// [`ManifestError`] for the first file that is not right.
pub fn load(paths: &[PathBuf], namespace: Option<&str>) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = manifests::load(paths)?;
    if let Some(namespace) = namespace {
        for manifest in &mut manifests {
            manifest.object["metadata"]["namespace"] = namespace.into();
        }
    }
    Ok(manifests)
}

/// Applies manifests and waits until the workloads among them are rolled out and answer. `tell` hears of each
/// step.
///
/// # Errors
/// [`DeployError`] for the first object that is refused or workload that does not come up.
pub async fn deploy(
    cluster: Cluster<'_>,
    manifests: Vec<Manifest>,
    options: &Options,
    cancel: &CancellationToken,
    mut tell: impl FnMut(Step<'_>) + Send,
) -> Result<(), DeployError> {
    let mut applier = Applier::new(cluster.client.clone(), cluster.environment).managed_by(options.field_manager);
    let (mut targets, mut workloads) = (Vec::new(), Vec::new());
    let objects = manifests.len();
    for mut manifest in manifests {
        let image = prepare(&mut manifest, options);
        tell(Step::Applying(&manifest));
        let object = applier.apply(&manifest).await?;
        tell(Step::Configured(&manifest));
        if let Some(kind) = Kind::of(manifest.api_version(), manifest.kind()) {
            let (target, applied) = waited_for(kind, &manifest, &object, image, options.restarts);
            targets.push(target);
            workloads.push(applied);
        }
    }
    tell(Step::Waiting { objects, workloads: &workloads });
    let rollout = Rollout::new(cluster.client, cluster.dialer, targets);
    rollout.wait(options.deadline, cancel, |told| tell(step(told, &workloads))).await?;
    Ok(())
}

/// Puts images in their place and writes marks and pull secrets; the image that the object now runs.
fn prepare(manifest: &mut Manifest, options: &Options) -> Option<ImageRef> {
    let mut own = None;
    for image in &options.images {
        if manifests::substitute_image(&mut manifest.object, image) > 0 {
            own = Some(image.clone());
        }
    }
    if let Some(service) = &options.service {
        templates::mark(&mut manifest.object, service);
    }
    templates::add_pull_secrets(&mut manifest.object, &options.pull_secrets);
    own
}

fn waited_for(
    kind: &'static Kind,
    manifest: &Manifest,
    object: &DynamicObject,
    image: Option<ImageRef>,
    restarts: i32,
) -> (Target, Applied) {
    let workload = Workload { kind, namespace: manifest.namespace().to_owned(), name: manifest.name().to_owned() };
    let service = object.labels().get(templates::SERVICE_LABEL).map(|name| ServiceName::from(name.as_str()));
    let generation = object.metadata.generation.unwrap_or(0);
    let target = Target { workload: workload.clone(), generation, restarts };
    (target, Applied { workload, service, image })
}

fn step(told: Told, workloads: &[Applied]) -> Step<'_> {
    match told {
        Told::Passed { target, hop, at, detail } => Step::Passed { workload: &workloads[target], hop, at, detail },
        Told::RolledOut { target, note } => Step::RolledOut { workload: &workloads[target], note },
    }
}
