#![expect(clippy::disallowed_methods, reason = "a test's tasks and threads end with it")]

use super::*;
use crate::{
    runtime::NodeRuntime,
    testing::{FakeApi, FakeRuntime},
};
use aksim_runtime::{component::readiness, recorder::Recorder};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that answers with its name, and how long it lives.
async fn server(name: &'static str) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(name.as_bytes()).await.unwrap();
        }
    });
    (port, task)
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn slice(name: &str, port: u16) -> serde_json::Value {
    json!({ "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": port }],
        "endpoints": [{ "addresses": ["10.244.0.5"], "conditions": { "ready": true } }] })
}

struct Running {
    api: FakeApi,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), ComponentError>>,
    names: watch::Sender<Vec<AzureName>>,
}

async fn start(api: FakeApi) -> Running {
    let (names, azure_names) = watch::channel(vec![]);
    let proxy = ServiceProxy::new(ProxyConfig {
        client: api.client(),
        network: FakeRuntime::new().network(),
        node_addresses: vec![],
        nodes: vec![],
        reserved: vec![],
        api_server: None,
        azure_names,
    });
    let (signal, mut ready) = readiness();
    let stop = CancellationToken::new();
    let context = RunContext { shutdown: stop.clone(), readiness: signal, recorder: Recorder::in_memory() };
    let task = tokio::spawn(Box::new(proxy).run(context));
    assert!(ready.wait().await);
    Running { api, stop, task, names }
}

#[tokio::test]
async fn connections_reach_ready_endpoints_and_survive_a_dead_one() {
    let (alive, _alive) = server("alive").await;
    let dead = free_port().await;
    let port = free_port().await;
    let api = FakeApi::new();
    api.put(
        "services",
        json!({ "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "clusterIP": "10.0.0.9", "ports": [{ "port": port }] } }),
    );
    api.put("endpointslices", slice("web-1", alive));
    api.put("endpointslices", slice("web-2", dead));
    let running = start(api).await;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..6 {
        assert_eq!(ask(address).await.unwrap(), "alive", "another endpoint is tried");
    }
    running.stop.cancel();
    running.task.await.unwrap().unwrap();
    assert!(ask(address).await.is_err());
}

#[tokio::test]
async fn a_load_balancer_gets_a_loopback_address_and_a_port() {
    let (backend, _backend) = server("shop").await;
    let port = free_port().await;
    let api = FakeApi::new();
    api.put(
        "services",
        json!({ "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": port }] } }),
    );
    api.put("endpointslices", slice("web-1", backend));
    let running = start(api).await;
    let ingress = |s: &serde_json::Value| s["status"]["loadBalancer"]["ingress"][0]["ip"].is_string();
    let service = running.api.wait("services", "shop", "web", ingress).await;
    let ip: IpAddr = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap().parse().unwrap();
    assert!(ip.is_loopback());
    assert_eq!(ask(SocketAddr::new(ip, port)).await.unwrap(), "shop");
}

#[tokio::test]
async fn azure_names_are_forwarded_to_their_servers() {
    let (registry, _registry) = server("registry").await;
    let port = free_port().await;
    let running = start(FakeApi::new()).await;
    let target = SocketAddr::from(([127, 0, 0, 1], registry));
    running.names.send_replace(vec![AzureName { host: "shopacr.azurecr.io".into(), port, target }]);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answered = async {
        loop {
            match ask(address).await {
                Ok(text) => return text,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap(), "registry");
}
