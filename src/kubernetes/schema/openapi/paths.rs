//! Paths and operations of a resource.

use super::Dialect;
use super::schemas::Schemas;
use crate::schema::{GroupVersionKind, PatchKind, Resource, Verb, builtin};
use serde_json::{Map, Value, json};

const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const ANSWERS: [&str; 2] = ["application/json", "application/yaml"];
/// Query parameters of operations: name, type.
type Parameter = (&'static str, &'static str);
const LIST: [Parameter; 9] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const WRITE: [Parameter; 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const DELETE: [Parameter; 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// One operation to be: what it does, on what, with which kind.
struct Operation<'a> {
    verb: Verb,
    /// What the operation is about, for its id: `NamespacedPod`, `NamespacedPodStatus`.
    subject: String,
    kind: &'a GroupVersionKind,
    row: &'a Resource,
}

/// Adds the paths of a resource and its subresources.
pub(super) fn add(row: &Resource, dialect: Dialect, schemas: &mut Schemas, paths: &mut Map<String, Value>) {
    let base = format!("/{}", row.group_version().path());
    let (name, kind) = (&row.name, row.gvk());
    let scope = if row.namespaced { "Namespaced" } else { "" };
    let collection =
        if row.namespaced { format!("{base}/namespaces/{{namespace}}/{name}") } else { format!("{base}/{name}") };
    let operation = |verb, subject: String| Operation { verb, subject, kind: &kind, row };

    let mut entries: Vec<(String, &str, Operation<'_>)> = Vec::new();
    for (verb, path, method) in [
        (Verb::List, collection.clone(), "get"),
        (Verb::Create, collection.clone(), "post"),
        (Verb::DeleteCollection, collection.clone(), "delete"),
        (Verb::Get, format!("{collection}/{{name}}"), "get"),
        (Verb::Update, format!("{collection}/{{name}}"), "put"),
        (Verb::Patch, format!("{collection}/{{name}}"), "patch"),
        (Verb::Delete, format!("{collection}/{{name}}"), "delete"),
    ] {
        if row.serves(verb) {
            entries.push((path, method, operation(verb, format!("{scope}{}", row.kind))));
        }
    }
    if row.namespaced && row.serves(Verb::List) {
        entries.push((format!("{base}/{name}"), "get", operation(Verb::List, format!("{}ForAllNamespaces", row.kind))));
    }
    for subresource in &row.subresources {
        let path = format!("{collection}/{{name}}/{}", subresource.name);
        for verb in &subresource.verbs {
            let method = match verb {
                Verb::Get | Verb::List | Verb::Watch => "get",
                Verb::Create => "post",
                Verb::Update => "put",
                Verb::Patch => "patch",
                Verb::Delete | Verb::DeleteCollection => "delete",
            };
            let mut title = subresource.name.clone();
            title[..1].make_ascii_uppercase();
            let subject = format!("{scope}{}{title}", row.kind);
            entries.push((path.clone(), method, Operation { verb: *verb, subject, kind: &subresource.kind, row }));
        }
    }
    for (path, method, operation) in entries {
        let parameters = path_parameters(&path, dialect);
        let item = paths.entry(path).or_insert_with(|| json!({ "parameters": parameters }));
        item[method] = operation.to_value(dialect, schemas);
    }
}

fn path_parameters(path: &str, dialect: Dialect) -> Vec<Value> {
    let known = [("{name}", "name", "name of the object"), ("{namespace}", "namespace", "namespace of the object")];
    let found = known.iter().filter(|(part, ..)| path.contains(part));
    found
        .map(|(_, name, description)| {
            let mut parameter = parameter(name, "string", "path", dialect);
            parameter["required"] = true.into();
            parameter["description"] = (*description).into();
            parameter
        })
        .chain([parameter("pretty", "string", "query", dialect)])
        .collect()
}

fn parameter(name: &str, type_: &str, place: &str, dialect: Dialect) -> Value {
    let mut parameter = json!({ "name": name, "in": place, "uniqueItems": true });
    match dialect {
        Dialect::V2 => parameter["type"] = type_.into(),
        Dialect::V3 => {
            parameter = json!({ "name": name, "in": place, "schema": { "type": type_, "uniqueItems": true } });
        }
    }
    parameter
}

impl Operation<'_> {
    /// `x-kubernetes-action`.
    fn action(&self) -> &'static str {
        match self.verb {
            Verb::Create => "post",
            Verb::Update => "put",
            other => other.as_str(),
        }
    }

    /// `listCoreV1NamespacedPod`
    fn id(&self) -> String {
        let verb = match self.verb {
            Verb::Get => "read",
            Verb::Update => "replace",
            Verb::DeleteCollection => "deleteCollection",
            other => other.as_str(),
        };
        let group = self.row.group.trim_end_matches(".k8s.io");
        let group: String = if group.is_empty() { "core" } else { group }.split('.').map(capital).collect();
        format!("{verb}{group}{}{}", capital(&self.row.version), self.subject)
    }

    fn parameters(&self) -> Vec<Parameter> {
        match self.verb {
            Verb::List | Verb::Watch => LIST.into_iter().chain([("watch", "boolean")]).collect(),
            Verb::Create | Verb::Update => WRITE.to_vec(),
            Verb::Patch => WRITE.into_iter().chain([("force", "boolean")]).collect(),
            Verb::Delete => DELETE.to_vec(),
            Verb::DeleteCollection => DELETE.into_iter().chain(LIST).filter(|p| !p.0.starts_with("allow")).collect(),
            Verb::Get => Vec::new(),
        }
    }

    fn to_value(&self, dialect: Dialect, schemas: &mut Schemas) -> Value {
        let list = GroupVersionKind { kind: self.row.list_kind.clone(), ..self.kind.clone() };
        let status = GroupVersionKind::new("", "v1", "Status");
        let answered = match self.verb {
            Verb::List | Verb::Watch => &list,
            Verb::Delete | Verb::DeleteCollection => &status,
            _ => self.kind,
        };
        let mut any = |kind: &GroupVersionKind| match builtin::of_kind(kind).or(self.row.definition) {
            Some(reference) => schemas.reference(&reference),
            None => json!({ "type": "object" }),
        };
        let answer = any(answered);
        let body = match self.verb {
            Verb::Create | Verb::Update => Some(any(self.kind)),
            Verb::Delete | Verb::DeleteCollection => Some(any(&GroupVersionKind::new("", "v1", "DeleteOptions"))),
            Verb::Patch => Some(schemas.patch()),
            _ => None,
        };
        let group = if self.row.group.is_empty() { "core" } else { self.row.group.trim_end_matches(".k8s.io") };
        let mut value = json!({
            "description": format!("{} of {}", self.action(), self.row.kind),
            "operationId": self.id(),
            "tags": [format!("{}_{}", group.replace('.', ""), self.row.version)],
            "x-kubernetes-action": self.action(),
            "x-kubernetes-group-version-kind":
                { "group": self.kind.group, "version": self.kind.version, "kind": self.kind.kind },
        });
        let mut parameters: Vec<Value> =
            self.parameters().iter().map(|(name, type_)| parameter(name, type_, "query", dialect)).collect();
        let bodies: &[&str] = if self.verb == Verb::Patch { &PatchKind::CONTENT_TYPES } else { &BODIES };
        let contents = |types: &[&str], schema: &Value| -> Map<String, Value> {
            types.iter().map(|type_| ((*type_).to_owned(), json!({ "schema": schema }))).collect()
        };
        match dialect {
            Dialect::V2 => {
                value["consumes"] = json!(bodies);
                value["produces"] = json!(ANSWERS);
                value["schemes"] = json!(["https"]);
                if let Some(body) = body {
                    let required = !matches!(self.verb, Verb::Delete | Verb::DeleteCollection);
                    parameters.push(json!({ "name": "body", "in": "body", "required": required, "schema": body }));
                }
                value["responses"] = json!({ "200": { "description": "OK", "schema": answer } });
            }
            Dialect::V3 => {
                if let Some(body) = body {
                    value["requestBody"] = json!({ "content": contents(bodies, &body) });
                }
                value["responses"] = json!({ "200": { "description": "OK", "content": contents(&ANSWERS, &answer) } });
            }
        }
        value["parameters"] = parameters.into();
        value
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
