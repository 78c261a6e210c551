//! Makes the blobs of [`super::builtin`] from published data (see NOTICE):
//!
//! ```text
//! pip download --no-deps kubernetes-validate==1.37.0   # unpack the wheel
//! cargo fetch, then unpack or find the crate k8s-pb 0.9.0
//! AKSIM_KUBERNETES_DEFINITIONS=.../v1.36.0-local-strict/_definitions.json \
//! AKSIM_KUBERNETES_PROTOBUF=.../k8s-pb-0.9.0/src \
//!   cargo test --lib schema::generate -- --ignored
//! ```

use super::definition::{Definition, Field, ListType, Reference, Shape, TagTarget};
use super::name::GroupVersionKind;
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Fields that are pointers in Go, so that a zero sent explicitly is kept. Not in any published
/// table; names are unambiguous over all kinds.
const POINTERS: &str = "activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation \
    allowVolumeExpansion apiGroup attachRequired automountServiceAccountToken averageUtilization backoffLimit \
    backoffLimitPerIndex blockOwnerDeletion completions controller currentAverageUtilization \
    currentCPUUtilizationPercentage defaultMode deletionGracePeriodSeconds enableServiceLinks expirationSeconds \
    failedJobsHistoryLimit fsGroup gracePeriodSeconds holderIdentity hostUsers immutable ingressClassName \
    leaseDurationSeconds leaseTransitions maxFailedIndexes minReplicas mode nodeName observedGeneration optional \
    orphanDependents parallelism partition podInfoOnMount port priority privileged progressDeadlineSeconds \
    publishNotReadyAddresses ready readOnlyRootFilesystem remainingItemCount replicas requiresRepublish \
    revisionHistoryLimit runAsGroup runAsNonRoot runAsUser seLinuxMount serving setHostnameAsFQDN \
    shareProcessNamespace stabilizationWindowSeconds started startingDeadlineSeconds storageCapacity \
    storageClassName successfulJobsHistoryLimit suspend targetCPUUtilizationPercentage terminating \
    terminationGracePeriodSeconds timeoutSeconds tolerationSeconds ttlSecondsAfterFinished \
    volumeAttributesClassName volumeMode";
/// Of those, fields of these types are no pointers after all.
const PLAIN: [(&str, &str); 14] = [
    ("io.k8s.api.core.v1.ContainerStatus", "ready"),
    ("io.k8s.api.core.v1.ServiceSpec", "publishNotReadyAddresses"),
    ("io.k8s.api.core.v1.PodSpec", "nodeName"),
    ("io.k8s.api.core.v1.Probe", "timeoutSeconds"),
    ("io.k8s.api.core.v1.ServicePort", "port"),
    ("io.k8s.api.core.v1.EndpointPort", "port"),
    ("io.k8s.api.core.v1.PodStatus", "observedGeneration"),
    ("io.k8s.api.apps.v1.DeploymentStatus", "replicas"),
    ("io.k8s.api.apps.v1.DeploymentStatus", "observedGeneration"),
    ("io.k8s.api.apps.v1.ReplicaSetStatus", "replicas"),
    ("io.k8s.api.apps.v1.ReplicaSetStatus", "observedGeneration"),
    ("io.k8s.api.autoscaling.v1.ScaleSpec", "replicas"),
    ("io.k8s.api.autoscaling.v1.ScaleStatus", "replicas"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Condition", "observedGeneration"),
];

/// Structures that are no pointers in Go: an empty one is always there.
const EMBEDDED: &str = "metadata spec status template strategy updateStrategy resources jobTemplate loadBalancer roleRef \
    scaleTargetRef target metric current source involvedObject regarding podSelector nodeInfo daemonEndpoints \
    kubeletEndpoint state lastState backend clientConfig names describedObject commonEncodingVersion";

/// One field of a protobuf message: tag, name in lower case without underscores, and the name of
/// its message type if it has one.
struct Tag {
    number: u32,
    name: String,
    message: Option<String>,
}

type Messages = HashMap<String, Vec<Tag>>;

/// Compares names across spellings: `cluster_i_ps`, `clusterIPs`.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Reads the tags out of the crate's generated structs, by `module.path.structname` in lower case.
fn messages(source: &Path) -> Messages {
    let structure = Regex::new(r"(?s)pub struct (\w+) \{(.*?)\n\s*\}").unwrap();
    let field = Regex::new(r"(?s)#\[prost\(([^\]]*?)\)\]\s*pub (?:r#)?(\w+):\s*(.*?),\n").unwrap();
    let number = Regex::new(r#"tag\s*=\s*"(\d+)""#).unwrap();
    let mut messages = Messages::new();
    for entry in walkdir::WalkDir::new(source).into_iter().map(Result::unwrap) {
        if entry.path().extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let module = entry.path().strip_prefix(source).unwrap().with_extension("");
        let module = module.to_str().unwrap().trim_end_matches("/mod").replace('/', ".");
        let text = std::fs::read_to_string(entry.path()).unwrap() + "\n";
        for found in structure.captures_iter(&text) {
            let body = format!("{}\n", &found[2]);
            let tags = field.captures_iter(&body).map(|f| Tag {
                number: number.captures(&f[1]).unwrap()[1].parse().unwrap(),
                name: plain(&f[2]),
                message: f[1].starts_with("message").then(|| {
                    let path = f[3].trim_end_matches('>').rsplit(['<', ' ']).next().unwrap().to_owned();
                    resolve(&module, &path)
                }),
            });
            messages.insert(plain_path(&format!("{module}.{}", &found[1])), tags.collect());
        }
    }
    messages
}

fn plain_path(path: &str) -> String {
    path.split('.').map(plain).collect::<Vec<_>>().join(".")
}

/// `super::v1::Rule` seen from `api.admissionregistration.v1beta1`.
fn resolve(module: &str, path: &str) -> String {
    let mut at: Vec<&str> = module.split('.').collect();
    for part in path.split("::") {
        if part == "super" {
            at.pop();
        } else {
            at.push(part);
        }
    }
    plain_path(&at.join("."))
}

/// Tag table of a message: fields it shares with the definition, the rest inlined.
fn tags(definition: &Definition, message: &str, messages: &Messages) -> BTreeMap<u32, TagTarget> {
    let Some(fields) = messages.get(message) else { return BTreeMap::new() };
    let names: HashMap<String, &String> = definition.fields.keys().map(|name| (plain(name), name)).collect();
    let target = |tag: &Tag| match (names.get(&tag.name), &tag.message) {
        (Some(_), Some(message)) if message.contains("jsonschemapropsor") => {
            Some(TagTarget::Unsupported(message.clone()))
        }
        (Some(name), _) => Some(TagTarget::Field((*name).clone())),
        (None, Some(message)) => Some(TagTarget::Inline(tags(definition, message, messages)))
            .filter(|t| *t != TagTarget::Inline(BTreeMap::new())),
        (None, None) => None,
    };
    fields.iter().filter_map(|tag| Some((tag.number, target(tag)?))).collect()
}

/// The shape of a JSON schema.
fn shape(schema: &Value, numbers: &HashMap<&str, u32>) -> Shape {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return match name.rsplit('.').next().unwrap() {
            "Quantity" => Shape::Quantity,
            "IntOrString" => Shape::IntOrString,
            "Time" => Shape::Time,
            "MicroTime" => Shape::MicroTime,
            "Duration" => Shape::Duration,
            _ => numbers.get(name).map_or(Shape::Any, |n| Shape::Object(Reference(*n))),
        };
    }
    let type_ = match &schema["type"] {
        Value::Array(types) => types[0].as_str().unwrap(),
        other => other.as_str().unwrap_or_default(),
    };
    match (type_, schema["format"].as_str().unwrap_or_default()) {
        ("string", "byte") => Shape::Bytes,
        ("string", _) => Shape::String,
        ("integer", "int32") => Shape::Int32,
        ("integer", _) => Shape::Int64,
        ("number", _) => Shape::Number,
        ("boolean", _) => Shape::Boolean,
        ("array", _) => Shape::List(Box::new(field("", "", &schema["items"], numbers))),
        ("object", _) if schema["additionalProperties"].is_object() => {
            Shape::Map(Box::new(field("", "", &schema["additionalProperties"], numbers)))
        }
        _ => Shape::Any,
    }
}

fn field(owner: &str, name: &str, schema: &Value, numbers: &HashMap<&str, u32>) -> Field {
    let extension = |key: &str| schema[format!("x-kubernetes-{key}")].as_str().unwrap_or_default();
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let strategies: Vec<&str> = extension("patch-strategy").split(',').collect();
    let named = |names: &str| names.split_whitespace().any(|n| n == name);
    let shape = shape(schema, numbers);
    let pointer = match shape {
        Shape::Object(_) => !name.is_empty() && !named(EMBEDDED),
        _ => named(POINTERS) && !PLAIN.contains(&(owner, name)),
    };
    Field {
        shape,
        list_type: match extension("list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map(keys.unwrap().iter().map(|k| k.as_str().unwrap().to_owned()).collect()),
            _ => ListType::Atomic,
        },
        atomic_map: extension("map-type") == "atomic",
        merge: strategies.contains(&"merge"),
        retain_keys: strategies.contains(&"retainKeys"),
        merge_key: Some(extension("patch-merge-key").to_owned()).filter(|k| !k.is_empty()),
        pointer,
        nullable: false,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn compile(schemas: &BTreeMap<String, Value>, messages: &Messages) -> Vec<Definition> {
    // Types without fields of their own (RawExtension, JSON, FieldsV1, …) are `Any`.
    let objects: Vec<&String> = schemas
        .iter()
        .filter(|(_, schema)| schema["properties"].is_object() || schema["additionalProperties"] == false)
        .filter(|(name, _)| !["RawExtension", "FieldsV1"].iter().any(|any| name.ends_with(any)))
        .map(|(name, _)| name)
        .collect();
    let numbers: HashMap<&str, u32> = objects.iter().map(|n| n.as_str()).zip(0..).collect();
    let definition = |name: &String| {
        let schema = &schemas[name];
        let no_fields = serde_json::Map::new();
        let fields = schema["properties"].as_object().unwrap_or(&no_fields);
        let kinds = schema["x-kubernetes-group-version-kind"].as_array().cloned().unwrap_or_default();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut definition = Definition {
            name: name.clone(),
            kinds: kinds
                .iter()
                .map(|k| GroupVersionKind::new(text(&k["group"]), text(&k["version"]), text(&k["kind"])))
                .collect(),
            fields: fields.iter().map(|(key, schema)| (key.clone(), field(name, key, schema, &numbers))).collect(),
            required: required.iter().map(text).collect(),
            ..Definition::default()
        };
        for field in definition.fields.values_mut() {
            // Atomicity is said at the type as often as at its use.
            if let Shape::Object(Reference(number)) = &field.shape {
                field.atomic_map |= schemas[objects[*number as usize]]["x-kubernetes-map-type"] == "atomic";
            }
        }
        let message = plain_path(name.trim_start_matches("io.k8s."));
        definition.tags = tags(&definition, &message, messages);
        definition
    };
    objects.iter().map(|name| definition(name)).collect()
}

fn write(name: &str, value: &impl serde::Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
    let blob = zstd::encode_all(&serde_json::to_vec(value).unwrap()[..], 22).unwrap();
    println!("{}: {} bytes", path.display(), blob.len());
    std::fs::write(path, blob).unwrap();
}

#[test]
#[ignore = "maintenance: writes the blobs; see the module's head"]
fn regenerate() {
    let definitions = std::env::var("AKSIM_KUBERNETES_DEFINITIONS").expect("path of _definitions.json");
    let protobuf = std::env::var("AKSIM_KUBERNETES_PROTOBUF").expect("source folder of k8s-pb");
    let mut all: Value = serde_json::from_slice(&std::fs::read(definitions).unwrap()).unwrap();
    let schemas: BTreeMap<String, Value> = serde_json::from_value(all["$defs"].take()).unwrap();
    write("v1.36.types.json.zst", &compile(&schemas, &messages(Path::new(&protobuf))));
    let mut descriptions = BTreeMap::new();
    for (name, schema) in &schemas {
        let mut of = BTreeMap::from([(String::new(), text(&schema["description"]))]);
        if let Some(fields) = schema["properties"].as_object() {
            of.extend(fields.iter().map(|(key, field)| (key.clone(), text(&field["description"]))));
        }
        of.retain(|_, description| !description.is_empty());
        descriptions.insert(name, of);
    }
    write("v1.36.descriptions.json.zst", &descriptions);
}
