//! The machine under a node: its power can be cut, as a fault, and restored.

use aksim_cluster::provider::ProviderError;
use aksim_node::{
    kubelet::{Kubelet, KubeletConfig},
    runtime::RuntimeError,
};
use aksim_runtime::component::{Component, ComponentError, RunContext};
use async_trait::async_trait;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::watch;

/// How long a machine may take to go down or to come up.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs the kubelet of one node while there is power.
pub struct Machine {
    kubelet: Kubelet,
    config: KubeletConfig,
    wanted: watch::Receiver<bool>,
    is: watch::Sender<bool>,
}

/// The other end of a machine's power cord.
#[derive(Clone)]
struct Cord {
    wanted: watch::Sender<bool>,
    is: watch::Receiver<bool>,
}

/// Cuts and restores the power of nodes.
#[derive(Clone, Default)]
pub struct PowerBoard(BTreeMap<String, Cord>);

impl PowerBoard {
    /// A machine whose power this board switches; the kubelet was bound by `config`.
    pub fn plug(&mut self, kubelet: Kubelet, config: KubeletConfig) -> Machine {
        let (wanted, wants) = watch::channel(true);
        let (tells, is) = watch::channel(true);
        self.0.insert(config.node.name.clone(), Cord { wanted, is });
        Machine { kubelet, config, wanted: wants, is: tells }
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Switches a machine and waits until it is down, or runs again.
    ///
    /// # Errors
    /// No such node, or it takes too long.
    pub async fn switch(&self, node: &str, on: bool) -> Result<(), ProviderError> {
        let unknown = || ProviderError::Unknown { kind: "node", name: node.to_owned(), known: self.nodes() };
        let cord = self.0.get(node).ok_or_else(unknown)?;
        cord.wanted.send_replace(on);
        let mut is = cord.is.clone();
        match tokio::time::timeout(DEADLINE, is.wait_for(|now| *now == on)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProviderError::Stopping),
            Err(_) => Err(ProviderError::Deadline {
                what: format!("node {node} did not change"),
                seconds: DEADLINE.as_secs(),
            }),
        }
    }
}

#[async_trait]
impl Component for Machine {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
        let Self { kubelet, config, mut wanted, is } = *self;
        let mut running = Some(kubelet);
        loop {
            let kubelet = match running.take() {
                Some(kubelet) => kubelet,
                None => Kubelet::bind(config.clone()).await?,
            };
            is.send_replace(true);
            let cut = context.shutdown.child_token();
            let mut life = Box::new(kubelet).run(RunContext { shutdown: cut.clone(), ..context.clone() });
            tokio::select! {
                ended = &mut life => return ended,
                () = becomes(&mut wanted, false) => cut.cancel(),
            }
            life.await?;
            if context.shutdown.is_cancelled() {
                return Ok(());
            }
            kill_pods(&config).await?;
            is.send_replace(false);
            tokio::select! {
                () = context.shutdown.cancelled() => return Ok(()),
                () = becomes(&mut wanted, true) => {}
            }
        }
    }
}

/// Waits for a wish; for ever when nobody can wish any more.
async fn becomes(wanted: &mut watch::Receiver<bool>, on: bool) {
    if wanted.wait_for(|wish| *wish == on).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Nothing of the node's pods outlives the power, as they have no disk of their own.
async fn kill_pods(config: &KubeletConfig) -> Result<(), RuntimeError> {
    for sandbox in config.runtime.sandboxes().await? {
        if config.node.pod_cidr.index(sandbox.spec.ip).is_some() {
            config.runtime.remove_sandbox(&sandbox.id).await?;
        }
    }
    Ok(())
}
