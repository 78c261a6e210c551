//! Facts that have happened. Events inform; nothing is correct only because one arrived.

use super::{
    endpoint::Endpoint,
    ids::{ComponentName, JourneyId, ServiceName},
    journey::{Hop, JourneyOutcome},
    pipeline::PipelineRun,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An event as the recorder wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the environment's event log, from 1, without gaps.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// State of a component of the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentState {
    /// Asked to run, not yet serving.
    Starting,
    /// Serving.
    Ready,
    /// Serving with something missing; the message says what.
    Degraded,
    /// Ended with an error.
    Failed,
    /// Ended as asked.
    Stopped,
}

/// State of a service of the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// Known, nothing done yet.
    Pending,
    /// Compiling or building its image.
    Building,
    /// Pushing its image.
    Pushing,
    /// Applied; waiting until the new version answers.
    RollingOut,
    /// The newest version answers.
    Ready,
    /// The last change failed; an older version may be serving.
    Failed,
}

/// A row of the mirrored data flow (the docs of the crate `aksim`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowRow {
    /// 1: developer commits.
    Commit,
    /// 2: push triggers a build.
    Trigger,
    /// 3: images are built and pushed.
    Package,
    /// 4: containers are deployed.
    Deploy,
    /// 5: users reach services.
    Reach,
    /// 6: sign-in secures access.
    Secure,
    /// 7: services use a database.
    Store,
    /// 8: administrators use their own portal.
    Administer,
}

impl FlowRow {
    /// All rows in the order of the table.
    pub const ALL: [FlowRow; 8] = [
        FlowRow::Commit,
        FlowRow::Trigger,
        FlowRow::Package,
        FlowRow::Deploy,
        FlowRow::Reach,
        FlowRow::Secure,
        FlowRow::Store,
        FlowRow::Administer,
    ];
    /// The number of the row, from 1.
    pub fn number(self) -> usize {
        self as usize + 1
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum EventBody {
    /// A component changed state.
    Component {
        /// Which.
        component: ComponentName,
        /// To what.
        state: ComponentState,
        /// For people; empty when the state says it all.
        #[serde(default)]
        message: String,
        /// Where it can be reached; empty unless ready.
        #[serde(default)]
        endpoints: Vec<Endpoint>,
    },
    /// A service changed state.
    Service {
        /// Which.
        service: ServiceName,
        /// To what.
        state: ServiceState,
        /// Image digest or version that this is about.
        #[serde(default)]
        version: Option<String>,
        /// Cause of a failure with the evidence (compiler output, last log lines); else a short note.
        #[serde(default)]
        message: String,
        /// Where it can be reached from the host.
        #[serde(default)]
        endpoints: Vec<Endpoint>,
    },
    /// Something passed along a row of the data flow.
    Flow {
        /// Which row.
        row: FlowRow,
        /// Whether it went well.
        ok: bool,
        /// What passed, in a few words.
        message: String,
    },
    /// A change began its way.
    JourneyStarted {
        /// Trace id.
        journey: JourneyId,
        /// Service that changes.
        service: ServiceName,
        /// File, `up`, `trigger` or commit.
        cause: String,
        /// When it began: at or before the event's own time.
        started: Timestamp,
    },
    /// A change passed a hop.
    JourneyHop {
        /// Trace id.
        journey: JourneyId,
        /// Hop passed.
        hop: Hop,
        /// When: at or before the event's own time.
        passed: Timestamp,
        /// Evidence.
        #[serde(default)]
        detail: String,
    },
    /// A change ended its way.
    JourneyEnded {
        /// Trace id.
        journey: JourneyId,
        /// How.
        #[serde(flatten)]
        outcome: JourneyOutcome,
    },
    /// A pipeline run was queued, went on or ended.
    PipelineRun {
        /// The run as it is now.
        run: PipelineRun,
    },
    /// Something a person should know that stops nothing.
    Warning {
        /// What it is about.
        subject: String,
        /// What and why.
        message: String,
        /// Next step, if there is one.
        #[serde(default)]
        hint: Option<String>,
    },
}
