//! The commit's trace, and the run as others see it.

use crate::{
    engine::Engine,
    store::record::{Outcome, RunRecord, State},
};
use aksim_model::{
    event::{EventBody, FlowRow},
    ids::{JourneyId, ServiceName},
    journey::{Hop, JourneyOutcome},
    pipeline::{PipelineRun, PipelineStage},
};
use jiff::Timestamp;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes the hops of a run to the trace of its commit.
pub struct RunJourney {
    id: JourneyId,
    served: AtomicBool,
}

impl RunJourney {
    /// The trace of the run's commit; begun here when the Git host has not begun it.
    pub fn begin(engine: &Engine, record: &RunRecord) -> Self {
        let id = JourneyId::of_commit(&record.request.commit);
        let known = engine.recorder.get().is_none_or(|r| r.world().journeys.iter().any(|j| j.id == id));
        if !known {
            let short: String = record.request.commit.chars().take(8).collect();
            engine.record(EventBody::JourneyStarted {
                journey: id.clone(),
                service: ServiceName::from(record.request.repository.rsplit('/').next().unwrap_or_default()),
                cause: format!("commit {short} on {}", record.branch()),
                started: record.queued,
            });
        }
        Self { id, served: AtomicBool::new(false) }
    }

    /// A hop, now.
    pub fn hop(&self, engine: &Engine, hop: Hop, detail: &str) {
        self.hop_at(engine, hop, Timestamp::now(), detail);
    }

    /// A hop.
    pub fn hop_at(&self, engine: &Engine, hop: Hop, passed: Timestamp, detail: &str) {
        if hop == Hop::Served {
            self.served.store(true, Ordering::Relaxed);
        }
        let journey = self.id.clone();
        engine.record(EventBody::JourneyHop { journey, hop, passed, detail: detail.to_owned() });
    }

    /// A row of the data flow.
    pub fn flow(&self, engine: &Engine, row: FlowRow, ok: bool, message: String) {
        engine.record(EventBody::Flow { row, ok, message });
    }

    /// The end: served when a deployment answered, failed when the run did; a run that deploys nothing ends with what
    /// it did.
    pub fn end(&self, engine: &Engine, record: &RunRecord) {
        let outcome = match record.result {
            Some(result) if result.good() && self.served.load(Ordering::Relaxed) => JourneyOutcome::Served,
            Some(result) if result.good() || result == Outcome::Skipped => JourneyOutcome::Completed,
            result => {
                let name = result.map_or("ended", Outcome::name).to_lowercase();
                let why = first_error(record).map(|e| format!(": {e}")).unwrap_or_default();
                JourneyOutcome::Failed(format!("run {} {name}{why}", record.id))
            }
        };
        engine.record(EventBody::JourneyEnded { journey: self.id.clone(), outcome });
    }
}

/// The first thing that went wrong.
pub fn first_error(record: &RunRecord) -> Option<String> {
    let line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    if !record.message.is_empty() {
        return Some(line(&record.message));
    }
    record.stages.iter().flat_map(|s| s.jobs.iter().map(move |j| (s, j))).find_map(|(stage, job)| {
        let step = job.steps.iter().find(|s| s.result == Some(Outcome::Failed));
        let issue = step.and_then(|s| s.issues.iter().find(|i| i.kind == "error").map(|i| line(&i.message)));
        let place = step.map_or_else(|| job.name.clone(), |s| format!("{}/{}", job.name, s.display_name));
        let why = issue.or_else(|| (!job.message.is_empty()).then(|| line(&job.message)));
        (job.result == Some(Outcome::Failed)).then(|| format!("{}/{place}: {}", stage.name, why.unwrap_or_default()))
    })
}

/// The event that tells where a run stands.
pub fn event_of(record: &RunRecord) -> EventBody {
    let stage = |s: &crate::store::record::StageRecord| PipelineStage {
        name: s.display_name.clone(),
        state: state_name(s.state).to_owned(),
        result: s.result.map(|r| r.name().to_owned()),
    };
    EventBody::PipelineRun {
        run: PipelineRun {
            id: record.id,
            name: record.name.clone(),
            pipeline: record.request.pipeline.clone(),
            branch: record.branch().to_owned(),
            commit: record.request.commit.clone(),
            message: record.request.message.clone(),
            reason: record.request.reason.name().to_owned(),
            state: state_name(record.state).to_owned(),
            result: record.result.map(|r| r.name().to_owned()),
            queued: record.queued,
            finished: record.finished,
            stages: record.stages.iter().map(stage).collect(),
        },
    }
}

/// As the REST API names states.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "notStarted",
        State::Waiting => "waiting",
        State::InProgress => "inProgress",
        State::Canceling => "cancelling",
        State::Completed => "completed",
    }
}
