//! The part of a Pod that controllers and scheduler decide by; everything else stays in the
//! API server, so that twenty thousand pods fit in little memory.

use super::quantity::Quantity;
use aksim_model::pod::says_ready;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Affinity, PodReadinessGate, PodSchedulingGate, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap};

/// Annotations that decide something; the others are dropped from the cache.
const KEPT_ANNOTATIONS: [&str; 2] = [DELETION_COST, COMPLETION_INDEX];
/// Annotation with the cost of deleting a pod before its siblings.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotation with the completion index of a pod of an indexed Job.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A pod, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// Metadata without managed fields and most annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Desired state.
    #[serde(default, deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// Observed state.
    #[serde(default, deserialize_with = "or_default")]
    pub status: PodStatus,
}

/// Reads `null` as an absent field, as every Kubernetes client does.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Desired state of a pod, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub overhead: Resources,
    #[serde(deserialize_with = "or_default")]
    pub resources: ContainerResources,
    #[serde(deserialize_with = "or_default")]
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<Box<Affinity>>,
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "or_default")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    #[serde(deserialize_with = "or_default")]
    pub scheduling_gates: Vec<PodSchedulingGate>,
    #[serde(deserialize_with = "or_default")]
    pub readiness_gates: Vec<PodReadinessGate>,
    pub scheduler_name: Option<String>,
    pub priority: Option<i32>,
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub restart_policy: Option<String>,
    /// Volumes that are claims; the others are the kubelet's business.
    #[serde(rename = "volumes", deserialize_with = "claim_volumes")]
    pub claims: Vec<ClaimVolume>,
}

/// A volume of a pod that is a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimVolume {
    /// Name of the volume.
    pub name: String,
    /// Name of the claim; empty when it follows from pod and volume.
    pub claim: String,
    /// The claim is made for the pod.
    pub ephemeral: bool,
}

impl ClaimVolume {
    /// The claim's name, for a pod of this name.
    pub fn claim_of(&self, pod: &str) -> Cow<'_, str> {
        if self.ephemeral { format!("{pod}-{}", self.name).into() } else { Cow::Borrowed(&self.claim) }
    }
}

fn claim_volumes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<ClaimVolume>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Source {
        claim_name: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Volume {
        #[serde(default)]
        name: String,
        persistent_volume_claim: Option<Source>,
        ephemeral: Option<serde::de::IgnoredAny>,
    }
    let volumes = Option::<Vec<Volume>>::deserialize(deserializer)?.unwrap_or_default();
    let claims = volumes.into_iter().filter_map(|volume| match (volume.persistent_volume_claim, volume.ephemeral) {
        (Some(source), _) => Some(ClaimVolume { name: volume.name, claim: source.claim_name, ephemeral: false }),
        (None, Some(_)) => Some(ClaimVolume { name: volume.name, claim: String::new(), ephemeral: true }),
        (None, None) => None,
    });
    Ok(claims.collect())
}

/// A container of a pod, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    pub image: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
    #[serde(deserialize_with = "or_default")]
    pub resources: ContainerResources,
    pub restart_policy: Option<String>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub container_port: i32,
    pub host_port: Option<i32>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub protocol: Option<String>,
}

/// Requests of a container; limits are the kubelet's business.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerResources {
    #[serde(deserialize_with = "or_default")]
    pub requests: Resources,
}

/// Amounts by resource. CPU in thousandths of a core, the others in units (bytes, pieces).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu: Option<i64>,
    pub memory: Option<i64>,
    pub ephemeral_storage: Option<i64>,
    pub pods: Option<i64>,
    /// Extended resources and huge pages.
    pub other: BTreeMap<String, i64>,
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amounts = Option::<BTreeMap<String, Quantity>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(Self::from_iter(amounts))
    }
}

impl FromIterator<(String, Quantity)> for Resources {
    fn from_iter<I: IntoIterator<Item = (String, Quantity)>>(amounts: I) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in amounts {
            match name.as_str() {
                "cpu" => resources.cpu = Some(quantity.milli()),
                "memory" => resources.memory = Some(quantity.units()),
                "ephemeral-storage" => resources.ephemeral_storage = Some(quantity.units()),
                "pods" => resources.pods = Some(quantity.units()),
                _ => {
                    resources.other.insert(name, quantity.units());
                }
            }
        }
        resources
    }
}

fn combine(a: Option<i64>, b: Option<i64>, with: fn(i64, i64) -> i64) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(with(a, b)),
        (a, b) => a.or(b),
    }
}

impl Resources {
    fn merge(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu = combine(self.cpu, other.cpu, with);
        self.memory = combine(self.memory, other.memory, with);
        self.ephemeral_storage = combine(self.ephemeral_storage, other.ephemeral_storage, with);
        self.pods = combine(self.pods, other.pods, with);
        for (name, amount) in &other.other {
            let entry = self.other.get(name).copied();
            self.other.insert(name.clone(), combine(entry, Some(*amount), with).unwrap_or(*amount));
        }
    }
    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }
    /// Takes the larger of both, resource by resource.
    pub fn max(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }
    fn replace_by(&mut self, other: &Self) {
        self.merge(other, |_, new| new);
    }
}

/// Observed state of a pod, reduced.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: Option<String>,
    pub reason: Option<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    #[serde(deserialize_with = "or_default")]
    pub pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<PodCondition>,
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatus>,
    pub start_time: Option<Time>,
    pub nominated_node_name: Option<String>,
}

/// An address of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodIp {
    #[serde(default)]
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    #[serde(rename = "type")]
    #[serde(deserialize_with = "or_default")]
    pub type_: String,
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub last_transition_time: Option<Time>,
}

/// State of a container of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub restart_count: i32,
    #[serde(deserialize_with = "or_default")]
    pub state: ContainerState,
}

/// State of a container, only when it has ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    #[serde(deserialize_with = "or_default")]
    pub exit_code: i32,
    pub finished_at: Option<Time>,
}

impl k8s_openapi::Resource for Pod {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Pod {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Drops from the metadata what decides nothing.
pub fn slim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.generate_name = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|key, _| KEPT_ANNOTATIONS.contains(&key.as_str()));
        if annotations.is_empty() {
            pod.metadata.annotations = None;
        }
    }
}

/// Index value of the pods bound to a node.
pub fn node_index(node: &str) -> String {
    format!("node/{node}")
}

/// Index value of the pods of a namespace that no controller owns.
pub fn orphan_index(namespace: &str) -> String {
    format!("orphan/{namespace}")
}

/// Index value of the pods that use a claim.
pub fn claim_index(namespace: &str, claim: &str) -> String {
    format!("claim/{namespace}/{claim}")
}

/// Index values of a pod: its controller's uid, its node, its claims, and whether nothing controls
/// it.
pub fn index(pod: &Pod) -> Vec<String> {
    let mut values = super::informer::by_controller(pod);
    if values.is_empty() {
        values.push(orphan_index(pod.namespace()));
    }
    values.extend(pod.spec.node_name.as_deref().map(node_index));
    values.extend(pod.claim_names().map(|claim| claim_index(pod.namespace(), &claim)));
    values
}

impl Pod {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
    pub fn labels(&self) -> Cow<'_, BTreeMap<String, String>> {
        self.metadata.labels.as_ref().map_or_else(Cow::default, Cow::Borrowed)
    }
    /// Names of the claims that it uses.
    pub fn claim_names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.spec.claims.iter().map(move |volume| volume.claim_of(self.name()))
    }
    pub fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref().filter(|n| !n.is_empty())
    }
    pub fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or("Pending")
    }
    /// Ended for good, well or not.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
    /// Neither ended nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_terminating()
    }
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|c| c.type_ == type_)
    }
    pub fn is_ready(&self) -> bool {
        says_ready(self.status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())))
    }
    /// When the pod became ready, if it is.
    pub fn ready_since(&self) -> Option<jiff::Timestamp> {
        let ready = self.condition("Ready").filter(|c| c.status == "True")?;
        ready.last_transition_time.as_ref().map(|t| t.0)
    }
    /// Ready for at least `min_ready_seconds` at `now`.
    pub fn is_available(&self, min_ready_seconds: i32, now: jiff::Timestamp) -> bool {
        if !self.is_ready() || min_ready_seconds == 0 {
            return self.is_ready();
        }
        self.ready_since().is_some_and(|since| now.duration_since(since).as_secs() >= i64::from(min_ready_seconds))
    }
    pub fn created(&self) -> Option<jiff::Timestamp> {
        self.metadata.creation_timestamp.as_ref().map(|t| t.0)
    }
    pub fn restarts(&self) -> i32 {
        self.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0)
    }
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// What the pod asks of its node: the larger of all containers together and the init
    /// containers one after the other (sidecars stay), plus overhead; pod-level requests win.
    pub fn requests(&self) -> Resources {
        let (mut running, mut peak) = (Resources::default(), Resources::default());
        for init in &self.spec.init_containers {
            let mut at_once = running.clone();
            at_once.add(&init.resources.requests);
            peak.max(&at_once);
            if init.restart_policy.as_deref() == Some("Always") {
                running = at_once;
            }
        }
        for container in &self.spec.containers {
            running.add(&container.resources.requests);
        }
        running.max(&peak);
        running.replace_by(&self.spec.resources.requests);
        running.add(&self.spec.overhead);
        running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_count_sidecars_and_the_largest_init_container() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = json!("Always");
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [container("300m"), sidecar, container("700m")],
            "containers": [container("200m"), container("250m")],
            "overhead": {"cpu": "10m"},
        }}))
        .unwrap();
        let requests = pod.requests();
        assert_eq!(requests.cpu, Some(810), "max(200+250+100, 100+700) + 10");
        assert_eq!(requests.memory, Some((3 * 64) << 20));
    }

    #[test]
    fn reads_a_watch_event_as_it_comes() {
        let line = r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"d",
            "creationTimestamp":"2026-11-23T07:37:20Z","generation":1,"resourceVersion":"93","uid":"u"},
            "spec":{"containers":[{"image":"x","name":"c","resources":{"requests":{"cpu":"3"}},
            "volumeMounts":[{"mountPath":"/v","name":"k","readOnly":true}]}],"priority":0,
            "tolerations":[{"effect":"NoExecute","key":"k","operator":"Exists","tolerationSeconds":300}]},
            "status":{"phase":"Pending","qosClass":"Burstable"}}}"#;
        let event: kube::core::WatchEvent<Pod> = serde_json::from_str(line).unwrap();
        let kube::core::WatchEvent::Added(pod) = event else { panic!("{event:?}") };
        assert_eq!(pod.requests().cpu, Some(3000));
    }

    #[test]
    fn null_fields_are_absent_fields() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": null},
            "spec": {"initContainers": null, "nodeSelector": null, "hostNetwork": null,
                     "containers": [{"name": "c", "ports": null, "resources": {"requests": null}}]},
            "status": {"conditions": null, "containerStatuses": [{"name": "c", "state": null}]},
        }))
        .unwrap();
        assert_eq!((pod.phase(), pod.requests()), ("Pending", Resources::default()));
    }
}
