//! Log lines of services, as the control API streams them.

use super::ids::ServiceName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogQuery {
    /// Of this service alone; of all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Last lines of each container to begin with; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Go on with new lines, and with new pods.
    #[serde(default)]
    pub follow: bool,
}

/// A line that a container wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Service that the pod belongs to.
    pub service: ServiceName,
    /// Pod.
    pub pod: String,
    /// When the line was written.
    pub at: Timestamp,
    /// The line, without its end.
    pub line: String,
}
