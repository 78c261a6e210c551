#![expect(clippy::disallowed_methods, reason = "a test's tasks and threads end with it")]

use super::*;
use crate::{
    runtime::NodeRuntime,
    testing::{FakeApi, FakeRuntime},
};
use aksim_runtime::{component::readiness, recorder::Recorder};
use hickory_proto::op::{Message, Query};
use serde_json::json;
use tokio_util::sync::CancellationToken;

async fn start(upstream: Vec<SocketAddr>) -> (SocketAddr, CancellationToken) {
    let api = FakeApi::new();
    api.put(
        "services",
        json!({ "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "clusterIP": "10.0.0.7", "ports": [{ "name": "http", "port": 80 }] } }),
    );
    let azure = AzureName { host: "shopacr.azurecr.io".into(), port: 443, target: "127.0.0.1:1".parse().unwrap() };
    let (_, azure_names) = watch::channel(vec![azure]);
    let dns = ClusterDns::bind(DnsConfig {
        client: api.client(),
        network: FakeRuntime::new().network(),
        address: "127.0.0.1:0".parse().unwrap(),
        domain: "cluster.local".into(),
        azure_names,
        upstream: Some(upstream),
    })
    .await
    .unwrap();
    let address = dns.address();
    let (signal, mut ready) = readiness();
    let stop = CancellationToken::new();
    let context = RunContext { shutdown: stop.clone(), readiness: signal, recorder: Recorder::in_memory() };
    tokio::spawn(Box::new(dns).run(context));
    assert!(ready.wait().await);
    (address, stop)
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.queries.push(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.metadata.recursion_desired = true;
    upstream::ask(&[server], &message.to_vec().unwrap()).await.unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[tokio::test]
async fn names_are_answered_over_the_wire() {
    let (server, stop) = start(vec![]).await;
    let answer = ask(server, "Web.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(addresses(&answer), ["10.0.0.7"]);
    assert!(answer.metadata.authoritative && answer.answers[0].ttl == TTL);
    let answer = ask(server, "shopacr.azurecr.io.", RecordType::A).await;
    assert!(addresses(&answer)[0].starts_with("10.225."));
    let answer = ask(server, "shopacr.azurecr.io.", RecordType::AAAA).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    let answer = ask(server, "no.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities.len(), 1);
    let answer = ask(server, "_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!((answer.answers.len(), answer.additionals.len()), (1, 1));
    let answer = ask(server, "example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "no upstream, no name");
    stop.cancel();
}

#[tokio::test]
async fn other_names_go_upstream() {
    // Another cluster's DNS is an upstream as good as any.
    let (other, _stop_other) = start(vec![]).await;
    let (server, _stop) = start(vec![other]).await;
    let answer = ask(server, "example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(!answer.metadata.authoritative);
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (server, _stop) = start(vec![silent.local_addr().unwrap()]).await;
    let garbage = async {
        let mut buffer = [0u8; 512];
        let (_, client) = silent.recv_from(&mut buffer).await.unwrap();
        silent.send_to(&[buffer[0], buffer[1], 0xff], client).await.unwrap();
    };
    let (answer, ()) = tokio::join!(ask(server, "example.com.", RecordType::A), garbage);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}
