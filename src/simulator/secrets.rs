//! The Secrets that a service gets: credentials of its schema and of its application.

use crate::{
    SimulatorError,
    objects::{ServiceSecret, apply_secrets},
    part::{Part, Run},
};
use aksim_cluster::{manifests, provider::ClusterProvider};
use aksim_config::Config;
use aksim_database::Database;
use aksim_identity::Issuer;
use async_trait::async_trait;
use std::{collections::BTreeSet, sync::Arc};

/// Secrets of all services: `NAME-database` and `NAME-identity`.
///
/// # Errors
/// When a manifest is not right: its namespaces say where the Secrets go.
pub fn of_services(
    config: &Config,
    issuer: &Issuer,
    database: Option<&Database>,
) -> Result<Vec<ServiceSecret>, manifests::ManifestError> {
    let mut secrets = Vec::new();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    for service in &config.services {
        let loaded = manifests::load(&service.manifests)?;
        let workloads = loaded.iter().filter(|m| m.object.pointer("/spec/template").is_some());
        let namespaces: BTreeSet<String> = workloads.map(|m| m.namespace().to_owned()).collect();
        let namespaces: Vec<String> = namespaces.into_iter().collect();
        if let Some((schema, database)) = service.database.as_deref().zip(database)
            && let Some(credentials) = database.credentials(schema)
        {
            secrets.push(ServiceSecret {
                namespaces: namespaces.clone(),
                name: format!("{}-database", service.name),
                values: vec![
                    pair("host", &credentials.host),
                    pair("port", &credentials.port.to_string()),
                    pair("username", &credentials.user),
                    pair("password", &credentials.password),
                    pair("database", &credentials.database),
                ],
            });
        }
        if let Some(app) = config.apps.iter().find(|a| a.name == service.name.as_str()) {
            let directory = issuer.directory();
            let Some(application) = directory.application(&app.name) else { continue };
            let tenant = directory.tenant().id.to_string();
            let mut values = vec![
                pair("tenant-id", &tenant),
                pair("client-id", &application.client_id.to_string()),
                pair("authority", &format!("https://login.microsoftonline.com/{tenant}/v2.0")),
            ];
            values.extend(issuer.client_secret(&app.name).map(|s| pair("client-secret", s)));
            secrets.push(ServiceSecret { namespaces, name: format!("{}-identity", service.name), values });
        }
    }
    Ok(secrets)
}

/// Puts the Secrets into the cluster, before a pod runs that reads them.
pub struct ServiceSecrets {
    /// The cluster.
    pub cluster: Arc<dyn ClusterProvider>,
    /// The Secrets.
    pub secrets: Vec<ServiceSecret>,
}

#[async_trait]
impl Part for ServiceSecrets {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        let access = self.cluster.access()?;
        Ok(apply_secrets(&access.client, run.ground.state.id(), &self.secrets).await?)
    }
}
