//! Reading a pod: its containers by role, its class, its deadlines.

use crate::runtime::Resources;
use aksim_model::quantity::{parse_milli, parse_units};
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use std::{collections::BTreeMap, time::Duration};

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// Runs to its end before the next starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the others.
    Sidecar,
    /// `spec.containers`.
    Main,
    /// Added by `kubectl debug`; never restarted.
    Ephemeral,
}

impl Role {
    /// Field path of a container in events.
    pub fn field_path(self, name: &str) -> String {
        let list = match self {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{name}}}")
    }
}

/// The containers of a pod in the order of their start.
pub(super) fn containers(spec: &PodSpec) -> Vec<(Role, Container)> {
    let mut all = Vec::new();
    for container in spec.init_containers.iter().flatten() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        all.push((if sidecar { Role::Sidecar } else { Role::Init }, container.clone()));
    }
    all.extend(spec.containers.iter().map(|c| (Role::Main, c.clone())));
    for ephemeral in spec.ephemeral_containers.iter().flatten() {
        // The types differ in `targetContainerName` alone.
        let converted = serde_json::to_value(ephemeral).and_then(serde_json::from_value::<Container>);
        if let Ok(container) = converted {
            all.push((Role::Ephemeral, container));
        }
    }
    all
}

/// When an ended container runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// The policy of a container of this role in this pod.
    pub fn of(spec: &PodSpec, role: Role) -> Self {
        let policy = match spec.restart_policy.as_deref() {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        };
        match (role, policy) {
            (Role::Sidecar, _) => Self::Always,
            (Role::Ephemeral, _) => Self::Never,
            (Role::Init, Self::Always) => Self::OnFailure,
            _ => policy,
        }
    }

    /// Whether a container that ended with `code` runs again.
    pub fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// How long containers get to stop.
pub(super) fn grace(pod: &Pod) -> Duration {
    let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    let asked = pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds);
    Duration::from_secs(u64::try_from(asked.unwrap_or(own)).unwrap_or(0))
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(super) fn qos_class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.as_ref();
        let amount = |map: Option<&BTreeMap<String, Quantity>>, key: &str| {
            map.and_then(|m| m.get(key)).and_then(|q| parse_milli(&q.0).ok()).filter(|v| *v > 0)
        };
        for key in ["cpu", "memory"] {
            let request = amount(resources.and_then(|r| r.requests.as_ref()), key);
            let limit = amount(resources.and_then(|r| r.limits.as_ref()), key);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Limits of a container for the runtime.
pub(super) fn resources(container: &Container) -> Resources {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let millis = |map: Option<&BTreeMap<String, Quantity>>| {
        map.and_then(|m| m.get("cpu")).and_then(|q| u64::try_from(parse_milli(&q.0).ok()?).ok()).filter(|v| *v > 0)
    };
    Resources {
        memory_bytes: limits.and_then(|m| m.get("memory")).and_then(|q| parse_units(&q.0).ok()).filter(|v| *v > 0),
        cpu_millis: millis(limits),
        cpu_request_millis: millis(requests).or_else(|| millis(limits)),
        pids: None,
    }
}

/// Whether the pod has reached its end in an earlier life of this kubelet.
pub(super) fn finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn class_follows_requests_and_limits() {
        let of = |resources: serde_json::Value| {
            qos_class(&spec(serde_json::json!({ "containers": [{ "name": "a", "resources": resources }] })))
        };
        assert_eq!(of(serde_json::json!({})), "BestEffort");
        assert_eq!(of(serde_json::json!({ "requests": { "cpu": "1" } })), "Burstable");
        assert_eq!(of(serde_json::json!({ "limits": { "cpu": "1" } })), "Burstable");
        let both = serde_json::json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m" } });
        assert_eq!(of(both), "Guaranteed");
    }

    #[test]
    fn roles_and_policies() {
        let spec = spec(serde_json::json!({
            "restartPolicy": "Never",
            "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }],
            "ephemeralContainers": [{ "name": "e", "image": "busybox", "targetContainerName": "a" }]
        }));
        let roles: Vec<Role> = containers(&spec).iter().map(|(r, _)| *r).collect();
        assert_eq!(roles, [Role::Init, Role::Sidecar, Role::Main, Role::Ephemeral]);
        assert!(RestartPolicy::of(&spec, Role::Sidecar).restarts(0));
        assert!(!RestartPolicy::of(&spec, Role::Init).restarts(1));
    }
}
