//! Objects by path with list, watch, create, patch and delete: enough API for a kubelet.

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

type Key = (String, String, String);

#[derive(Default)]
struct Store {
    objects: BTreeMap<Key, Value>,
    log: Vec<(u64, &'static str, String, Value)>,
    requests: Vec<String>,
}

/// The stand-in API server; clones share their objects.
#[derive(Clone)]
pub struct FakeApi {
    store: Arc<Mutex<Store>>,
    revision: Arc<watch::Sender<u64>>,
}

impl FakeApi {
    pub fn new() -> Self {
        Self { store: Arc::default(), revision: Arc::new(watch::Sender::new(1)) }
    }

    pub fn client(&self) -> kube::Client {
        kube::Client::new(Router::new().fallback(handle).with_state(self.clone()), "default")
    }

    /// Requests so far, `METHOD /path`.
    pub fn requests(&self) -> Vec<String> {
        self.store.lock().requests.clone()
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store.lock().objects.get(&(plural.into(), namespace.into(), name.into())).cloned()
    }

    pub fn all(&self, plural: &str) -> Vec<Value> {
        self.store.lock().objects.iter().filter(|(k, _)| k.0 == plural).map(|(_, v)| v.clone()).collect()
    }

    pub fn put(&self, plural: &str, mut object: Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        }
        self.change((plural.to_owned(), namespace, name), Some(object));
    }

    /// Deletes as the API does: pods with a grace period stay until the kubelet is done.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str, grace: Option<i64>) -> Option<Value> {
        let mut object = self.get(plural, namespace, name)?;
        let grace = grace.unwrap_or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30));
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        if plural == "pods" && grace > 0 {
            object["metadata"]["deletionTimestamp"] =
                json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            self.change(key, Some(object.clone()));
        } else {
            self.change(key, None);
        }
        Some(object)
    }

    /// Waits until `check` holds for an object (`Null` when it does not exist).
    pub async fn wait(&self, plural: &str, namespace: &str, name: &str, check: impl Fn(&Value) -> bool) -> Value {
        let mut revision = self.revision.subscribe();
        let found = async {
            loop {
                let object = self.get(plural, namespace, name).unwrap_or(Value::Null);
                if check(&object) {
                    return object;
                }
                revision.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(20), found).await {
            Ok(object) => object,
            Err(_) => {
                panic!("{plural} {namespace}/{name} is {:#}", self.get(plural, namespace, name).unwrap_or_default())
            }
        }
    }

    /// Waits until `check` holds for some object.
    pub async fn wait_any(&self, plural: &str, check: impl Fn(&Value) -> bool) -> Value {
        let mut revision = self.revision.subscribe();
        let found = async {
            loop {
                if let Some(object) = self.all(plural).into_iter().find(&check) {
                    return object;
                }
                revision.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("no such object appeared")
    }

    fn change(&self, key: Key, object: Option<Value>) {
        let mut store = self.store.lock();
        let revision = *self.revision.borrow() + 1;
        let (kind, mut value) = match object {
            Some(object) => (if store.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" }, object),
            None => match store.objects.remove(&key) {
                Some(object) => ("DELETED", object),
                None => return,
            },
        };
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        if kind != "DELETED" {
            store.objects.insert(key.clone(), value.clone());
        }
        store.log.push((revision, kind, key.0, value));
        drop(store);
        self.revision.send_replace(revision);
    }

    fn watch(&self, plural: String, namespace: String, fields: Vec<(String, String)>, from: u64) -> Response {
        let state = (self.clone(), self.revision.subscribe(), from);
        let stream = futures::stream::unfold(state, move |(api, mut revision, from)| {
            let (plural, namespace, fields) = (plural.clone(), namespace.clone(), fields.clone());
            async move {
                loop {
                    let now = *revision.borrow_and_update();
                    let lines: String = api
                        .store
                        .lock()
                        .log
                        .iter()
                        .filter(|(at, _, p, object)| {
                            *at > from && *at <= now && *p == plural && matches(object, &namespace, &fields)
                        })
                        .map(|(_, kind, _, object)| format!("{}\n", json!({ "type": kind, "object": object })))
                        .collect();
                    if !lines.is_empty() {
                        return Some((Ok::<_, std::io::Error>(Bytes::from(lines)), (api, revision, now)));
                    }
                    revision.changed().await.ok()?;
                }
            }
        });
        Body::from_stream(stream.boxed()).into_response()
    }
}

fn matches(object: &Value, namespace: &str, fields: &[(String, String)]) -> bool {
    let own = object["metadata"]["namespace"].as_str().unwrap_or_default();
    (namespace.is_empty() || own == namespace)
        && fields.iter().all(|(path, want)| object.pointer(path).and_then(Value::as_str) == Some(want))
}

fn failure(code: u16, reason: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code });
    (http::StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

async fn handle(State(api): State<FakeApi>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    api.store.lock().requests.push(format!("{} {}", parts.method, parts.uri.path()));
    let mut path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
    let group = if path[0] == "api" { path.drain(..2).count() } else { path.drain(..3).count() };
    let _ = group;
    let namespace = match path[0] {
        "namespaces" if path.len() > 2 => path.drain(..2).next_back().unwrap_or_default(),
        _ => "",
    };
    let (plural, name, sub) = (path[0], path.get(1).copied(), path.get(2).copied());
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let found = name.and_then(|name| api.get(plural, namespace, name));
    match (parts.method.as_str(), name, found) {
        ("GET", None, _) => {
            let fields: Vec<(String, String)> = query
                .get("fieldSelector")
                .into_iter()
                .flat_map(|s| s.split(','))
                .filter_map(|f| f.split_once('='))
                .map(|(k, v)| (format!("/{}", k.replace('.', "/")), v.to_owned()))
                .collect();
            if query.get("watch").is_some_and(|w| w == "true" || w == "1") {
                let from = query.get("resourceVersion").and_then(|r| r.parse().ok()).unwrap_or(0);
                return api.watch(plural.to_owned(), namespace.to_owned(), fields, from);
            }
            let revision = api.revision.borrow().to_string();
            let items: Vec<Value> = api.all(plural).into_iter().filter(|o| matches(o, namespace, &fields)).collect();
            Json(json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": revision }, "items": items }))
                .into_response()
        }
        ("POST", Some(_), _) if sub == Some("token") => {
            let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
            let mut answer = body;
            answer["status"] = json!({ "token": "a.b.c", "expirationTimestamp": expires.to_string() });
            Json(answer).into_response()
        }
        ("POST", None, _) => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if api.get(plural, namespace, &name).is_some() {
                return failure(409, "AlreadyExists");
            }
            api.put(plural, body);
            Json(api.get(plural, namespace, &name).unwrap()).into_response()
        }
        ("GET", Some(_), Some(object)) => Json(object).into_response(),
        ("PATCH", Some(name), Some(mut object)) => {
            merge(&mut object, &body);
            api.change((plural.to_owned(), namespace.to_owned(), name.to_owned()), Some(object.clone()));
            Json(object).into_response()
        }
        ("DELETE", Some(name), Some(_)) => {
            Json(api.delete(plural, namespace, name, body["gracePeriodSeconds"].as_i64()).unwrap()).into_response()
        }
        _ => failure(404, "NotFound"),
    }
}

/// Merge patch, with conditions merged by type, and lists that say so replaced, as strategic merge does.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else if key == "conditions" {
            let mut merged = target[key].as_array().cloned().unwrap_or_default();
            for condition in value.as_array().into_iter().flatten() {
                merged.retain(|c| c["type"] != condition["type"]);
                let mut clean = json!({});
                merge(&mut clean, condition);
                merged.push(clean);
            }
            target[key] = json!(merged);
        } else if let Some([first, rest @ ..]) = value.as_array().map(Vec::as_slice)
            && first["$patch"] == "replace"
        {
            target[key] = json!(rest);
        } else {
            merge(&mut target[key], value);
        }
    }
}
