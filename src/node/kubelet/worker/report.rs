//! Telling others: status to the API, the pod's view to the kubelet's own server.

use super::{Done, Ending, Need, STATUS_RETRY, Worker};
use crate::{
    kubelet::{
        pod::Role,
        slot::{Op, Slot},
        status::{self, Observation, Observed, own_condition},
        stopping,
        table::{ContainerView, PodView},
    },
    runtime::ContainerStatus,
};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};
use tokio::time::Instant;

/// Longest termination message, bytes.
const MESSAGE_LIMIT: u64 = 4096;
/// Longest message taken from the log instead.
const LOG_MESSAGE_LIMIT: u64 = 2048;
/// Most lines taken from the log.
const LOG_MESSAGE_LINES: usize = 80;

impl Worker {
    pub(super) fn report(&mut self) {
        let status = self.status();
        let changed = self.computed.as_ref() != Some(&status);
        self.computed = Some(status);
        self.publish();
        if !changed && self.written.is_some() && self.write_retry.is_none() {
            return;
        }
        self.write_status();
    }

    /// The status now.
    pub(super) fn status(&self) -> PodStatus {
        let observed = self.slots.iter().map(|slot| Observed {
            role: slot.role,
            container: (*slot.container).clone(),
            current: slot.current.clone(),
            previous: slot.previous.clone(),
            waiting: slot.waiting.clone().filter(|_| !slot.running()).or_else(|| self.implied_waiting(slot)),
            image_id: slot.image_id.clone(),
            message: slot.message.clone(),
            previous_message: slot.previous_message.clone(),
            started: slot.started,
            ready: slot.ready,
            restart_count: i32::try_from(slot.current.as_ref().map_or(slot.base_attempt, |c| c.attempt))
                .unwrap_or(i32::MAX),
        });
        let observed: Vec<Observed> = observed.collect();
        let mut before = self.computed.clone().or_else(|| self.pod.status.clone()).unwrap_or_default();
        let theirs = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let conditions = before.conditions.get_or_insert_default();
        conditions.retain(|c| own_condition(&c.type_));
        conditions.extend(theirs.filter(|c| !own_condition(&c.type_)).cloned());
        let sandbox = match &self.sandbox {
            Need::Ready(sandbox) if !matches!(self.sandbox_stopped, Need::Ready(())) => Some(sandbox),
            _ => None,
        };
        status::pod_status(&Observation {
            pod: &self.pod,
            before: Some(&before),
            containers: &observed,
            sandbox_ready: sandbox.is_some(),
            address: sandbox.map(|s| s.address),
            host: self.shared.node.internal_ip,
            failure: match &self.ending {
                Some(Ending::Failed(reason, message)) => Some((reason, message.clone())),
                _ => None,
            },
            now: jiff::Timestamp::now(),
        })
    }

    /// A container that does not run yet, or whose start is not over: why.
    fn implied_waiting(&self, slot: &Slot) -> Option<(String, String)> {
        let starting = matches!(slot.op, Some(Op::Starting));
        if slot.current.is_some() && !starting {
            return None;
        }
        let initializing = matches!(slot.role, Role::Main)
            && self.slots.iter().any(|s| match s.role {
                Role::Init => s.exit_code() != Some(0),
                Role::Sidecar => !s.started,
                _ => false,
            })
            && slot.current.is_none();
        let reason = if initializing { "PodInitializing" } else { "ContainerCreating" };
        Some((reason.to_owned(), String::new()))
    }

    fn publish(&self) {
        let pod = Pod { status: self.computed.clone(), ..(*self.pod).clone() };
        let view = PodView {
            pod: Arc::new(pod),
            sandbox: match &self.sandbox {
                Need::Ready(sandbox) => Some(sandbox.id.clone()),
                _ => None,
            },
            containers: self
                .slots
                .iter()
                .map(|slot| {
                    let waiting = slot.waiting.as_ref().map(|(reason, _)| reason.clone());
                    let view =
                        ContainerView { current: slot.current.clone(), previous: slot.previous.clone(), waiting };
                    (slot.container.name.clone(), view)
                })
                .collect(),
        };
        self.shared.pods.publish(&self.uid, view);
    }

    fn write_status(&mut self) {
        // The last status is written by the end of the pod itself.
        if self.writing || self.finishing || *self.gone.borrow() {
            return;
        }
        if let Some(at) = self.write_retry {
            if at > Instant::now() {
                return self.wake_at(at);
            }
            self.write_retry = None;
        }
        let Some(status) = self.computed.clone() else { return };
        let patch = match status::patch(&self.pod, &status) {
            Ok(patch) => patch,
            Err(error) => return tracing::error!(%error, "pod status cannot be serialised"),
        };
        if self.written.as_ref() == Some(&patch) {
            return;
        }
        self.writing = true;
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        self.work.spawn(async move {
            let outcome = stopping::write(&shared, &pod, &status).await;
            Done::StatusWritten(Box::new(patch), outcome)
        });
    }

    pub(super) fn status_written(&mut self, patch: serde_json::Value, outcome: Result<(), String>) {
        self.writing = false;
        match outcome {
            Ok(()) => {
                self.written = Some(patch);
                // What changed while it was written goes out with the next report.
                self.write_retry = Some(Instant::now());
            }
            Err(message) => {
                tracing::warn!(message, pod = self.pod.metadata.name, "pod status not written");
                self.write_retry = Some(Instant::now() + STATUS_RETRY);
            }
        }
    }

    /// Reads the termination message of a container that ended.
    pub(super) fn read_message(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(current) = &slot.current else { return };
        let path = self.shared.paths.termination_log(&self.uid, &slot.container.name, current.attempt);
        let mut message = read_tail(&path, MESSAGE_LIMIT).unwrap_or_default();
        let fallback = slot.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if message.is_empty() && fallback && slot.exit_code() != Some(0) {
            message = log_message(current);
        }
        slot.message = Some(message);
    }
}

fn read_tail(path: &Path, limit: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a container's log, without the prefix of each.
fn log_message(container: &ContainerStatus) -> String {
    // Prefixes take room too; the limit below applies to what is left without them.
    let Ok(tail) = read_tail(&container.log_path, LOG_MESSAGE_LIMIT * 4) else { return String::new() };
    let lines: Vec<&str> = tail.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let mut text = lines[lines.len().saturating_sub(LOG_MESSAGE_LINES)..].join("\n");
    text.push('\n');
    let mut from = text.len().saturating_sub(usize::try_from(LOG_MESSAGE_LIMIT).unwrap_or(usize::MAX));
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.split_off(from)
}
