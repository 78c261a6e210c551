//! What is written into the pod templates of manifests before they are applied.

use aksim_model::ids::ServiceName;
use serde_json::{Map, Value, json};

/// Label on pods and workloads with the name of the service they belong to.
pub const SERVICE_LABEL: &str = "aksim.dev/service";

/// Where the kinds of workloads keep the templates of their pods.
const TEMPLATES: [&str; 2] = ["/spec/template", "/spec/jobTemplate/spec/template"];

/// Labels an object, and the pods that it makes, with the service they belong to.
pub fn mark(object: &mut Value, service: &ServiceName) {
    for template in [""].into_iter().chain(TEMPLATES) {
        let Some(owner) = object.pointer_mut(template).and_then(Value::as_object_mut) else { continue };
        let Some(labels) = child(owner, "metadata").and_then(|metadata| child(metadata, "labels")) else { continue };
        labels.insert(SERVICE_LABEL.into(), service.as_str().into());
    }
}

/// A map in a map, made where there is none.
fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = map.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// Adds pull secrets to every pod, besides those that it names.
pub fn add_pull_secrets(object: &mut Value, secrets: &[String]) {
    if secrets.is_empty() {
        return;
    }
    let own = (object["kind"] == "Pod").then_some("");
    for template in own.into_iter().chain(TEMPLATES) {
        let pointer = format!("{template}/spec");
        let Some(spec) = object.pointer_mut(&pointer).and_then(Value::as_object_mut) else { continue };
        let list = spec.entry("imagePullSecrets").or_insert_with(|| json!([]));
        let Some(list) = list.as_array_mut() else { continue };
        for secret in secrets {
            if !list.iter().any(|s| s["name"] == secret.as_str()) {
                list.push(json!({"name": secret}));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_marked_with_their_service() {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {}}}});
        mark(&mut object, &ServiceName::from("web"));
        assert_eq!(object["spec"]["template"]["metadata"]["labels"][SERVICE_LABEL], "web");
        let mut config = json!({"metadata": {"name": "c"}, "data": {}});
        mark(&mut config, &ServiceName::from("web"));
        assert_eq!(config["metadata"]["labels"][SERVICE_LABEL], "web");
        assert!(config.get("spec").is_none());
    }

    #[test]
    fn pull_secrets_reach_the_pods_once() {
        let mut object =
            json!({"kind": "Deployment", "spec": {"template": {"spec": {"imagePullSecrets": [{"name": "a"}]}}}});
        add_pull_secrets(&mut object, &["a".into(), "b".into()]);
        assert_eq!(object["spec"]["template"]["spec"]["imagePullSecrets"], json!([{"name": "a"}, {"name": "b"}]));
        let mut pod = json!({"kind": "Pod", "spec": {"imagePullSecrets": [{"name": "own"}]}});
        add_pull_secrets(&mut pod, &["a".into()]);
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "own"}, {"name": "a"}]));
    }
}
