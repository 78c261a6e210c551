//! A whole environment by the real program: warm starts, memory, pods; and what a save takes.

use crate::{
    redeploy,
    support::Project,
    table::{Budget, Report},
};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use std::time::{Duration, Instant};

const STARTS: usize = 7;
const PODS: usize = 20;
/// How long an environment is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(10);

/// The rows of whole environments.
pub fn measure(report: &mut Report) {
    starts(report, "bench-up", "", "whole environment warm (`aksim up`, images built), no database");
    let what = "whole environment warm (`aksim up`, images built, database initialised)";
    if database_server() {
        starts(report, "bench-db", "\n[database]\nname = \"benchdb\"\n", what);
    } else {
        report.not_available(what, UP, UP_PEER, "no mysqld or mariadbd here");
    }
    let (memory, pods) =
        ("idle memory of the whole simulator, database apart", "pod create → container running (image present)");
    let rows = [memory, pods, redeploy::SYNCED, redeploy::REBUILT];
    if !rows.iter().any(|row| report.wants(row)) {
        return;
    }
    let project = redeploy::project();
    project.up();
    if report.wants(memory) {
        std::thread::sleep(SETTLE);
        let sizes: Vec<f64> = (0..5).map(|_| resident(&project)).collect();
        report.sizes(memory, Budget::BelowMebibytes(80.0), "kube-apiserver + etcd: 360 MB", &sizes);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if report.wants(pods) {
        let times = runtime.block_on(start_pods(&project));
        report.times(pods, Budget::Below(Duration::from_millis(50)), "kubelet: seconds", &times);
    }
    redeploy::measure(report, &project, &runtime);
}

const UP: Budget = Budget::Below(Duration::from_secs(2));
const UP_PEER: &str = "k3d + registry + database: about 20 s";

/// Times of `aksim up --detach`, which returns when every service answers, after `aksim down`.
fn starts(report: &mut Report, name: &str, more: &str, what: &str) {
    if !report.wants(what) {
        return;
    }
    let project = Project::busybox(name);
    let config = std::fs::read_to_string(project.path("aksim.toml")).unwrap();
    project.write("aksim.toml", &format!("{config}{more}"));
    project.up();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut times = Vec::new();
    for _ in 0..STARTS {
        project.ok(&["down"]);
        let began = Instant::now();
        project.up();
        times.push(began.elapsed());
        let page = runtime.block_on(redeploy::Front::of(&project).get("index.html"));
        assert_eq!(page, "first\n", "`up` returned before the service answers");
    }
    report.times(what, UP, UP_PEER, &times);
}

fn database_server() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    ["mysqld", "mariadbd"].iter().any(|server| folders.iter().any(|folder| folder.join(server).is_file()))
}

/// Resident memory of every process of the program for this project, in mebibytes. Pages of the
/// program file count once for each process.
fn resident(project: &Project) -> f64 {
    let program = std::fs::canonicalize(crate::support::AKSIM).unwrap();
    let home = project.home().display().to_string();
    let mut kibibytes = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let folder = entry.path();
        let ours = std::fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == program);
        let says = |file: &str| {
            let text = std::fs::read(folder.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&home)
        };
        if ours && (says("environ") || says("cmdline")) {
            let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
            kibibytes += line.split_whitespace().next().map_or(0, |n| n.parse::<u64>().unwrap());
        }
    }
    assert!(kibibytes > 0, "no process of the environment was found");
    kibibytes as f64 / 1024.0
}

/// From sending the create to seeing the container run in a watch, over TLS as the administrator.
async fn start_pods(project: &Project) -> Vec<Duration> {
    let file = Kubeconfig::read_from(project.environment_home().join("kubeconfig")).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(Client::try_from(config).unwrap());
    let present = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    let image = present.items[0].spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let mut times = Vec::new();
    for index in 0..=PODS {
        let name = format!("bench-{index}");
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "bench", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["/bin/busybox", "sleep", "1000"],
            }]},
        }))
        .unwrap();
        let revision = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(60);
        let mut events = pods.watch(&params, &revision).await.unwrap().boxed();
        let began = Instant::now();
        pods.create(&PostParams::default(), &pod).await.unwrap();
        wait_for(&mut events, |event| matches!(event, WatchEvent::Modified(pod) if running(pod))).await;
        times.push(began.elapsed());
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
        wait_for(&mut events, |event| matches!(event, WatchEvent::Deleted(pod) if pod.name_any() == name)).await;
    }
    // The first one warms up.
    times.split_off(1)
}

async fn wait_for(
    events: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<Pod>>> + Unpin),
    wanted: impl Fn(&WatchEvent<Pod>) -> bool,
) {
    loop {
        let event = events.try_next().await.unwrap().expect("the pod did not get there within a minute");
        if wanted(&event) {
            return;
        }
    }
}

fn running(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.into_iter().any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}
