//! A journey: one change from its cause to the first request it serves.

use super::ids::{JourneyId, ServiceName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A station of a journey, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// A file was saved (or a service was triggered).
    Saved,
    /// The Git host received the pushed commit.
    Committed,
    /// The webhook was delivered.
    Delivered,
    /// A pipeline run was queued.
    Queued,
    /// A stage of the pipeline ended; once a stage.
    Stage,
    /// Files were copied into running containers (live sync).
    Synced,
    /// The image was built.
    Built,
    /// The image was pushed to the registry.
    Pushed,
    /// The manifests were applied.
    Applied,
    /// The pod was bound to a node.
    Scheduled,
    /// The image was on the node.
    Pulled,
    /// The container was started.
    Started,
    /// The readiness probe passed.
    Ready,
    /// The endpoint was in the EndpointSlice.
    Endpoint,
    /// The first request was answered by the new version.
    Served,
}

impl Hop {
    /// The hop's name as it is printed and serialised.
    pub fn name(self) -> &'static str {
        match self {
            Hop::Saved => "saved",
            Hop::Committed => "committed",
            Hop::Delivered => "delivered",
            Hop::Queued => "queued",
            Hop::Stage => "stage",
            Hop::Synced => "synced",
            Hop::Built => "built",
            Hop::Pushed => "pushed",
            Hop::Applied => "applied",
            Hop::Scheduled => "scheduled",
            Hop::Pulled => "pulled",
            Hop::Started => "started",
            Hop::Ready => "ready",
            Hop::Endpoint => "endpoint",
            Hop::Served => "served",
        }
    }
}

/// When a hop was passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HopRecord {
    /// Which hop.
    pub hop: Hop,
    /// The moment it was passed.
    pub at: Timestamp,
    /// Evidence: a digest, a pod name, an HTTP status.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How a journey ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "reason")]
pub enum JourneyOutcome {
    /// The new version answers.
    Served,
    /// A hop failed; the old version keeps serving.
    Failed(String),
    /// A newer save took its place.
    Superseded,
    /// It came to its end without a deployment.
    Completed,
}

/// One change of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journey {
    /// Trace id.
    pub id: JourneyId,
    /// The service that changes.
    pub service: ServiceName,
    /// What began it: a file, `up`, `trigger`, a commit.
    pub cause: String,
    /// When it began.
    pub started: Timestamp,
    /// Hops passed, in time order.
    pub hops: Vec<HopRecord>,
    /// How it ended; `None` while under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<JourneyOutcome>,
}

impl Journey {
    /// Milliseconds from the cause to the last hop.
    pub fn total_ms(&self) -> i64 {
        self.hops.last().map_or(0, |h| h.at.as_millisecond() - self.started.as_millisecond())
    }

    /// Hops with the milliseconds each took since the one before.
    pub fn legs(&self) -> Vec<(Hop, i64)> {
        let mut before = self.started.as_millisecond();
        self.hops
            .iter()
            .map(|h| {
                let at = h.at.as_millisecond();
                let took = at - before;
                before = at;
                (h.hop, took)
            })
            .collect()
    }
}
