//! Defaults the API server sets on decoding: rules by type (`defaults.toml`), and those of CRDs.

use super::builtin;
use super::definition::{Definition, Field, Reference, Shape};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

type Object = Map<String, Value>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "type")]
    types: Vec<Type>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Type {
    #[serde(rename = "type")]
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    set: String,
    to: Option<Value>,
    from: Option<String>,
    by: Option<String>,
    when: Option<String>,
    #[serde(default)]
    is: Vec<String>,
    unless: Option<String>,
}

/// Rules by number of the built-in definition, and the definitions below which there are any.
struct Rules {
    of: HashMap<u32, Vec<Rule>>,
    reaches: Vec<bool>,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    // Invariant: the table is part of the binary, and a test reads it.
    let file: File = toml::from_str(include_str!("defaults.toml")).expect("defaults.toml is well-formed");
    let mut of: HashMap<u32, Vec<Rule>> = HashMap::new();
    for type_ in file.types {
        let Some(Reference(number)) = builtin::named(&format!("io.k8s.{}", type_.name)) else {
            unreachable!("defaults.toml names an unknown type {}", type_.name)
        };
        of.entry(number).or_default().extend(type_.rules);
    }
    let reaches = reaching(&of);
    Rules { of, reaches }
});

/// Definitions that have rules, or refer to one that has, by any way.
fn reaching(of: &HashMap<u32, Vec<Rule>>) -> Vec<bool> {
    let all = builtin::definitions();
    let mut reaches: Vec<bool> = (0u32..).zip(all).map(|(number, _)| of.contains_key(&number)).collect();
    loop {
        let found: Vec<usize> = (0..all.len())
            .filter(|at| !reaches[*at] && all[*at].fields.values().any(|field| refers(field, &reaches)))
            .collect();
        if found.is_empty() {
            return reaches;
        }
        found.into_iter().for_each(|at| reaches[at] = true);
    }
}

fn refers(field: &Field, reaches: &[bool]) -> bool {
    match &field.shape {
        Shape::Object(Reference(number)) => reaches[*number as usize],
        Shape::Map(element) | Shape::List(element) => refers(element, reaches),
        _ => false,
    }
}

/// Sets what is absent in an object of this type; call after
/// [`normalize`](super::fields::normalize). Doing it again changes nothing.
pub fn apply(definition: &Reference, object: &mut Value) {
    if let Value::Object(object) = object {
        structure(definition, object);
    }
}

fn structure(reference: &Reference, object: &mut Object) {
    let Reference(number) = reference;
    if !RULES.reaches[*number as usize] {
        return;
    }
    RULES.of.get(number).into_iter().flatten().for_each(|rule| rule.apply(object));
    fields(reference.get(), object);
}

fn fields(definition: &Definition, object: &mut Object) {
    for (name, value) in object.iter_mut() {
        if let Some(field) = definition.fields.get(name) {
            below(field, value);
        }
    }
}

fn below(field: &Field, value: &mut Value) {
    match (&field.shape, value) {
        (Shape::Object(reference), Value::Object(object)) => structure(reference, object),
        (Shape::Map(element), Value::Object(map)) => map.values_mut().for_each(|value| below(element, value)),
        (Shape::List(element), Value::Array(list)) => list.iter_mut().for_each(|value| below(element, value)),
        _ => {}
    }
}

impl Rule {
    fn apply(&self, object: &mut Object) {
        let holds =
            |path: &String| at(object, path).and_then(Value::as_str).is_some_and(|v| self.is.iter().any(|i| i == v));
        if !self.when.as_ref().is_none_or(holds) || self.unless.as_ref().is_some_and(|path| at(object, path).is_some())
        {
            return;
        }
        if let Some(function) = &self.by {
            return compute(function, object);
        }
        let value = match (&self.to, &self.from) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(from)) => at(object, from).cloned(),
            (None, None) => None,
        };
        let (parent, name) = self.set.rsplit_once('.').unwrap_or(("", &self.set));
        if let (Some(value), Some(parent)) = (value, at_mut(object, parent)) {
            let slot = parent.entry(name).or_insert(Value::Null);
            let empty_text = slot == "" && value.is_string();
            // An empty list where the API demands content counts as absent, as in Go.
            if slot.is_null() || empty_text || slot.as_array().is_some_and(Vec::is_empty) {
                *slot = value;
            }
        }
    }
}

fn at<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = object.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part)).filter(|value| !value.is_null())
}

fn at_mut<'a>(object: &'a mut Object, path: &str) -> Option<&'a mut Object> {
    path.split('.')
        .filter(|part| !part.is_empty())
        .try_fold(object, |object, part| object.get_mut(part)?.as_object_mut())
}

/// The rules that take more than a value.
fn compute(function: &str, object: &mut Object) {
    match function {
        "image_pull_policy" => image_pull_policy(object),
        "requests_from_limits" => each_container(object, requests_from_limits),
        "host_ports" => host_ports(object),
        "empty_dir" => {
            if object.keys().all(|key| key == "name") {
                object.insert("emptyDir".into(), json!({}));
            }
        }
        "string_data" => string_data(object),
        "namespace_label" => namespace_label(object),
        "limit_range" => limit_range(object),
        "policy_types" => policy_types(object),
        "claim_templates" => claim_templates(object),
        "singular_name" => name_from_kind(object, "singular", str::to_lowercase),
        "list_kind" => name_from_kind(object, "listKind", |kind| format!("{kind}List")),
        // A test calls every function the table names.
        other => unreachable!("defaults.toml names an unknown function {other}"),
    }
}

/// `Always` for the tag `latest` or none, else `IfNotPresent`.
fn image_pull_policy(container: &mut Object) {
    if container.get("imagePullPolicy").is_some_and(|policy| policy != "") {
        return;
    }
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let tag = name.split_once('@').map_or_else(|| name.split_once(':').map_or("latest", |(_, tag)| tag), |_| "");
    container.insert("imagePullPolicy".into(), if tag == "latest" { "Always" } else { "IfNotPresent" }.into());
}

fn each_container(pod: &mut Object, change: impl Fn(&mut Object)) {
    let Some(spec) = at_mut(pod, "spec") else { return };
    for key in ["containers", "initContainers"] {
        let containers = spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten();
        containers.filter_map(Value::as_object_mut).for_each(&change);
    }
}

/// A limit without a request is the request.
fn requests_from_limits(container: &mut Object) {
    let Some(resources) = at_mut(container, "resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if let Value::Object(requests) = resources.entry("requests").or_insert_with(|| json!({})) {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// In the host's network a container port is the host's port.
fn host_ports(pod: &mut Object) {
    if at(pod, "spec.hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    each_container(pod, |container| {
        let ports = container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        for port in ports.filter_map(Value::as_object_mut) {
            if let Some(number) = port.get("containerPort").cloned() {
                port.entry("hostPort").or_insert(number);
            }
        }
    });
}

/// `stringData` is write-only: it goes to `data` in base64.
fn string_data(secret: &mut Object) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    if let Value::Object(data) = secret.entry("data").or_insert_with(|| json!({})) {
        for (key, text) in texts {
            data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    }
}

fn namespace_label(namespace: &mut Object) {
    let Some(metadata) = at_mut(namespace, "metadata") else { return };
    let Some(name) = metadata.get("name").filter(|name| *name != "").cloned() else { return };
    if let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| json!({})) {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
}

/// Of containers' limits: `max` is the `default`, which is the `defaultRequest`; else `min` is.
fn limit_range(item: &mut Object) {
    if item.get("type").is_none_or(|type_| type_ != "Container") {
        return;
    }
    for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let Some(Value::Object(values)) = item.get(from).cloned() else { continue };
        if let Value::Object(target) = item.entry(to).or_insert_with(|| json!({})) {
            for (name, value) in values {
                target.entry(name).or_insert(value);
            }
        }
    }
}

fn policy_types(spec: &mut Object) {
    if spec.get("policyTypes").and_then(Value::as_array).is_some_and(|types| !types.is_empty()) {
        return;
    }
    let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    spec.insert("policyTypes".into(), if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
}

/// Claim templates are full objects.
fn claim_templates(set: &mut Object) {
    let templates =
        at_mut(set, "spec").and_then(|spec| spec.get_mut("volumeClaimTemplates")).and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten().filter_map(Value::as_object_mut) {
        template.entry("apiVersion").or_insert_with(|| "v1".into());
        template.entry("kind").or_insert_with(|| "PersistentVolumeClaim".into());
    }
}

fn name_from_kind(names: &mut Object, field: &str, make: impl Fn(&str) -> String) {
    if let Some(kind) = names.get("kind").and_then(Value::as_str).map(&make) {
        names.entry(field).or_insert_with(|| kind.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::GroupVersionKind;

    fn defaulted(group: &str, version: &str, kind: &str, mut object: Value) -> Value {
        let reference = builtin::of_kind(&GroupVersionKind::new(group, version, kind)).unwrap();
        apply(&reference, &mut object);
        let mut twice = object.clone();
        apply(&reference, &mut twice);
        assert_eq!(object, twice, "defaulting twice changes nothing");
        object
    }

    #[test]
    fn every_rule_names_real_fields_and_functions() {
        for (number, rules) in &RULES.of {
            let definition = builtin::definition(*number);
            for rule in rules {
                let (mut at, mut parts) = (Some(definition), rule.set.split('.').peekable());
                while let (Some(here), Some(part)) = (at, parts.next()) {
                    let field = here.fields.get(part).unwrap_or_else(|| panic!("{} {}", definition.name, rule.set));
                    at = field.definition();
                    assert!(parts.peek().is_none() || at.is_some(), "{} {}", definition.name, rule.set);
                }
                if let Some(function) = &rule.by {
                    compute(function, &mut Object::new());
                }
                assert!(rule.to.is_some() || rule.from.is_some() || rule.by.is_some(), "{}", rule.set);
            }
        }
    }

    #[test]
    fn a_deployment_gets_kubes_defaults() {
        let given = json!({"metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{
            "metadata":{"labels":{"a":"b"}},
            "spec":{"containers":[{"name":"c","image":"x","ports":[{"containerPort":80}],
                "readinessProbe":{"httpGet":{"port":80}}}],
                "volumes":[{"name":"s","secret":{"secretName":"s"}},{"name":"e"}]}}}});
        assert_eq!(
            defaulted("apps", "v1", "Deployment", given),
            json!({"metadata":{"name":"web"},"spec":{
            "replicas":1,"revisionHistoryLimit":10,"progressDeadlineSeconds":600,
            "strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}},
            "selector":{"matchLabels":{"a":"b"}},"template":{
            "metadata":{"labels":{"a":"b"}},
            "spec":{"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler",
                "securityContext":{},"terminationGracePeriodSeconds":30,
                "containers":[{"name":"c","image":"x","imagePullPolicy":"Always","resources":{},
                "terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File",
                "ports":[{"containerPort":80,"protocol":"TCP"}],
                "readinessProbe":{"httpGet":{"port":80,"path":"/","scheme":"HTTP"},"timeoutSeconds":1,
                    "periodSeconds":10,"successThreshold":1,"failureThreshold":3}}],
                "volumes":[{"name":"s","secret":{"secretName":"s","defaultMode":420}},{"name":"e","emptyDir":{}}]}}},
            "status":{}})
        );
    }

    #[test]
    fn a_pod_differs_from_a_template() {
        let pod = defaulted(
            "",
            "v1",
            "Pod",
            json!({"spec":{"hostNetwork":true,"serviceAccountName":"sa","containers":[
            {"name":"c","image":"r.io/x:1","resources":{"limits":{"cpu":"1"}},"ports":[{"containerPort":80}]},
            {"name":"d","image":"localhost:5000/x@sha256:0","resources":{}}]}}),
        );
        assert_eq!(pod["spec"]["enableServiceLinks"], true);
        assert_eq!(pod["spec"]["serviceAccount"], "sa");
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(pod["spec"]["containers"][1]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(pod["status"]["phase"], "Pending");
    }

    #[test]
    fn services_jobs_and_the_rest() {
        let service = defaulted("", "v1", "Service", json!({"spec":{"type":"LoadBalancer","ports":[{"port":80}]}}));
        assert_eq!(
            service["spec"],
            json!({"type":"LoadBalancer","sessionAffinity":"None",
            "externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster","allocateLoadBalancerNodePorts":true,
            "ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack",
            "ports":[{"port":80,"protocol":"TCP","targetPort":80}]})
        );
        let job = defaulted("batch", "v1", "Job", json!({"spec":{"template":{"spec":{}}}}));
        assert_eq!(job["spec"]["completions"], 1);
        assert_eq!(job["spec"]["backoffLimit"], 6);
        let parallel = defaulted("batch", "v1", "Job", json!({"spec":{"parallelism":3,"template":{}}}));
        assert_eq!(parallel["spec"].get("completions"), None);
        let secret = defaulted("", "v1", "Secret", json!({"stringData":{"a":"b"}}));
        assert_eq!(secret, json!({"type":"Opaque","data":{"a":"Yg=="}}));
        let binding = defaulted(
            "rbac.authorization.k8s.io",
            "v1",
            "RoleBinding",
            json!({"roleRef":{"kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"u"},{"kind":"ServiceAccount","name":"s"}]}),
        );
        assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(binding["subjects"][1].get("apiGroup"), None);
    }
}
