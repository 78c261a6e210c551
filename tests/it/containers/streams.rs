//! Terminals, attach, log rotation.

use super::support::{DEADLINE, Node, log_has};
use aksim::node::runtime::{ExecSpec, NodeRuntime, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Reads until a text has come.
async fn until(session: &mut Session, text: &str) -> String {
    let stdout = session.stdout.as_mut().unwrap();
    let mut all = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&all).contains(text) {
            assert!(stdout.read_buf(&mut all).await.unwrap() > 0, "ended after {:?}", String::from_utf8_lossy(&all));
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap_or_else(|_| panic!("{text:?} never comes"));
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn exec_with_a_terminal() {
    let node = Node::start().await;
    let pod = node.pod([2, 5]).await;
    let id = node.runtime.start_container(&pod, node.shell("sleep 1000")).await.unwrap();
    let spec = ExecSpec { command: vec!["sh".into()], tty: true, stdin: true };
    let mut session = node.runtime.exec(&id, spec).await.unwrap();
    assert!(session.stderr.is_none());
    session.control.resize(132, 43).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"stty size; test -t 0 && echo is-$((1+1))-tty\n").await.unwrap();
    let text = until(&mut session, "is-2-tty").await;
    assert!(text.contains("43 132"), "{text}");
    stdin.write_all(b"exit 9\n").await.unwrap();
    assert_eq!(session.control.wait().await.unwrap(), 9);

    let spec = ExecSpec { command: vec!["sleep".into(), "1000".into()], tty: false, stdin: false };
    let session = node.runtime.exec(&id, spec).await.unwrap();
    session.control.kill().await.unwrap();
    assert_eq!(session.control.wait().await.unwrap(), 137);
    node.stop().await;
}

#[tokio::test]
async fn attach_sees_output_and_gives_input() {
    let node = Node::start().await;
    let pod = node.pod([2, 6]).await;
    let mut spec = node.shell("echo started; cat; echo end-of-input");
    (spec.stdin, spec.stdin_once) = (true, true);
    let id = node.runtime.start_container(&pod, spec).await.unwrap();
    log_has(&node, &id, "started").await;
    let mut session = node.runtime.attach(&id).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    assert_eq!(until(&mut session, "typed\n").await, "typed\n");
    drop(stdin);
    until(&mut session, "end-of-input").await;
    assert_eq!(session.control.wait().await.unwrap(), 0);
    assert_eq!(node.log(&id).await.1, "started\ntyped\nend-of-input\n");

    let mut spec = node.shell("read line; echo got $line; stty size");
    (spec.tty, spec.stdin, spec.attempt) = (true, true, 1);
    let id = node.runtime.start_container(&pod, spec).await.unwrap();
    let mut session = node.runtime.attach(&id).await.unwrap();
    session.control.resize(100, 50).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    until(&mut session, "50 100").await;
    assert_eq!(session.control.wait().await.unwrap(), 0);
    node.stop().await;
}

#[tokio::test]
async fn a_rotated_log_is_started_anew() {
    let node = Node::start().await;
    let pod = node.pod([2, 7]).await;
    let id = node
        .runtime
        .start_container(&pod, node.shell("echo before; until test -e /go; do sleep 0.01; done; echo after"))
        .await
        .unwrap();
    log_has(&node, &id, "before").await;
    let path = node.status(&id).await.log_path;
    let old = path.with_extension("log.rotated");
    std::fs::rename(&path, &old).unwrap();
    node.runtime.reopen_log(&id).await.unwrap();
    node.exec(&id, &["touch", "/go"], None).await;
    assert_eq!(node.ended(&id).await.0, 0);
    assert!(std::fs::read_to_string(&old).unwrap().ends_with(" stdout F before\n"));
    assert_eq!(node.log(&id).await.1, "after\n");
    node.stop().await;
}
