//! HorizontalPodAutoscaler v2 on CPU and memory, read from metrics.k8s.io.
//!
//! Metrics of the types `Pods`, `Object` and `External` need an adapter that is not there; an
//! autoscaler that uses one says so in its conditions.

pub mod behavior;
pub mod metrics;

use super::{
    Context,
    error::ControllerError,
    events::{EventKind, reference},
    informer::ObjectKey,
    pod::{Pod, Resources},
    quantity::Quantity,
    queue::{Requeue, WorkQueue},
};
use behavior::History;
use jiff::Timestamp;
use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
        HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
    },
    apimachinery::pkg::{api::resource::Quantity as QuantityText, apis::meta::v1::Time},
};
use kube::{
    api::{Api, DynamicObject, ListParams, Patch, PatchParams},
    core::{GroupVersion, GroupVersionKind, Request},
};
use metrics::{PodUse, Proposal, Question, Readiness, Resource, Target, Tolerance};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

const SOURCE: &str = "horizontal-pod-autoscaler";

/// What each autoscaler has done, by uid.
pub type Histories = parking_lot::Mutex<HashMap<String, History>>;

/// Queue of autoscalers, fed by their changes; each looks again after the sync period.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.autoscalers.on_change(move |old, new| {
        let spec = |o: Option<&Arc<HorizontalPodAutoscaler>>| o.map(|o| o.spec.clone());
        if let Some(autoscaler) = new.or(old)
            && (old.is_none() || new.is_none() || spec(old) != spec(new))
        {
            own.add(ObjectKey::of(autoscaler.as_ref()));
        }
    });
    queue
}

#[derive(Deserialize)]
struct PodMetricsList {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    timestamp: Option<Time>,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: Resources,
}

impl From<PodMetrics> for PodUse {
    fn from(metrics: PodMetrics) -> Self {
        let window = metrics.window.parse::<jiff::SignedDuration>().ok();
        Self {
            at: metrics.timestamp.map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            window: window.and_then(|w| Duration::try_from(w).ok()).unwrap_or_default(),
            containers: metrics.containers.into_iter().map(|c| (c.name, c.usage)).collect(),
        }
    }
}

/// A round over one autoscaler.
struct Round<'a> {
    context: &'a Context,
    autoscaler: Arc<HorizontalPodAutoscaler>,
    namespace: String,
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
}

/// Looks at one autoscaler and its workload.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let Some(autoscaler) = context.autoscalers.get(&key) else { return Ok(None) };
    if autoscaler.metadata.deletion_timestamp.is_some() {
        context.histories.lock().remove(autoscaler.metadata.uid.as_deref().unwrap_or_default());
        return Ok(None);
    }
    let mut status = autoscaler.status.clone().unwrap_or_default();
    status.observed_generation = autoscaler.metadata.generation;
    let namespace = key.namespace.to_string();
    let mut round = Round { context, autoscaler: autoscaler.clone(), namespace, status, now: Timestamp::now() };
    let result = round.run().await;
    if autoscaler.status.as_ref() != Some(&round.status) {
        let mut updated = autoscaler.as_ref().clone();
        updated.status = Some(round.status);
        match context.autoscalers.replace(Some("status"), &key, &updated).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    result?;
    Ok(Some(context.config.hpa_sync_period))
}

impl Round<'_> {
    fn set(&mut self, type_: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let since = conditions
            .iter()
            .find(|c| c.type_ == type_ && c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        let new = HorizontalPodAutoscalerCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: since.or(Some(Time(self.now))),
        };
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }

    fn warn(&self, reason: &'static str, message: &str) {
        self.context.events.record(SOURCE, reference(self.autoscaler.as_ref()), EventKind::Warning, reason, message);
    }

    async fn run(&mut self) -> Result<(), ControllerError> {
        let spec = self.autoscaler.spec.clone();
        let target = &spec.scale_target_ref;
        let api = match self.target_api(target.api_version.as_deref().unwrap_or("apps/v1"), &target.kind).await {
            Ok(api) => api,
            Err(error) => return self.no_scale(&error),
        };
        let scale = match api.get_scale(&target.name).await {
            Ok(scale) => scale,
            Err(error) => return self.no_scale(&ControllerError::api("get the scale subresource")(error)),
        };
        self.set(
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        self.status.current_replicas = scale.status.as_ref().map(|s| s.replicas);
        let least = spec.min_replicas.unwrap_or(1);
        let (next, reason) = if current == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", message);
            return Ok(());
        } else if current > spec.max_replicas {
            (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < least {
            (least, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            let selector = scale.status.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
            match self.decide(current, &selector).await? {
                Some(decided) => decided,
                None => return Ok(()),
            }
        };
        self.status.desired_replicas = next;
        if next == current {
            return Ok(());
        }
        self.rescale(&api, &target.name, current, next, &reason).await
    }

    fn no_scale(&mut self, error: &ControllerError) -> Result<(), ControllerError> {
        let message = error.server_message();
        self.warn("FailedGetScale", &message);
        let told = format!("the HPA controller was unable to get the target's current scale: {message}");
        self.set("AbleToScale", false, "FailedGetScale", told);
        Ok(())
    }

    async fn target_api(&self, api_version: &str, kind: &str) -> Result<Api<DynamicObject>, ControllerError> {
        let version: GroupVersion = api_version
            .parse()
            .map_err(|_| ControllerError::NotYet(format!("invalid apiVersion {api_version:?} in scaleTargetRef")))?;
        let kind = GroupVersionKind::gvk(&version.group, &version.version, kind);
        let found = kube::discovery::pinned_kind(&self.context.client, &kind).await;
        let (resource, _) = found.map_err(ControllerError::api(format!("find kind {} of {api_version}", kind.kind)))?;
        Ok(Api::namespaced_with(self.context.client.clone(), &self.namespace, &resource))
    }

    async fn rescale(
        &mut self,
        api: &Api<DynamicObject>,
        name: &str,
        from: i32,
        to: i32,
        reason: &str,
    ) -> Result<(), ControllerError> {
        let patch = Patch::Merge(json!({"spec": {"replicas": to}}));
        if let Err(error) = api.patch_scale(name, &PatchParams::default(), &patch).await {
            let error = ControllerError::api("change the scale")(error);
            let message = format!("New size: {to}; reason: {reason}; error: {}", error.server_message());
            self.warn("FailedRescale", &message);
            let told = format!("the HPA controller was unable to update the target scale: {}", error.server_message());
            self.set("AbleToScale", false, "FailedUpdateScale", told);
            return Err(error);
        }
        let told = format!("the HPA controller was able to update the target scale to {to}");
        self.set("AbleToScale", true, "SucceededRescale", told);
        let message = format!("New size: {to}; reason: {reason}");
        let object = reference(self.autoscaler.as_ref());
        self.context.events.record(SOURCE, object, EventKind::Normal, "SuccessfulRescale", message);
        self.status.last_scale_time = Some(Time(self.now));
        let uid = self.autoscaler.metadata.uid.clone().unwrap_or_default();
        self.context.histories.lock().entry(uid).or_default().changed(Instant::now(), from, to);
        Ok(())
    }

    /// The next number of replicas by the metrics, with the reason; `None` when nothing can be said.
    async fn decide(&mut self, current: i32, selector: &str) -> Result<Option<(i32, String)>, ControllerError> {
        if selector.is_empty() {
            self.warn("SelectorRequired", "selector is required");
            self.set("ScalingActive", false, "InvalidSelector", "the HPA target's scale is missing a selector");
            return Ok(None);
        }
        let spec = self.autoscaler.spec.clone();
        let pods = self.pods(selector).await?;
        let metrics = match spec.metrics.clone() {
            Some(metrics) if !metrics.is_empty() => metrics,
            _ => vec![default_metric()],
        };
        let uses = self.uses(selector).await;
        let mut best: Option<(i32, String)> = None;
        let mut failures: Vec<(&'static str, String)> = Vec::new();
        let mut statuses = Vec::new();
        for metric in &metrics {
            match uses
                .as_ref()
                .map_err(|e| ("FailedGetResourceMetric", e.clone()))
                .and_then(|u| self.ask(metric, current, &pods, u))
            {
                Ok((proposal, name, status)) => {
                    statuses.push(status);
                    if best.as_ref().is_none_or(|(n, _)| proposal.replicas > *n) {
                        best = Some((proposal.replicas, name));
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        self.status.current_metrics = (!statuses.is_empty()).then_some(statuses);
        if let Some((reason, message)) = failures.first() {
            self.warn(reason, message);
            // With a metric missing it may be too early to scale down.
            if best.as_ref().is_none_or(|(replicas, _)| *replicas <= current) {
                let told = format!("the HPA was unable to compute the replica count: {message}");
                self.set("ScalingActive", false, reason, told);
                self.status.desired_replicas = current;
                return Ok(None);
            }
        }
        let Some((proposed, name)) = best else { return Ok(None) };
        let told = format!("the HPA was able to successfully calculate a replica count from {name}");
        self.set("ScalingActive", true, "ValidMetricFound", told);
        let uid = self.autoscaler.metadata.uid.clone().unwrap_or_default();
        let decision = {
            let mut histories = self.context.histories.lock();
            behavior::decide(&spec, histories.entry(uid).or_default(), current, proposed, Instant::now())
        };
        self.set("AbleToScale", true, decision.able.0, decision.able.1);
        self.set("ScalingLimited", decision.limited.0, decision.limited.1, decision.limited.2);
        let side = if decision.replicas > current {
            format!("{name} above target")
        } else {
            "All metrics below target".into()
        };
        Ok(Some((decision.replicas, side)))
    }

    async fn pods(&self, selector: &str) -> Result<Vec<Arc<Pod>>, ControllerError> {
        let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let found = api.list_metadata(&ListParams::default().labels(selector)).await;
        let found = found.map_err(ControllerError::api("list the target's pods"))?;
        let keys = found
            .items
            .iter()
            .map(|o| ObjectKey::new(self.namespace.as_str(), o.metadata.name.as_deref().unwrap_or_default()));
        Ok(keys.filter_map(|key| self.context.pods.get(&key)).collect())
    }

    async fn uses(&self, selector: &str) -> Result<BTreeMap<String, PodUse>, String> {
        let url = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", self.namespace);
        let request = Request::new(url).list(&ListParams::default().labels(selector));
        let request = request.map_err(|e| e.to_string())?;
        let answer = self.context.client.request::<PodMetricsList>(request).await;
        let list = answer.map_err(|e| {
            let error = ControllerError::api("get metrics")(e);
            format!(
                "unable to get metrics for resource: unable to fetch metrics from resource metrics API: {}",
                error.server_message()
            )
        })?;
        Ok(list.items.into_iter().map(|m| (m.metadata.name.clone().unwrap_or_default(), m.into())).collect())
    }

    fn ask(
        &self,
        metric: &MetricSpec,
        current: i32,
        pods: &[Arc<Pod>],
        uses: &BTreeMap<String, PodUse>,
    ) -> Result<(Proposal, String, MetricStatus), (&'static str, String)> {
        let (name, container, target) = match (&metric.resource, &metric.container_resource) {
            (Some(source), _) if metric.type_ == "Resource" => (&source.name, None, &source.target),
            (_, Some(source)) if metric.type_ == "ContainerResource" => {
                (&source.name, Some(source.container.as_str()), &source.target)
            }
            _ => {
                let message = format!(
                    "metrics of type {:?} are not emulated: only Resource and ContainerResource are",
                    metric.type_
                );
                return Err(("InvalidMetricSourceType", message));
            }
        };
        let failed =
            |message: String| ("FailedGetResourceMetric", format!("failed to get {name} utilization: {message}"));
        let resource =
            Resource::named(name).ok_or_else(|| failed(format!("metrics.k8s.io has no resource {name:?}")))?;
        let aim = aim(target, resource)
            .ok_or_else(|| failed("the target has neither averageUtilization nor averageValue".into()))?;
        let question = Question {
            resource,
            container,
            target: aim,
            current,
            tolerance: self.tolerance(),
            readiness: Readiness {
                cpu_initialization: self.context.config.hpa_cpu_initialization,
                initial_delay: self.context.config.hpa_initial_readiness_delay,
            },
        };
        let proposal = metrics::propose(&question, pods, uses, self.now).map_err(failed)?;
        let what = match (container, aim) {
            (None, Target::Utilization(_)) => format!("{name} resource utilization (percentage of request)"),
            (None, Target::AverageValue(_)) => format!("{name} resource"),
            (Some(c), Target::Utilization(_)) => {
                format!("{name} container resource utilization (percentage of request) of container {c}")
            }
            (Some(c), Target::AverageValue(_)) => format!("{name} container resource of container {c}"),
        };
        Ok((proposal, what, status_of(metric, name, container, resource, &proposal)))
    }

    fn tolerance(&self) -> Tolerance {
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let own = |text: Option<&QuantityText>| {
            text.and_then(|q| Quantity::parse(&q.0))
                .map_or(self.context.config.hpa_tolerance, |q| q.milli() as f64 / 1000.0)
        };
        Tolerance {
            up: own(behavior.and_then(|b| b.scale_up.as_ref()).and_then(|r| r.tolerance.as_ref())),
            down: own(behavior.and_then(|b| b.scale_down.as_ref()).and_then(|r| r.tolerance.as_ref())),
        }
    }
}

/// CPU at 80 percent, which an autoscaler without metrics means.
fn default_metric() -> MetricSpec {
    use k8s_openapi::api::autoscaling::v2::ResourceMetricSource;
    let target = MetricTarget { type_: "Utilization".into(), average_utilization: Some(80), ..MetricTarget::default() };
    let resource = Some(ResourceMetricSource { name: "cpu".into(), target });
    MetricSpec { type_: "Resource".into(), resource, ..MetricSpec::default() }
}

fn aim(target: &MetricTarget, resource: Resource) -> Option<Target> {
    if let Some(percent) = target.average_utilization {
        return Some(Target::Utilization(i64::from(percent)));
    }
    let value = Quantity::parse(&target.average_value.as_ref()?.0)?;
    Some(Target::AverageValue(match resource {
        Resource::Cpu => value.milli(),
        Resource::Memory => value.units(),
    }))
}

fn status_of(
    metric: &MetricSpec,
    name: &str,
    container: Option<&str>,
    resource: Resource,
    proposal: &Proposal,
) -> MetricStatus {
    let text = match resource {
        Resource::Cpu => format!("{}m", proposal.average),
        Resource::Memory => proposal.average.to_string(),
    };
    let current = MetricValueStatus {
        average_utilization: proposal.utilization.map(|u| i32::try_from(u).unwrap_or(i32::MAX)),
        average_value: Some(QuantityText(text)),
        value: None,
    };
    let mut status = MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() };
    match container {
        None => status.resource = Some(ResourceMetricStatus { name: name.to_owned(), current }),
        Some(container) => {
            let container = container.to_owned();
            status.container_resource =
                Some(ContainerResourceMetricStatus { name: name.to_owned(), container, current });
        }
    }
    status
}
