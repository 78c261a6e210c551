//! The worker of one pod: looks at what should be and what is, and does the next step.
//!
//! Nothing in here waits: long work runs as tasks of the worker, whose ends wake it again, as do
//! the pod's changes, events of the runtime, verdicts of probes, and timers.

mod advance;
mod end;
mod report;

use super::{
    backoff::Backoff,
    images::ImageFailure,
    pod,
    probes::{self, ProbeContext, ProbeKind, Verdict},
    shared::Shared,
    slot::Slot,
    starting::{self, Sandbox, StartFailure},
    volumes::{VolumeError, Volumes},
};
use crate::runtime::{ContainerState, ImageStatus, SandboxStatus};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Wait before a status that could not be written is written again.
const STATUS_RETRY: Duration = Duration::from_secs(1);

/// What the API says of a pod.
#[derive(Clone)]
pub(super) struct Desired {
    pub pod: Arc<Pod>,
    /// The pod is no longer in the API.
    pub gone: bool,
}

/// Work that ended.
enum Done {
    Sandbox(Result<Sandbox, String>),
    Volumes(Result<Volumes, VolumeError>),
    Pulled(usize, Result<ImageStatus, ImageFailure>),
    Started(usize, Result<(), StartFailure>),
    Stopped(usize),
    /// Something nobody waits for.
    Cleaned,
    SandboxStopped(Result<(), String>),
    StatusWritten(Box<serde_json::Value>, Result<(), String>),
    Finished,
}

/// Something the pod needs once: absent, under way, there, or failed with a time to try again.
enum Need<T> {
    Absent,
    UnderWay,
    Ready(T),
    Failed { retry: Option<Instant> },
}

/// Why a pod ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// Deleted by the API, or gone from it.
    Deleted,
    /// Ended by this kubelet: reason and message.
    Failed(&'static str, String),
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    uid: String,
    pod: Arc<Pod>,
    spec: PodSpec,
    desired: watch::Receiver<Desired>,
    woken: Arc<Notify>,
    pod_changes: watch::Sender<Arc<Pod>>,
    gone: watch::Sender<bool>,
    verdicts: (mpsc::Sender<Verdict>, mpsc::Receiver<Verdict>),
    slots: Vec<Slot>,
    sandbox: Need<Sandbox>,
    sandbox_attempt: u32,
    sandbox_backoff: Backoff,
    volumes: Need<Volumes>,
    volumes_backoff: Duration,
    ending: Option<Ending>,
    ending_token: CancellationToken,
    sandbox_stopped: Need<()>,
    finishing: bool,
    finished: bool,
    computed: Option<PodStatus>,
    written: Option<serde_json::Value>,
    writing: bool,
    write_retry: Option<Instant>,
    work: JoinSet<Done>,
    timer: Option<Instant>,
}

impl Worker {
    /// A worker for a pod; `found` is its sandbox from an earlier life of this kubelet.
    pub fn new(
        shared: Arc<Shared>,
        desired: watch::Receiver<Desired>,
        woken: Arc<Notify>,
        found: Option<&SandboxStatus>,
    ) -> Self {
        let pod = desired.borrow().pod.clone();
        let spec = pod.spec.clone().unwrap_or_default();
        let slots = pod::containers(&spec)
            .into_iter()
            .map(|(role, container)| Slot::new(role, container, pod.status.as_ref()))
            .collect();
        let sandbox = match found {
            Some(found) => Need::Ready(Sandbox { id: found.id.clone(), address: found.spec.ip }),
            None => Need::Absent,
        };
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            pod_changes: watch::Sender::new(pod.clone()),
            gone: watch::Sender::new(false),
            verdicts: mpsc::channel(16),
            sandbox_attempt: found.map_or(0, |f| f.spec.attempt),
            shared,
            pod,
            spec,
            desired,
            woken,
            slots,
            sandbox,
            sandbox_backoff: Backoff::default(),
            volumes: Need::Absent,
            volumes_backoff: Duration::from_millis(500),
            ending: None,
            ending_token: CancellationToken::new(),
            sandbox_stopped: Need::Absent,
            finishing: false,
            finished: false,
            computed: None,
            written: None,
            writing: false,
            write_retry: None,
            work: JoinSet::new(),
            timer: None,
        }
    }

    /// Runs until the pod is gone from node and API.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.sync().await;
            if self.finished {
                self.shared.pods.remove(&self.uid);
                return;
            }
            let timer = self.timer;
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.woken.notified() => {}
                Some(done) = self.work.join_next() => self.take(done),
                Some(verdict) = self.verdicts.1.recv() => self.judge(verdict),
                () = sleep_until(timer) => {}
            }
            // Whatever else has ended by now is seen in the same step.
            while let Some(done) = self.work.try_join_next() {
                self.take(done);
            }
        }
    }

    async fn sync(&mut self) {
        self.timer = None;
        self.take_pod();
        self.observe().await;
        match self.find_ending() {
            Some(ending) => self.end(ending),
            None => self.advance(),
        }
        self.probe();
        self.report();
    }

    fn wake_at(&mut self, at: Instant) {
        self.timer = Some(self.timer.map_or(at, |timer| timer.min(at)));
    }

    fn take_pod(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        if desired.gone && !*self.gone.borrow() {
            self.gone.send_replace(true);
        }
        if Arc::ptr_eq(&desired.pod, &self.pod) {
            return;
        }
        self.pod = desired.pod;
        self.spec = self.pod.spec.clone().unwrap_or_default();
        self.pod_changes.send_replace(self.pod.clone());
        for (role, container) in pod::containers(&self.spec) {
            match self.slots.iter_mut().find(|s| s.container.name == container.name) {
                // The image is the one thing of a container that may change.
                Some(slot) => slot.container = Arc::new(container),
                None => self.slots.push(Slot::new(role, container, self.pod.status.as_ref())),
            }
        }
    }

    /// Takes in what the runtime knows.
    async fn observe(&mut self) {
        let Need::Ready(sandbox) = &self.sandbox else { return };
        let found = match self.shared.runtime.sandbox(&sandbox.id).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "runtime did not tell of a sandbox");
                return self.wake_at(Instant::now() + STATUS_RETRY);
            }
        };
        let alive = found.as_ref().is_some_and(|f| f.ready);
        let containers = found.map(|f| f.containers).unwrap_or_default();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let mut own: Vec<_> = containers.iter().filter(|c| c.name == slot.container.name).cloned().collect();
            own.sort_by_key(|c| c.attempt);
            let old: Vec<String> = own.iter().rev().skip(2).map(|c| c.id.clone()).collect();
            let was_running = slot.running();
            if slot.observe(own) {
                self.adopt_probes(index);
            }
            let slot = &mut self.slots[index];
            if slot.exit_code().is_some() && (was_running || slot.message.is_none()) {
                self.read_message(index);
            }
            self.discard(old);
        }
        if !alive && self.ending.is_none() && !matches!(self.sandbox_stopped, Need::Ready(())) {
            self.sandbox_lost();
        }
    }

    fn discard(&mut self, old: Vec<String>) {
        for id in old {
            let shared = self.shared.clone();
            self.work.spawn(async move {
                if let Err(error) = shared.runtime.remove_container(&id).await {
                    tracing::debug!(%error, id, "old container not removed");
                }
                Done::Cleaned
            });
        }
    }

    /// A container that an earlier life of this kubelet started keeps what was known of it.
    fn adopt_probes(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(current) = slot.current.as_ref().filter(|_| slot.running()) else { return };
        let id = format!("aksim://{}", current.id);
        let lists = self.pod.status.iter().flat_map(|s| {
            [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses].into_iter().flatten()
        });
        let known = lists.flatten().find(|c| c.container_id.as_deref() == Some(&id));
        let started = known.is_some_and(|k| k.started == Some(true)) || !slot.has_probe(ProbeKind::Startup);
        slot.started = started;
        slot.ready = started && (!slot.has_probe(ProbeKind::Readiness) || known.is_some_and(|k| k.ready));
    }

    fn sandbox_lost(&mut self) {
        let begun = self.slots.iter().any(|s| s.current.is_some());
        if begun {
            let told = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.shared.events.pod(&self.pod, None, super::events::Kind::Normal, "SandboxChanged", told);
        }
        if let Need::Ready(sandbox) = std::mem::replace(&mut self.sandbox, Need::Absent) {
            let shared = self.shared.clone();
            self.work.spawn(async move {
                if let Err(error) = shared.runtime.remove_sandbox(&sandbox.id).await {
                    tracing::warn!(%error, "dead sandbox not removed");
                }
                Done::Cleaned
            });
        }
        self.sandbox_attempt += 1;
        for slot in &mut self.slots {
            slot.base_attempt = slot.next_attempt();
            slot.observe(vec![]);
            slot.probes = None;
        }
    }

    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = Instant::now();
        match done {
            Ok(Done::Sandbox(Ok(sandbox))) => self.sandbox = Need::Ready(sandbox),
            Ok(Done::Sandbox(Err(message))) => {
                let told = format!("Failed to create pod sandbox: {message}");
                self.shared.events.pod(&self.pod, None, super::events::Kind::Warning, "FailedCreatePodSandBox", told);
                self.sandbox_backoff.advance();
                self.sandbox = Need::Failed { retry: Some(now + Duration::from_secs(1)) };
            }
            Ok(Done::Volumes(Ok(volumes))) => self.volumes = Need::Ready(volumes),
            Ok(Done::Volumes(Err(error))) => {
                let kind = super::events::Kind::Warning;
                self.shared.events.pod(&self.pod, None, kind, "FailedMount", error.to_string());
                let retry = (!error.lasting).then(|| now + self.volumes_backoff);
                self.volumes_backoff = (self.volumes_backoff * 2).min(Duration::from_secs(122));
                self.volumes = Need::Failed { retry };
            }
            Ok(Done::Pulled(index, outcome)) => self.pulled(index, outcome),
            Ok(Done::Started(index, outcome)) => {
                let slot = &mut self.slots[index];
                slot.op = None;
                slot.waiting = None;
                if let Err(failure) = outcome {
                    slot.failed_at = Some(now);
                    slot.restart_backoff.advance();
                    slot.waiting = Some((failure.reason.to_owned(), failure.message));
                }
            }
            Ok(Done::Stopped(index)) => self.slots[index].op = None,
            Ok(Done::Cleaned) => {}
            Ok(Done::SandboxStopped(Ok(()))) => self.sandbox_stopped = Need::Ready(()),
            Ok(Done::SandboxStopped(Err(message))) => {
                tracing::warn!(message, "sandbox not stopped");
                self.sandbox_stopped = Need::Failed { retry: Some(now + STATUS_RETRY) };
            }
            Ok(Done::StatusWritten(patch, outcome)) => self.status_written(*patch, outcome),
            Ok(Done::Finished) => self.finished = true,
            // A pull or a stop that was given up for another.
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(%error, "work for a pod panicked");
                self.slots.iter_mut().for_each(|s| s.op = None);
                self.wake_at(now + STATUS_RETRY);
            }
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        let current = |s: &Slot| s.running() && s.current.as_ref().is_some_and(|c| c.id == verdict.container_id);
        let Some(index) = self.slots.iter().position(current) else { return };
        let slot = &mut self.slots[index];
        match (verdict.kind, verdict.healthy) {
            (ProbeKind::Startup, true) => {
                slot.started = true;
                slot.ready = !slot.has_probe(ProbeKind::Readiness);
                slot.probes = None;
            }
            (ProbeKind::Readiness, healthy) => slot.ready = healthy,
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let startup = verdict.kind == ProbeKind::Startup;
                let probe = if startup { &slot.container.startup_probe } else { &slot.container.liveness_probe };
                let own = probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
                let own = own.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
                let name = if startup { "startup" } else { "liveness" };
                let told = format!("Container {} failed {name} probe, will be restarted", slot.name());
                let grace = own.unwrap_or_else(|| pod::grace(&self.pod));
                self.stop(index, grace, Some(told));
            }
        }
    }

    /// Starts the probes of containers that run.
    fn probe(&mut self) {
        let Need::Ready(sandbox) = &self.sandbox else { return };
        for slot in &mut self.slots {
            let Some(current) = slot.current.clone() else { continue };
            let ContainerState::Running { started } = current.state else { continue };
            // The postStart hook comes first.
            if slot.probes.is_some() || slot.op.is_some() {
                continue;
            }
            let target = starting::target(&self.shared, &current.id, &slot.container, sandbox.address);
            let context = ProbeContext {
                target,
                pod: self.pod.clone(),
                role: slot.role,
                events: self.shared.events.clone(),
                verdicts: self.verdicts.0.clone(),
            };
            let kinds: &[ProbeKind] = match (slot.started, self.ending.is_some()) {
                (false, false) => &[ProbeKind::Startup],
                (true, false) => &[ProbeKind::Readiness, ProbeKind::Liveness],
                (true, true) => &[ProbeKind::Readiness],
                (false, true) => &[],
            };
            let mut tasks = JoinSet::new();
            for kind in kinds {
                let probe = match kind {
                    ProbeKind::Startup => &slot.container.startup_probe,
                    ProbeKind::Liveness => &slot.container.liveness_probe,
                    ProbeKind::Readiness => &slot.container.readiness_probe,
                };
                if let Some(probe) = probe.clone() {
                    tasks.spawn(probes::run(context.clone(), *kind, probe, started));
                }
            }
            slot.probes = Some(tasks);
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
