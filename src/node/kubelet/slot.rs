//! One container of a pod as its worker sees it.

use super::{
    backoff::Backoff,
    pod::{RestartPolicy, Role},
    probes::ProbeKind,
};
use crate::runtime::{ContainerState, ContainerStatus, ImageStatus};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodStatus};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::Instant,
};

/// Work under way for a container; one at a time.
pub(super) enum Op {
    Pulling(AbortHandle),
    Starting,
    Stopping { task: AbortHandle, until: Instant },
}

/// A container: what it should be, what it is, and what is being done about it.
pub(super) struct Slot {
    pub role: Role,
    pub container: Arc<Container>,
    pub op: Option<Op>,
    /// Image for the next start.
    pub image: Option<ImageStatus>,
    pub image_id: String,
    pub pull_backoff: Backoff,
    pub restart_backoff: Backoff,
    /// When a pull or a start last failed.
    pub failed_at: Option<Instant>,
    /// Reason and message while it does not run.
    pub waiting: Option<(String, String)>,
    pub current: Option<ContainerStatus>,
    pub previous: Option<ContainerStatus>,
    pub message: Option<String>,
    pub previous_message: Option<String>,
    pub started: bool,
    pub ready: bool,
    /// Tasks of the probes of the current attempt.
    pub probes: Option<JoinSet<()>>,
    /// Attempt of the next start when the runtime knows none.
    pub base_attempt: u32,
}

impl Slot {
    pub fn new(role: Role, container: Container, status: Option<&PodStatus>) -> Self {
        let old = status.into_iter().flat_map(|s| {
            let lists = [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses];
            lists.into_iter().flatten().flatten()
        });
        let old = old.into_iter().find(|c| c.name == container.name && c.container_id.is_some());
        Self {
            role,
            container: Arc::new(container),
            op: None,
            image: None,
            image_id: old.map(|c| c.image_id.clone()).unwrap_or_default(),
            pull_backoff: Backoff::default(),
            restart_backoff: Backoff::default(),
            failed_at: None,
            waiting: None,
            current: None,
            previous: None,
            message: None,
            previous_message: None,
            started: false,
            ready: false,
            probes: None,
            base_attempt: old.map_or(0, |c| u32::try_from(c.restart_count).unwrap_or(0) + 1),
        }
    }

    pub fn name(&self) -> &str {
        &self.container.name
    }

    pub fn running(&self) -> bool {
        matches!(
            self.current.as_ref().map(|c| &c.state),
            Some(ContainerState::Running { .. } | ContainerState::Created)
        )
    }

    /// Exit code of an ended container.
    pub fn exit_code(&self) -> Option<i32> {
        match self.current.as_ref()?.state {
            ContainerState::Exited { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether it has ended for good.
    pub fn done(&self, spec: &PodSpec) -> bool {
        self.exit_code().is_some_and(|code| !RestartPolicy::of(spec, self.role).restarts(code))
    }

    pub fn next_attempt(&self) -> u32 {
        self.current.as_ref().map_or(self.base_attempt, |c| c.attempt + 1)
    }

    /// When it ended, on the clock of timers.
    pub fn ended_at(&self) -> Option<Instant> {
        let ContainerState::Exited { finished, .. } = self.current.as_ref()?.state else { return None };
        let age = Duration::try_from(jiff::Timestamp::now().duration_since(finished)).unwrap_or_default();
        Some(Instant::now().checked_sub(age).unwrap_or_else(Instant::now))
    }

    pub fn has_probe(&self, kind: ProbeKind) -> bool {
        match kind {
            ProbeKind::Startup => self.container.startup_probe.is_some(),
            ProbeKind::Liveness => self.container.liveness_probe.is_some(),
            ProbeKind::Readiness => self.container.readiness_probe.is_some(),
        }
    }

    /// Takes in what the runtime says; returns whether the attempt is a new one.
    pub fn observe(&mut self, mut attempts: Vec<ContainerStatus>) -> bool {
        attempts.sort_by_key(|c| c.attempt);
        let Some(current) = attempts.pop() else {
            self.current = None;
            return false;
        };
        let fresh = self.current.as_ref().is_none_or(|c| c.id != current.id);
        if fresh {
            self.previous_message = self.message.take();
            self.started = false;
            self.ready = false;
            self.probes = None;
        }
        if matches!(current.state, ContainerState::Exited { .. }) {
            self.probes = None;
            self.started = false;
            self.ready = false;
        }
        self.current = Some(current);
        self.previous = attempts.pop();
        fresh
    }
}
