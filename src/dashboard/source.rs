//! Where the dashboard's facts come from and its commands go to.

use aksim_model::{
    command::{Command, CommandReply},
    log::{LogLine, LogQuery},
    world::World,
};
use aksim_runtime::control::{ControlClient, ControlError};
use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use std::sync::Arc;
use tokio::{sync::watch, task::JoinSet};

/// The running environment as the dashboard sees it.
#[async_trait]
pub trait DashboardSource: Send + Sync + 'static {
    /// Name of the environment.
    fn environment(&self) -> String;

    /// The world, and every change of it. The sender going away says that the environment stopped.
    fn world(&self) -> watch::Receiver<Arc<World>>;

    /// Asks for something to be done; an `Err` is for people.
    async fn command(&self, command: Command) -> Result<CommandReply, String>;

    /// Log lines; the stream ends when there are no more or the environment stops.
    fn logs(&self, query: LogQuery) -> BoxStream<'static, LogLine>;
}

/// A [`DashboardSource`] over the control API.
pub struct ControlSource {
    client: ControlClient,
    name: String,
    world: watch::Receiver<Arc<World>>,
    // Follows the event stream; dropped, and so aborted, with the source.
    _follower: JoinSet<()>,
}

impl ControlSource {
    /// Connects to a running environment and begins to follow its world.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] when nobody listens.
    pub async fn connect(client: ControlClient) -> Result<Self, ControlError> {
        let name = client.info().await?.name;
        let (sender, world) = watch::channel(Arc::new(client.world().await?));
        let follower_client = client.clone();
        let mut follower = JoinSet::new();
        follower.spawn(async move {
            if let Err(error) = follower_client.follow(&sender).await {
                tracing::debug!(%error, "event stream ended");
            }
        });
        Ok(Self { client, name, world, _follower: follower })
    }
}

#[async_trait]
impl DashboardSource for ControlSource {
    fn environment(&self) -> String {
        self.name.clone()
    }

    fn world(&self) -> watch::Receiver<Arc<World>> {
        self.world.clone()
    }

    async fn command(&self, command: Command) -> Result<CommandReply, String> {
        self.client.command(&command).await.map_err(|e| e.to_string())
    }

    fn logs(&self, query: LogQuery) -> BoxStream<'static, LogLine> {
        let client = self.client.clone();
        let lines = async move {
            match client.logs(&query).await {
                Ok(lines) => lines.boxed(),
                Err(error) => {
                    tracing::debug!(%error, "logs");
                    futures::stream::empty().boxed()
                }
            }
        };
        futures::stream::once(lines).flatten().boxed()
    }
}
