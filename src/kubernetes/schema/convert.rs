//! Conversion between versions of one kind that are stored once: `autoscaling/v1` and `v2`
//! autoscalers, core and `events.k8s.io` events.

use super::SchemaError;
use super::name::GroupVersionKind;
use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// What `autoscaling/v1` cannot say is kept in these annotations, as kube does.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Converts an object in place and sets its `apiVersion`; the same kind is no work.
///
/// # Errors
/// [`SchemaError::NotConvertible`]; the object is then unchanged.
pub fn convert(object: &mut Value, to: &GroupVersionKind) -> Result<(), SchemaError> {
    let from = GroupVersionKind::of(object).unwrap_or_default();
    if from == *to {
        return Ok(());
    }
    let key = |kind: &GroupVersionKind| format!("{} {}", kind.api_version(), kind.kind);
    let change: fn(&mut Object) = match (key(&from).as_str(), key(to).as_str()) {
        ("v1 Event", "events.k8s.io/v1 Event") => event_to_group,
        ("events.k8s.io/v1 Event", "v1 Event") => event_to_core,
        ("autoscaling/v1 HorizontalPodAutoscaler", "autoscaling/v2 HorizontalPodAutoscaler") => autoscaler_to_v2,
        ("autoscaling/v2 HorizontalPodAutoscaler", "autoscaling/v1 HorizontalPodAutoscaler") => autoscaler_to_v1,
        _ => return Err(SchemaError::NotConvertible { from: Box::new(from), to: Box::new(to.clone()) }),
    };
    if let Value::Object(object) = object {
        change(object);
        object.insert("apiVersion".into(), to.api_version().into());
    }
    Ok(())
}

/// Fields of core events and what `events.k8s.io` calls them.
const EVENT_FIELDS: [(&str, &str); 8] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingInstance", "reportingInstance"),
];

fn event_to_group(event: &mut Object) {
    for (core, group) in EVENT_FIELDS {
        rename(event, core, group);
    }
}

fn event_to_core(event: &mut Object) {
    for (core, group) in EVENT_FIELDS {
        rename(event, group, core);
    }
}

fn rename(object: &mut Object, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

fn section<'a>(object: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    object.get_mut(name).and_then(Value::as_object_mut)
}

/// Whether a metric is CPU utilization, which v1 has a field for.
fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn autoscaler_to_v1(autoscaler: &mut Object) {
    let mut kept = Object::new();
    if let Some(spec) = section(autoscaler, "spec") {
        let (cpu, other): (Vec<Value>, Vec<Value>) = list(spec.remove("metrics"))
            .into_iter()
            .partition(|m| is_cpu(m) && m["resource"]["target"]["averageUtilization"].is_i64());
        if let Some(metric) = cpu.first() {
            let target = metric["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".into(), target);
        }
        keep(&mut kept, METRICS, other);
        if let Some(behavior) = spec.remove("behavior") {
            kept.insert(BEHAVIOR.into(), behavior.to_string().into());
        }
    }
    if let Some(status) = section(autoscaler, "status") {
        let (cpu, other): (Vec<Value>, Vec<Value>) =
            list(status.remove("currentMetrics")).into_iter().partition(is_cpu);
        if let Some(current) =
            cpu.first().map(|m| m["resource"]["current"]["averageUtilization"].clone()).filter(Value::is_i64)
        {
            status.insert("currentCPUUtilizationPercentage".into(), current);
        }
        keep(&mut kept, CURRENT_METRICS, other);
        keep(&mut kept, CONDITIONS, list(status.remove("conditions")));
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
    if !kept.is_empty() {
        let metadata = autoscaler.entry("metadata").or_insert_with(|| json!({}));
        if let Some(annotations) = metadata
            .as_object_mut()
            .map(|metadata| metadata.entry("annotations").or_insert_with(|| json!({})))
            .and_then(Value::as_object_mut)
        {
            annotations.append(&mut kept);
        }
    }
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn keep(kept: &mut Object, annotation: &str, items: Vec<Value>) {
    if !items.is_empty() {
        kept.insert(annotation.to_owned(), Value::Array(items).to_string().into());
    }
}

fn autoscaler_to_v2(autoscaler: &mut Object) {
    let mut take = {
        let annotations = section(autoscaler, "metadata").and_then(|metadata| section(metadata, "annotations"));
        let mut taken = Object::new();
        if let Some(annotations) = annotations {
            for name in [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS] {
                let parsed =
                    annotations.get(name).and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
                if let Some(value) = parsed {
                    annotations.remove(name);
                    taken.insert(name.to_owned(), value);
                }
            }
        }
        move |name: &str| taken.remove(name)
    };
    if section(autoscaler, "metadata").and_then(|m| section(m, "annotations")).is_some_and(|a| a.is_empty()) {
        section(autoscaler, "metadata").map(|metadata| metadata.remove("annotations"));
    }
    if let Some(spec) = section(autoscaler, "spec") {
        let cpu = spec.remove("targetCPUUtilizationPercentage").map(|target| {
            json!({ "type": "Resource", "resource":
                { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": target } } })
        });
        let metrics: Vec<Value> = list(take(METRICS)).into_iter().chain(cpu).collect();
        if !metrics.is_empty() {
            spec.insert("metrics".into(), metrics.into());
        }
        if let Some(behavior) = take(BEHAVIOR) {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = section(autoscaler, "status") {
        let cpu = status.remove("currentCPUUtilizationPercentage").map(|current| {
            json!({ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": current } } })
        });
        let metrics: Vec<Value> = list(take(CURRENT_METRICS)).into_iter().chain(cpu).collect();
        if !metrics.is_empty() {
            status.insert("currentMetrics".into(), metrics.into());
        }
        if let Some(conditions) = take(CONDITIONS) {
            status.insert("conditions".into(), conditions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscalers_survive_the_way_there_and_back() {
        let v2 = json!({"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},
            "spec":{"maxReplicas":5,"behavior":{"scaleDown":{"stabilizationWindowSeconds":1}},"metrics":[
                {"type":"Resource","resource":{"name":"memory","target":{"type":"Utilization","averageUtilization":50}}},
                {"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}]},
            "status":{"currentReplicas":1,"desiredReplicas":2,"conditions":[{"type":"AbleToScale","status":"True"}],
                "currentMetrics":[{"type":"Resource","resource":{"name":"cpu","current":{"averageUtilization":10}}}]}});
        let kind = |version| GroupVersionKind::new("autoscaling", version, "HorizontalPodAutoscaler");
        let mut object = v2.clone();
        convert(&mut object, &kind("v1")).unwrap();
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 10);
        convert(&mut object, &kind("v2")).unwrap();
        assert_eq!(object, v2);
    }

    #[test]
    fn events_are_one_thing_with_two_names() {
        let core = json!({"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"message":"m","count":2,
            "involvedObject":{"kind":"Pod"},"source":{"component":"c"},"type":"Normal"});
        let mut event = core.clone();
        convert(&mut event, &GroupVersionKind::new("events.k8s.io", "v1", "Event")).unwrap();
        assert_eq!(
            (&event["note"], &event["regarding"]["kind"], &event["deprecatedCount"]),
            (&json!("m"), &json!("Pod"), &json!(2))
        );
        convert(&mut event, &GroupVersionKind::new("", "v1", "Event")).unwrap();
        assert_eq!(event, core);
        let pod = GroupVersionKind::new("", "v1", "Pod");
        assert!(matches!(convert(&mut event, &pod), Err(SchemaError::NotConvertible { .. })));
        assert_eq!(event, core);
    }
}
