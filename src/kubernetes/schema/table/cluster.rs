//! Cells of nodes, events, roles, quotas and the API's own configuration.

use super::age::Age;
use super::{Compute, Row, none_if_empty, plain};
use aksim_model::quantity;
use serde_json::Value;

/// Cells by name.
pub(super) fn compute(name: &str) -> Option<Compute> {
    Some(match name {
        "node_status" => node_status,
        "node_roles" => node_roles,
        "node_internal_ip" => |row| node_address(row, "InternalIP"),
        "node_external_ip" => |row| node_address(row, "ExternalIP"),
        "node_os_image" => |row| row.text_or("/status/nodeInfo/osImage", "<unknown>").into(),
        "node_kernel" => |row| row.text_or("/status/nodeInfo/kernelVersion", "<unknown>").into(),
        "node_runtime" => |row| row.text_or("/status/nodeInfo/containerRuntimeVersion", "<unknown>").into(),
        "event_first_seen" => |row| row.since(first_seen(row)).into(),
        "event_last_seen" => event_last_seen,
        "event_object" => event_object,
        "event_source" => event_source,
        "event_count" => event_count,
        "event_message" => |row| row.text_or("/message", row.text("/note")).trim().into(),
        "role_ref" => |row| format!("{}/{}", row.text("/roleRef/kind"), row.text("/roleRef/name")).into(),
        "subject_users" => |row| subjects(row, "User"),
        "subject_groups" => |row| subjects(row, "Group"),
        "subject_accounts" => |row| subjects(row, "ServiceAccount"),
        "quota_requests" => |row| quota(row, false),
        "quota_limits" => |row| quota(row, true),
        "csr_duration" => |row| match row.at("/spec/expirationSeconds").as_i64() {
            Some(seconds) => Age::of_seconds(seconds).to_string().into(),
            None => "<none>".into(),
        },
        "csr_condition" => csr_condition,
        "component_status" => |row| match component(row)["status"].as_str() {
            Some("True") => "Healthy".into(),
            Some("False") => "Unhealthy".into(),
            _ => "Unknown".into(),
        },
        "component_message" => |row| plain(&component(row)["message"]).into(),
        "component_error" => |row| plain(&component(row)["error"]).into(),
        "api_service" => |row| match row.text("/spec/service/name") {
            "" => "Local".into(),
            name => format!("{}/{name}", row.text("/spec/service/namespace")).into(),
        },
        "api_available" => api_available,
        "global_default" => |row| (*row.at("/globalDefault") == true).into(),
        "webhook_count" => |row| row.count("/webhooks").into(),
        "validation_count" => |row| row.count("/spec/validations").into(),
        "mutation_count" => |row| row.count("/spec/mutations").into(),
        "policy_param_kind" => |row| match row.text("/spec/paramKind/kind") {
            "" => "<unset>".into(),
            kind => format!("{}/{kind}", row.text("/spec/paramKind/apiVersion")).into(),
        },
        "policy_param_ref" => |row| match row.text("/spec/paramRef/name") {
            "" => "<unset>".into(),
            name => format!("{}/{name}", row.text_or("/spec/paramRef/namespace", "*")).into(),
        },
        "flow_distinguisher" => |row| none_if_empty(row.text("/spec/distinguisherMethod/type").into()).into(),
        "flow_missing_level" => |row| {
            let dangling = row.list("/status/conditions").iter().find(|c| c["type"] == "Dangling");
            dangling.map_or("?".into(), |condition| plain(&condition["status"])).into()
        },
        "level_shares" => |row| none_if_empty(plain(row.at("/spec/limited/nominalConcurrencyShares"))).into(),
        "level_queues" => |row| queuing(row, "queues"),
        "level_hand_size" => |row| queuing(row, "handSize"),
        "level_queue_length" => |row| queuing(row, "queueLengthLimit"),
        "metrics_cpu" => |row| usage(row, "cpu"),
        "metrics_memory" => |row| usage(row, "memory"),
        _ => return None,
    })
}

fn node_status(row: &Row<'_>) -> Value {
    let ready = row.list("/status/conditions").iter().find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|condition| &condition["status"]) {
        None => "Unknown",
        Some(status) if status == "True" => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if *row.at("/spec/unschedulable") == true {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn node_roles(row: &Row<'_>) -> Value {
    let labels = row.at("/metadata/labels").as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then(|| value.as_str()).flatten(),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    none_if_empty(roles.join(",")).into()
}

fn node_address(row: &Row<'_>, type_: &str) -> Value {
    let address = row.list("/status/addresses").iter().find(|address| address["type"] == type_);
    none_if_empty(address.map(|a| plain(&a["address"])).unwrap_or_default()).into()
}

fn first_seen<'a>(row: &Row<'a>) -> &'a str {
    let old = row.text_or("/firstTimestamp", row.text("/deprecatedFirstTimestamp"));
    if old.is_empty() { row.text("/eventTime") } else { old }
}

fn event_last_seen(row: &Row<'_>) -> Value {
    let last = row.text_or("/lastTimestamp", row.text("/deprecatedLastTimestamp"));
    let last = if last.is_empty() { first_seen(row) } else { last };
    row.since(row.text_or("/series/lastObservedTime", last)).into()
}

fn event_count(row: &Row<'_>) -> Value {
    let single = row.number("/count").max(row.number("/deprecatedCount")).max(1);
    row.at("/series/count").as_i64().unwrap_or(single).to_string().into()
}

fn event_object(row: &Row<'_>) -> Value {
    let object = match row.at("/involvedObject") {
        Value::Null => row.at("/regarding"),
        object => object,
    };
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    format!("{}/{}", text("kind").to_lowercase(), text("name")).into()
}

fn event_source(row: &Row<'_>) -> Value {
    let source = match row.at("/source") {
        Value::Null => row.at("/deprecatedSource"),
        source => source,
    };
    let text = |key: &str| source[key].as_str().unwrap_or_default();
    let reporter = row.text_or("/reportingComponent", row.text("/reportingController"));
    let component = if text("component").is_empty() { reporter } else { text("component") };
    let host = if text("host").is_empty() { row.text("/reportingInstance") } else { text("host") };
    if host.is_empty() { component.into() } else { format!("{component}, {host}").into() }
}

fn subjects(row: &Row<'_>, kind: &str) -> Value {
    let of_kind = row.list("/subjects").iter().filter(|subject| subject["kind"] == kind);
    let names: Vec<String> = of_kind
        .map(|subject| match subject["namespace"].as_str() {
            Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{}", plain(&subject["name"])),
            _ => plain(&subject["name"]),
        })
        .collect();
    names.join(", ").into()
}

/// `cpu: 1/2, pods: 3/10`: used of hard.
fn quota(row: &Row<'_>, limits: bool) -> Value {
    let hard = row.at("/status/hard").as_object();
    let used = row.at("/status/used");
    let texts: Vec<String> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits") == limits)
        .map(|(name, hard)| {
            let used = used.get(name).map_or_else(|| "0".into(), plain);
            format!("{name}: {used}/{}", plain(hard))
        })
        .collect();
    texts.join(", ").into()
}

fn csr_condition(row: &Row<'_>) -> Value {
    let has = |type_: &str| row.list("/status/conditions").iter().any(|c| c["type"] == type_);
    let mut states: Vec<&str> = ["Denied", "Approved"].into_iter().filter(|type_| has(type_)).take(1).collect();
    if states.is_empty() {
        states.push("Pending");
    }
    if has("Failed") {
        states.push("Failed");
    }
    if !row.text("/status/certificate").is_empty() {
        states.push("Issued");
    }
    states.join(",").into()
}

fn component<'a>(row: &Row<'a>) -> &'a Value {
    row.list("/conditions").iter().find(|c| c["type"] == "Healthy").unwrap_or(&Value::Null)
}

fn api_available(row: &Row<'_>) -> Value {
    let available = row.list("/status/conditions").iter().find(|c| c["type"] == "Available");
    match available {
        None => "Unknown".into(),
        Some(condition) if condition["status"] == "True" => "True".into(),
        Some(condition) => format!("{} ({})", plain(&condition["status"]), plain(&condition["reason"])).into(),
    }
}

fn queuing(row: &Row<'_>, field: &str) -> Value {
    none_if_empty(plain(row.at(&format!("/spec/limited/limitResponse/queuing/{field}")))).into()
}

/// Sum over a pod's containers.
fn usage(row: &Row<'_>, resource: &str) -> Value {
    let amounts = row.list("/containers").iter().filter_map(|c| c["usage"][resource].as_str());
    let total: i128 = amounts.filter_map(quantity::nanos).sum();
    let text = if resource == "cpu" { format!("{total}n") } else { format!("{}Ki", total / 1_000_000_000 / 1024) };
    quantity::canonical(&text).unwrap_or(text).into()
}
