//! Carries out what clients of the control API ask for.

use crate::objects::{self, ServiceSecret};
use aksim_cluster::provider::{ClusterProvider, Intervention};
use aksim_database::{Credentials, PasswordRotation};
use aksim_devloop::plan::Plan;
use aksim_model::{
    command::{Command, CommandReply},
    ids::ServiceName,
};
use aksim_runtime::control::CommandRequest;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What commands work on.
pub struct Commands {
    /// The services.
    pub plan: Arc<Plan>,
    /// To the inner loop.
    pub triggers: mpsc::Sender<ServiceName>,
    /// The cluster, as administrator.
    pub client: kube::Client,
    /// Id of the environment.
    pub environment: String,
    /// The Secrets of the services, as they were when it started.
    pub secrets: Vec<ServiceSecret>,
    /// Passwords of the database, if there is one.
    pub rotation: Option<PasswordRotation>,
    /// What is below the cluster's API.
    pub cluster: Arc<dyn ClusterProvider>,
}

/// Takes commands until the environment stops.
pub async fn serve(mut requests: mpsc::Receiver<CommandRequest>, commands: Commands, stop: CancellationToken) {
    while let Some((command, reply)) = requests.recv().await {
        let answer = match command {
            Command::Trigger { service } => trigger(&commands.plan, &commands.triggers, service).await,
            Command::Stop => {
                stop.cancel();
                Ok("stopping".into())
            }
            Command::RotateDatabasePassword { service } => commands.rotate_password(&service).await,
            Command::KillContainer { id } => commands.intervene(Intervention::KillContainer { id }).await,
            Command::NodePower { node, on } => commands.intervene(Intervention::Power { node, on }).await,
        };
        // Who asked may be gone; what was asked is done all the same.
        let _ = reply.send(answer.map(|message| CommandReply { message }));
    }
}

impl Commands {
    async fn rotate_password(&self, service: &ServiceName) -> Result<String, String> {
        let config = self.plan.service(service).ok_or_else(|| format!("there is no service {service}"))?;
        let schema = config.database.as_deref().ok_or_else(|| format!("service {service} has no database"))?;
        let rotation = self.rotation.as_ref().ok_or("there is no database")?;
        let name = format!("{service}-database");
        let secret = self.secrets.iter().find(|s| s.name == name).ok_or_else(|| format!("no Secret {name}"))?;
        let publish = |credentials: Credentials| -> BoxFuture<'static, Result<(), String>> {
            let (client, environment, mut secret) = (self.client.clone(), self.environment.clone(), secret.clone());
            for (_, value) in secret.values.iter_mut().filter(|(key, _)| key == "password") {
                value.clone_from(&credentials.password);
            }
            Box::pin(async move {
                objects::apply_secrets(&client, &environment, &[secret]).await.map_err(|e| e.to_string())
            })
        };
        rotation.rotate(schema, publish).await.map_err(|e| e.to_string())?;
        Ok(format!("the password of schema {schema} is new; Secret {name} has it"))
    }

    async fn intervene(&self, intervention: Intervention) -> Result<String, String> {
        self.cluster.intervene(intervention).await.map_err(|e| e.to_string())
    }
}

async fn trigger(
    plan: &Plan,
    triggers: &mpsc::Sender<ServiceName>,
    service: Option<ServiceName>,
) -> Result<String, String> {
    let names: Vec<ServiceName> = match service {
        Some(name) if plan.service(&name).is_some() => vec![name],
        Some(name) => return Err(format!("there is no service {name}")),
        None => plan.services().iter().map(|s| s.name.clone()).collect(),
    };
    for name in &names {
        triggers.send(name.clone()).await.map_err(|_| "the environment is stopping".to_owned())?;
    }
    let shown: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
    Ok(format!("triggered {}", shown.join(", ")))
}
