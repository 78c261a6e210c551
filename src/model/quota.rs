//! What an object counts for in quotas, and which quotas count it. Pure; the admission plug-in and
//! the controller that writes `status.used` both count by it.

use crate::{
    quantity::Amount,
    resources::{self, Amounts, add},
};
use jiff::Timestamp;
use serde_json::Value;
use std::{collections::HashMap, hash::Hash};

/// Suffix of resources that count one storage class: `NAME.storageclass.storage.k8s.io/…`.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Values of a scope without any.
static NONE: Value = Value::Null;
/// Kinds that are counted by their plain names too.
const PLAIN: &[&str] =
    &["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];

/// The table whose objects a quota's resource counts (`requests.cpu`: `pods`); `None` when nothing
/// is known to count for it.
pub fn counted_table(resource: &str) -> Option<&str> {
    if let Some(table) = resource.strip_prefix("count/") {
        return Some(table);
    }
    if resource == "requests.storage" || resource.contains(OF_CLASS) {
        return Some("persistentvolumeclaims");
    }
    if resource.starts_with("services.") {
        return Some("services");
    }
    if PLAIN.contains(&resource) {
        return Some(resource);
    }
    let of_pods = ["pods", "cpu", "memory", "ephemeral-storage"].contains(&resource)
        || ["requests.", "limits.", "hugepages-"].iter().any(|start| resource.starts_with(start));
    of_pods.then_some("pods")
}

/// `spec.hard` of a quota.
pub fn hard(quota: &Value) -> Amounts {
    let amounts = quota["spec"]["hard"].as_object().into_iter().flatten();
    amounts.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?))).collect()
}

/// Adds up what objects count for in a quota; an object that is met again counts once, with the
/// larger of its amounts: it is in the store and in the ledger for a moment.
pub fn used<K: Eq + Hash>(
    quota: &Value,
    table: &str,
    objects: impl Iterator<Item = (K, Value)>,
    now: Timestamp,
) -> Amounts {
    let mut by_key: HashMap<K, Amounts> = HashMap::new();
    for (key, object) in objects.filter(|(_, object)| in_scope(&quota["spec"], table, object)) {
        resources::raise(by_key.entry(key).or_default(), &of(table, &object, now));
    }
    let mut total = Amounts::new();
    by_key.values().for_each(|amounts| add(&mut total, amounts));
    total
}

/// What an object counts for, by the names that quotas use.
pub fn of(table: &str, object: &Value, now: Timestamp) -> Amounts {
    let mut amounts = match table {
        "pods" => of_pod(object, now),
        "services" => of_service(object),
        "persistentvolumeclaims" => of_claim(object),
        _ => Amounts::new(),
    };
    amounts.insert(format!("count/{table}"), Amount::whole(1));
    if PLAIN.contains(&table) {
        amounts.insert(table.to_owned(), Amount::whole(1));
    }
    amounts
}

/// A pod that has ended, or should have long ago, holds nothing.
fn of_pod(pod: &Value, now: Timestamp) -> Amounts {
    let mut amounts = Amounts::new();
    let metadata = &pod["metadata"];
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    // The time includes the grace period.
    let ends = metadata["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    if ended || ends.is_some_and(|ends| ends < now) {
        return amounts;
    }
    amounts.insert("pods".into(), Amount::whole(1));
    for (name, amount) in resources::of_pod(&pod["spec"], "requests") {
        amounts.insert(format!("requests.{name}"), amount);
        if ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || name.starts_with("hugepages-") {
            amounts.insert(name, amount);
        }
    }
    for (name, amount) in resources::of_pod(&pod["spec"], "limits") {
        amounts.insert(format!("limits.{name}"), amount);
    }
    amounts
}

fn of_service(service: &Value) -> Amounts {
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let type_ = service["spec"]["type"].as_str().unwrap_or_default();
    let balanced = type_ == "LoadBalancer";
    let node_ports = if balanced && service["spec"]["allocateLoadBalancerNodePorts"] == false {
        ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count()
    } else if balanced || type_ == "NodePort" {
        ports.len()
    } else {
        0
    };
    Amounts::from([
        ("services.nodeports".to_owned(), Amount::whole(i64::try_from(node_ports).unwrap_or(i64::MAX))),
        ("services.loadbalancers".to_owned(), Amount::whole(i64::from(balanced))),
    ])
}

fn of_claim(claim: &Value) -> Amounts {
    let size = Amount::of(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Amount::ZERO);
    // While it grows, what is given already counts, should the wish be taken back.
    let given = Amount::of(&claim["status"]["allocatedResources"]["storage"]).unwrap_or(Amount::ZERO);
    let size = size.max(given);
    let mut amounts = Amounts::from([("requests.storage".to_owned(), size)]);
    if let Some(class) = claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty()) {
        amounts.insert(format!("{class}{OF_CLASS}requests.storage"), size);
        amounts.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), Amount::whole(1));
    }
    amounts
}

/// Whether the scopes of a quota's `spec` take the object in.
pub fn in_scope(spec: &Value, table: &str, object: &Value) -> bool {
    let plain = spec["scopes"].as_array().into_iter().flatten().map(|name| (name, "Exists", &NONE));
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let selected = selected.map(|expression| {
        let operator = expression["operator"].as_str().unwrap_or("Exists");
        (&expression["scopeName"], operator, &expression["values"])
    });
    plain.chain(selected).all(|(name, operator, values)| {
        table == "pods" && matches_scope(name.as_str().unwrap_or_default(), operator, values, object)
    })
}

fn matches_scope(scope: &str, operator: &str, values: &Value, pod: &Value) -> bool {
    let spec = &pod["spec"];
    let bounded = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let best_effort = pod["status"]["qosClass"] == "BestEffort";
    match scope {
        "Terminating" => bounded,
        "NotTerminating" => !bounded,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "CrossNamespacePodAffinity" => crosses_namespaces(&spec["affinity"]),
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().filter(|class| !class.is_empty());
            let named = class.is_some_and(|class| values.as_array().is_some_and(|v| v.iter().any(|v| v == class)));
            match operator {
                "In" => named,
                "NotIn" => !named,
                "DoesNotExist" => class.is_none(),
                _ => class.is_some(),
            }
        }
        _ => false,
    }
}

/// Whether a term of the affinity names other namespaces.
fn crosses_namespaces(affinity: &Value) -> bool {
    let kinds = ["podAffinity", "podAntiAffinity"].iter().map(|kind| &affinity[*kind]);
    let terms = kinds.flat_map(|kind| {
        let required = kind["requiredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        let preferred = kind["preferredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        required.chain(preferred.map(|preferred| &preferred["podAffinityTerm"]))
    });
    let mut terms = terms;
    terms.any(|term| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty()) || term["namespaceSelector"].is_object()
    })
}

/// Resources that containers must name when a quota bounds them.
const MUST_BE_NAMED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// What containers leave out that a quota with these resources needs; `None` when nothing.
pub fn unnamed(spec: &Value, hard: &Amounts) -> Option<String> {
    let lists = ["containers", "initContainers"].iter();
    let containers: Vec<&Value> = lists.flat_map(|list| spec[*list].as_array().into_iter().flatten()).collect();
    let mut missing = Vec::new();
    for resource in hard.keys().filter(|name| MUST_BE_NAMED.contains(&name.as_str())) {
        let (kind, name) = match resource.split_once('.') {
            Some((kind, name)) => (kind, name),
            None => ("requests", resource.as_str()),
        };
        let without = containers.iter().filter(|container| container["resources"][kind][name].is_null());
        let mut names: Vec<&str> = without.filter_map(|container| container["name"].as_str()).collect();
        names.sort_unstable();
        if !names.is_empty() {
            missing.push(format!("{resource} for: {}", names.join(",")));
        }
    }
    (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(amounts: &Amounts) -> Vec<String> {
        amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn pods_count_until_they_end() {
        let now = Timestamp::now();
        let mut pod = json!({"spec": {"containers": [{"name": "a",
            "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}}]}});
        let wanted = ["count/pods=1", "cpu=100m", "limits.memory=1Gi", "pods=1", "requests.cpu=100m"];
        assert_eq!(shown(&of("pods", &pod, now)), wanted);
        pod["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
        assert_eq!(shown(&of("pods", &pod, now)), ["count/pods=1"]);
        pod["metadata"] = json!({});
        pod["status"]["phase"] = "Failed".into();
        assert_eq!(shown(&of("pods", &pod, now)), ["count/pods=1"]);
    }

    #[test]
    fn services_and_claims_count_by_kind() {
        let now = Timestamp::now();
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        let wanted = ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"];
        assert_eq!(shown(&of("services", &service, now)), wanted);
        let claim = json!({"spec": {"storageClassName": "managed", "resources": {"requests": {"storage": "5Gi"}}}});
        let amounts = of("persistentvolumeclaims", &claim, now);
        assert_eq!(amounts["managed.storageclass.storage.k8s.io/requests.storage"].to_string(), "5Gi");
        assert_eq!(amounts["requests.storage"].to_string(), "5Gi");
        assert!(amounts.keys().all(|name| counted_table(name) == Some("persistentvolumeclaims")));
        assert_eq!(counted_table("count/deployments.apps"), Some("deployments.apps"));
        assert_eq!(counted_table("requests.nvidia.com/gpu"), Some("pods"));
        assert_eq!(counted_table("nonsense"), None);
    }

    #[test]
    fn scopes_pick_pods() {
        let pod = json!({"spec": {"priorityClassName": "high", "activeDeadlineSeconds": 5}, "status": {"qosClass": "BestEffort"}});
        let scopes = |names: &[&str]| in_scope(&json!({"scopes": names}), "pods", &pod);
        assert!(scopes(&["Terminating", "BestEffort", "PriorityClass"]) && scopes(&[]));
        assert!(!scopes(&["NotTerminating"]) && !scopes(&["Terminating", "NotBestEffort"]));
        let select = |operator: &str, values: &[&str]| {
            let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            in_scope(&json!({"scopeSelector": {"matchExpressions": [expression]}}), "pods", &pod)
        };
        assert!(select("In", &["high"]) && select("Exists", &[]) && select("NotIn", &["low"]));
        assert!(!select("In", &["low"]) && !select("DoesNotExist", &[]) && !select("NotIn", &["high"]));
        assert!(!in_scope(&json!({"scopes": ["BestEffort"]}), "secrets", &json!({})));
    }

    #[test]
    fn what_is_bounded_must_be_named() {
        let hard = ["limits.cpu", "cpu", "pods"].map(|name| (name.to_owned(), Amount::whole(1))).into();
        let spec = json!({"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]});
        assert_eq!(unnamed(&spec, &hard).unwrap(), "must specify cpu for: b; limits.cpu for: a,b");
        let spec =
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}]});
        assert_eq!(unnamed(&spec, &hard), None);
    }
}
