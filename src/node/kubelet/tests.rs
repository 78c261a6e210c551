#![expect(clippy::disallowed_methods, reason = "a test's tasks and threads end with it")]

use super::*;
use crate::{
    streaming::spdy::{Codec, Frame},
    testing::{FakeApi, FakeRuntime},
};
use aksim_runtime::recorder::Recorder;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Node {
    api: FakeApi,
    runtime: Arc<FakeRuntime>,
    dir: tempfile::TempDir,
    pki: Pki,
    address: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), ComponentError>>>,
}

impl Node {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
        let mut node = Self {
            api: FakeApi::new(),
            runtime: FakeRuntime::new(),
            dir,
            pki,
            address: "127.0.0.1:0".parse().unwrap(),
            stop: CancellationToken::new(),
            task: None,
        };
        node.start().await;
        node
    }

    async fn start(&mut self) {
        let config = KubeletConfig {
            node: NodeConfig {
                name: "aks-system-1-vmss000000".into(),
                labels: BTreeMap::new(),
                taints: vec![],
                provider_id: "azure:///x".into(),
                internal_ip: "127.0.0.1".parse().unwrap(),
                pod_cidr: "10.244.0.0/24".parse().unwrap(),
                capacity: Capacity { cpu_millis: 2000, memory_bytes: 1 << 30, ephemeral_bytes: 1 << 30, pods: 110 },
            },
            client: self.api.client(),
            runtime: self.runtime.clone(),
            state_dir: self.dir.path().join("kubelet"),
            volumes: aksim_runtime::volumes::VolumeFolders::new(self.dir.path().join("volumes")),
            pki: self.pki.clone(),
            cluster_dns: "10.0.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            trust_bundle: Some(self.pki.ca_path().to_owned()),
            port: 0,
        };
        let kubelet = Kubelet::bind(config).await.unwrap();
        self.address = kubelet.address();
        self.stop = CancellationToken::new();
        let mut context = RunContext::detached(Recorder::in_memory());
        context.shutdown = self.stop.clone();
        self.task = Some(tokio::spawn(Box::new(kubelet).run(context)));
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("aks-system-1-vmss000000");
        let pod = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "shop" }, "spec": spec });
        self.api.put("pods", pod);
    }

    async fn wait(&self, name: &str, check: impl Fn(&Value) -> bool) -> Value {
        self.api.wait("pods", "shop", name, check).await
    }

    async fn client(&self) -> hyper::client::conn::http1::SendRequest<axum::body::Body> {
        let identity = self.pki.issue_client("kube-apiserver-kubelet-client", &["system:masters"]).unwrap();
        let config = Arc::new(self.pki.client_config(Some(&identity)).unwrap());
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn ask(&self, path: &str) -> (u16, String) {
        let request = http::Request::get(path).header("host", "node").body(axum::body::Body::empty()).unwrap();
        let response = self.client().await.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

fn condition<'a>(pod: &'a Value, name: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array();
    all.into_iter().flatten().find(|c| c["type"] == name).and_then(|c| c["status"].as_str()).unwrap_or("")
}

fn ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

fn container(command: &[&str]) -> Value {
    json!({ "name": "app", "image": "shopacr.azurecr.io/web:1", "command": command })
}

#[tokio::test]
async fn a_pod_runs_is_ready_and_is_deleted() {
    let node = Node::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut spec = json!({ "containers": [container(&["run"])], "terminationGracePeriodSeconds": 7 });
    spec["containers"][0]["readinessProbe"] = json!({ "tcpSocket": { "port": port } });
    node.pod("web", spec);
    let pod = node.wait("web", ready).await;
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.244.0.2");
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert_eq!(status["qosClass"], "BestEffort");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["imageID"], "shopacr.azurecr.io/web@sha256:2222");
    assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
    assert!(container["containerID"].as_str().unwrap().starts_with("aksim://container"));
    node.api.delete("pods", "shop", "web", None).unwrap();
    node.wait("web", Value::is_null).await;
    assert_eq!(node.runtime.stopped_with()[0].1.as_secs(), 7);
    assert!(node.runtime.sandboxes_now().is_empty());
    assert!(!node.dir.path().join("kubelet/pods").join(pod["metadata"]["uid"].as_str().unwrap()).exists());
}

#[tokio::test]
async fn logs_and_commands_go_through_the_kubelets_api() {
    use futures::{SinkExt, StreamExt};
    let node = Node::new().await;
    node.pod("web", json!({ "containers": [container(&["say", "hi"])] }));
    node.wait("web", ready).await;
    assert_eq!(node.ask("/containerLogs/shop/web/app").await, (200, "hi\n".into()));
    assert_eq!(node.ask("/containerLogs/shop/web/no").await.0, 400);
    assert_eq!(node.ask("/containerLogs/shop/no/app").await.0, 404);
    assert_eq!(node.ask("/containerLogs/shop/web/app?previous=true").await.0, 400);
    let summary: Value = serde_json::from_str(&node.ask("/stats/summary").await.1).unwrap();
    assert_eq!(summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"], 1 << 20);

    let identity = node.pki.issue_client("kube-apiserver-kubelet-client", &["system:masters"]).unwrap();
    for (command, input, want, code) in [
        ("command=echo&command=a%20b", "", "a b\n", 0),
        ("command=fail&command=3", "", "", 3),
        ("command=cat&input=1", "typed", "typed", 0),
    ] {
        let config = Arc::new(node.pki.client_config(Some(&identity)).unwrap());
        let stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        let url = format!("ws://127.0.0.1/exec/shop/web/app?{command}&output=1&error=1");
        let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(url).unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        if !input.is_empty() {
            let message = [&[0u8], input.as_bytes()].concat();
            socket.send(tokio_tungstenite::tungstenite::Message::binary(message)).await.unwrap();
            socket.send(tokio_tungstenite::tungstenite::Message::binary(vec![255u8, 0])).await.unwrap();
        }
        let (mut output, mut status) = (String::new(), Value::Null);
        while let Some(Ok(message)) = socket.next().await {
            let data = message.into_data();
            match data.first() {
                Some(1) => output.push_str(std::str::from_utf8(&data[1..]).unwrap()),
                Some(3) if data.len() > 1 => status = serde_json::from_slice(&data[1..]).unwrap(),
                _ => {}
            }
        }
        assert_eq!(output, want, "{command}");
        let got = status["details"]["causes"][0]["message"].as_str().map_or(0, |c| c.parse().unwrap());
        assert_eq!(got, code, "{command}");
        assert!(!status.is_null());
    }
}

/// Opens an upgraded SPDY connection to a path of the kubelet's API.
async fn spdy(node: &Node, path: &str, protocol: &str) -> hyper_util::rt::TokioIo<hyper::upgrade::Upgraded> {
    let request = http::Request::post(path)
        .header("host", "node")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", protocol)
        .body(axum::body::Body::empty())
        .unwrap();
    let response = node.client().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["x-stream-protocol-version"], protocol);
    hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap())
}

fn syn(stream: u32, headers: &[(&str, &str)]) -> Frame {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Frame::SynStream { stream, headers, fin: false }
}

/// Sends frames, then collects the bytes of every stream until all of `ends` have ended.
async fn exchange<I>(io: I, send: Vec<Frame>, ends: &[u32]) -> BTreeMap<u32, Vec<u8>>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use futures::{SinkExt, StreamExt};
    let mut framed = tokio_util::codec::Framed::new(io, Codec::default());
    for frame in send {
        framed.send(frame).await.unwrap();
    }
    let (mut got, mut ended) = (BTreeMap::<u32, Vec<u8>>::new(), std::collections::BTreeSet::new());
    while !ends.iter().all(|id| ended.contains(id)) {
        let frame = framed.next().await.expect("the connection ended early").unwrap();
        if let Frame::Data { stream, data, fin } = frame {
            got.entry(stream).or_default().extend_from_slice(&data);
            if fin {
                ended.insert(stream);
            }
        }
    }
    got
}

#[tokio::test]
async fn commands_and_ports_go_over_spdy_too() {
    let node = Node::new().await;
    node.pod("web", json!({ "containers": [container(&["run"])] }));
    node.wait("web", ready).await;
    let io = spdy(&node, "/exec/shop/web/app?command=cat&input=1&output=1", "v4.channel.k8s.io").await;
    let typed = Frame::Data { stream: 3, data: "typed".into(), fin: true };
    let frames = vec![
        syn(1, &[("streamtype", "error")]),
        syn(3, &[("streamtype", "stdin")]),
        syn(5, &[("streamtype", "stdout")]),
        typed,
    ];
    let got = exchange(io, frames, &[1, 5]).await;
    assert_eq!(got[&5], b"typed");
    assert_eq!(serde_json::from_slice::<Value>(&got[&1]).unwrap()["status"], "Success");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        }
    });
    let open = |error, data, request, port: &str| {
        let common = [("port", port), ("requestid", request)];
        let with = |kind| [&[("streamtype", kind)], &common[..]].concat();
        vec![syn(error, &with("error")), syn(data, &with("data"))]
    };
    let io = spdy(&node, "/portForward/shop/web", "portforward.k8s.io").await;
    let mut frames = open(1, 3, "0", &port);
    frames.push(Frame::Data { stream: 3, data: "over the wire".into(), fin: true });
    frames.extend(open(5, 7, "1", "1"));
    let got = exchange(io, frames, &[1, 3, 5, 7]).await;
    assert_eq!(got[&3], b"over the wire");
    assert!(got[&1].is_empty());
    assert!(String::from_utf8_lossy(&got[&5]).contains("error forwarding port 1"));
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

async fn socket(node: &Node, path: &str, protocols: &str) -> Socket {
    let identity = node.pki.issue_client("kube-apiserver-kubelet-client", &["system:masters"]).unwrap();
    let config = Arc::new(node.pki.client_config(Some(&identity)).unwrap());
    let stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let url = format!("ws://127.0.0.1{path}");
    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(url).unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

#[tokio::test]
async fn ports_are_forwarded_over_the_channels_of_a_websocket() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let node = Node::new().await;
    node.pod("web", json!({ "containers": [container(&["run"])] }));
    node.wait("web", ready).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut request).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
    });
    let path = format!("/portForward/shop/web?ports={port},1");
    // As kube-rs offers them.
    let mut socket = socket(&node, &path, "v5.channel.k8s.io, v4.channel.k8s.io").await;
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    let mut got: std::collections::HashMap<u8, Vec<u8>> = std::collections::HashMap::new();
    // The server closes when the pod has closed both ports.
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(data) = message {
            got.entry(data[0]).or_default().extend_from_slice(&data[1..]);
        }
    }
    echo.await.unwrap();
    assert_eq!(got[&0], [&port.to_le_bytes()[..], b"hello"].concat());
    assert_eq!(got[&1], port.to_le_bytes());
    assert_eq!(got[&2], 1u16.to_le_bytes());
    assert_eq!(got[&3][..2], 1u16.to_le_bytes());
    assert!(String::from_utf8_lossy(&got[&3][2..]).contains("error forwarding port 1"));
}

#[tokio::test]
async fn a_websocket_carries_spdy_for_port_forward() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let node = Node::new().await;
    node.pod("web", json!({ "containers": [container(&["run"])] }));
    node.wait("web", ready).await;
    let socket = socket(&node, "/portForward/shop/web", "SPDY/3.1+portforward.k8s.io").await;
    let (mut sink, mut source) = socket.split();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut read, mut write) = tokio::io::split(far);
    let frames = vec![
        syn(1, &[("streamtype", "error"), ("port", "1"), ("requestid", "0")]),
        syn(3, &[("streamtype", "data"), ("port", "1"), ("requestid", "0")]),
    ];
    let up = async {
        let mut buffer = vec![0u8; 4096];
        loop {
            let count = tokio::io::AsyncReadExt::read(&mut read, &mut buffer).await.unwrap();
            sink.send(Message::binary(buffer[..count].to_vec())).await.unwrap();
        }
    };
    let down = async {
        while let Some(Ok(message)) = source.next().await {
            tokio::io::AsyncWriteExt::write_all(&mut write, &message.into_data()).await.unwrap();
        }
    };
    let got = tokio::select! {
        got = exchange(near, frames, &[1, 3]) => got,
        () = up => unreachable!(),
        () = down => panic!("the socket ended early"),
    };
    assert!(String::from_utf8_lossy(&got[&1]).contains("error forwarding port 1"));
}

#[tokio::test]
async fn only_the_api_server_may_ask() {
    let node = Node::new().await;
    let identity = node.pki.issue_client("ada", &["developers"]).unwrap();
    for (identity, want) in [(None, 401), (Some(&identity), 403)] {
        let config = Arc::new(node.pki.client_config(identity).unwrap());
        let stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("/pods").header("host", "n").body(axum::body::Body::empty()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status().as_u16(), want);
    }
}

#[tokio::test]
async fn a_crash_restarts_at_once_and_then_backs_off() {
    let node = Node::new().await;
    node.pod("crash", json!({ "containers": [container(&["exit", "3"])] }));
    let looping = |p: &Value| {
        p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && p["status"]["containerStatuses"][0]["restartCount"] == 1
    };
    let pod = node.wait("crash", looping).await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(container["state"]["waiting"]["message"].as_str().unwrap().starts_with("back-off 10s restarting"));
}

#[tokio::test]
async fn jobs_complete_and_fail() {
    let node = Node::new().await;
    node.pod("ok", json!({ "restartPolicy": "Never", "containers": [container(&["exit", "0"])] }));
    node.pod("bad", json!({ "restartPolicy": "Never", "containers": [container(&["oom"])] }));
    let done = node.wait("ok", |p| p["status"]["phase"] == "Succeeded").await;
    assert_eq!(done["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let bad = node.wait("bad", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(bad["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "OOMKilled");
}

#[tokio::test]
async fn init_containers_and_sidecars_run_in_order() {
    let node = Node::new().await;
    let named = |name: &str, command: &[&str]| {
        let mut c = container(command);
        c["name"] = json!(name);
        c
    };
    let mut sidecar = named("proxy", &["run"]);
    sidecar["restartPolicy"] = json!("Always");
    node.pod(
        "p",
        json!({
            "initContainers": [named("first", &["exit", "0"]), sidecar, named("second", &["exit", "0"])],
            "containers": [container(&["run"])]
        }),
    );
    node.wait("p", ready).await;
    let mut order: Vec<(u32, String)> = node
        .runtime
        .started()
        .into_iter()
        .map(|(id, spec)| (id.trim_start_matches("container").parse().unwrap(), spec.name))
        .collect();
    order.sort();
    let order: Vec<String> = order.into_iter().map(|(_, name)| name).collect();
    assert_eq!(order, ["first", "proxy", "second", "app"]);
    node.api.delete("pods", "shop", "p", None).unwrap();
    node.wait("p", Value::is_null).await;
    let stopped: Vec<String> = node.runtime.stopped_with().into_iter().map(|(id, _)| id).collect();
    let name = |id: &String| node.runtime.started().into_iter().find(|(i, _)| i == id).unwrap().1.name;
    assert_eq!(stopped.iter().map(name).collect::<Vec<_>>(), ["app", "proxy"], "sidecars stop last");
}

#[tokio::test]
async fn configuration_reaches_the_container() {
    let node = Node::new().await;
    node.api.put(
        "services",
        json!({ "metadata": { "name": "db", "namespace": "shop" },
        "spec": { "clusterIP": "10.0.0.7", "ports": [{ "port": 3306 }] } }),
    );
    node.api.put(
        "configmaps",
        json!({ "metadata": { "name": "c", "namespace": "shop" }, "data": { "k": "v", "file": "one" } }),
    );
    node.api.put("secrets", json!({ "metadata": { "name": "s", "namespace": "shop" }, "data": { "pw": "c2VjcmV0" } }));
    let mut c = container(&["run", "$(K)"]);
    c["env"] = json!([
        { "name": "K", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } },
        { "name": "PW", "valueFrom": { "secretKeyRef": { "name": "s", "key": "pw" } } },
        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "URL", "value": "mysql://$(PW)@$(DB_SERVICE_HOST)" }
    ]);
    c["volumeMounts"] = json!([{ "name": "cm", "mountPath": "/etc/app" }, { "name": "api", "mountPath": "/token" }]);
    node.pod(
        "p",
        json!({ "serviceAccountName": "default", "containers": [c], "volumes": [
        { "name": "cm", "configMap": { "name": "c" } },
        { "name": "api", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }
    ] }),
    );
    node.wait("p", ready).await;
    let (_, spec) = node.runtime.started().pop().unwrap();
    let env: BTreeMap<String, String> = spec.env.iter().cloned().collect();
    assert_eq!(env["URL"], "mysql://secret@10.0.0.7");
    assert_eq!(env["IP"], "10.244.0.2");
    assert_eq!(env["SSL_CERT_FILE"], "/etc/ssl/certs/ca-certificates.crt");
    assert_eq!(spec.command, ["run", "v"]);
    let mount = |path: &str| spec.mounts.iter().find(|m| m.container_path.to_str() == Some(path)).unwrap().clone();
    let volume = mount("/etc/app").host_path;
    assert!(mount("/etc/app").readonly);
    assert_eq!(std::fs::read_to_string(volume.join("file")).unwrap(), "one");
    assert_eq!(std::fs::read_to_string(mount("/token").host_path.join("token")).unwrap(), "a.b.c");
    assert!(std::fs::read_to_string(mount("/etc/hosts").host_path).unwrap().contains("10.244.0.2\tp"));

    let (sender, mut changed) = tokio::sync::mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = sender.send(());
    })
    .unwrap();
    notify::Watcher::watch(&mut watcher, &volume, notify::RecursiveMode::NonRecursive).unwrap();
    node.api.put("configmaps", json!({ "metadata": { "name": "c", "namespace": "shop" }, "data": { "file": "two" } }));
    while std::fs::read_to_string(volume.join("file")).unwrap() != "two" {
        tokio::time::timeout(std::time::Duration::from_secs(20), changed.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_missing_is_told_in_the_status() {
    let node = Node::new().await;
    let mut c = container(&["run"]);
    c["env"] = json!([{ "name": "K", "valueFrom": { "secretKeyRef": { "name": "none", "key": "k" } } }]);
    node.pod("config", json!({ "containers": [c] }));
    let mut c = container(&["run"]);
    c["image"] = json!("shopacr.azurecr.io/missing:1");
    node.pod("image", json!({ "containers": [c] }));
    let reason = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    let pod = node.wait("config", |p| reason(p) == "CreateContainerConfigError").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "secret \"none\" not found");
    node.wait("image", |p| reason(p) == "ImagePullBackOff" || reason(p) == "ErrImagePull").await;
    node.pod(
        "claim",
        json!({ "containers": [container(&["run"])],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "x" } }] }),
    );
    let event =
        |e: &Value| e["reason"] == "FailedMount" && e["message"].as_str().unwrap().contains("claim \"x\" not found");
    node.api.wait_any("events", event).await;
}

#[tokio::test]
async fn a_new_kubelet_adopts_what_runs() {
    let mut node = Node::new().await;
    node.pod("stays", json!({ "containers": [container(&["run"])] }));
    node.pod("goes", json!({ "containers": [container(&["run"])] }));
    let before = node.wait("stays", ready).await;
    node.wait("goes", ready).await;
    node.stop().await;
    node.api.delete("pods", "shop", "goes", Some(0)).unwrap();
    node.start().await;
    node.pod("third", json!({ "containers": [container(&["run"])] }));
    let third = node.wait("third", ready).await;
    assert_eq!(third["status"]["podIP"], "10.244.0.4", "addresses in use are known");
    let after = node.api.get("pods", "shop", "stays").unwrap();
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    assert_eq!(node.runtime.started().len(), 3, "nothing was started twice");
    node.api.delete("pods", "shop", "stays", Some(1)).unwrap();
    node.wait("stays", Value::is_null).await;
}

#[tokio::test]
async fn a_failing_liveness_probe_restarts_the_container() {
    let node = Node::new().await;
    let mut c = container(&["run"]);
    c["livenessProbe"] = json!({ "exec": { "command": ["fail", "1"] }, "failureThreshold": 1, "periodSeconds": 1 });
    node.pod("p", json!({ "containers": [c] }));
    node.wait("p", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(!node.runtime.stopped_with().is_empty());
}

#[tokio::test]
async fn the_path_to_running_asks_nothing_that_it_need_not() {
    let node = Node::new().await;
    node.wait_for_node().await;
    let before = node.api.requests().len();
    node.pod("p", json!({ "containers": [container(&["run"])] }));
    node.wait("p", ready).await;
    let asked = node.api.requests().split_off(before);
    let reads: Vec<&String> = asked.iter().filter(|r| r.starts_with("GET") && !r.contains("/nodes/")).collect();
    assert!(reads.is_empty(), "{reads:?}");
}

impl Node {
    async fn wait_for_node(&self) {
        self.api.wait("nodes", "", "aks-system-1-vmss000000", |n| condition(n, "Ready") == "True").await;
        // The pod watch begins after registration; a pod that runs shows that it is there.
        self.pod("probe", json!({ "containers": [container(&["run"])] }));
        self.wait("probe", ready).await;
    }
}
