#![expect(clippy::disallowed_methods, reason = "a test's tasks and threads end with it")]

use super::*;
use aksim_runtime::{
    component::{Component, RunContext},
    pki::Pki,
    recorder::Recorder,
};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod, Service},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

struct Cluster {
    server: ApiServer,
    client: Client,
    _dir: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
    let server = ApiServer::bind(ApiServerConfig::new(dir.path().join("kubernetes"), pki)).await.unwrap();
    let client = server.in_process_client("admin", &["system:masters"]);
    Cluster { server, client, _dir: dir }
}

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str, label: &str) -> ConfigMap {
    from(json!({"metadata": {"name": name, "labels": {"l": label}}, "data": {"k": "v"}}))
}

fn refusal(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn objects_live_and_die() {
    let cluster = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let error = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert_eq!(refusal(error), (409, "AlreadyExists".into(), "configmaps \"a\" already exists".into()));
    let mut changed = made.clone();
    changed.data.get_or_insert_default().insert("k".into(), "w".into());
    let replaced = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(replaced.resource_version(), made.resource_version());
    let error = maps.replace("a", &PostParams::default(), &changed).await.unwrap_err();
    let modified = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
         changes to the latest version and try again";
    assert_eq!(refusal(error), (409, "Conflict".into(), modified.into()));
    let same = maps.replace("a", &PostParams::default(), &replaced).await.unwrap();
    assert_eq!(same.resource_version(), replaced.resource_version(), "a write that changes nothing is none");
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "y"}}))).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let error = maps.get("a").await.unwrap_err();
    assert_eq!(refusal(error), (404, "NotFound".into(), "configmaps \"a\" not found".into()));
    let error = Api::<ConfigMap>::namespaced(cluster.client.clone(), "nowhere")
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(refusal(error).2, "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn lists_are_picked_and_paged() {
    let cluster = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    for n in 0..7 {
        maps.create(&PostParams::default(), &config_map(&format!("m{n}"), &(n % 2).to_string())).await.unwrap();
    }
    let names = |list: &kube::api::ObjectList<ConfigMap>| list.items.iter().map(|m| m.name_any()).collect::<Vec<_>>();
    assert_eq!(names(&maps.list(&ListParams::default().labels("l=1")).await.unwrap()), ["m1", "m3", "m5"]);
    assert_eq!(names(&maps.list(&ListParams::default().fields("metadata.name=m4")).await.unwrap()), ["m4"]);
    let first = maps.list(&ListParams::default().limit(5)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (5, Some(2)));
    // Gone after the first page, yet on the second: pages are of one moment.
    maps.delete("m6", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let second = maps.list(&ListParams::default().limit(5).continue_token(&token)).await.unwrap();
    assert_eq!(names(&second), ["m5", "m6"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 6);
}

#[tokio::test]
async fn watches_resume_and_follow_selectors() {
    let cluster = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &config_map("a", "in")).await.unwrap();
    maps.create(&PostParams::default(), &config_map("b", "out")).await.unwrap();
    for label in ["out", "in"] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"l": label}}}));
        maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let events = maps.watch(&WatchParams::default().labels("l=in"), &start).await.unwrap();
    let seen: Vec<_> = events.take(4).try_collect().await.unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|event| match event {
            WatchEvent::Added(m) => format!("added {}", m.name_any()),
            WatchEvent::Modified(m) => format!("modified {}", m.name_any()),
            WatchEvent::Deleted(m) => format!("deleted {}", m.name_any()),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, ["added a", "deleted a", "added a", "deleted a"]);
}

#[tokio::test]
async fn a_watch_list_ends_its_initial_events_with_a_bookmark() {
    let cluster = cluster().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let params = WatchParams::default().initial_events();
    let events: Vec<_> = namespaces.watch(&params, "0").await.unwrap().take(5).try_collect().await.unwrap();
    let names: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            WatchEvent::Added(namespace) => Some(namespace.name_any()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let WatchEvent::Bookmark(mark) = &events[4] else { panic!("{:?}", events[4]) };
    assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
}

fn deployment() -> serde_json::Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn generations_count_what_is_wanted_and_status_is_apart() {
    let cluster = cluster().await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "default");
    let mut wanted = deployment();
    wanted["status"] = json!({"replicas": 9});
    let made = deployments.create(&PostParams::default(), &from(wanted)).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.status.unwrap().replicas, None);
    assert_eq!(made.spec.unwrap().replicas, Some(1));
    let status = json!({"status": {"replicas": 1, "observedGeneration": 1}, "spec": {"replicas": 7}});
    let after = deployments.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    assert_eq!((after.metadata.generation, after.spec.unwrap().replicas), (Some(1), Some(1)));
    let scale = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = deployments.patch_scale("web", &PatchParams::default(), &scale).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    let after = deployments.get("web").await.unwrap();
    assert_eq!((after.metadata.generation, after.status.unwrap().replicas), (Some(2), Some(1)));
    let mut other = deployment();
    other["spec"]["selector"]["matchLabels"]["app"] = "x".into();
    other["spec"]["template"]["metadata"]["labels"]["app"] = "x".into();
    let error = deployments.replace("web", &PostParams::default(), &from(other)).await.unwrap_err();
    let (code, reason, message) = refusal(error);
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(message.starts_with("Deployment.apps \"web\" is invalid: spec.selector: Invalid value: "), "{message}");
    assert!(message.ends_with("field is immutable"), "{message}");
}

#[tokio::test]
async fn pods_get_what_admission_adds_and_end_by_their_kubelet() {
    let cluster = cluster().await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    let pod: Pod =
        from(json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let (_, _, message) = refusal(pods.create(&PostParams::default(), &pod).await.unwrap_err());
    assert!(message.contains("serviceaccount \"default\" not found"), "{message}");
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(cluster.client.clone(), "default");
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "default"}}))).await.unwrap();
    let made = pods.create(&PostParams::default(), &pod).await.unwrap();
    let name = made.name_any();
    let spec = made.spec.unwrap();
    assert!(name.starts_with("p-") && name.len() == 7);
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert!(spec.volumes.unwrap()[0].name.starts_with("kube-api-access-"));
    assert_eq!(spec.tolerations.unwrap().len(), 2);
    let stored = cluster.server.stored_text("pods", "default", &name);
    assert!(!stored.contains("null"), "{stored}");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"kind": "Node", "name": "n1"}});
    let post = PostParams::default();
    let bind = || pods.create_subresource::<_, serde_json::Value>("binding", &name, &post, &binding);
    bind().await.unwrap();
    assert_eq!(refusal(bind().await.unwrap_err()).0, 409);
    let bound = pods.get(&name).await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n1"));
    assert_eq!(pods.list(&ListParams::default().fields("spec.nodeName=n1")).await.unwrap().items.len(), 1);
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    let going = pods.get(&name).await.unwrap();
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(refusal(pods.get(&name).await.unwrap_err()).0, 404);
}

#[tokio::test]
async fn services_get_addresses_once() {
    let cluster = cluster().await;
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let kubernetes = services.get("kubernetes").await.unwrap();
    assert_eq!(kubernetes.spec.unwrap().cluster_ip.as_deref(), Some("10.0.0.1"));
    let service = |name: &str, kind: &str| -> Service {
        from(json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}}))
    };
    let made = services.create(&PostParams::default(), &service("a", "NodePort")).await.unwrap().spec.unwrap();
    let port = made.ports.unwrap()[0].node_port.unwrap();
    assert!((30000..=32767).contains(&port));
    let mut taken = service("b", "ClusterIP");
    taken.spec.as_mut().unwrap().cluster_ip = made.cluster_ip.clone();
    let (code, _, message) = refusal(services.create(&PostParams::default(), &taken).await.unwrap_err());
    assert_eq!(code, 422);
    assert!(message.ends_with("provided IP is already allocated"), "{message}");
    services.delete("a", &DeleteParams::default()).await.unwrap();
    services.create(&PostParams::default(), &taken).await.unwrap();
}

#[tokio::test]
async fn what_a_load_balancer_has_goes_with_its_type() {
    let cluster = cluster().await;
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let patch = async |patch: serde_json::Value| {
        services.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    };
    let told = json!({"status": {"loadBalancer": {"ingress": [{"ip": "127.0.128.1"}]}}});
    let tell = || async { services.patch_status("a", &PatchParams::default(), &Patch::Merge(&told)).await };
    let made: Service = from(json!({"metadata": {"name": "a"},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}}));
    services.create(&PostParams::default(), &made).await.unwrap();
    tell().await.unwrap();
    let kept = patch(json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(kept.status.unwrap().load_balancer.unwrap().ingress.unwrap().len(), 1);

    let changed = patch(json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(changed.status.unwrap().load_balancer.unwrap().ingress, None);
    let spec = changed.spec.unwrap();
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"), "a node port has one too");
    assert!(spec.ports.unwrap()[0].node_port.is_some());
    assert_eq!((spec.allocate_load_balancer_node_ports, spec.health_check_node_port), (None, None));
    let (code, _, message) = refusal(tell().await.unwrap_err());
    assert_eq!(code, 422);
    assert!(message.ends_with("may only be used when `spec.type` is \"LoadBalancer\""), "{message}");

    let spec = patch(json!({"spec": {"type": "ClusterIP"}})).await.spec.unwrap();
    assert_eq!((spec.external_traffic_policy, spec.ports.unwrap()[0].node_port), (None, None));
    patch(json!({"spec": {"type": "LoadBalancer"}})).await;
    tell().await.unwrap();
}

#[tokio::test]
async fn what_has_no_effect_is_said() {
    let cluster = cluster().await;
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "a.b.c"}, "spec": {"group": "b.c", "scope": "Cluster",
        "names": {"plural": "a", "kind": "A"}, "versions": []}});
    let post = |path: &str, body: &serde_json::Value| {
        http::Request::post(path).body(serde_json::to_vec(body).unwrap()).unwrap()
    };
    let request = post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd);
    let (code, _, message) = refusal(cluster.client.request::<serde_json::Value>(request).await.unwrap_err());
    assert_eq!(code, 501);
    assert!(message.contains("custom resource definitions"), "{message}");
    let kind = "ValidatingAdmissionPolicy";
    let policy =
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "p"}, "spec": {}});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let request = post(path, &policy).map(kube::client::Body::from);
    let response = cluster.client.send(request).await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(response.headers()["warning"].to_str().unwrap().contains("admission policies"));
}

#[tokio::test]
async fn access_is_by_role() {
    let cluster = cluster().await;
    let nobody = cluster.server.in_process_client("ada", &["readers"]);
    let maps: Api<ConfigMap> = Api::namespaced(nobody.clone(), "default");
    let (code, reason, message) = refusal(maps.list(&ListParams::default()).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "configmaps is forbidden: User \"ada\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(cluster.client.clone(), "default");
    let binding = json!({"metadata": {"name": "readers"}, "roleRef": {"kind": "ClusterRole", "name": "view",
        "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [{"kind": "Group", "name": "readers"}]});
    bindings.create(&PostParams::default(), &from(binding)).await.unwrap();
    assert!(maps.list(&ListParams::default()).await.is_ok());
    assert_eq!(refusal(maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err()).0, 403);
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(nobody, "default");
    assert_eq!(refusal(secrets.list(&ListParams::default()).await.unwrap_err()).0, 403);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
    let config = || ApiServerConfig::new(dir.path().join("kubernetes"), pki.clone());
    let before = {
        let server = ApiServer::bind(config()).await.unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(server.in_process_client("a", &["system:masters"]), "default");
        maps.create(&PostParams::default(), &config_map("kept", "1")).await.unwrap()
    };
    // The client's task holds the server until it has ended.
    let server = loop {
        match ApiServer::bind(config()).await {
            Ok(server) => break server,
            Err(ApiServerError::Store(crate::store::StoreError::Locked { .. })) => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let maps: Api<ConfigMap> = Api::namespaced(server.in_process_client("a", &["system:masters"]), "default");
    assert_eq!(maps.get("kept").await.unwrap(), before);
}

#[tokio::test]
async fn it_serves_over_tls_to_certificates_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
    let server = ApiServer::bind(ApiServerConfig::new(dir.path().join("kubernetes"), pki.clone())).await.unwrap();
    let context = RunContext::detached(Recorder::in_memory());
    let running = tokio::spawn(Box::new(server.clone()).run(context.clone()));
    let identity = pki.issue_client("ada", &["system:masters"]).unwrap();
    let pem = format!("{}{}", identity.certificate_pem, identity.key_pem);
    let http = |identity: Option<reqwest::Identity>| {
        let root = reqwest::Certificate::from_pem(pki.ca_pem().as_bytes()).unwrap();
        let builder = reqwest::Client::builder().tls_certs_only([root]);
        identity.into_iter().fold(builder, |builder, identity| builder.identity(identity)).build().unwrap()
    };
    let known = http(Some(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", server.url());
    let who: serde_json::Value = known.post(url).json(&review).send().await.unwrap().json().await.unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "ada");
    let unknown = http(None);
    let path = |path: &str| format!("{}{path}", server.url());
    assert_eq!(unknown.get(path("/readyz")).send().await.unwrap().text().await.unwrap(), "ok");
    assert_eq!(unknown.get(path("/api/v1/pods")).send().await.unwrap().status(), 403);
    let bad = unknown.get(path("/api/v1/pods")).bearer_auth("x.y.z").send().await.unwrap();
    assert_eq!(bad.status(), 401);
    context.shutdown.cancel();
    running.await.unwrap().unwrap();
}
