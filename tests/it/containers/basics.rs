//! One pod, one container: start, logs, exec, exit, network doors.

use super::support::{DEADLINE, Node, log_has, serve};
use aksim::node::runtime::NodeRuntime;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn runs_logs_executes_and_ends() {
    let node = Node::start().await;
    let pod = node.pod([0, 5]).await;
    let spec = node.shell(
        "echo hello; echo oops >&2; read line < /dev/null; trap 'exit 7' TERM; echo up; while :; do sleep 1; done",
    );
    let id = node.runtime.start_container(&pod, spec).await.unwrap();
    log_has(&node, &id, "stdout F up").await;
    // The streams are written down side by side.
    log_has(&node, &id, "stderr F oops").await;
    let raw = std::fs::read_to_string(node.status(&id).await.log_path).unwrap();
    assert!(raw.contains(" stdout F hello\n") && raw.contains(" stderr F oops\n"), "{raw}");

    let (code, out, err) =
        node.exec(&id, &["sh", "-c", "cat; echo $0 >&2; pwd; hostname; exit 3"], Some("from stdin\n")).await;
    assert_eq!((code, out.as_str(), err.as_str()), (3, "from stdin\n/srv\npod-0-5\n", "sh\n"));
    let missing = node
        .runtime
        .exec(&id, aksim::node::runtime::ExecSpec { command: vec!["nope".into()], tty: false, stdin: false })
        .await;
    let message = super::support::start_error(missing.err().unwrap());
    assert!(message.contains("\"nope\": executable file not found in $PATH"), "{message}");

    node.runtime.stop_container(&id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(node.ended(&id).await, (7, false));
    node.runtime.remove_sandbox(&pod).await.unwrap();
    assert!(node.runtime.sandboxes().await.unwrap().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn pods_reach_each_other_and_the_daemon_reaches_them() {
    let node = Node::start().await;
    let (server, client) = (node.pod([0, 6]).await, node.pod([0, 7]).await);
    let id =
        node.runtime.start_container(&server, node.shell(&serve("nc -ll -p 80 -e echo answer", 80))).await.unwrap();
    log_has(&node, &id, "listening").await;
    let network = node.runtime.network();
    let mut stream = network.dial("10.244.0.6:80".parse().unwrap()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer\n");
    assert_eq!(node.run(&client, node.shell("nc 10.244.0.6 80")).await, (0, "answer\n".into()));

    // A service address: a listener of the daemon inside the node network.
    let listener = network.listen_tcp("10.0.0.1:443".parse().unwrap()).await.unwrap();
    let accept = async {
        let (mut stream, peer) = listener.accept().await.unwrap();
        stream.write_all(b"kubernetes\n").await.unwrap();
        peer
    };
    let (peer, answer) = tokio::join!(accept, node.run(&client, node.shell("nc 10.0.0.1 443")));
    assert_eq!(peer.ip().to_string(), "10.244.0.7");
    assert_eq!(answer, (0, "kubernetes\n".into()));

    // Loopback of a pod, as port-forward wants it.
    let id =
        node.runtime.start_container(&client, node.shell(&serve("nc -ll -p 8080 -e echo local", 8080))).await.unwrap();
    log_has(&node, &id, "listening").await;
    let mut text = String::new();
    let mut stream = network.dial_sandbox(&client, 8080).await.unwrap();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "local\n");
    node.stop().await;
}

/// Who has talked to a pod must reach the next pod of that address at once, and must learn at once
/// that there is none.
#[tokio::test]
async fn an_address_goes_from_pod_to_pod() {
    let node = Node::start().await;
    let client = node.pod([0, 9]).await;
    let network = node.runtime.network();
    for round in 0..2 {
        let mut spec = node.pod_spec([0, 10]);
        spec.log_directory.push(round.to_string());
        let pod = node.runtime.run_sandbox(spec).await.unwrap();
        let id =
            node.runtime.start_container(&pod, node.shell(&serve("nc -ll -p 80 -e echo answer", 80))).await.unwrap();
        log_has(&node, &id, "listening").await;
        let dial = || network.dial("10.244.0.10:80".parse().unwrap());
        let mut text = String::new();
        dial().await.unwrap_or_else(|e| panic!("round {round}: {e}")).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer\n");
        // A pod has a memory of its own; the kernel would doubt it after 5 s.
        let (code, answer) = node.run(&client, node.shell("nc -w 3 10.244.0.10 80")).await;
        assert_eq!((code, answer.as_str()), (0, "answer\n"), "round {round}");
        node.runtime.remove_sandbox(&pod).await.unwrap();
        // Silence would be `TimedOut`.
        assert_eq!(dial().await.unwrap_err().kind(), std::io::ErrorKind::HostUnreachable);
    }
    node.stop().await;
}

/// A pod whose network has gone says nothing: neither that it received, nor that it is closed.
#[tokio::test]
async fn connections_of_a_pod_that_is_gone_end() {
    let node = Node::start().await;
    let pod = node.pod([0, 8]).await;
    let mut server = node.shell(&serve("nc -ll -p 80 -e cat", 80));
    server.security.add_capabilities.push("NET_ADMIN".into());
    let id = node.runtime.start_container(&pod, server).await.unwrap();
    log_has(&node, &id, "listening").await;
    let network = node.runtime.network();
    let dial = || network.dial("10.244.0.8:80".parse().unwrap());
    let (mut idle, mut asking) = (dial().await.unwrap(), dial().await.unwrap());
    for stream in [&mut idle, &mut asking] {
        stream.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
    }
    // And one that the pod itself has opened, to a service.
    let listener = network.listen_tcp("10.0.0.2:3306".parse().unwrap()).await.unwrap();
    node.runtime.start_container(&pod, node.shell("sleep 600 | nc 10.0.0.2 3306")).await.unwrap();
    let (mut taken, _) = tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    let (code, _, said) = node.exec(&id, &["/bin/ip", "link", "set", "eth0", "down"], None).await;
    assert_eq!(code, 0, "{said}");
    asking.write_all(b"b").await.unwrap();
    let ends =
        tokio::time::timeout(DEADLINE, async { tokio::join!(asking.read_u8(), idle.read_u8(), taken.read_u8()) });
    let (asking, idle, taken) = ends.await.expect("all end before their request's own deadline");
    assert!(asking.is_err() && idle.is_err() && taken.is_err(), "{asking:?} {idle:?} {taken:?}");
    node.stop().await;
}
