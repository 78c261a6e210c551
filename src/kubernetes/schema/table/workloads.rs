//! Cells of workloads: deployments, replica sets, jobs, autoscalers, budgets.

use super::age::Age;
use super::{Compute, Row, labels, none_if_empty, plain};
use jiff::Timestamp;
use serde_json::Value;

/// Cells by name.
pub(super) fn compute(name: &str) -> Option<Compute> {
    Some(match name {
        "containers" => |row| each_container(row, "name"),
        "images" => |row| each_container(row, "image"),
        "selector" => selector,
        "template_labels" => |row| labels(row.at("/template/metadata/labels")).into(),
        "desired_replicas" => |row| row.number("/spec/replicas").into(),
        "current_replicas" => |row| row.number("/status/replicas").into(),
        "ready_replicas" => |row| row.number("/status/readyReplicas").into(),
        "updated_replicas" => |row| row.number("/status/updatedReplicas").to_string().into(),
        "available_replicas" => |row| row.number("/status/availableReplicas").to_string().into(),
        "ready_of_desired" => {
            |row| format!("{}/{}", row.number("/status/readyReplicas"), row.number("/spec/replicas")).into()
        }
        "daemon_desired" => |row| row.number("/status/desiredNumberScheduled").into(),
        "daemon_current" => |row| row.number("/status/currentNumberScheduled").into(),
        "daemon_ready" => |row| row.number("/status/numberReady").into(),
        "daemon_updated" => |row| row.number("/status/updatedNumberScheduled").into(),
        "daemon_available" => |row| row.number("/status/numberAvailable").into(),
        "daemon_node_selector" => |row| labels(row.at("/spec/template/spec/nodeSelector")).into(),
        "job_status" => job_status,
        "job_completions" => job_completions,
        "job_duration" => job_duration,
        "cron_timezone" => |row| none_if_empty(row.text("/spec/timeZone").into()).into(),
        "cron_suspend" => |row| if *row.at("/spec/suspend") == true { "True" } else { "False" }.into(),
        "cron_active" => |row| row.count("/status/active").to_string().into(),
        "cron_last_schedule" => |row| match row.text("/status/lastScheduleTime") {
            "" => "<none>".into(),
            time => row.since(time).into(),
        },
        "hpa_reference" => {
            |row| format!("{}/{}", row.text("/spec/scaleTargetRef/kind"), row.text("/spec/scaleTargetRef/name")).into()
        }
        "hpa_targets" => hpa_targets,
        "hpa_min" => |row| match row.at("/spec/minReplicas") {
            Value::Null => "<unset>".into(),
            number => plain(number).into(),
        },
        "hpa_replicas" => |row| row.number("/status/currentReplicas").to_string().into(),
        "budget_min" => |row| not_available(row.at("/spec/minAvailable")),
        "budget_max" => |row| not_available(row.at("/spec/maxUnavailable")),
        "budget_allowed" => |row| row.number("/status/disruptionsAllowed").into(),
        "revision_controller" => revision_controller,
        _ => return None,
    })
}

fn not_available(value: &Value) -> Value {
    if value.is_null() { "N/A".into() } else { plain(value).into() }
}

/// The pod template's containers: `spec.template`, a PodTemplate's `template`, or a CronJob's.
fn each_container(row: &Row<'_>, field: &str) -> Value {
    let places = [
        "/spec/template/spec/containers",
        "/template/spec/containers",
        "/spec/jobTemplate/spec/template/spec/containers",
    ];
    let containers = places.iter().map(|place| row.list(place)).find(|list| !list.is_empty()).unwrap_or_default();
    containers.iter().map(|c| c[field].as_str().unwrap_or_default()).collect::<Vec<_>>().join(",").into()
}

/// A label selector, or the plain map of services and replication controllers.
fn selector(row: &Row<'_>) -> Value {
    let selector = match row.at("/spec/selector") {
        Value::Null => row.at("/spec/jobTemplate/spec/selector"),
        selector => selector,
    };
    let structured =
        selector.get("matchLabels").is_some_and(Value::is_object) || selector.get("matchExpressions").is_some();
    if !structured {
        return labels(selector).into();
    }
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    parts.extend(selector["matchExpressions"].as_array().into_iter().flatten().map(expression));
    none_if_empty(parts.join(",")).into()
}

fn expression(expression: &Value) -> String {
    let key = expression["key"].as_str().unwrap_or_default();
    let values: Vec<String> = expression["values"].as_array().into_iter().flatten().map(plain).collect();
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => format!("{key} in ({})", values.join(",")),
        "NotIn" => format!("{key} notin ({})", values.join(",")),
        "DoesNotExist" => format!("!{key}"),
        _ => key.to_owned(),
    }
}

fn job_status(row: &Row<'_>) -> Value {
    let by_condition = |condition: &&(&str, &str)| row.condition(condition.0);
    let finished = [("Complete", "Complete"), ("Failed", "Failed")];
    let other =
        [("Suspended", "Suspended"), ("FailureTarget", "FailureTarget"), ("SuccessCriteriaMet", "SuccessCriteriaMet")];
    if let Some((_, text)) = finished.iter().find(by_condition) {
        return (*text).into();
    }
    if !row.at("/metadata/deletionTimestamp").is_null() {
        return "Terminating".into();
    }
    other.iter().find(by_condition).map_or("Running", |(_, text)| text).into()
}

fn job_completions(row: &Row<'_>) -> Value {
    let succeeded = row.number("/status/succeeded");
    match (row.at("/spec/completions").as_i64(), row.number("/spec/parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}").into(),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}").into(),
        (None, _) => format!("{succeeded}/1").into(),
    }
}

fn job_duration(row: &Row<'_>) -> Value {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    let Some(start) = time(row.text("/status/startTime")) else { return "".into() };
    let failed = row.list("/status/conditions").iter().find(|c| c["type"] == "Failed" && c["status"] == "True");
    let failed = failed.and_then(|c| c["lastTransitionTime"].as_str());
    let end = time(row.text("/status/completionTime")).or_else(|| time(failed?)).unwrap_or(row.now);
    Age::of_seconds(end.as_second() - start.as_second()).to_string().into()
}

/// `cpu: 12%/80%, memory: 10Mi/20Mi`; at most two, then `+ N more...`.
fn hpa_targets(row: &Row<'_>) -> Value {
    let metrics = row.list("/spec/metrics");
    if metrics.is_empty() {
        let percent = |value: &Value, otherwise: &str| value.as_i64().map_or(otherwise.to_owned(), |n| format!("{n}%"));
        let current = percent(row.at("/status/currentCPUUtilizationPercentage"), "<unknown>");
        let target = row.at("/spec/targetCPUUtilizationPercentage");
        return if target.is_null() {
            "<none>".into()
        } else {
            format!("cpu: {current}/{}", percent(target, "<auto>")).into()
        };
    }
    let current = row.list("/status/currentMetrics");
    let texts: Vec<String> =
        metrics.iter().enumerate().map(|(index, metric)| hpa_metric(metric, current.get(index))).collect();
    match texts.len() {
        0..=2 => texts.join(", ").into(),
        more => format!("{} + {} more...", texts[..2].join(", "), more - 2).into(),
    }
}

fn hpa_metric(metric: &Value, current: Option<&Value>) -> String {
    // The source stands under its type's name in lower camel case.
    let type_ = metric["type"].as_str().unwrap_or_default();
    let mut letters = type_.chars();
    let key = letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect());
    let (source, current) = (&metric[&key], current.map_or(&Value::Null, |c| &c[&key]["current"]));
    let target = &source["target"];
    let unknown = |value: &Value| if value.is_null() { "<unknown>".to_owned() } else { plain(value) };
    let named = matches!(type_, "Resource" | "ContainerResource");
    let text = if !target["averageValue"].is_null() {
        let suffix = if type_ == "Object" || type_ == "External" { " (avg)" } else { "" };
        format!("{}/{}{suffix}", unknown(&current["averageValue"]), plain(&target["averageValue"]))
    } else if named {
        let percent = |value: &Value, otherwise: &str| value.as_i64().map_or(otherwise.to_owned(), |n| format!("{n}%"));
        format!(
            "{}/{}",
            percent(&current["averageUtilization"], "<unknown>"),
            percent(&target["averageUtilization"], "<auto>")
        )
    } else {
        format!("{}/{}", unknown(&current["value"]), plain(&target["value"]))
    };
    if named { format!("{}: {text}", source["name"].as_str().unwrap_or_default()) } else { text }
}

/// `daemonset.apps/web`.
fn revision_controller(row: &Row<'_>) -> Value {
    let owner = row.list("/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    let Some(owner) = owner else { return "<none>".into() };
    let text = |key: &str| owner[key].as_str().unwrap_or_default();
    let kind = text("kind").to_lowercase();
    match text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text("name")).into(),
        None => format!("{kind}/{}", text("name")).into(),
    }
}
