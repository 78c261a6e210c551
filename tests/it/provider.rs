//! The contract that every cluster provider is held against, from outside of it.

use crate::{
    containers::support::{IMAGE, busybox_config, busybox_layers, layout},
    environment::traces,
    support::AKSIM,
};
use aksim::{
    cluster::{
        kubeconfig,
        provider::{
            Access, ClusterKind, ClusterProvider, Extent, Intervention, Place, ProviderError, RegistryLogin, Wiring,
        },
    },
    config::{home::Home, project},
    runtime::{net::azure_http_client, pki, pki::Pki, recorder::Recorder, supervisor::Supervisor},
    simulator::PROVIDERS,
};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::{Api, Client, ResourceExt, api::PostParams};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

/// Environment variable, and value, by which the processes of the pod are found: another in each run.
const NAME: &str = "AKSIM_IT_PROVIDER";
static VALUE: LazyLock<String> = LazyLock::new(|| format!("{:016x}", rand::random::<u64>()));
/// What anything may take on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(60);
/// After which a server that is asked counts as gone.
const SILENCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_is_a_cluster_provider() {
    let named = |name| *PROVIDERS.iter().find(|provider| provider.name() == name).unwrap();
    contract(named("embedded")).await;
}

/// A provider's whole life. What it has begun is gone afterwards, whatever it failed in.
async fn contract(kind: &dyn ClusterKind) {
    pki::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path().join("it-provider"), folder.path().join("cache"));
    std::fs::create_dir(home.root()).unwrap();
    let place = place(kind, &home);
    let names = watch::Sender::default();
    let wiring = Wiring {
        port: 0,
        issuer: "https://login.microsoftonline.com/contoso/v2.0".into(),
        http: azure_http_client(&place.pki, &[]).unwrap(),
        azure_names: names.subscribe(),
        registry: RegistryLogin { host: "shopacr.azurecr.io".into(), username: "a".into(), password: "b".into() },
    };
    let cluster = kind.open(place).await.unwrap();
    let mut supervisor = Supervisor::new(Recorder::in_memory(), DEADLINE);
    let life = live(&*cluster, wiring, &mut supervisor, folder.path());
    let lived = AssertUnwindSafe(timeout(2 * DEADLINE, life)).catch_unwind().await;
    let aborted = supervisor.stop().await;
    let stopped = cluster.stop(Extent::All).await;
    match lived {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(in_time) => in_time.expect("the whole life within its deadline"),
    }
    assert_eq!(aborted, Vec::<&str>::new());
    stopped.unwrap();
    assert_eq!(traces(home.root()), Vec::<String>::new());
}

fn place(kind: &dyn ClusterKind, home: &Home) -> Place {
    let text = format!("name = \"it-provider\"\n[cluster]\nprovider = \"{}\"\n", kind.name());
    let config = project::parse(&text, home.root()).unwrap();
    Place {
        config: Arc::new(config),
        home: home.clone(),
        exe: AKSIM.into(),
        id: format!("{:016x}", rand::random::<u64>()),
        pki: Pki::open(&home.pki(), "contract").unwrap(),
        context: "aksim-it-provider".into(),
    }
}

async fn live(cluster: &dyn ClusterProvider, wiring: Wiring, supervisor: &mut Supervisor, folder: &Path) {
    assert!(matches!(cluster.access(), Err(ProviderError::NotStarted)));
    cluster.bind(wiring).await.unwrap();
    cluster.start(supervisor).await.unwrap();
    let access = cluster.access().unwrap();
    let client = by_kubeconfig(&access, folder).await;
    let nodes = cluster.start_nodes(supervisor).await.unwrap();
    become_ready(&client, &nodes).await;

    let image = folder.join("layout");
    layout(&image, IMAGE, &busybox_layers(), busybox_config());
    cluster.load_image(&image).await.unwrap();
    let pod = served(&client, &access).await;

    let path = Path::new("/srv/page");
    assert_eq!(page(&access, &pod).await, None);
    cluster.put_file(&pod, "web", path, Some(b"synced")).await.unwrap();
    assert_eq!(page(&access, &pod).await.as_deref(), Some("synced"));
    cluster.put_file(&pod, "web", path, None).await.unwrap();
    assert_eq!(page(&access, &pod).await, None);
    assert!(matches!(cluster.put_file(&pod, "db", path, None).await, Err(ProviderError::Unknown { .. })));

    faults(cluster, &client, &access, &pod).await;
}

/// The kubeconfig is one that everybody can use, and reaches the same cluster.
async fn by_kubeconfig(access: &Access, folder: &Path) -> Client {
    let file = folder.join("kubeconfig");
    std::fs::write(&file, kubeconfig::render(&access.context)).unwrap();
    let read = kube::config::Kubeconfig::read_from(&file).unwrap();
    assert_eq!(read.current_context.as_deref(), Some("aksim-it-provider"));
    let config = kube::Config::from_custom_kubeconfig(read, &kube::config::KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let (by_file, by_access) = tokio::join!(client.apiserver_version(), access.client.apiserver_version());
    assert_eq!(by_file.unwrap().git_version, by_access.unwrap().git_version);
    client
}

async fn become_ready(client: &Client, names: &[String]) {
    let ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    eventually("all nodes are ready", async || {
        let nodes = Api::<Node>::all(client.clone()).list(&Default::default()).await.unwrap();
        let ready: BTreeSet<String> = nodes.iter().filter(|node| ready(node)).map(|node| node.name_any()).collect();
        (!names.is_empty() && ready == names.iter().cloned().collect()).then_some(())
    })
    .await;
}

/// A pod of the loaded image that serves `/srv`.
async fn served(client: &Client, access: &Access) -> Pod {
    eventually("pods may be made", async || {
        Api::<ServiceAccount>::namespaced(client.clone(), "default").get_opt("default").await.unwrap()
    })
    .await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "web", "image": IMAGE, "imagePullPolicy": "Never",
            "env": [{"name": NAME, "value": *VALUE}],
            "command": ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/srv"]}]}});
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    running(client, access).await
}

/// The pod, once it runs and answers.
async fn running(client: &Client, access: &Access) -> Pod {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    eventually("the pod answers", async || {
        let pod = pods.get("web").await.unwrap();
        let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
        let answers = state.running.is_some() && answer(access, &pod).await.is_some();
        answers.then_some(pod)
    })
    .await
}

async fn faults(cluster: &dyn ClusterProvider, client: &Client, access: &Access, pod: &Pod) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap();
    let missing = [
        Intervention::KillContainer { id: "0123".into() },
        Intervention::Power { node: "no-such-node".into(), on: false },
    ];
    for intervention in missing {
        let error = cluster.intervene(intervention).await.unwrap_err();
        assert!(matches!(error, ProviderError::Unknown { .. }), "{error}");
    }
    // What nobody is marked with, nobody gets.
    let signal = Intervention::Signal { mark: format!("{NAME}=nobody"), signal: Signal::SIGKILL };
    cluster.intervene(signal).await.unwrap();
    assert_eq!(page(access, pod).await, None);
    let restarts = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count;
    let container =
        |pod: &Pod| pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].container_id.clone();
    let id = container(pod).unwrap().split_once("://").unwrap().1.to_owned();
    cluster.intervene(Intervention::KillContainer { id }).await.unwrap();
    let again = eventually("the container is started again", async || {
        let now = running(client, access).await;
        (restarts(&now) > restarts(pod) && container(&now) != container(pod)).then_some(now)
    })
    .await;

    let signal = Intervention::Signal { mark: format!("{NAME}={}", *VALUE), signal: Signal::SIGKILL };
    cluster.intervene(signal).await.unwrap();
    let again = eventually("the container is started after a signal", async || {
        let now = running(client, access).await;
        (container(&now) != container(&again)).then_some(now)
    })
    .await;

    cluster.intervene(Intervention::Power { node: node.clone(), on: false }).await.unwrap();
    assert_eq!(answer(access, &again).await, None, "a pod outlives the power of its node");
    cluster.intervene(Intervention::Power { node, on: true }).await.unwrap();
    running(client, access).await;
}

/// What the pod's server says, through the dialer; `None` when nobody does.
async fn answer(access: &Access, pod: &Pod) -> Option<String> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().unwrap();
    let asked = async {
        let mut stream = access.dialer.dial(SocketAddr::new(ip, 8080)).await.ok()?;
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        (!text.is_empty()).then_some(text)
    };
    timeout(SILENCE, asked).await.ok().flatten()
}

/// The page that is synced; `None` where there is none.
async fn page(access: &Access, pod: &Pod) -> Option<String> {
    let answer = answer(access, pod).await.expect("the pod answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Asks until there is something; the deadline is the failure.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{what}: not within {} s", DEADLINE.as_secs()))
}
