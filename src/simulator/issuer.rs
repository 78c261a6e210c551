//! The issuer of a project: Entra ID with its directory.

use crate::{SimulatorError, directory, ground::Ground, part::Server};
use aksim_identity::{IdentityConfig, Issuer};

/// Takes the issuer's listener.
///
/// # Errors
/// [`SimulatorError::Identity`].
pub async fn bind(ground: &Ground) -> Result<Issuer, SimulatorError> {
    let directory = directory::spec(&ground.config);
    let mut settings = IdentityConfig::new(ground.home.component("identity"), ground.pki.clone(), directory);
    settings.port = ground.port("identity", ground.config.identity_port);
    Ok(Issuer::bind(settings).await?)
}

/// The issuer as a part of the environment.
pub fn server(issuer: Issuer) -> Server<Issuer> {
    let url = issuer.local_url();
    Server::new(issuer, "issuer", url)
}

/// Groups that administer the cluster: name, object id.
pub fn admin_groups(ground: &Ground, issuer: &Issuer) -> Vec<(String, String)> {
    let directory = issuer.directory();
    let groups = ground.config.cluster_admin_groups.iter();
    groups.filter_map(|name| Some((name.clone(), directory.group(name)?.id.to_string()))).collect()
}
