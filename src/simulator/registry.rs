//! The registry of a project, and its administrator.

use crate::{SimulatorError, ground::Ground, part::Server};
use aksim_cluster::provider::RegistryLogin;
use aksim_identity::Issuer;
use aksim_model::endpoint::AzureName;
use aksim_registry::{EntraConfig, Registry, RegistryConfig};

/// Takes the registry's listener; it takes the issuer's tokens.
///
/// # Errors
/// [`SimulatorError::Registry`].
pub async fn bind(ground: &Ground, issuer: &Issuer) -> Result<Registry, SimulatorError> {
    let config = &ground.config;
    let tenant = issuer.directory().tenant().id.to_string();
    let mut settings = RegistryConfig::new(ground.home.component("registry"), ground.pki.clone(), &config.registry);
    settings.port = ground.port("registry", config.registry_port);
    settings.entra = Some(EntraConfig::new(&tenant, ground.http()?, Vec::new()));
    Ok(Registry::bind(settings).await?)
}

/// The registry as a part of the environment.
pub fn server(registry: Registry) -> Server<Registry> {
    let url = format!("https://{}", registry.address());
    Server::new(registry, "registry", url)
}

/// The name that the registry answers.
pub fn azure_name(registry: &Registry) -> AzureName {
    AzureName { host: registry.login_server().to_owned(), port: 443, target: registry.address() }
}

/// Its administrator.
pub fn login(registry: &Registry) -> RegistryLogin {
    let administrator = registry.admin_credentials();
    RegistryLogin {
        host: registry.login_server().to_owned(),
        username: administrator.username,
        password: administrator.password,
    }
}
