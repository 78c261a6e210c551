//! Carries out what clients of the control API ask for.

use crate::{
    devloop::plan::Plan,
    model::{
        command::{Command, CommandReply},
        ids::ServiceName,
    },
    runtime::control::CommandRequest,
};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Takes commands until the environment stops.
pub async fn serve(
    mut requests: mpsc::Receiver<CommandRequest>,
    plan: Arc<Plan>,
    triggers: mpsc::Sender<ServiceName>,
    stop: CancellationToken,
) {
    while let Some((command, reply)) = requests.recv().await {
        let answer = match command {
            Command::Trigger { service } => trigger(&plan, &triggers, service).await,
            Command::Stop => {
                stop.cancel();
                Ok(CommandReply { message: "stopping".into(), journeys: Vec::new() })
            }
        };
        // Who asked may be gone; what was asked is done all the same.
        let _ = reply.send(answer);
    }
}

async fn trigger(
    plan: &Plan,
    triggers: &mpsc::Sender<ServiceName>,
    service: Option<ServiceName>,
) -> Result<CommandReply, String> {
    let names: Vec<ServiceName> = match service {
        Some(name) if plan.service(&name).is_some() => vec![name],
        Some(name) => return Err(format!("there is no service {name}")),
        None => plan.services().iter().map(|s| s.name.clone()).collect(),
    };
    for name in &names {
        triggers.send(name.clone()).await.map_err(|_| "the environment is stopping".to_owned())?;
    }
    let shown: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
    Ok(CommandReply { message: format!("triggered {}", shown.join(", ")), journeys: Vec::new() })
}
