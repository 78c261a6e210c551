//! Towards running: sandbox, volumes, images, containers in their order.

use super::{Done, Need, Worker};
use crate::kubelet::{
    backoff::go_duration,
    events::Kind,
    images::{self, ImageFailure},
    pod::{self, RestartPolicy, Role},
    slot::Op,
    starting::{self, Start},
    volumes::Volumes,
};
use crate::runtime::ImageStatus;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before a container whose configuration was wrong is tried again.
const CONFIG_RETRY: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn advance(&mut self) {
        if pod::finished(&self.pod) || self.completed() {
            return self.complete();
        }
        self.need_sandbox();
        self.need_volumes();
        for index in self.startable() {
            self.drive(index);
        }
    }

    /// Whether the pod has run to its end.
    pub(super) fn completed(&self) -> bool {
        let failed_init = self
            .slots
            .iter()
            .any(|s| s.role == Role::Init && s.exit_code().is_some_and(|c| c != 0) && s.done(&self.spec));
        let mut mains = self.slots.iter().filter(|s| s.role == Role::Main).peekable();
        let all_done = mains.peek().is_some() && mains.all(|s| s.op.is_none() && s.done(&self.spec));
        (failed_init && self.slots.iter().all(|s| s.role != Role::Main || s.current.is_none())) || all_done
    }

    /// Stops the sidecars of a pod that is done, then its sandbox.
    fn complete(&mut self) {
        if self.stop_stages(None) {
            self.stop_sandbox();
        }
    }

    fn need_sandbox(&mut self) {
        match &self.sandbox {
            Need::Ready(_) | Need::UnderWay => return,
            Need::Failed { retry: Some(at) } if *at > Instant::now() => return self.wake_at(*at),
            Need::Failed { retry: None } => return,
            Need::Failed { .. } | Need::Absent => {}
        }
        self.sandbox = Need::UnderWay;
        let (shared, pod, attempt) = (self.shared.clone(), self.pod.clone(), self.sandbox_attempt);
        self.work.spawn(async move { Done::Sandbox(starting::sandbox(&shared, &pod, attempt).await) });
    }

    fn need_volumes(&mut self) {
        match &self.volumes {
            Need::Ready(_) | Need::UnderWay => return,
            Need::Failed { retry: Some(at) } if *at > Instant::now() => return self.wake_at(*at),
            Need::Failed { retry: None } => return,
            Need::Failed { .. } | Need::Absent => {}
        }
        self.volumes = Need::UnderWay;
        let (shared, pod) = (self.shared.clone(), self.pod_changes.subscribe());
        self.work.spawn(async move { Done::Volumes(Volumes::prepare(&shared, pod).await) });
    }

    /// Containers that may run now: init containers one after the other, sidecars once they have
    /// started, then all the rest.
    fn startable(&self) -> Vec<usize> {
        let begun = self.slots.iter().any(|s| s.role == Role::Main && s.current.is_some());
        let mut result = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            match slot.role {
                Role::Init if begun || slot.exit_code() == Some(0) => {}
                Role::Init => {
                    result.push(index);
                    return result;
                }
                Role::Sidecar => {
                    result.push(index);
                    let up = slot.running() && slot.started && slot.op.is_none();
                    if !begun && !up {
                        return result;
                    }
                }
                Role::Main | Role::Ephemeral => result.push(index),
            }
        }
        result
    }

    fn drive(&mut self, index: usize) {
        let slot = &self.slots[index];
        if slot.op.is_some() || slot.running() {
            return;
        }
        if let Some(code) = slot.exit_code() {
            if !RestartPolicy::of(&self.spec, slot.role).restarts(code) {
                return;
            }
            let ended = slot.ended_at().unwrap_or_else(Instant::now);
            if let Some(until) = slot.restart_backoff.until(ended) {
                return self.crash_loop(index, until);
            }
        }
        if let Some(failed) = slot.failed_at {
            let config = slot.waiting.as_ref().is_some_and(|(r, _)| r == "CreateContainerConfigError");
            let until = match slot.image.is_some() || !slot.restart_backoff.delay().is_zero() {
                true if config => Some(failed + CONFIG_RETRY),
                true => slot.restart_backoff.until(failed),
                false => slot.pull_backoff.until(failed),
            };
            if let Some(until) = until.filter(|u| *u > Instant::now()) {
                return self.back_off(index, until);
            }
        }
        self.start(index);
    }

    /// Waits before an ended container runs again.
    fn crash_loop(&mut self, index: usize, until: Instant) {
        self.wake_at(until);
        let slot = &mut self.slots[index];
        if slot.waiting.as_ref().is_some_and(|(reason, _)| reason == "CrashLoopBackOff") {
            return;
        }
        let name = slot.container.name.clone();
        let pod = format!(
            "{}_{}({})",
            self.pod.metadata.name.as_deref().unwrap_or_default(),
            self.pod.metadata.namespace.as_deref().unwrap_or_default(),
            self.uid
        );
        let delay = go_duration(slot.restart_backoff.delay());
        let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
        slot.waiting = Some(("CrashLoopBackOff".into(), message));
        let told = format!("Back-off restarting failed container {name} in pod {pod}");
        self.shared.events.pod(&self.pod, Some(slot.role.field_path(&name)), Kind::Warning, "BackOff", told);
    }

    /// Waits before a failed pull or start is tried again.
    fn back_off(&mut self, index: usize, until: Instant) {
        self.wake_at(until);
        let slot = &mut self.slots[index];
        let Some((reason, message)) = slot.waiting.clone().filter(|(r, _)| r == "ErrImagePull") else { return };
        let image = slot.container.image.clone().unwrap_or_default();
        let told = format!("Back-off pulling image \"{image}\"");
        slot.waiting = Some(("ImagePullBackOff".into(), format!("{told}: {reason}: {message}")));
        let path = Some(slot.role.field_path(&slot.container.name));
        self.shared.events.pod(&self.pod, path.clone(), Kind::Normal, "BackOff", told);
        self.shared.events.pod(&self.pod, path, Kind::Warning, "Failed", "Error: ImagePullBackOff".into());
    }

    fn start(&mut self, index: usize) {
        if self.slots[index].image.is_none() {
            return self.pull(index);
        }
        let (Need::Ready(sandbox), Need::Ready(volumes)) = (&self.sandbox, &self.volumes) else { return };
        let (sandbox, volumes) = (sandbox.clone(), volumes.prepared.clone());
        let target = match self.target(index) {
            Ok(target) => target,
            Err(message) => {
                let slot = &mut self.slots[index];
                slot.failed_at = Some(Instant::now());
                slot.waiting = Some(("CreateContainerConfigError".to_owned(), message));
                return self.wake_at(Instant::now() + CONFIG_RETRY);
            }
        };
        let slot = &mut self.slots[index];
        let Some(image) = slot.image.take() else { return };
        slot.op = Some(Op::Starting);
        if slot.current.is_some() {
            slot.restart_backoff.advance();
        }
        slot.failed_at = None;
        let start = Start {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            role: slot.role,
            container: slot.container.clone(),
            attempt: slot.next_attempt(),
            image,
            sandbox,
            volumes,
            target,
            ending: self.ending_token.clone(),
        };
        self.work.spawn(async move { Done::Started(index, start.run().await) });
    }

    /// The running container that an ephemeral one targets.
    fn target(&self, index: usize) -> Result<Option<String>, String> {
        let slot = &self.slots[index];
        if slot.role != Role::Ephemeral {
            return Ok(None);
        }
        let own = self.spec.ephemeral_containers.iter().flatten().find(|e| e.name == slot.name());
        let Some(name) = own.and_then(|e| e.target_container_name.as_deref()).filter(|n| !n.is_empty()) else {
            return Ok(None);
        };
        let target = self.slots.iter().find(|s| s.name() == name && s.running());
        match target.and_then(|s| s.current.as_ref()) {
            Some(current) => Ok(Some(current.id.clone())),
            None => Err(format!("unable to find target container \"{name}\"")),
        }
    }

    fn pull(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let (shared, pod, role) = (self.shared.clone(), self.pod.clone(), slot.role);
        let container = slot.container.clone();
        let task =
            self.work.spawn(async move { Done::Pulled(index, images::ensure(&shared, &pod, role, &container).await) });
        slot.op = Some(Op::Pulling(task));
    }

    pub(super) fn pulled(&mut self, index: usize, outcome: Result<ImageStatus, ImageFailure>) {
        let slot = &mut self.slots[index];
        slot.op = None;
        match outcome {
            Ok(image) => {
                slot.image_id = display_id(&image, slot.container.image.as_deref().unwrap_or_default());
                slot.image = Some(image);
                slot.failed_at = None;
                if slot.waiting.as_ref().is_some_and(|(r, _)| r.contains("Image")) {
                    slot.waiting = None;
                }
            }
            Err(failure) => {
                slot.failed_at = Some(Instant::now());
                slot.pull_backoff.advance();
                slot.waiting = Some((failure.reason.to_owned(), failure.message));
            }
        }
    }
}

/// `imageID` of a container: the manifest's digest in its repository, else the image's id.
pub(super) fn display_id(image: &ImageStatus, name: &str) -> String {
    let repository = name.split('@').next().unwrap_or_default();
    let repository = match repository.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => repository,
    };
    let own = image.repo_digests.iter().find(|d| d.split('@').next().is_some_and(|r| r.ends_with(repository)));
    own.or(image.repo_digests.first()).unwrap_or(&image.id).clone()
}
