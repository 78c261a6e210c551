//! Why a pod does not come up, with the evidence a person needs: reason, last log lines, events.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, Client, ResourceExt, api::LogParams};
use std::time::Duration;

/// How many log lines are evidence.
const LOG_LINES: i64 = 20;
/// How long reading them may take.
const LOG_DEADLINE: Duration = Duration::from_secs(2);

/// A container or pod that cannot come up by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    /// Pod.
    pub pod: String,
    /// Container, if it is about one.
    pub container: Option<String>,
    /// `CrashLoopBackOff`, `ErrImagePull`, `Error`, …
    pub reason: String,
    /// What the kubelet says.
    pub message: String,
    /// Whether the container has run, so that there are logs.
    pub has_run: bool,
}

/// Reasons of waiting that another try will not mend.
const WAITING: [&str; 8] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// What is wrong with a pod, if anything: a container that waits for a reason another try will
/// not mend, or one that has ended more than `restarts` times.
pub fn of_pod(pod: &Pod, restarts: i32) -> Option<PodFailure> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in containers {
        if let Some(failure) = of_container(pod, container, restarts) {
            return Some(failure);
        }
    }
    if status.phase.as_deref() == Some("Failed") {
        return Some(PodFailure {
            pod: pod.name_any(),
            container: None,
            reason: status.reason.clone().unwrap_or_else(|| "Failed".into()),
            message: status.message.clone().unwrap_or_default(),
            has_run: false,
        });
    }
    None
}

fn of_container(pod: &Pod, status: &ContainerStatus, restarts: i32) -> Option<PodFailure> {
    let state = status.state.as_ref()?;
    let ended = state.terminated.as_ref().or(status.last_state.as_ref().and_then(|s| s.terminated.as_ref()));
    let failure = |reason: &str, message: String| PodFailure {
        pod: pod.name_any(),
        container: Some(status.name.clone()),
        reason: reason.to_owned(),
        message,
        has_run: ended.is_some(),
    };
    let exit = ended.filter(|e| e.exit_code != 0).map(|e| {
        let cause = e.reason.as_deref().unwrap_or("Error");
        let said = e.message.as_deref().map(|m| format!(": {}", m.trim())).unwrap_or_default();
        format!("exited with code {} ({cause}){said}", e.exit_code)
    });
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let crash = reason == "CrashLoopBackOff";
        if WAITING.contains(&reason) && (!crash || status.restart_count >= restarts) {
            let message = exit.clone().filter(|_| crash).or(waiting.message.clone()).unwrap_or_default();
            return Some(failure(reason, message));
        }
    }
    match exit {
        Some(message)
            if status.restart_count >= restarts && (state.terminated.is_some() || status.restart_count > restarts) =>
        {
            Some(failure("Error", message))
        }
        _ => None,
    }
}

/// The failure with the container's last log lines, ready to print.
pub async fn evidence(client: &Client, namespace: &str, failure: &PodFailure) -> String {
    let mut text = format!("pod {}", failure.pod);
    if let Some(container) = &failure.container {
        text.push_str(&format!(", container {container}"));
    }
    text.push_str(&format!(": {}", failure.reason));
    if !failure.message.is_empty() {
        text.push_str(&format!(": {}", failure.message));
    }
    if failure.has_run {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        for previous in [false, true] {
            let parameters = LogParams {
                container: failure.container.clone(),
                tail_lines: Some(LOG_LINES),
                previous,
                ..LogParams::default()
            };
            let lines = tokio::time::timeout(LOG_DEADLINE, api.logs(&failure.pod, &parameters)).await;
            if let Ok(Ok(lines)) = lines
                && !lines.trim().is_empty()
            {
                text.push_str("\nlast log lines:\n");
                text.push_str(lines.trim_end());
                break;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1"}, "status": status})).unwrap()
    }

    #[test]
    fn starting_is_not_failing() {
        let starting = pod(json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]}));
        assert_eq!(of_pod(&starting, 0), None);
    }

    #[test]
    fn a_crash_is_found_at_once_and_tolerated_when_asked() {
        let crashed = pod(json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 101, "reason": "Error"}}}]}));
        let failure = of_pod(&crashed, 0).unwrap();
        assert_eq!((failure.reason.as_str(), failure.has_run), ("Error", true));
        assert_eq!(of_pod(&crashed, 2), None);
    }

    #[test]
    fn a_missing_image_is_final() {
        let missing = pod(json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}));
        assert_eq!(of_pod(&missing, 3).unwrap().message, "not found");
    }
}
