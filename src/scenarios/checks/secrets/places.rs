//! Where is looked.

use super::search::Needles;
use crate::{Environment, ScenarioError};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams, LogParams},
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// Kinds whose objects anybody may read who may read the namespace.
const READABLE: [&str; 8] =
    ["pods", "deployments", "replicasets", "configmaps", "services", "ingresses", "nodes", "endpointslices"];
/// What a user asks aksim. `token` and `kubeconfig` are asked for a credential, so not here.
const PRINTED: [&[&str]; 7] = [
    &["status", "-o", "json"],
    &["env"],
    &["journey", "-o", "json"],
    &["logs"],
    &["fidelity", "-o", "json"],
    &["explain", "aksim.toml"],
    &["open"],
];

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Logs of every container, the one before a restart too.
    ContainerLogs,
    /// Events and readable objects of the cluster.
    Cluster,
    /// Layers and configurations in the registry, decompressed.
    Images,
    /// aksim's event log and its own log files.
    Records,
    /// What aksim prints.
    Output,
}

/// What was found.
pub struct Found {
    /// Each: what is where.
    pub found: Vec<String>,
    /// Bytes searched.
    pub bytes: u64,
}

impl Found {
    fn none() -> Self {
        Self { found: Vec::new(), bytes: 0 }
    }

    fn take(&mut self, place: &str, needles: &Needles, stream: impl Read) -> Result<(), ScenarioError> {
        let path = PathBuf::from(place);
        let (found, bytes) = needles.find(stream).map_err(|source| ScenarioError::Read { path, source })?;
        self.found.extend(found.into_iter().map(|name| format!("{name} is in {place}")));
        self.bytes += bytes;
        Ok(())
    }
}

impl Place {
    /// All places.
    pub const ALL: [Self; 5] = [Self::ContainerLogs, Self::Cluster, Self::Images, Self::Records, Self::Output];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::ContainerLogs => "container logs",
            Self::Cluster => "events and objects",
            Self::Images => "images",
            Self::Records => "aksim's records",
            Self::Output => "aksim's output",
        }
    }

    /// Searches it.
    ///
    /// # Errors
    /// When a part of it cannot be read: what was not searched is not clean.
    pub async fn search(self, environment: &Environment, needles: &Needles) -> Result<Found, ScenarioError> {
        match self {
            Self::ContainerLogs => logs(environment, needles).await,
            Self::Cluster => cluster(environment, needles).await,
            Self::Images => files(vec![environment.home.component("registry").join("blobs")], needles).await,
            Self::Records => files(vec![environment.home.events(), environment.home.logs()], needles).await,
            Self::Output => output(environment, needles).await,
        }
    }
}

async fn logs(environment: &Environment, needles: &Needles) -> Result<Found, ScenarioError> {
    let mut result = Found::none();
    let all: Api<Pod> = Api::all(environment.client.clone());
    let pods = all.list(&ListParams::default()).await.map_err(ScenarioError::cluster("pods"))?;
    for pod in pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(environment.client.clone(), &namespace);
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        for status in statuses {
            // Only what has run has a log; before a restart there is another.
            let ran = status.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some());
            let wanted = [(false, ran), (true, status.restart_count > 0)];
            for (previous, _) in wanted.into_iter().filter(|(_, there)| *there) {
                let parameters = LogParams { container: Some(status.name.clone()), previous, ..LogParams::default() };
                let place = format!("the log of {namespace}/{name} {}", status.name);
                let text = match api.logs(&name, &parameters).await {
                    Ok(text) => text,
                    // Gone since it was listed, or its earlier log has been rotated away.
                    Err(kube::Error::Api(gone)) if gone.code == 404 || (previous && gone.code == 400) => continue,
                    Err(error) => return Err(ScenarioError::cluster(place)(error)),
                };
                result.take(&place, needles, text.as_bytes())?;
            }
        }
    }
    Ok(result)
}

async fn cluster(environment: &Environment, needles: &Needles) -> Result<Found, ScenarioError> {
    let mut result = Found::none();
    let events: Api<Event> = Api::all(environment.client.clone());
    let events = events.list(&ListParams::default()).await.map_err(ScenarioError::cluster("events"))?;
    for event in events {
        let json = serde_json::to_vec(&event).unwrap_or_default();
        result.take(&format!("event {}", event.name_any()), needles, json.as_slice())?;
    }
    for kind in READABLE {
        let (resource, _) = environment.kind(kind).await?;
        let api: Api<DynamicObject> = Api::all_with(environment.client.clone(), &resource);
        let objects = api.list(&ListParams::default()).await.map_err(ScenarioError::cluster(kind))?;
        for object in objects {
            let json = serde_json::to_vec(&object).unwrap_or_default();
            let place = format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any());
            result.take(&place, needles, json.as_slice())?;
        }
    }
    Ok(result)
}

/// Files and folders, on a thread of its own: loads and interrupts do not wait for it. One that nobody waits for
/// any more ends with the file it is at.
async fn files(paths: Vec<PathBuf>, needles: &Needles) -> Result<Found, ScenarioError> {
    let needles = needles.clone();
    let stop = CancellationToken::new();
    let _stopped_with_the_check = stop.clone().drop_guard();
    let search = tokio::task::spawn_blocking(move || files_until(&stop, &paths, &needles));
    search.await.map_err(|ended| ScenarioError::Missing(format!("the search of files ended: {ended}")))?
}

/// Files and folders, decompressed where they are compressed.
fn files_until(stop: &CancellationToken, paths: &[PathBuf], needles: &Needles) -> Result<Found, ScenarioError> {
    let mut result = Found::none();
    let existing = paths.iter().filter(|path| path.exists());
    for entry in existing.flat_map(walkdir::WalkDir::new) {
        if stop.is_cancelled() {
            break;
        }
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_file() {
            continue;
        }
        let path = entry.path();
        let read = |source| ScenarioError::Read { path: path.to_owned(), source };
        let stream = match decompressed(path) {
            Ok(stream) => stream,
            // Uploads and rotated logs go away meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(read(error)),
        };
        result.take(&path.display().to_string(), needles, stream)?;
    }
    Ok(result)
}

fn decompressed(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut magic = [0u8; 4];
    let length = file.read(&mut magic)?;
    file.rewind()?;
    Ok(match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    })
}

async fn output(environment: &Environment, needles: &Needles) -> Result<Found, ScenarioError> {
    let mut result = Found::none();
    for arguments in PRINTED {
        let place = format!("the output of `aksim {}`", arguments.join(" "));
        let ran = tokio::process::Command::new(&environment.exe)
            .args(arguments)
            .current_dir(&environment.config.root)
            .env_remove("AKSIM_PROJECT")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| ScenarioError::Read { path: environment.exe.clone(), source })?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            return Err(ScenarioError::Missing(format!("{place}: {}: {said}", ran.status)));
        }
        result.take(&place, needles, [ran.stdout, ran.stderr].concat().as_slice())?;
    }
    Ok(result)
}
