//! What a running environment is to those who look at it: addresses, names, credentials.

use aksim_model::{endpoint::AzureName, ids::EnvironmentName};
use std::{net::SocketAddr, path::PathBuf};

/// Facts of a running environment, for the parts that are wired with them.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Name.
    pub name: EnvironmentName,
    /// Random id; labels everything.
    pub id: String,
    /// API server.
    pub api_server: SocketAddr,
    /// Registry.
    pub registry: AzureName,
    /// Issuer.
    pub issuer: AzureName,
    /// Database server, if there is one.
    pub database: Option<AzureName>,
    /// Every Azure name that is answered.
    pub azure_names: Vec<AzureName>,
    /// Front door.
    pub ingress: SocketAddr,
    /// Certificate authority.
    pub ca: PathBuf,
    /// Groups that administer the cluster: name, object id.
    pub admin_groups: Vec<(String, String)>,
}
