//! Cells of pods: the one kind whose state is told by many fields at once.

use super::{Compute, Row, none_if_empty};
use serde_json::{Value, json};

/// Cells by name.
pub(super) fn compute(name: &str) -> Option<Compute> {
    Some(match name {
        "pod_ready" => |row| {
            let pod = Pod::of(row);
            format!("{}/{}", pod.ready, pod.containers).into()
        },
        "pod_status" => |row| Pod::of(row).reason.into(),
        "pod_restarts" => |row| {
            let pod = Pod::of(row);
            match pod.last_restart {
                Some(at) if pod.restarts != 0 => format!("{} ({} ago)", pod.restarts, row.since(at)).into(),
                _ => pod.restarts.to_string().into(),
            }
        },
        "pod_ip" => |row| none_if_empty(row.text_or("/status/podIPs/0/ip", row.text("/status/podIP")).into()).into(),
        "pod_node" => |row| none_if_empty(row.text("/spec/nodeName").into()).into(),
        "pod_nominated_node" => |row| none_if_empty(row.text("/status/nominatedNodeName").into()).into(),
        "pod_readiness_gates" => readiness_gates,
        _ => return None,
    })
}

fn readiness_gates(row: &Row<'_>) -> Value {
    let gates = row.list("/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let passed = gates.iter().filter(|g| g["conditionType"].as_str().is_some_and(|t| row.condition(t))).count();
    format!("{passed}/{}", gates.len()).into()
}

/// Row conditions by which `kubectl get` knows finished pods.
pub(super) fn row_conditions(object: &Value) -> Option<Value> {
    if object.get("kind").is_none_or(|kind| kind != "Pod") {
        return None;
    }
    let (reason, message) = match object.pointer("/status/phase").and_then(Value::as_str)? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{ "type": "Completed", "status": "True", "reason": reason, "message": message }]))
}

/// What the columns say of a pod.
struct Pod<'a> {
    containers: usize,
    ready: usize,
    restarts: i64,
    last_restart: Option<&'a str>,
    reason: String,
}

impl<'a> Pod<'a> {
    fn of(row: &Row<'a>) -> Self {
        let sidecars = row.list("/spec/initContainers").iter().filter(|c| is_sidecar(c)).count();
        let mut pod = Self {
            containers: row.list("/spec/containers").len() + sidecars,
            ready: 0,
            restarts: 0,
            last_restart: None,
            reason: row.text_or("/status/reason", row.text("/status/phase")).to_owned(),
        };
        let gated = |c: &&Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
        if row.list("/status/conditions").iter().any(|c| gated(&c)) {
            pod.reason = "SchedulingGated".into();
        }
        let initializing = pod.initialize(row);
        if !initializing || row.condition("Initialized") {
            pod.run(row);
        }
        let finished = matches!(row.text("/status/phase"), "Succeeded" | "Failed");
        if !row.at("/metadata/deletionTimestamp").is_null() {
            if row.text("/status/reason") == "NodeLost" {
                pod.reason = "Unknown".into();
            } else if !finished {
                pod.reason = "Terminating".into();
            }
        }
        pod
    }

    /// Looks at init containers up to the first unfinished one; whether there is one.
    fn initialize(&mut self, row: &Row<'a>) -> bool {
        let declared = row.list("/spec/initContainers");
        for (index, status) in row.list("/status/initContainerStatuses").iter().enumerate() {
            self.count_restarts(status);
            let sidecar = declared.iter().any(|c| c["name"] == status["name"] && is_sidecar(c));
            let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
            if terminated["exitCode"] == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            self.reason = match (text(&waiting["reason"]), terminated.is_null()) {
                (_, false) => format!("Init:{}", termination(terminated)),
                ("" | "PodInitializing", true) => format!("Init:{index}/{}", declared.len()),
                (reason, true) => format!("Init:{reason}"),
            };
            return true;
        }
        false
    }

    /// Looks at the containers, the first one's state last so that it wins.
    fn run(&mut self, row: &Row<'a>) {
        (self.restarts, self.last_restart) = (0, None);
        let declared = row.list("/spec/initContainers");
        for status in row.list("/status/initContainerStatuses") {
            if declared.iter().any(|c| c["name"] == status["name"] && is_sidecar(c)) {
                self.count_restarts(status);
            }
        }
        let mut running = false;
        for status in row.list("/status/containerStatuses").iter().rev() {
            self.count_restarts(status);
            let state = &status["state"];
            let waiting = text(&state["waiting"]["reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if !state["terminated"].is_null() {
                self.reason = termination(&state["terminated"]);
            } else if status["ready"] == true && !state["running"].is_null() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if row.condition("Ready") { "Running" } else { "NotReady" }.into();
        }
    }

    fn count_restarts(&mut self, status: &'a Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or_default();
        let finished = status["lastState"]["terminated"]["finishedAt"].as_str();
        // RFC 3339 in UTC sorts as text.
        self.last_restart = self.last_restart.max(finished);
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `Error`, `Signal:9` or `ExitCode:1`.
fn termination(terminated: &Value) -> String {
    match (text(&terminated["reason"]), terminated["signal"].as_i64().unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", terminated["exitCode"]),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
