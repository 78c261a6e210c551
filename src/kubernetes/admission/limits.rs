//! `LimitRanger`: defaults and bounds of containers, pods and claims in a namespace.
//! Messages are those of `plugin/pkg/admission/limitranger`.

use super::Change;
use crate::request::status::ApiError;
use aksim_model::{
    quantity::Amount,
    resources::{self, Amounts},
};
use serde_json::{Value, json};

/// Annotation that says what was set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Limit items of the object's namespace.
fn items(change: &Change<'_>, value: &Value) -> Vec<Value> {
    let store = change.store;
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let state = store.snapshot();
    let ranges = state.table(store.table("limitranges")).range(Some(namespace), None).map(|range| range.value());
    ranges.flat_map(|range| range["spec"]["limits"].as_array().cloned().unwrap_or_default()).collect()
}

fn refuse(resource: &str, value: &Value, mut errors: Vec<String>) -> Result<(), ApiError> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    match errors.len() {
        0 => Ok(()),
        1 => Err(ApiError::forbidden(resource, name, &errors.remove(0))),
        _ => Err(ApiError::forbidden(resource, name, &format!("[{}]", errors.join(", ")))),
    }
}

/// Gives containers their default requests and limits, and checks them and the pod.
pub fn pod(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    if change.old.is_some() {
        return Ok(());
    }
    let items = items(change, value);
    for item in items.iter().filter(|item| item["type"] == "Container") {
        set_defaults(item, value);
    }
    refuse("pods", value, items.iter().flat_map(|item| pod_errors(item, &value["spec"])).collect())
}

/// Checks the size that a claim asks for.
pub fn claim(change: &Change<'_>, value: &mut Value) -> Result<(), ApiError> {
    let storage = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].clone();
    if change.old.is_some_and(|old| storage(old) == storage(value)) {
        return Ok(());
    }
    let requests = resources::of_container(&value["spec"], "requests");
    let items = items(change, value);
    let items = items.iter().filter(|item| item["type"] == "PersistentVolumeClaim");
    let errors = items.flat_map(|item| {
        let min = bounds(item, "min")
            .into_iter()
            .filter_map(|(name, bound)| below_min("PersistentVolumeClaim", &name, bound, requests.get(&name), None));
        let max = bounds(item, "max")
            .into_iter()
            .filter_map(|(name, bound)| above_max_request("PersistentVolumeClaim", &name, bound, requests.get(&name)));
        min.chain(max).collect::<Vec<_>>()
    });
    refuse("persistentvolumeclaims", value, errors.collect())
}

fn set_defaults(item: &Value, pod: &mut Value) {
    let mut said: Vec<String> = Vec::new();
    for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, from, word) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                let mut set = Vec::new();
                for (resource, amount) in item[from].as_object().into_iter().flatten() {
                    if container["resources"][field][resource].is_null() {
                        container["resources"][field][resource] = amount.clone();
                        set.push(resource.as_str());
                    }
                }
                set.sort_unstable();
                if !set.is_empty() {
                    said.push(format!("{} {word} for {kind} {name}", set.join(", ")));
                }
                // Indexing leaves nulls behind.
                if container["resources"][field].is_null()
                    && let Some(resources) = container["resources"].as_object_mut()
                {
                    resources.remove(field);
                }
            }
        }
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        match pod["metadata"]["annotations"].as_object_mut() {
            Some(annotations) => drop(annotations.insert(ANNOTATION.into(), text.into())),
            None => pod["metadata"]["annotations"] = json!({ANNOTATION: text}),
        }
    }
}

fn bounds(item: &Value, field: &str) -> Amounts {
    let amounts = item[field].as_object().into_iter().flatten();
    amounts.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?))).collect()
}

/// What of a pod one limit item refuses.
fn pod_errors(item: &Value, spec: &Value) -> Vec<String> {
    match item["type"].as_str().unwrap_or_default() {
        "Container" => {
            let lists = ["containers", "initContainers"].iter();
            let containers = lists.flat_map(|list| spec[*list].as_array().into_iter().flatten());
            let errors = containers.flat_map(|container| {
                let of = |kind| resources::of_container(container, kind);
                check("Container", item, &of("requests"), &of("limits"))
            });
            errors.collect()
        }
        "Pod" => check("Pod", item, &resources::of_pod(spec, "requests"), &resources::of_pod(spec, "limits")),
        _ => Vec::new(),
    }
}

/// Kind, resource, bound, what is requested and what is the limit → what is wrong.
type Rule = fn(&str, &str, Amount, Option<&Amount>, Option<&Amount>) -> Option<String>;

fn check(kind: &str, item: &Value, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let each = |field: &str, rule: Rule| {
        let found = bounds(item, field);
        let found = found.into_iter();
        found.filter_map(|(name, bound)| rule(kind, &name, bound, requests.get(&name), limits.get(&name))).collect()
    };
    let mut errors: Vec<String> = each("min", below_min);
    errors.extend::<Vec<_>>(each("max", above_max));
    errors.extend::<Vec<_>>(each("maxLimitRequestRatio", above_ratio));
    errors
}

fn below_min(
    kind: &str,
    name: &str,
    bound: Amount,
    request: Option<&Amount>,
    limit: Option<&Amount>,
) -> Option<String> {
    let Some(request) = request else {
        return Some(format!("minimum {name} usage per {kind} is {bound}.  No request is specified"));
    };
    if request.nanos() < bound.nanos() {
        return Some(format!("minimum {name} usage per {kind} is {bound}, but request is {request}"));
    }
    let limit = limit.filter(|limit| limit.nanos() < bound.nanos())?;
    Some(format!("minimum {name} usage per {kind} is {bound}, but limit is {limit}"))
}

fn above_max(
    kind: &str,
    name: &str,
    bound: Amount,
    request: Option<&Amount>,
    limit: Option<&Amount>,
) -> Option<String> {
    let Some(limit) = limit else {
        return Some(format!("maximum {name} usage per {kind} is {bound}.  No limit is specified"));
    };
    if limit.nanos() > bound.nanos() {
        return Some(format!("maximum {name} usage per {kind} is {bound}, but limit is {limit}"));
    }
    let request = request.filter(|request| request.nanos() > bound.nanos())?;
    Some(format!("maximum {name} usage per {kind} is {bound}, but request is {request}"))
}

/// Claims have requests alone.
fn above_max_request(kind: &str, name: &str, bound: Amount, request: Option<&Amount>) -> Option<String> {
    match request {
        None => Some(format!("maximum {name} usage per {kind} is {bound}.  No request is specified")),
        Some(request) if request.nanos() > bound.nanos() => {
            Some(format!("maximum {name} usage per {kind} is {bound}, but request is {request}"))
        }
        Some(_) => None,
    }
}

fn above_ratio(
    kind: &str,
    name: &str,
    bound: Amount,
    request: Option<&Amount>,
    limit: Option<&Amount>,
) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {bound}");
    let Some(request) = request.filter(|request| request.nanos() != 0) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| limit.nanos() != 0) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    // Exact for all amounts that are counted; shown as Go's %f.
    let (ratio, bound) = (limit.nanos() as f64 / request.nanos() as f64, bound.nanos() as f64 / 1e9);
    (ratio > bound).then(|| format!("{start}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(resources: &Value) -> Value {
        json!({"containers": [{"name": "c", "resources": resources}]})
    }

    #[test]
    fn bounds_have_the_words_of_kubernetes() {
        let item = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1", "memory": "1Gi"},
            "maxLimitRequestRatio": {"cpu": "2"}});
        let errors = pod_errors(&item, &container(&json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}})));
        assert_eq!(
            errors,
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2",
                "maximum memory usage per Container is 1Gi.  No limit is specified",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 40.000000",
            ]
        );
        let fine = json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(pod_errors(&item, &container(&fine)), Vec::<String>::new());
        let none = pod_errors(&item, &container(&json!({})));
        assert_eq!(none[0], "minimum cpu usage per Container is 100m.  No request is specified");
    }

    #[test]
    fn pods_are_bounded_as_a_whole() {
        let item = json!({"type": "Pod", "max": {"cpu": "1"}});
        let one = json!({"resources": {"limits": {"cpu": "600m"}}});
        let errors = pod_errors(&item, &json!({"containers": [one, one]}));
        assert_eq!(errors, ["maximum cpu usage per Pod is 1, but limit is 1200m"]);
    }

    #[test]
    fn defaults_fill_what_is_not_given() {
        let item =
            json!({"type": "Container", "default": {"cpu": "1", "memory": "64Mi"}, "defaultRequest": {"cpu": "100m"}});
        let mut pod = json!({"metadata": {}, "spec": container(&json!({"limits": {"memory": "32Mi"}}))});
        set_defaults(&item, &mut pod);
        let resources = &pod["spec"]["containers"][0]["resources"];
        assert_eq!(*resources, json!({"limits": {"memory": "32Mi", "cpu": "1"}, "requests": {"cpu": "100m"}}));
        let said = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(pod["metadata"]["annotations"][ANNOTATION], said);
        let before = pod.clone();
        set_defaults(&item, &mut pod);
        assert_eq!(pod, before);
    }
}
