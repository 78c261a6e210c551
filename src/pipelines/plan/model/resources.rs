//! What a pipeline uses from elsewhere.

use super::Trigger;
use crate::error::Location;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// `resources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Other repositories, for `checkout` and templates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// Images jobs run in and services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// Other pipelines whose artifacts are downloaded or whose runs trigger this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<OtherResource>,
    /// Builds of other systems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<OtherResource>,
    /// Packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<OtherResource>,
    /// Webhooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<OtherResource>,
}

impl Resources {
    /// Nothing is used.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `resources: repositories`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Repository {
    /// `repository:`, what the pipeline calls it.
    pub alias: String,
    /// `git`, `github`, `githubenterprise` or `bitbucket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ORG/REPO` or `PROJECT/REPO`.
    pub name: String,
    /// Branch or tag, `refs/heads/…`; empty means the default branch.
    #[serde(rename = "ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Service connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A push there starts this pipeline; absent means it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// Where it is written.
    pub location: Location,
}

/// A container: of `resources`, or written where it is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// `container:` under `resources`; empty when written in place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// Image reference; may hold macros. Empty for `type: ACR`.
    pub image: String,
    /// Service connection to the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Options of `docker create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// `HOST:CONTAINER`, or one port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// `HOST:CONTAINER[:ro]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// The Docker socket is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_docker_socket: Option<bool>,
    /// Which agent folders are mounted read-only: `work`, `externals`, `tools`, `tasks`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mount_read_only: Vec<String>,
    /// Other keys (`type: ACR` and what belongs to it, `trigger`), as written.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub more: IndexMap<String, Json>,
    /// Where it is written.
    pub location: Location,
}

/// A resource that is named and kept as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtherResource {
    /// Its alias.
    pub alias: String,
    /// Its other keys, as written.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub properties: IndexMap<String, Json>,
    /// Where it is written.
    pub location: Location,
}
