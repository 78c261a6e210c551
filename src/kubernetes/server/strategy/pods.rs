//! Pods: status of a new one, quality of service, containers, what may change.

use super::{Change, Part, names};
use crate::request::status::Cause;
use serde_json::{Value, json};

/// Gives a new pod its first status.
pub fn prepare(change: &Change<'_>, value: &mut Value) -> Result<(), crate::request::status::ApiError> {
    if change.old.is_none() {
        value["status"] = json!({"phase": "Pending", "qosClass": qos_class(&value["spec"])});
    }
    Ok(())
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from requests and limits of the containers.
fn qos_class(spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"];
    let containers: Vec<_> = containers.iter().flat_map(|list| spec[*list].as_array().into_iter().flatten()).collect();
    let amount = |container: &Value, kind: &str, resource: &str| {
        let value = &container["resources"][kind][resource];
        value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|n| n.to_string())).filter(|text| text != "0")
    };
    let any = containers.iter().any(|c| {
        ["requests", "limits"].iter().any(|kind| ["cpu", "memory"].iter().any(|r| amount(c, kind, r).is_some()))
    });
    let guaranteed = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = amount(container, "limits", resource);
            limit.is_some() && amount(container, "requests", resource).is_none_or(|request| Some(request) == limit)
        })
    });
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Validates a pod.
pub fn validate(change: &Change<'_>, value: &Value, causes: &mut Vec<Cause>) {
    match change.old {
        None => validate_spec("spec", &value["spec"], causes),
        Some(old) if change.part == Part::Whole => validate_update(old, value, causes),
        Some(_) => {}
    }
}

/// Validates the spec of a pod, or of a template at `path`.
pub fn validate_spec(path: &str, spec: &Value, causes: &mut Vec<Cause>) {
    let volumes = volume_names(path, spec, causes);
    let mut names = Vec::new();
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            validate_container(&path, container, &volumes, causes);
            let name = &container["name"];
            if names.contains(&name) {
                causes.push(Cause::duplicate(format!("{path}.name"), name));
            }
            names.push(name);
        }
    }
    let policy = &spec["restartPolicy"];
    if !matches!(policy.as_str(), None | Some("Always" | "OnFailure" | "Never")) {
        let field = format!("{path}.restartPolicy");
        causes.push(Cause::not_supported(field, policy, &["Always", "OnFailure", "Never"]));
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let field = format!("{path}.terminationGracePeriodSeconds");
        causes.push(Cause::invalid(
            field,
            &spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        ));
    }
}

fn volume_names<'a>(path: &str, spec: &'a Value, causes: &mut Vec<Cause>) -> Vec<&'a Value> {
    let mut seen: Vec<&Value> = Vec::new();
    for (index, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.volumes[{index}].name");
        let name = &volume["name"];
        match name.as_str().unwrap_or_default() {
            "" => causes.push(Cause::required(field, "")),
            text if !names::is_dns_label(text) => causes.push(Cause::invalid(field, name, names::LABEL)),
            _ if seen.contains(&name) => causes.push(Cause::duplicate(field, name)),
            _ => {}
        }
        seen.push(name);
    }
    seen
}

fn validate_container(path: &str, container: &Value, volumes: &[&Value], causes: &mut Vec<Cause>) {
    let name = &container["name"];
    match name.as_str().unwrap_or_default() {
        "" => causes.push(Cause::required(format!("{path}.name"), "")),
        text if !names::is_dns_label(text) => causes.push(Cause::invalid(format!("{path}.name"), name, names::LABEL)),
        _ => {}
    }
    if container["image"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    }
    let pull = &container["imagePullPolicy"];
    if !matches!(pull.as_str(), None | Some("Always" | "IfNotPresent" | "Never")) {
        let field = format!("{path}.imagePullPolicy");
        causes.push(Cause::not_supported(field, pull, &["Always", "IfNotPresent", "Never"]));
    }
    validate_ports(path, container, causes);
    for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.volumeMounts[{index}]");
        if !volumes.contains(&&mount["name"]) {
            causes.push(Cause::not_found(format!("{field}.name"), &mount["name"]));
        }
        if mount["mountPath"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{field}.mountPath"), ""));
        }
    }
    for (index, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        if variable["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{path}.env[{index}].name"), ""));
        }
        if variable["value"].as_str().is_some_and(|v| !v.is_empty()) && variable["valueFrom"].is_object() {
            let detail = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(format!("{path}.env[{index}].valueFrom"), &"".into(), detail));
        }
    }
}

fn validate_ports(path: &str, container: &Value, causes: &mut Vec<Cause>) {
    let mut names = Vec::new();
    for (index, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.ports[{index}]");
        let number = &port["containerPort"];
        match number.as_i64() {
            None => causes.push(Cause::required(format!("{field}.containerPort"), "")),
            Some(n) if !(1..=65535).contains(&n) => {
                let detail = "must be between 1 and 65535, inclusive";
                causes.push(Cause::invalid(format!("{field}.containerPort"), number, detail));
            }
            Some(_) => {}
        }
        if let Some(name) = port["name"].as_str() {
            if names.contains(&name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &port["name"]));
            }
            names.push(name);
        }
    }
}

/// Ephemeral containers are added, and never changed or taken away.
pub fn validate_ephemeral(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.ephemeralContainers";
    let list = |pod: &Value, list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
    let volumes = list(new, "volumes");
    let volumes: Vec<&Value> = volumes.iter().map(|volume| &volume["name"]).collect();
    let others: Vec<Value> = ["containers", "initContainers"].iter().flat_map(|l| list(new, l)).collect();
    let (before, after) = (list(old, "ephemeralContainers"), list(new, "ephemeralContainers"));
    let mut names: Vec<&Value> = others.iter().map(|container| &container["name"]).collect();
    for (index, container) in after.iter().enumerate() {
        let path = format!("{FIELD}[{index}]");
        validate_container(&path, container, &volumes, causes);
        let name = &container["name"];
        if names.contains(&name) {
            causes.push(Cause::duplicate(format!("{path}.name"), name));
        }
        names.push(name);
        for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if !container[field].is_null() {
                causes.push(Cause::forbidden(format!("{path}.{field}"), "cannot be set for an Ephemeral Container"));
            }
        }
        let target = &container["targetContainerName"];
        let named = target.as_str().is_some_and(|target| !target.is_empty());
        if named && !others.iter().any(|other| other["name"] == *target) {
            causes.push(Cause::not_found(format!("{path}.targetContainerName"), target));
        }
    }
    for container in &before {
        match after.iter().find(|kept| kept["name"] == container["name"]) {
            None => {
                let name = container["name"].as_str().unwrap_or_default();
                let detail = format!("existing ephemeral containers \"{name}\" may not be removed\n");
                causes.push(Cause::forbidden(FIELD, &detail));
            }
            Some(kept) if kept != container => {
                let name = container["name"].as_str().unwrap_or_default();
                let detail = format!("existing ephemeral containers \"{name}\" may not be changed\n");
                causes.push(Cause::forbidden(FIELD, &detail));
            }
            Some(_) => {}
        }
    }
}

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn validate_update(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
            spec[field] = Value::Null;
        }
        spec
    };
    let kept = |list: &str| {
        let new: Vec<_> = new["spec"][list].as_array().into_iter().flatten().collect();
        old["spec"][list].as_array().into_iter().flatten().all(|entry| new.contains(&entry))
    };
    if fixed(old) != fixed(new) || !kept("tolerations") {
        causes.push(Cause::forbidden("spec", MAY_CHANGE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn causes_of(spec: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate_spec("spec", spec, &mut causes);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn common_mistakes_are_named() {
        assert_eq!(causes_of(&json!({})), ["spec.containers: Required value"]);
        let spec = json!({"containers": [
            {"name": "a", "image": "x", "ports": [{"containerPort": 0}], "volumeMounts": [{"name": "v", "mountPath": "/"}]},
            {"name": "a"}], "restartPolicy": "Sometimes"});
        assert_eq!(
            causes_of(&spec),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
                "spec.containers[1].image: Required value",
                "spec.containers[1].name: Duplicate value: \"a\"",
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ]
        );
    }

    #[test]
    fn only_images_and_a_few_fields_of_a_pod_change() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x"}], "nodeName": "n"}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "y".into();
        let mut causes = Vec::new();
        validate_update(&old, &new, &mut causes);
        assert!(causes.is_empty());
        new["spec"]["nodeName"] = "m".into();
        validate_update(&old, &new, &mut causes);
        assert_eq!(causes.len(), 1);
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let pod = |ephemeral: Value| json!({"spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": ephemeral}});
        let said = |old: &Value, new: &Value| {
            let mut causes = Vec::new();
            validate_ephemeral(old, new, &mut causes);
            causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message.trim_end())).collect::<Vec<_>>()
        };
        let one = pod(json!([{"name": "d", "image": "x", "targetContainerName": "a"}]));
        assert_eq!(said(&pod(json!([])), &one), Vec::<String>::new());
        let bad =
            pod(json!([{"name": "a", "image": "x", "targetContainerName": "no", "ports": [{"containerPort": 1}]}]));
        assert_eq!(
            said(&pod(json!([])), &bad),
            [
                "spec.ephemeralContainers[0].name: Duplicate value: \"a\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"no\"",
            ]
        );
        let removed = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed";
        assert_eq!(said(&one, &pod(json!([]))), [removed]);
    }

    #[test]
    fn quality_of_service() {
        let pod = |resources: Value| json!({"containers": [{"name": "a", "resources": resources}]});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let limits = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&pod(json!({"limits": limits, "requests": limits}))), "Guaranteed");
    }
}
