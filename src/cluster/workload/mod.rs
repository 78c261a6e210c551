//! When a workload is rolled out: one row a kind, by the rules of `kubectl rollout status`.
//!
//! Pure: objects as JSON and pods go in, a verdict about what is there now comes out.

mod pods;
mod rules;
#[cfg(test)]
mod tests;

pub use pods::by_template;

use super::pod_failure::{self, PodFailure};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ApiResource};
use serde_json::Value;
use std::fmt;

/// A kind of workload and how its rollout is judged.
#[derive(Debug)]
pub struct Kind {
    /// Its `apiVersion`.
    pub api_version: &'static str,
    /// Its `kind`.
    pub kind: &'static str,
    /// Its name in paths of the API.
    pub plural: &'static str,
    /// How pods of the template as it is now are told from older ones.
    pub membership: Membership,
    /// Whether its status names the generation that it is about.
    observes: bool,
    /// Whether its pods are there to answer for as long as they run.
    pub serves: bool,
    rule: fn(&View<'_>) -> Progress,
}

/// How pods of a template are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Membership {
    /// They belong to the ReplicaSet that has the template.
    ReplicaSet,
    /// They carry the hash of the ControllerRevision that has the template.
    ControllerRevision,
    /// They carry the revision that the status names.
    UpdateRevision,
    /// They belong to the object, whose template does not change or changes nothing that runs.
    Owned,
    /// The object is the pod.
    Itself,
    /// There are none to wait for.
    Nobody,
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind { api_version: "apps/v1", kind: "Deployment", plural: "deployments", membership: Membership::ReplicaSet, observes: true, serves: true, rule: rules::deployment },
    Kind { api_version: "apps/v1", kind: "StatefulSet", plural: "statefulsets", membership: Membership::UpdateRevision, observes: true, serves: true, rule: rules::stateful_set },
    Kind { api_version: "apps/v1", kind: "DaemonSet", plural: "daemonsets", membership: Membership::ControllerRevision, observes: true, serves: true, rule: rules::daemon_set },
    Kind { api_version: "apps/v1", kind: "ReplicaSet", plural: "replicasets", membership: Membership::Owned, observes: true, serves: true, rule: rules::replica_set },
    Kind { api_version: "batch/v1", kind: "Job", plural: "jobs", membership: Membership::Owned, observes: false, serves: false, rule: rules::job },
    Kind { api_version: "batch/v1", kind: "CronJob", plural: "cronjobs", membership: Membership::Nobody, observes: false, serves: false, rule: rules::cron_job },
    Kind { api_version: "v1", kind: "Pod", plural: "pods", membership: Membership::Itself, observes: false, serves: true, rule: rules::pod },
];

impl Kind {
    /// The row of a kind, if it is one of workloads.
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|row| row.api_version == api_version && row.kind == kind)
    }

    /// Where the API serves it.
    pub fn resource(&self) -> ApiResource {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", self.api_version));
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version.to_owned(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// A workload by its name.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its kind.
    pub kind: &'static Kind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Workload {
    /// Whether the other is the same one.
    pub fn is(&self, other: &Self) -> bool {
        let names = |workload: &Self| (workload.kind.kind, workload.namespace.clone(), workload.name.clone());
        names(self) == names(other)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.kind.to_lowercase(), self.name)
    }
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is wanted is there.
    Complete {
        /// How many pods of the template as it is now there are.
        pods: i64,
        /// What was not waited for, and why.
        note: Option<String>,
    },
    /// Not yet; for what.
    Waiting(String),
    /// It will not come to its end by itself.
    Failed(Failure),
}

impl Progress {
    fn complete(pods: i64) -> Self {
        Self::Complete { pods, note: None }
    }

    fn noted(pods: i64, note: impl Into<String>) -> Self {
        Self::Complete { pods, note: Some(note.into()) }
    }
}

/// Why a rollout has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What the workload says of itself.
    pub message: String,
    /// The pod that shows it.
    pub pod: Option<PodFailure>,
}

impl From<PodFailure> for Failure {
    fn from(pod: PodFailure) -> Self {
        Self { message: String::new(), pod: Some(pod) }
    }
}

/// What there is of a workload.
pub struct View<'a> {
    /// Its object.
    pub object: &'a Value,
    /// The generation that was applied.
    pub generation: i64,
    /// Pods of the template as it is now that are not going away.
    pub new: Vec<&'a Pod>,
    /// Pods of other templates.
    pub old: Vec<&'a Pod>,
    /// How often a container of a pod may have ended.
    pub allowed: &'a dyn Fn(&Pod) -> i32,
}

impl View<'_> {
    /// Where the rollout of a workload of `kind` is.
    pub fn judge(&self, kind: &Kind) -> Progress {
        let generation = self.int("/metadata/generation", 0).max(self.generation);
        if kind.observes && self.int("/status/observedGeneration", 0) < generation {
            return Progress::Waiting("its new spec has not been observed".into());
        }
        if let Some(failure) = self.pod_failure(kind) {
            return Progress::Failed(failure.into());
        }
        match (kind.rule)(self) {
            Progress::Waiting(message) => Progress::Waiting(self.with_unscheduled(message)),
            other => other,
        }
    }

    fn pod_failure(&self, kind: &Kind) -> Option<PodFailure> {
        self.new.iter().find_map(|pod| match kind.serves {
            true => pod_failure::of_pod(pod, (self.allowed)(pod)),
            // A Job counts by itself how often its pods may fail; what cannot even start is not counted.
            false if phase(pod) == "Failed" => None,
            false => pod_failure::of_pod(pod, i32::MAX),
        })
    }

    fn with_unscheduled(&self, message: String) -> String {
        let unscheduled = self.new.iter().find_map(|pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
            Some(format!("pod {}: {}", pod.name_any(), condition.message.as_ref()?))
        });
        unscheduled.map_or_else(|| message.clone(), |why| format!("{message}; {why}"))
    }

    fn int(&self, pointer: &str, default: i64) -> i64 {
        self.object.pointer(pointer).and_then(Value::as_i64).unwrap_or(default)
    }

    fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The condition of a type, when it is true.
    fn condition(&self, type_: &str) -> Option<&Value> {
        self.conditions().find(|c| c["type"] == type_ && c["status"] == "True")
    }

    fn conditions(&self) -> impl Iterator<Item = &Value> {
        self.object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}
