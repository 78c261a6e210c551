//! The environment as its events tell it: a pure fold, the one source of dashboard and `status`.

use super::{
    endpoint::Endpoint,
    event::{ComponentState, Event, EventBody, FlowRow, ServiceState},
    ids::{ComponentName, JourneyId, ServiceName},
    journey::{HopRecord, Journey},
    pipeline::PipelineRun,
};
use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many journeys, flow messages and warnings a world remembers.
pub const REMEMBERED: usize = 64;

/// Status of a component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// State.
    pub state: ComponentState,
    /// When it entered the state.
    pub since: Timestamp,
    /// For people.
    pub message: String,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
}

/// Status of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// State.
    pub state: ServiceState,
    /// When it entered the state.
    pub since: Timestamp,
    /// The version that the state is about.
    pub version: Option<String>,
    /// The version that was last seen ready.
    pub serving: Option<String>,
    /// For people.
    pub message: String,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
}

/// Last thing that passed along a row of the data flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowStatus {
    /// Whether it went well.
    pub ok: bool,
    /// What passed.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// How many have passed.
    pub count: u64,
}

/// A warning that was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarningRecord {
    /// When.
    pub at: Timestamp,
    /// About what.
    pub subject: String,
    /// What.
    pub message: String,
    /// Next step.
    pub hint: Option<String>,
}

/// The state of an environment after event `seq`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// Last event folded in; 0 before the first.
    pub seq: u64,
    /// Components in the order they first appeared.
    pub components: IndexMap<ComponentName, ComponentStatus>,
    /// Services in the order they first appeared.
    pub services: IndexMap<ServiceName, ServiceStatus>,
    /// Rows of the data flow that something has passed along.
    pub flow: IndexMap<FlowRow, FlowStatus>,
    /// The last [`REMEMBERED`] journeys, oldest first.
    pub journeys: Vec<Journey>,
    /// The last [`REMEMBERED`] pipeline runs, oldest first.
    #[serde(default)]
    pub pipelines: Vec<PipelineRun>,
    /// The last [`REMEMBERED`] warnings, oldest first.
    pub warnings: Vec<WarningRecord>,
}

impl World {
    /// Folds one event in. Pure; an event about an unknown journey is ignored.
    pub fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        let at = event.at;
        match &event.body {
            EventBody::Component { component, state, message, endpoints } => {
                let status = ComponentStatus {
                    state: *state,
                    since: at,
                    message: message.clone(),
                    endpoints: endpoints.clone(),
                };
                self.components.insert(component.clone(), status);
            }
            EventBody::Service { service, state, version, message, endpoints } => {
                let before = self.services.get(service);
                let serving = match state {
                    ServiceState::Ready => version.clone(),
                    _ => before.and_then(|b| b.serving.clone()),
                };
                let endpoints = match before {
                    Some(b) if endpoints.is_empty() => b.endpoints.clone(),
                    _ => endpoints.clone(),
                };
                let status = ServiceStatus {
                    state: *state,
                    since: at,
                    version: version.clone(),
                    serving,
                    message: message.clone(),
                    endpoints,
                };
                self.services.insert(service.clone(), status);
            }
            EventBody::Flow { row, ok, message } => {
                let count = self.flow.get(row).map_or(0, |f| f.count) + 1;
                self.flow.insert(*row, FlowStatus { ok: *ok, message: message.clone(), at, count });
            }
            EventBody::JourneyStarted { journey, service, cause, started } => {
                self.journeys.push(Journey {
                    id: journey.clone(),
                    service: service.clone(),
                    cause: cause.clone(),
                    started: *started,
                    hops: Vec::new(),
                    outcome: None,
                });
                trim(&mut self.journeys);
            }
            EventBody::JourneyHop { journey, hop, passed, detail } => {
                if let Some(found) = self.journey_mut(journey) {
                    found.hops.push(HopRecord { hop: *hop, at: *passed, detail: detail.clone() });
                    found.hops.sort_by_key(|h| (h.at, h.hop));
                }
            }
            EventBody::JourneyEnded { journey, outcome } => {
                if let Some(found) = self.journey_mut(journey) {
                    found.outcome = Some(outcome.clone());
                }
            }
            EventBody::PipelineRun { run } => {
                match self.pipelines.iter_mut().find(|p| p.id == run.id) {
                    Some(known) => known.clone_from(run),
                    None => self.pipelines.push(run.clone()),
                }
                trim(&mut self.pipelines);
            }
            EventBody::Warning { subject, message, hint } => {
                self.warnings.push(WarningRecord {
                    at,
                    subject: subject.clone(),
                    message: message.clone(),
                    hint: hint.clone(),
                });
                trim(&mut self.warnings);
            }
        }
    }

    fn journey_mut(&mut self, id: &JourneyId) -> Option<&mut Journey> {
        self.journeys.iter_mut().rev().find(|j| &j.id == id)
    }
}

fn trim<T>(list: &mut Vec<T>) {
    if list.len() > REMEMBERED {
        list.drain(..list.len() - REMEMBERED);
    }
}
