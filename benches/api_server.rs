//! The embedded API server alone: start, creates, lists; all over TCP and TLS.
//!
//! Server and clients share one process and its runtime, so the clients' half of TLS, and the
//! making and reading of bodies, is paid from the same cores. Clients are HTTP/1.1 connections
//! that are kept open, each with one request at a time and a client certificate.

use crate::table::{Budget, Report};
use aksim::{
    kubernetes::{ApiServer, ApiServerConfig},
    runtime::{
        component::{Component, RunContext},
        pki::Pki,
        recorder::Recorder,
    },
};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const STARTS: usize = 15;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A running API server with a folder of its own.
struct Running {
    address: SocketAddr,
    connector: TlsConnector,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Running {
    /// Starts one on an empty folder; the certificate authority is there already, as it is the
    /// environment's.
    async fn start(folder: TempDir, pki: Pki, tls: Arc<rustls::ClientConfig>) -> Self {
        let config = ApiServerConfig::new(folder.path().join("kubernetes"), pki);
        let server = ApiServer::bind(config).await.unwrap();
        let address = server.address();
        let context = RunContext::detached(Recorder::in_memory());
        let stop = context.shutdown.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { Box::new(server).run(context).await.unwrap() });
        Self { address, connector: TlsConnector::from(tls), stop, tasks, _folder: folder }
    }

    /// A connection of its own; its other half runs until the connection is dropped.
    async fn connect(&mut self) -> SendRequest<Full<Bytes>> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = self.connector.connect(name, tcp).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        self.tasks.spawn(async move { connection.await.unwrap_or_default() });
        sender
    }

    async fn connections(&mut self, count: usize) -> Vec<SendRequest<Full<Bytes>>> {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(self.connect().await);
        }
        connections
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

fn empty() -> (TempDir, Pki, Arc<rustls::ClientConfig>) {
    let folder = TempDir::new().unwrap();
    let pki = Pki::open(&folder.path().join("pki"), "benches").unwrap();
    let identity = pki.issue_client("benches", &["system:masters"]).unwrap();
    let tls = Arc::new(pki.client_config(Some(&identity)).unwrap());
    (folder, pki, tls)
}

/// Sends a request and reads the answer to its end; the answer's length.
async fn send(
    connection: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: Vec<u8>,
    wanted: StatusCode,
) -> usize {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(body))
        .unwrap();
    connection.ready().await.unwrap();
    let answer = connection.send_request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, wanted, "{}", String::from_utf8_lossy(&body));
    body.len()
}

fn config_map(name: &str) -> Vec<u8> {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(4);
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"bench": "yes"}},
        "data": {"text": text, "name": name},
    });
    object.to_string().into_bytes()
}

/// The rows of the API server.
pub fn measure(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let what = "embedded API server, start → `/readyz`, empty state";
    if report.wants(what) {
        let times: Vec<Duration> = (0..STARTS).map(|_| runtime.block_on(start())).collect();
        let budget = Budget::Below(Duration::from_millis(100));
        report.times(what, budget, "kube-apiserver + etcd: about 4 s", &times);
    }
    let what = "object creates/s, 32 connections, TLS";
    if report.wants(what) {
        let rates = runtime.block_on(creates(32));
        report.rates(what, Budget::AtLeast(26_000.0), "kube-apiserver + etcd: 2,600/s (budget 10×)", &rates);
    }
    let what = "LIST of 500 ConfigMaps/s, 16 connections, TLS";
    if report.wants(what) {
        let rates = runtime.block_on(lists(16, false));
        report.rates(what, Budget::AtLeast(2_720.0), "kube-apiserver + etcd: 136/s (budget 20×)", &rates);
    }
    let what = "LIST of 500 ConfigMaps/s, the same, one of them written between lists";
    if report.wants(what) {
        let rates = runtime.block_on(lists(16, true));
        report.rates(what, Budget::None, "not stated", &rates);
    }
}

async fn start() -> Duration {
    let (folder, pki, tls) = empty();
    let began = Instant::now();
    let mut running = Running::start(folder, pki, tls).await;
    let mut connection = running.connect().await;
    send(&mut connection, Method::GET, "/readyz", Vec::new(), StatusCode::OK).await;
    let took = began.elapsed();
    drop(connection);
    running.stop().await;
    took
}

async fn creates(count: usize) -> Vec<f64> {
    let (folder, pki, tls) = empty();
    let mut running = Running::start(folder, pki, tls).await;
    let mut connections = running.connections(count).await;
    let mut rates = Vec::new();
    for round in 0..=ROUNDS {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for (index, mut connection) in connections.drain(..).enumerate() {
            clients.spawn(async move {
                let mut done = 0;
                while began.elapsed() < ROUND {
                    let body = config_map(&format!("bench-{round}-{index}-{done}"));
                    send(&mut connection, Method::POST, CONFIG_MAPS, body, StatusCode::CREATED).await;
                    done += 1;
                }
                (connection, done)
            });
        }
        let mut total = 0;
        for (connection, done) in clients.join_all().await {
            connections.push(connection);
            total += done;
        }
        rates.push(f64::from(total) / began.elapsed().as_secs_f64());
    }
    drop(connections);
    running.stop().await;
    // The first round warms up.
    rates.split_off(1)
}

/// With `writes`, each list is followed by an update of one object, so that no list is as the last.
async fn lists(count: usize, writes: bool) -> Vec<f64> {
    let (folder, pki, tls) = empty();
    let mut running = Running::start(folder, pki, tls).await;
    let mut connections = running.connections(count).await;
    for index in 0..500 {
        let body = config_map(&format!("bench-{index}"));
        send(&mut connections[0], Method::POST, CONFIG_MAPS, body, StatusCode::CREATED).await;
    }
    let mut rates = Vec::new();
    for _ in 0..=ROUNDS {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for (index, mut connection) in connections.drain(..).enumerate() {
            clients.spawn(async move {
                let mut done = 0;
                while began.elapsed() < ROUND {
                    let length = send(&mut connection, Method::GET, CONFIG_MAPS, Vec::new(), StatusCode::OK).await;
                    assert!(length > 500 * 300, "{length} bytes are not 500 ConfigMaps");
                    done += 1;
                    if writes {
                        let (name, path) = (format!("bench-{index}"), format!("{CONFIG_MAPS}/bench-{index}"));
                        let mut body: serde_json::Value = serde_json::from_slice(&config_map(&name)).unwrap();
                        body["data"]["count"] = done.to_string().into();
                        send(&mut connection, Method::PUT, &path, body.to_string().into_bytes(), StatusCode::OK).await;
                    }
                }
                (connection, done)
            });
        }
        let mut total = 0;
        for (connection, done) in clients.join_all().await {
            connections.push(connection);
            total += done;
        }
        rates.push(f64::from(total) / began.elapsed().as_secs_f64());
    }
    drop(connections);
    running.stop().await;
    rates.split_off(1)
}
