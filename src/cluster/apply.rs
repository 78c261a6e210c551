//! Server-side apply of manifests.

use super::manifests::Manifest;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    discovery::{self, ApiCapabilities, ApiResource, Scope},
};
use serde_json::{Value, json};
use std::{collections::HashMap, path::PathBuf};

/// Field manager of everything aksim applies.
pub const FIELD_MANAGER: &str = "aksim";
/// Label with the environment's id on everything aksim applies.
pub const ENVIRONMENT_LABEL: &str = "aksim.dev/environment";

/// Why an object could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The cluster does not know the kind.
    #[error("{}: the cluster does not serve {api_version} {kind}", file.display())]
    UnknownKind {
        /// Where it is written.
        file: PathBuf,
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
    /// The API server refused it.
    #[error("{}: {kind} {name}: {}", file.display(), reason(source))]
    Refused {
        /// Where it is written.
        file: PathBuf,
        /// Its `kind`.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server could not be asked.
    #[error("cluster: {0}")]
    Cluster(#[source] Box<kube::Error>),
}

fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Applies manifests; remembers which API serves a kind.
pub struct Applier {
    client: Client,
    environment: String,
    manager: &'static str,
    known: HashMap<(String, String), (ApiResource, ApiCapabilities)>,
}

impl Applier {
    /// An applier that labels what it applies with the environment's id.
    pub fn new(client: Client, environment: impl Into<String>) -> Self {
        Self { client, environment: environment.into(), manager: FIELD_MANAGER, known: HashMap::new() }
    }

    /// The same as another field manager: what it does not name stays with who set it.
    #[must_use]
    pub fn managed_by(mut self, manager: &'static str) -> Self {
        self.manager = manager;
        self
    }

    /// Applies one manifest by server-side apply, taking over fields from others, and returns the
    /// object as the cluster has it. Unknown fields are errors.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn apply(&mut self, manifest: &Manifest) -> Result<DynamicObject, ApplyError> {
        let (resource, capabilities) = self.resource(manifest).await?;
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), manifest.namespace(), &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        };
        let mut object = manifest.object.clone();
        if matches!(capabilities.scope, Scope::Cluster)
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            // What is deployed into a namespace may bring objects that are in none.
            metadata.remove("namespace");
        }
        label(&mut object, &self.environment);
        let mut parameters = PatchParams::apply(self.manager).force();
        parameters.field_validation = Some(kube::api::ValidationDirective::Strict);
        api.patch(manifest.name(), &parameters, &Patch::Apply(&object)).await.map_err(|source| ApplyError::Refused {
            file: manifest.file.clone(),
            kind: manifest.kind().to_owned(),
            name: manifest.name().to_owned(),
            source: Box::new(source),
        })
    }

    async fn resource(&mut self, manifest: &Manifest) -> Result<(ApiResource, ApiCapabilities), ApplyError> {
        let key = (manifest.api_version().to_owned(), manifest.kind().to_owned());
        if let Some(found) = self.known.get(&key) {
            return Ok(found.clone());
        }
        let (group, version) = key.0.split_once('/').unwrap_or(("", &key.0));
        let gvk = kube::api::GroupVersionKind::gvk(group, version, &key.1);
        let found = discovery::pinned_kind(&self.client, &gvk).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => self.unknown(manifest),
            kube::Error::Discovery(_) => self.unknown(manifest),
            other => ApplyError::Cluster(Box::new(other)),
        })?;
        self.known.insert(key, found.clone());
        Ok(found)
    }

    fn unknown(&self, manifest: &Manifest) -> ApplyError {
        ApplyError::UnknownKind {
            file: manifest.file.clone(),
            api_version: manifest.api_version().to_owned(),
            kind: manifest.kind().to_owned(),
        }
    }
}

fn label(object: &mut Value, environment: &str) {
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"][ENVIRONMENT_LABEL] = environment.into();
}
