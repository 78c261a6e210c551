//! What `KubernetesManifest@1` tells of its rollouts.

use crate::context::{StepContext, TaskError};
use aksim_cluster::{
    deploy::{Applied, DeployError, Step},
    rollout::RolloutError,
};
use aksim_model::{
    event::{EventBody, FlowRow, ServiceState},
    journey::Hop,
};
use std::time::Duration;

/// Tells of the rollouts of a deployment: in the log of the step, the journey of the run, and the states of services.
pub(super) struct Rollouts<'a, 'b> {
    step: &'a StepContext<'b>,
    deadline: Duration,
    unfinished: Vec<Applied>,
}

impl<'a, 'b> Rollouts<'a, 'b> {
    pub(super) fn new(step: &'a StepContext<'b>, deadline: Duration) -> Self {
        Self { step, deadline, unfinished: Vec::new() }
    }

    /// Takes a step of the deployment in.
    pub(super) fn hear(&mut self, step: Step<'_>) {
        let (log, run) = (&self.step.log, &self.step.job.run);
        match step {
            Step::Applying(object) => {
                log.command(&format!("apply {}/{} -n {}", object.kind(), object.name(), object.namespace()));
            }
            Step::Configured(object) => {
                log.write(&format!("{}/{} configured", object.kind().to_lowercase(), object.name()));
            }
            Step::Waiting { objects, workloads } => {
                run.journey.hop(&run.engine, Hop::Applied, &format!("{objects} object(s) by run {}", run.id));
                self.unfinished = workloads.to_vec();
                for applied in workloads {
                    let named = applied.workload.to_string().replacen(' ', "/", 1);
                    log.command(&format!("rollout status {named} --timeout {}s", self.deadline.as_secs()));
                    self.state(applied, ServiceState::RollingOut, &format!("run {}", run.id));
                }
            }
            Step::Passed { workload, hop, at, detail } => {
                log.write(&format!("{}: {detail}", hop.name()));
                run.journey.hop_at(&run.engine, hop, at, &format!("{}: {detail}", workload.workload.name));
            }
            Step::RolledOut { workload: applied, note } => self.rolled_out(applied, note.as_deref()),
        }
    }

    fn rolled_out(&mut self, applied: &Applied, note: Option<&str>) {
        let workload = &applied.workload;
        self.unfinished.retain(|other| !workload.is(&other.workload));
        if let Some(note) = note {
            self.step.log.warning(&format!("{workload}: {note}"));
        }
        let kind = workload.kind.kind.to_lowercase();
        self.step.log.write(&format!("{kind} \"{}\" successfully rolled out", workload.name));
        self.state(applied, ServiceState::Ready, "");
        self.flow(applied, true);
    }

    /// Says of all that is not rolled out why, and makes it the step's failure.
    pub(super) fn failed(&self, error: DeployError) -> TaskError {
        let (cause, message) = match &error {
            DeployError::Rollout(RolloutError::Cancelled) => (None, "the run was canceled".to_owned()),
            DeployError::Rollout(RolloutError::Failed { workload, .. }) => {
                (Some(workload), format!("{workload}: {error}"))
            }
            _ => (None, error.to_string()),
        };
        for applied in &self.unfinished {
            let said = match cause {
                Some(workload) if !workload.is(&applied.workload) => format!("not waited for any longer: {message}"),
                _ => message.clone(),
            };
            self.state(applied, ServiceState::Failed, &said);
            self.flow(applied, false);
        }
        if error.is_cancelled() { TaskError::Cancelled } else { TaskError::Failed(message) }
    }

    fn state(&self, applied: &Applied, state: ServiceState, message: &str) {
        let Some(service) = applied.service.clone() else { return };
        let version = applied.image.as_ref().and_then(|image| image.tag.clone());
        let message = message.to_owned();
        self.step.job.run.engine.record(EventBody::Service { service, state, version, message, endpoints: Vec::new() });
    }

    fn flow(&self, applied: &Applied, ok: bool) {
        let run = &self.step.job.run;
        let image = applied.image.as_ref().map(|image| format!(" with {image}")).unwrap_or_default();
        let message = format!("{} deployed by run {}{image}", applied.workload.name, run.id);
        run.journey.flow(&run.engine, FlowRow::Deploy, ok, message);
    }
}
