//! Pod status from what runs: a pure function, written as Kubernetes writes it.

use super::pod::{RestartPolicy, Role, qos_class};
use crate::runtime::{ContainerState as Running, ContainerStatus as Found};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use std::net::IpAddr;

/// What is known of one container.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub role: Role,
    pub container: Container,
    /// Latest attempt.
    pub current: Option<Found>,
    /// The attempt before.
    pub previous: Option<Found>,
    /// A start or a back-off is under way: reason and message.
    pub waiting: Option<(String, String)>,
    /// `docker.io/library/x@sha256:…` of the image, else its id.
    pub image_id: String,
    /// Termination messages of current and previous attempt.
    pub message: Option<String>,
    pub previous_message: Option<String>,
    pub started: bool,
    pub ready: bool,
    pub restart_count: i32,
}

/// What is known of a pod.
pub(super) struct Observation<'a> {
    pub pod: &'a Pod,
    pub before: Option<&'a PodStatus>,
    pub containers: &'a [Observed],
    pub sandbox_ready: bool,
    pub address: Option<IpAddr>,
    pub host: IpAddr,
    /// Why the kubelet ended the pod: reason and message.
    pub failure: Option<(&'static str, String)>,
    pub now: jiff::Timestamp,
}

fn exit_code(observed: &Observed) -> Option<i32> {
    match observed.current.as_ref()?.state {
        Running::Exited { code, .. } if observed.waiting.is_none() => Some(code),
        _ => None,
    }
}

fn is_running(observed: &Observed) -> bool {
    matches!(observed.current.as_ref().map(|c| &c.state), Some(Running::Running { .. })) && observed.waiting.is_none()
}

/// The status to write.
pub(super) fn pod_status(seen: &Observation<'_>) -> PodStatus {
    let spec = seen.pod.spec.clone().unwrap_or_default();
    let mut status = seen.before.cloned().unwrap_or_default();
    let phase = phase(seen, &spec);
    status.phase = Some(phase.to_owned());
    (status.reason, status.message) = match &seen.failure {
        Some((reason, message)) => (Some((*reason).to_owned()), Some(message.clone())),
        None => (None, None),
    };
    status.qos_class.get_or_insert_with(|| qos_class(&spec).to_owned());
    status.start_time.get_or_insert(Time(seen.now));
    status.observed_generation = seen.pod.metadata.generation.or(status.observed_generation);
    status.host_ip = Some(seen.host.to_string());
    status.host_ips = Some(vec![HostIP { ip: seen.host.to_string() }]);
    if let Some(address) = seen.address {
        status.pod_ip = Some(address.to_string());
        status.pod_ips = Some(vec![PodIP { ip: address.to_string() }]);
    }
    let list = |roles: &[Role]| -> Option<Vec<ContainerStatus>> {
        let all: Vec<_> =
            seen.containers.iter().filter(|c| roles.contains(&c.role)).map(|c| container_status(c, phase)).collect();
        (!all.is_empty()).then_some(all)
    };
    status.init_container_statuses = list(&[Role::Init, Role::Sidecar]);
    status.container_statuses = list(&[Role::Main]);
    status.ephemeral_container_statuses = list(&[Role::Ephemeral]);
    status.conditions = Some(conditions(seen, &spec, phase, status.conditions.take().unwrap_or_default()));
    status
}

fn phase(seen: &Observation<'_>, spec: &PodSpec) -> &'static str {
    if seen.failure.is_some() {
        return "Failed";
    }
    let ended = |o: &Observed| match exit_code(o) {
        Some(code) => !RestartPolicy::of(spec, o.role).restarts(code) || seen.pod.metadata.deletion_timestamp.is_some(),
        None => false,
    };
    let of = |role: Role| seen.containers.iter().filter(move |c| c.role == role);
    if of(Role::Init).any(|o| exit_code(o).is_some_and(|code| code != 0) && ended(o)) {
        return "Failed";
    }
    let mains: Vec<&Observed> = of(Role::Main).collect();
    if !mains.is_empty() && mains.iter().all(|o| ended(o)) {
        return match mains.iter().all(|o| exit_code(o) == Some(0)) {
            true => "Succeeded",
            false => "Failed",
        };
    }
    let was_running = seen.before.and_then(|s| s.phase.as_deref()) == Some("Running");
    match was_running || (initialized(seen) && !mains.is_empty() && mains.iter().all(|o| o.current.is_some())) {
        true => "Running",
        false => "Pending",
    }
}

fn initialized(seen: &Observation<'_>) -> bool {
    let begun = seen.containers.iter().any(|c| c.role == Role::Main && c.current.is_some());
    begun
        || seen.containers.iter().all(|c| match c.role {
            Role::Init => exit_code(c) == Some(0),
            Role::Sidecar => c.started,
            _ => true,
        })
}

fn container_status(observed: &Observed, phase: &str) -> ContainerStatus {
    let current = observed.current.as_ref();
    let terminal = matches!(phase, "Succeeded" | "Failed");
    let running = is_running(observed);
    let (state, last) = match (&observed.waiting, current) {
        (Some((reason, message)), current) => {
            let state = waiting(reason, message);
            let last = match current {
                Some(found) => terminated(found, observed.message.as_ref()),
                None => None,
            };
            (state, last.or_else(|| previous(observed)))
        }
        (None, Some(found)) => (state(found, observed.message.as_ref()), previous(observed)),
        (None, None) => {
            (waiting(if terminal { "PodInitializing" } else { "ContainerCreating" }, ""), previous(observed))
        }
    };
    ContainerStatus {
        name: observed.container.name.clone(),
        image: current.map_or_else(|| observed.container.image.clone().unwrap_or_default(), |c| c.image.clone()),
        image_id: if current.is_some() { observed.image_id.clone() } else { String::new() },
        container_id: current.map(|c| format!("aksim://{}", c.id)),
        ready: match observed.role {
            Role::Init => exit_code(observed) == Some(0),
            _ => running && observed.ready,
        },
        started: Some(running && observed.started),
        restart_count: observed.restart_count,
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..Default::default()
    }
}

fn previous(observed: &Observed) -> Option<ContainerState> {
    terminated(observed.previous.as_ref()?, observed.previous_message.as_ref())
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let message = (!message.is_empty()).then(|| message.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..Default::default()
    }
}

fn state(found: &Found, message: Option<&String>) -> ContainerState {
    match &found.state {
        Running::Created => waiting("ContainerCreating", ""),
        Running::Running { started } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*started)) }),
            ..Default::default()
        },
        Running::Exited { .. } => terminated(found, message).unwrap_or_default(),
    }
}

fn terminated(found: &Found, message: Option<&String>) -> Option<ContainerState> {
    let Running::Exited { started, finished, code, oom_killed } = &found.state else { return None };
    let reason = match (oom_killed, code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("aksim://{}", found.id)),
            exit_code: *code,
            reason: Some(reason.to_owned()),
            message: message.filter(|m| !m.is_empty()).cloned(),
            started_at: Some(Time(*started)),
            finished_at: Some(Time(*finished)),
            signal: None,
        }),
        ..Default::default()
    })
}

fn conditions(seen: &Observation<'_>, spec: &PodSpec, phase: &str, before: Vec<PodCondition>) -> Vec<PodCondition> {
    let done = phase == "Succeeded";
    let failed = phase == "Failed";
    let unready: Vec<&str> = seen
        .containers
        .iter()
        .filter(|c| matches!(c.role, Role::Main | Role::Sidecar) && !(is_running(c) && c.ready))
        .map(|c| c.container.name.as_str())
        .collect();
    let not_ready = match (done, failed, unready.is_empty()) {
        (true, ..) => Some(("PodCompleted", String::new())),
        (_, true, _) => Some(("PodFailed", String::new())),
        (_, _, false) => {
            Some(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
        }
        _ => None,
    };
    let uninitialized: Vec<&str> = seen
        .containers
        .iter()
        .filter(|c| match c.role {
            Role::Init => exit_code(c) != Some(0),
            Role::Sidecar => !c.started,
            _ => false,
        })
        .map(|c| c.container.name.as_str())
        .collect();
    let initialized = match (done, initialized(seen)) {
        (true, _) => Some(("PodCompleted", String::new())),
        (false, true) => None,
        (false, false) => Some((
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", uninitialized.join(" ")),
        )),
    };
    let gate = spec
        .readiness_gates
        .iter()
        .flatten()
        .find(|gate| !before.iter().any(|c| c.type_ == gate.condition_type && c.status == "True"));
    let ready = not_ready.clone().or_else(|| {
        gate.map(|g| {
            (
                "ReadinessGatesNotReady",
                format!("corresponding condition of pod readiness gate \"{}\" does not exist.", g.condition_type),
            )
        })
    });
    let sandbox = (!seen.sandbox_ready).then_some(("", String::new()));
    let scheduled_before = before.iter().find(|c| c.type_ == "PodScheduled").map(|c| c.status.clone());
    let own = [
        ("PodReadyToStartContainers", sandbox, false),
        ("Initialized", initialized, done),
        ("Ready", ready, false),
        ("ContainersReady", not_ready, false),
        ("PodScheduled", None, scheduled_before.is_none()),
    ];
    let mut result = Vec::new();
    for (name, problem, force_true) in own {
        let old = before.iter().find(|c| c.type_ == name);
        let status = if problem.is_none() || force_true { "True" } else { "False" };
        let (reason, message) = problem.unwrap_or_default();
        result.push(condition(seen, old, name, status, reason, message));
    }
    result.extend(before.into_iter().filter(|c| !own_condition(&c.type_)));
    result
}

/// Whether this kubelet writes the condition.
pub(super) fn own_condition(name: &str) -> bool {
    matches!(name, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled")
}

fn condition(
    seen: &Observation<'_>,
    old: Option<&PodCondition>,
    name: &str,
    status: &str,
    reason: &str,
    message: String,
) -> PodCondition {
    let unchanged = old.filter(|o| o.status == status).and_then(|o| o.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        last_transition_time: Some(unchanged.unwrap_or(Time(seen.now))),
        last_probe_time: None,
        observed_generation: seen.pod.metadata.generation,
    }
}

/// A strategic merge patch for a pod of which nothing runs: neither it nor a container is ready.
pub(super) fn nothing_runs(pod: &Pod, now: jiff::Timestamp) -> serde_json::Value {
    let names: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.as_str()).collect();
    let message = format!("containers with unready status: [{}]", names.join(" "));
    let conditions = ["Ready", "ContainersReady"].map(|name| {
        serde_json::json!({
            "type": name, "status": "False", "reason": "ContainersNotReady", "message": message,
            "lastTransitionTime": Time(now),
        })
    });
    serde_json::json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": conditions } })
}

/// A strategic merge patch that makes the pod's status `to`, touching our own conditions alone.
pub(super) fn patch(pod: &Pod, to: &PodStatus) -> Result<serde_json::Value, serde_json::Error> {
    let mut own = to.clone();
    if let Some(conditions) = &mut own.conditions {
        conditions.retain(|c| own_condition(&c.type_));
    }
    let mut status = serde_json::to_value(&own)?;
    let fields = ["reason", "message", "initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    for field in fields {
        // An absent field would keep its old value.
        if status.get(field).is_none() {
            status[field] = serde_json::Value::Null;
        }
    }
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = serde_json::Value::Null;
            }
        }
    }
    // Merged by its key, the list would keep the address of a sandbox that is gone.
    if let Some(addresses) = status.get_mut("podIPs").and_then(|list| list.as_array_mut()) {
        addresses.insert(0, serde_json::json!({ "$patch": "replace" }));
    }
    Ok(serde_json::json!({ "metadata": { "uid": pod.metadata.uid }, "status": status }))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
