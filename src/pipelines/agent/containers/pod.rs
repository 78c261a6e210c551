//! A container of a pipeline as a pod.

use super::{CONTAINER_LABEL, MANAGED_BY, needs::ContainerName};
use crate::{agent::command_line::words, plan::Container};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What keeps a container alive between steps, as the agent's own program does in Azure. The image needs a shell.
const KEEP: &str = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done";
/// Seconds for a container to end.
const GRACE: i64 = 2;

/// Folders of this machine that are mounted.
pub(super) struct Mounts<'a> {
    /// Folder of the agent, at its own path.
    pub agent_home: &'a Path,
}

/// The pod of a container; what of it is not used here is told to `ignored`.
///
/// # Errors
/// Volumes, options and names that cannot be read.
pub(super) fn pod(
    name: &ContainerName,
    container: &Container,
    mounts: &Mounts<'_>,
    ignored: &mut dyn FnMut(&str),
) -> Result<Pod, String> {
    let wrong = |what: String| format!("container {name}: {what}");
    let mut spec = Map::new();
    let own = json!({ "name": "container", "image": container.image, "imagePullPolicy": "Always" });
    let Value::Object(mut own) = own else { return Err(wrong("it has no form".into())) };
    let mut env: Vec<Value> = container.env.iter().map(|(k, v)| json!({ "name": k, "value": v })).collect();
    if let Some(options) = &container.options {
        let words = words(options).map_err(|e| wrong(format!("options: {e}")))?;
        for left in self::options(&words, &mut spec, &mut own, &mut env).map_err(wrong)? {
            ignored(&format!("container {name}: option {left} of docker is not used"));
        }
    }
    let mut volumes = Vec::new();
    let mut places = Vec::new();
    if !matches!(name, ContainerName::Service(_)) {
        // Steps run as the agent does: what they write is the agent's.
        own.insert("command".into(), json!(["/bin/sh", "-c", KEEP]));
        own.entry("securityContext").or_insert_with(|| json!({}))["runAsUser"] = json!(0);
        volumes.push(json!({ "name": "agent", "hostPath": { "path": mounts.agent_home, "type": "Directory" } }));
        places.push(json!({ "name": "agent", "mountPath": mounts.agent_home }));
    }
    for (number, text) in container.volumes.iter().enumerate() {
        let volume = Volume::parse(text).map_err(wrong)?;
        let id = format!("volume-{number}");
        volumes.push(match volume.source {
            // As Docker does, a folder that is not there is made.
            Some(path) if path.starts_with('/') => {
                json!({ "name": id, "hostPath": { "path": path, "type": "DirectoryOrCreate" } })
            }
            Some(named) => {
                let path = mounts.agent_home.join("_volumes").join(named);
                json!({ "name": id, "hostPath": { "path": path, "type": "DirectoryOrCreate" } })
            }
            None => json!({ "name": id, "emptyDir": {} }),
        });
        places.push(json!({ "name": id, "mountPath": volume.target, "readOnly": volume.readonly }));
    }
    if container.map_docker_socket == Some(true) {
        ignored(&format!("container {name}: there is no socket of Docker to map"));
    }
    own.insert("env".into(), env.into());
    own.insert("volumeMounts".into(), places.into());
    spec.insert("containers".into(), json!([own]));
    spec.insert("volumes".into(), volumes.into());
    spec.insert("restartPolicy".into(), "Never".into());
    spec.insert("automountServiceAccountToken".into(), false.into());
    spec.insert("enableServiceLinks".into(), false.into());
    spec.insert("terminationGracePeriodSeconds".into(), GRACE.into());
    let pod = json!({
        "metadata": { "name": name.pod_name(),
                      "labels": { MANAGED_BY.0: MANAGED_BY.1, CONTAINER_LABEL: name.host_name() } },
        "spec": spec,
    });
    serde_json::from_value(pod).map_err(|e| wrong(e.to_string()))
}

/// `HOST:CONTAINER[:ro]`, `NAME:CONTAINER[:ro]` or `CONTAINER`.
#[derive(Debug, PartialEq)]
struct Volume<'a> {
    source: Option<&'a str>,
    target: &'a str,
    readonly: bool,
}

impl<'a> Volume<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let parts: Vec<&str> = text.trim().split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [target] => (None, *target, ""),
            [source, target] => (Some(*source), *target, ""),
            [source, target, mode] => (Some(*source), *target, *mode),
            _ => return Err(format!("volume '{text}' is not HOST:CONTAINER[:ro]")),
        };
        let name = |s: &str| !s.starts_with('/') && (s.is_empty() || s.starts_with('.') || s.contains('/'));
        if !target.starts_with('/') || source.is_some_and(name) || !matches!(mode, "" | "ro" | "rw") {
            return Err(format!("volume '{text}' is not HOST:CONTAINER[:ro] with absolute paths, or a volume's name"));
        }
        Ok(Self { source, target, readonly: mode == "ro" })
    }
}

/// Puts the options of `docker create` that a pod has into it; those it has not are returned.
fn options(
    words: &[String],
    spec: &mut Map<String, Value>,
    own: &mut Map<String, Value>,
    env: &mut Vec<Value>,
) -> Result<Vec<String>, String> {
    let mut left = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        if option == "--privileged" {
            own.entry("securityContext").or_insert_with(|| json!({}))["privileged"] = json!(true);
            continue;
        }
        if !matches!(option, "--cpus" | "--memory" | "-m" | "--hostname" | "-h" | "--env" | "-e" | "--entrypoint") {
            left.push(option.to_owned());
            // The value of an option that is not known goes with it.
            if inline.is_none() && words.peek().is_some_and(|w| !w.starts_with('-')) {
                words.next();
            }
            continue;
        }
        let value = inline.or_else(|| words.next().cloned()).ok_or_else(|| format!("option {option} needs a value"))?;
        let mut limit = |resource: &str, value: String| {
            own.entry("resources").or_insert_with(|| json!({ "limits": {} }))["limits"][resource] = value.into();
        };
        match option {
            "--cpus" => limit("cpu", value),
            "--memory" | "-m" => limit("memory", quantity(&value)?),
            "--hostname" | "-h" => {
                spec.insert("hostname".into(), value.into());
            }
            "--entrypoint" => {
                own.insert("command".into(), json!([value]));
            }
            _ => {
                let (name, value) = value.split_once('=').unwrap_or((&value, ""));
                env.push(json!({ "name": name, "value": value }));
            }
        }
    }
    Ok(left)
}

/// Docker's `512m` as Kubernetes writes it: `512Mi`.
fn quantity(text: &str) -> Result<String, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => "",
        "k" | "kb" => "Ki",
        "m" | "mb" => "Mi",
        "g" | "gb" => "Gi",
        _ => return Err(format!("'{text}' is no size of memory")),
    };
    match number.parse::<u64>() {
        Ok(_) => Ok(format!("{number}{unit}")),
        Err(_) => Err(format!("'{text}' is no size of memory")),
    }
}

/// How a pod stands.
#[derive(Debug, PartialEq)]
pub(super) enum State {
    Starting,
    Running,
    Failed(String),
}

/// Reasons that do not go away by waiting.
const HOPELESS: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
];

pub(super) fn state(pod: &Pod) -> State {
    let Some(status) = &pod.status else { return State::Starting };
    let container = status.container_statuses.as_ref().and_then(|all| all.first());
    let Some(state) = container.and_then(|c| c.state.as_ref()) else {
        let unscheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        return match unscheduled {
            Some(condition) if condition.reason.as_deref() == Some("Unschedulable") => {
                State::Failed(condition.message.clone().unwrap_or_default())
            }
            _ => State::Starting,
        };
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        return match HOPELESS.contains(&reason.as_str()) {
            true => State::Failed(format!("{reason}: {}", waiting.message.clone().unwrap_or_default())),
            false => State::Starting,
        };
    }
    if let Some(ended) = &state.terminated {
        let reason = ended.reason.clone().unwrap_or_default();
        return State::Failed(format!("it ended at once with exit code {} ({reason})", ended.exit_code));
    }
    let addressed = status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty());
    if state.running.is_some() && addressed { State::Running } else { State::Starting }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &ContainerName, container: &Container) -> Result<(Value, Vec<String>), String> {
        let mut ignored = Vec::new();
        let mounts = Mounts { agent_home: Path::new("/agents/1") };
        let pod = pod(name, container, &mounts, &mut |text| ignored.push(text.to_owned()))?;
        Ok((serde_json::to_value(pod).unwrap(), ignored))
    }

    #[test]
    fn a_job_container_has_the_agents_folder_and_stays() {
        let container = Container {
            image: "shopacr.azurecr.io/builder:1".into(),
            options: Some("--cpus 2 -m 512m --init -e 'A=b c' --network none --privileged".into()),
            volumes: vec!["cargo:/cargo".into(), "/srv:/srv:ro".into(), "/cache".into()],
            ..Container::default()
        };
        let (pod, ignored) = made(&ContainerName::Job, &container).unwrap();
        let own = &pod["spec"]["containers"][0];
        assert_eq!(own["command"][0], "/bin/sh");
        assert_eq!(own["securityContext"], json!({"runAsUser": 0, "privileged": true}));
        assert_eq!(own["resources"]["limits"], json!({"cpu": "2", "memory": "512Mi"}));
        assert_eq!(own["env"], json!([{"name": "A", "value": "b c"}]));
        let places = own["volumeMounts"].as_array().unwrap();
        let paths: Vec<&str> = places.iter().map(|m| m["mountPath"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/agents/1", "/cargo", "/srv", "/cache"]);
        assert_eq!(pod["spec"]["volumes"][1]["hostPath"]["path"], "/agents/1/_volumes/cargo");
        assert_eq!(ignored.len(), 2, "--init and --network: {ignored:?}");
    }

    #[test]
    fn a_service_runs_its_own_program_and_nothing_of_the_agent() {
        let container = Container { image: "redis:7".into(), ..Container::default() };
        let (pod, _) = made(&ContainerName::Service("redis".into()), &container).unwrap();
        assert!(pod["spec"]["containers"][0].get("command").is_none());
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], json!([]));
    }

    #[test]
    fn volumes_and_options_that_mean_nothing_are_refused() {
        let with = |volume: &str, options: &str| {
            let volumes = if volume.is_empty() { vec![] } else { vec![volume.to_owned()] };
            let options = Some(options.to_owned());
            made(&ContainerName::Job, &Container { image: "a".into(), volumes, options, ..Container::default() })
        };
        for volume in ["a:b", "../up:/x", "a/b:/x", "/a:/b:zz", "a:b:c:d", ":/x"] {
            assert!(with(volume, "").is_err(), "{volume}");
        }
        for options in ["-m", "-m lots", "--memory 1x", "'open"] {
            assert!(with("", options).is_err(), "{options}");
        }
    }

    #[test]
    fn states_of_pods() {
        let of = |status: Value| state(&serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap());
        let container = |state: Value| {
            json!({"podIP": "10.244.0.9", "containerStatuses": [
                {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
        };
        assert_eq!(of(json!({})), State::Starting);
        assert_eq!(of(container(json!({"running": {}}))), State::Running);
        assert_eq!(of(container(json!({"waiting": {"reason": "ContainerCreating"}}))), State::Starting);
        assert!(matches!(of(container(json!({"waiting": {"reason": "ErrImagePull"}}))), State::Failed(_)));
        assert!(
            matches!(of(container(json!({"terminated": {"exitCode": 3}}))), State::Failed(t) if t.contains("code 3"))
        );
    }
}
