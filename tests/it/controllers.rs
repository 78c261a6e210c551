//! Controllers and scheduler against the real API server, with a kubelet that only pretends to run
//! containers.

use aksim::{
    controllers::{Controllers, ControllersConfig},
    kubernetes::{ApiServer, ApiServerConfig},
    runtime::volumes::VolumeFolders,
    runtime::{
        component::{Component, RunContext, readiness},
        pki::Pki,
        recorder::Recorder,
    },
};
use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Debug, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take; only a failing test waits that long.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    tasks: JoinSet<()>,
    stop: DropGuard,
    _state: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start(nodes: usize, mut config: ControllersConfig) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Another test may have done so already.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let state = tempfile::tempdir().unwrap();
        config.volumes = VolumeFolders::new(state.path().join("volumes"));
        let pki = Pki::open(&state.path().join("pki"), "aksim test").unwrap();
        let server = ApiServer::bind(ApiServerConfig::new(state.path().join("kubernetes"), pki)).await.unwrap();
        let client = server.in_process_client("admin", &["system:masters"]);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (signal, mut ready) = readiness();
        let context = RunContext { shutdown: stop.clone(), readiness: signal, recorder: Recorder::in_memory() };
        let controllers =
            Controllers::new(server.in_process_client("system:kube-controller-manager", &["system:masters"]), config);
        tasks.spawn(async move { Box::new(controllers).run(context).await.unwrap() });
        assert!(ready.wait().await);
        // Pods are refused before their service account is there.
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
        until(accounts, "a service account", |found| (!found.is_empty()).then_some(())).await;
        for index in 0..nodes {
            let node = json!({"metadata": {"name": format!("node-{index}"), "labels": {"kubernetes.io/hostname": format!("node-{index}")}}});
            Api::<Node>::all(client.clone()).create(&PostParams::default(), &of(node)).await.unwrap();
            let status = json!({"status": {
                "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
            let params = PatchParams::default();
            Api::<Node>::all(client.clone())
                .patch_status(&format!("node-{index}"), &params, &Patch::Merge(status))
                .await
                .unwrap();
        }
        tasks.spawn(pretend_kubelet(client.clone(), stop.clone()));
        Self { client, tasks, stop: stop.drop_guard(), _state: state }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        self.api().create(&PostParams::default(), &of(object)).await.unwrap()
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    /// Waits until the objects of a kind are as `holds` wants them.
    pub(crate) async fn until<K, T>(&self, what: &str, holds: impl Fn(&[K]) -> Option<T>) -> T
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + Debug
            + Send
            + 'static,
    {
        until(self.api(), what, holds).await
    }
}

pub(crate) fn of<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(crate) async fn until<K, T>(api: Api<K>, what: &str, holds: impl Fn(&[K]) -> Option<T>) -> T
where
    K: Resource<DynamicType = ()> + DeserializeOwned + serde::Serialize + Clone + Debug + Send + 'static,
{
    let mut known: BTreeMap<String, K> = BTreeMap::new();
    let mut listing = false;
    let search = async {
        let stream = watcher(api, watcher::Config::default());
        futures::pin_mut!(stream);
        while let Some(event) = stream.next().await {
            let mut event = event.unwrap();
            let key = |k: &K| format!("{}/{}", k.namespace().unwrap_or_default(), k.name_any());
            if let Some(object) = match &mut event {
                watcher::Event::InitApply(k) | watcher::Event::Apply(k) => Some(k),
                _ => None,
            } {
                object.managed_fields_mut().clear();
            }
            match event {
                watcher::Event::Init => {
                    known.clear();
                    listing = true;
                }
                watcher::Event::InitDone => listing = false,
                watcher::Event::InitApply(k) | watcher::Event::Apply(k) => {
                    known.insert(key(&k), k);
                }
                watcher::Event::Delete(k) => {
                    known.remove(&key(&k));
                }
            }
            if !listing && let Some(found) = holds(&known.values().cloned().collect::<Vec<_>>()) {
                return Some(found);
            }
        }
        None
    };
    match tokio::time::timeout(DEADLINE, search).await {
        Ok(Some(found)) => found,
        _ => panic!("{what}: not so in time; last seen: {}", serde_json::to_string_pretty(&known).unwrap()),
    }
}

/// Runs the pods bound to any node: ready at once, ended at once when the restart policy says that
/// they end, gone at once when deleted.
async fn pretend_kubelet(client: Client, stop: CancellationToken) {
    let mut address = 1_u32;
    let stream = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    futures::pin_mut!(stream);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = stream.next() => event,
        };
        let (watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event.unwrap().unwrap() else { continue };
        let spec = pod.spec.clone().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        if spec.node_name.is_none() || pod.labels().contains_key("unattended") {
            continue;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            // Deleted twice, or by someone else: it is gone either way.
            let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
            continue;
        }
        if phase != "Pending" {
            continue;
        }
        address += 1;
        let command = spec.containers[0].command.clone().unwrap_or_default();
        let ends = spec.restart_policy.as_deref() != Some("Always");
        let phase = match (ends, command.first().map(String::as_str)) {
            (true, Some("false")) => "Failed",
            (true, Some("sleep")) | (false, _) => "Running",
            (true, _) => "Succeeded",
        };
        let ready = if phase == "Running" && !pod.labels().contains_key("broken") { "True" } else { "False" };
        let ip = format!("10.244.{}.{}", address / 250, address % 250);
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now());
        let status = json!({"status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]}});
        // The pod may have gone meanwhile.
        let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await;
    }
}

pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
            {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}}}})
}

pub(crate) fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// A Deployment of this revision whose rollout is complete.
fn rolled_out(deployments: &[Deployment], revision: &str) -> Option<Deployment> {
    let deployment = deployments.first()?;
    let (spec, status) = (deployment.spec.as_ref()?, deployment.status.as_ref()?);
    let complete = status.updated_replicas == spec.replicas
        && status.replicas == spec.replicas
        && status.available_replicas == spec.replicas
        && status.observed_generation == deployment.metadata.generation;
    let current = deployment.annotations().get("deployment.kubernetes.io/revision")? == revision;
    let progressing = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing")?;
    (complete && current && progressing.reason.as_deref() == Some("NewReplicaSetAvailable")).then(|| deployment.clone())
}

fn ready_addresses(slices: &[EndpointSlice], service: &str) -> Vec<String> {
    let mine = slices.iter().filter(|s| s.labels().get("kubernetes.io/service-name").is_some_and(|n| n == service));
    let endpoints = mine.flat_map(|s| s.endpoints.iter().flatten());
    let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
    ready.flat_map(|e| e.addresses.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_is_undone_scaled_and_served() {
    let cluster = Cluster::start(2, ControllersConfig::default()).await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http"}]}}))
        .await;
    cluster.create::<Deployment>(deployment("web", 3, "web:1")).await;
    cluster.until("revision 1", |d: &[Deployment]| rolled_out(d, "1")).await;
    let first = cluster
        .until("three endpoints", |s: &[EndpointSlice]| Some(ready_addresses(s, "web")).filter(|a| a.len() == 3))
        .await;
    let ports =
        |s: &[EndpointSlice]| s.iter().flat_map(|s| s.ports.iter().flatten()).filter_map(|p| p.port).any(|p| p == 8080);
    cluster.until("the named port", |s: &[EndpointSlice]| ports(s).then_some(())).await;
    cluster
        .until("Endpoints", |e: &[Endpoints]| {
            let web = e.iter().find(|e| e.name_any() == "web")?;
            let addresses: Vec<_> = web.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten()).collect();
            (addresses.len() == 3).then_some(())
        })
        .await;

    cluster.patch::<Deployment>("web", image("web:2")).await;
    cluster.until("revision 2", |d: &[Deployment]| rolled_out(d, "2")).await;
    cluster
        .until("new endpoints", |s: &[EndpointSlice]| {
            let now = ready_addresses(s, "web");
            (now.len() == 3 && now.iter().all(|a| !first.contains(a))).then_some(())
        })
        .await;

    // What `kubectl rollout undo` does.
    cluster.patch::<Deployment>("web", image("web:1")).await;
    cluster.until("revision 3", |d: &[Deployment]| rolled_out(d, "3")).await;
    let history = |s: &[ReplicaSet]| {
        let newest =
            s.iter().find(|s| s.annotations().get("deployment.kubernetes.io/revision").is_some_and(|r| r == "3"))?;
        newest.annotations().get("deployment.kubernetes.io/revision-history").cloned()
    };
    assert_eq!(cluster.until("history", history).await, "1");

    cluster.patch::<Deployment>("web", json!({"spec": {"replicas": 5}})).await;
    cluster
        .until("five replicas", |d: &[Deployment]| {
            rolled_out(d, "3").filter(|d| d.status.as_ref().unwrap().replicas == Some(5))
        })
        .await;
    cluster.patch::<Deployment>("web", json!({"spec": {"paused": true}})).await;
    cluster.patch::<Deployment>("web", image("web:3")).await;
    cluster
        .until("paused", |d: &[Deployment]| {
            let status = d.first()?.status.as_ref()?;
            let paused = status.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("DeploymentPaused"));
            (paused && status.observed_generation == d[0].metadata.generation).then_some(())
        })
        .await;
    assert_eq!(
        cluster.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items.len(),
        2,
        "nothing new while paused"
    );
    cluster.patch::<Deployment>("web", json!({"spec": {"paused": false}})).await;
    cluster.until("revision 4", |d: &[Deployment]| rolled_out(d, "4")).await;

    let wanted = ["ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete", "Scheduled"];
    cluster
        .until("events", |events: &[Event]| {
            wanted.iter().all(|w| events.iter().any(|e| e.reason.as_deref() == Some(w))).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_version_leaves_the_old_one_serving_and_the_next_recovers() {
    let cluster = Cluster::start(1, ControllersConfig::default()).await;
    let mut web = deployment("web", 2, "web:1");
    web["spec"]["progressDeadlineSeconds"] = json!(1);
    web["spec"]["revisionHistoryLimit"] = json!(1);
    cluster.create::<Deployment>(web).await;
    cluster.until("revision 1", |d: &[Deployment]| rolled_out(d, "1")).await;
    let mut broken = image("web:broken");
    broken["spec"]["template"]["metadata"] = json!({"labels": {"broken": "true"}});
    cluster.patch::<Deployment>("web", broken).await;
    let stuck = cluster
        .until("deadline exceeded", |d: &[Deployment]| {
            let status = d.first()?.status.as_ref()?;
            let late =
                status.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded"));
            late.then(|| status.clone())
        })
        .await;
    assert_eq!(stuck.available_replicas, Some(2), "the old version serves on");
    let mut fixed = image("web:3");
    fixed["spec"]["template"]["metadata"] = json!({"labels": {"broken": null}});
    cluster.patch::<Deployment>("web", fixed).await;
    cluster.until("revision 3", |d: &[Deployment]| rolled_out(d, "3")).await;
    cluster.until("old ReplicaSets cleaned up", |s: &[ReplicaSet]| (s.len() == 2).then_some(())).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_cascades_in_all_three_ways() {
    let cluster = Cluster::start(1, ControllersConfig::default()).await;
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        cluster.create::<Deployment>(deployment("web", 2, "web:1")).await;
        cluster.until("rolled out", |d: &[Deployment]| rolled_out(d, "1")).await;
        cluster.api::<Deployment>().delete("web", &params).await.unwrap();
        cluster.until("no Deployment", |d: &[Deployment]| d.is_empty().then_some(())).await;
        cluster.until("no ReplicaSet", |s: &[ReplicaSet]| s.is_empty().then_some(())).await;
        cluster.until("no pod", |p: &[Pod]| p.is_empty().then_some(())).await;
    }
    cluster.create::<Deployment>(deployment("web", 2, "web:1")).await;
    cluster.until("rolled out", |d: &[Deployment]| rolled_out(d, "1")).await;
    cluster.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    cluster.until("no Deployment", |d: &[Deployment]| d.is_empty().then_some(())).await;
    let set = cluster.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items.remove(0);
    assert!(set.owner_references().is_empty(), "let go");
    assert_eq!(cluster.api::<Pod>().list(&Default::default()).await.unwrap().items.len(), 2);
    // A new Deployment of the same selector and template takes it in.
    cluster.create::<Deployment>(deployment("web", 2, "web:1")).await;
    cluster
        .until("adopted", |s: &[ReplicaSet]| {
            s.iter().any(|s| s.uid() == set.uid() && !s.owner_references().is_empty()).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_get_their_objects_and_go_with_their_content() {
    let config = ControllersConfig { root_ca_pem: "the CA".into(), ..ControllersConfig::default() };
    let cluster = Cluster::start(1, config).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.create(&PostParams::default(), &of(json!({"metadata": {"name": "shop"}}))).await.unwrap();
    let inside = |client: &Client| Api::<Pod>::namespaced(client.clone(), "shop");
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "shop");
    until(accounts, "ServiceAccount", |a| a.iter().any(|a| a.name_any() == "default").then_some(())).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    let holds = |m: &[ConfigMap]| {
        let map = m.iter().find(|m| m.name_any() == "kube-root-ca.crt")?;
        (map.data.as_ref()?.get("ca.crt")? == "the CA").then_some(())
    };
    until(maps.clone(), "CA", holds).await;
    maps.delete("kube-root-ca.crt", &DeleteParams::default()).await.unwrap();
    until(maps, "CA again", holds).await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "shop");
    deployments.create(&PostParams::default(), &of(deployment("web", 3, "web:1"))).await.unwrap();
    until(inside(&cluster.client), "pods", |p| (p.len() == 3).then_some(())).await;
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    until(namespaces, "gone", |n| n.iter().all(|n| n.name_any() != "shop").then_some(())).await;
    assert!(inside(&cluster.client).list(&Default::default()).await.unwrap().items.is_empty());
    cluster.stop().await;
}

fn job(name: &str, spec: Value, command: &str) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "busybox", "command": [command]}]}}}});
    json_patch::merge(&mut job["spec"], &spec);
    job
}

fn finished(jobs: &[Job], name: &str, condition: &str) -> Option<k8s_openapi::api::batch::v1::JobStatus> {
    let status = jobs.iter().find(|j| j.name_any() == name)?.status.clone()?;
    status.conditions.iter().flatten().any(|c| c.type_ == condition && c.status == "True").then_some(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_complete_fail_and_expire() {
    let cluster = Cluster::start(2, ControllersConfig::default()).await;
    cluster.create::<Job>(job("many", json!({"completions": 5, "parallelism": 2}), "true")).await;
    cluster
        .create::<Job>(job("indexed", json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}), "true"))
        .await;
    cluster.create::<Job>(job("hopeless", json!({"backoffLimit": 0}), "false")).await;
    cluster.create::<Job>(job("late", json!({"activeDeadlineSeconds": 1}), "sleep")).await;
    let many = cluster.until("many", |j: &[Job]| finished(j, "many", "Complete")).await;
    assert_eq!((many.succeeded, many.failed, many.active), (Some(5), None, None));
    let indexed = cluster.until("indexed", |j: &[Job]| finished(j, "indexed", "Complete")).await;
    assert_eq!(indexed.completed_indexes.as_deref(), Some("0-2"));
    let hopeless = cluster.until("hopeless", |j: &[Job]| finished(j, "hopeless", "Failed")).await;
    assert_eq!((hopeless.failed, hopeless.succeeded), (Some(1), None));
    let late = cluster.until("late", |j: &[Job]| finished(j, "late", "Failed")).await;
    let reason = late.conditions.iter().flatten().find(|c| c.type_ == "Failed").unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("DeadlineExceeded"));
    cluster.create::<Job>(job("brief", json!({"ttlSecondsAfterFinished": 0}), "true")).await;
    cluster.until("brief gone", |j: &[Job]| j.iter().all(|j| j.name_any() != "brief").then_some(())).await;
    let left = |p: &[Pod]| p.iter().all(|p| !p.name_any().starts_with("brief")).then_some(());
    cluster.until("its pods too", left).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_wait_for_room_and_say_why() {
    let cluster = Cluster::start(2, ControllersConfig::default()).await;
    let pod = |name: &str, cpu: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}]}})
    };
    let bound = |name: &'static str| move |p: &[Pod]| p.iter().find(|p| p.name_any() == name)?.spec.clone()?.node_name;
    cluster.create::<Pod>(pod("a", "3")).await;
    cluster.create::<Pod>(pod("b", "3")).await;
    let nodes = [cluster.until("a", bound("a")).await, cluster.until("b", bound("b")).await];
    assert_ne!(nodes[0], nodes[1]);
    cluster.create::<Pod>(pod("c", "2")).await;
    let message = cluster
        .until("why c waits", |p: &[Pod]| {
            let c = p.iter().find(|p| p.name_any() == "c")?;
            let conditions = c.status.as_ref()?.conditions.as_ref()?;
            conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?.message.clone()
        })
        .await;
    assert_eq!(message, "0/2 nodes are available: 2 Insufficient cpu.");
    cluster
        .until("event", |e: &[Event]| e.iter().any(|e| e.reason.as_deref() == Some("FailedScheduling")).then_some(()))
        .await;
    cluster.api::<Pod>().delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(cluster.until("c", bound("c")).await, nodes[0]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_loses_its_pods() {
    let config = ControllersConfig {
        node_monitor_grace: Duration::from_secs(1),
        pod_gc_quarantine: Duration::from_millis(10),
        ..ControllersConfig::default()
    };
    // The nodes never renew a lease: they fall silent a second after they appear.
    let cluster = Cluster::start(1, config).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let pod = json!({"metadata": {"name": "p", "labels": {"unattended": "true"}}, "spec": {"nodeName": "node-0",
        "containers": [{"name": "c", "image": "x"}], "tolerations": [
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]}});
    cluster.create::<Pod>(pod).await;
    until(nodes.clone(), "unknown and tainted", |n| {
        let node = n.first()?;
        let unknown =
            node.status.as_ref()?.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "Unknown");
        let taints: Vec<_> =
            node.spec.as_ref()?.taints.iter().flatten().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        let wanted =
            ["NoSchedule", "NoExecute"].iter().all(|e| taints.contains(&("node.kubernetes.io/unreachable", e)));
        (unknown && wanted).then_some(())
    })
    .await;
    cluster.until("evicted", |p: &[Pod]| p.iter().all(|p| p.metadata.deletion_timestamp.is_some()).then_some(())).await;
    nodes.delete("node-0", &DeleteParams::default()).await.unwrap();
    cluster.until("collected with its node", |p: &[Pod]| p.is_empty().then_some(())).await;
    cluster.stop().await;
}
