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
}

/// Answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReply {
    /// For people: what was started.
    pub message: String,
    /// Journeys that follow from it.
    #[serde(default)]
    pub journeys: Vec<super::ids::JourneyId>,
}
