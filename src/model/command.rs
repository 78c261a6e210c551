//! What a client of the control API may ask a running environment to do.

use super::ids::ServiceName;
use serde::{Deserialize, Serialize};

/// A request to the running environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Build and roll out a service, or all when `None`, whether or not a file changed.
    Trigger {
        /// Which; all when absent.
        service: Option<ServiceName>,
    },
    /// Stop the environment; containers stop too.
    Stop,
    /// Give the database user of a service another password and put it into the service's Secret.
    RotateDatabasePassword {
        /// Which service.
        service: ServiceName,
    },
    /// Kill a container at once, as a crash would: its kubelet does what it does after one.
    KillContainer {
        /// Id, without the scheme that pod statuses put before it.
        id: String,
    },
    /// Cut or restore the power of the machine under a node: without it kubelet and containers are gone.
    NodePower {
        /// Name of the node.
        node: String,
        /// Whether it has power.
        on: bool,
    },
}

/// Answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReply {
    /// For people: what was started.
    pub message: String,
}
