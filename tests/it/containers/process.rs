//! What a process finds in its container.

use super::support::{Node, is_root, start_error};
use aksim::node::runtime::{ContainerState, Mount, NodeRuntime};
use std::time::Duration;

#[tokio::test]
async fn finds_its_image_environment_and_files() {
    let node = Node::start().await;
    let pod = node.pod([1, 5]).await;
    let mut spec =
        node.shell("exec 2>&1; echo $FROM_IMAGE $BOTH $POD $HOSTNAME $HOME; pwd; ls /gone; cat /etc/hidden; true");
    spec.env = vec![("BOTH".into(), "pod".into()), ("POD".into(), "x=y".into())];
    let (code, log) = node.run(&pod, spec).await;
    let want = "1 pod x=y pod-1-5 /root\n/srv\nnew\ncat: can't open '/etc/hidden': No such file or directory\n";
    assert_eq!((code, log.as_str()), (0, want));

    let host = node.folder.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("in"), "from host\n").unwrap();
    let mut spec =
        node.shell("exec 2>&1; cat /v/in; echo out > /v/out; cat /ro; echo no > /ro; touch /scratch/x && echo scratch");
    let mount =
        |path: &str, host_path, readonly, tmpfs| Mount { host_path, container_path: path.into(), readonly, tmpfs };
    spec.mounts = vec![
        mount("/v", host.clone(), false, None),
        mount("/ro", host.join("in"), true, None),
        mount("/scratch", "".into(), false, Some(1 << 20)),
    ];
    let (_, log) = node.run(&pod, spec).await;
    assert_eq!(log, "from host\nfrom host\n/bin/sh: can't create /ro: Read-only file system\nscratch\n");
    assert_eq!(std::fs::read_to_string(host.join("out")).unwrap(), "out\n");
    node.stop().await;
}

#[tokio::test]
async fn runs_as_the_user_asked_for() {
    let node = Node::start().await;
    let pod = node.pod([1, 6]).await;
    let mut spec = node.shell("id -u; id -g; grep -E 'CapEff|NoNewPrivs' /proc/self/status; echo $HOME");
    spec.security.run_as_user = Some(33);
    let (code, log) = node.run(&pod, spec).await;
    assert_eq!((code, log.as_str()), (0, "33\n34\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n/srv\n"));

    let mut spec = node.shell("exec 2>&1; grep -E 'CapBnd' /proc/self/status; echo 1 2>/dev/null >/proc/sys/kernel/panic || echo sys-ro; touch /x || echo read-only");
    spec.security.drop_capabilities = vec!["ALL".into()];
    spec.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
    spec.security.readonly_root = true;
    let (_, log) = node.run(&pod, spec).await;
    assert!(log.contains("CapBnd:\t0000000000000400\nsys-ro\n") && log.ends_with("read-only\n"), "{log}");

    let mut spec = node.shell("true");
    spec.security.run_as_non_root = true;
    let error = node.runtime.start_container(&pod, spec).await.unwrap_err();
    assert!(start_error(error).contains("runAsNonRoot"));
    assert!(node.runtime.sandboxes().await.unwrap()[0].containers.is_empty(), "nothing is left of it");
    node.stop().await;
}

#[tokio::test]
async fn ends_by_code_signal_or_lack_of_memory() {
    let node = Node::start().await;
    let pod = node.pod([1, 7]).await;
    assert_eq!(node.run(&pod, node.shell("exit 42")).await.0, 42);
    assert_eq!(node.run(&pod, node.shell("nosuchprogram")).await.0, 127);
    // Process 1 ignores what it does not handle: only SIGKILL ends it, after the grace.
    let id = node.runtime.start_container(&pod, node.shell("while :; do sleep 1; done")).await.unwrap();
    node.runtime.stop_container(&id, Duration::from_millis(10)).await.unwrap();
    assert_eq!(node.ended(&id).await, (137, false));

    let mut spec = node.shell("x=0123456789abcdef; while :; do x=$x$x; done");
    spec.name = "hungry".into();
    spec.resources.memory_bytes = Some(32 << 20);
    if is_root() && !node.reduced("limits") {
        let id = node.runtime.start_container(&pod, spec).await.unwrap();
        assert_eq!(node.ended(&id).await, (137, true));
    } else {
        assert!(node.reduced("limits of memory"), "what is not enforced is said");
    }
    node.stop().await;
}

#[tokio::test]
async fn usage_grows_and_the_root_is_reachable() {
    let node = Node::start().await;
    let pod = node.pod([1, 8]).await;
    let id = node.runtime.start_container(&pod, node.shell("sleep 1000 & wait")).await.unwrap();
    let (before, _) = (node.runtime.usage(&id).await.unwrap(), ());
    node.exec(&id, &["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"], None).await;
    let after = node.runtime.usage(&id).await.unwrap();
    assert!(after.memory_usage > 0 && after.memory_working_set <= after.memory_usage, "{after:?}");
    if is_root() && !node.reduced("limits") {
        assert!(after.cpu_nanos > before.cpu_nanos + 1_000_000, "{before:?} {after:?}");
    }
    // Live sync: a file written from outside is seen inside, and the other way round.
    let root = node.runtime.root_path(&id).await.unwrap();
    std::fs::write(root.join("srv/index.html"), "synced").unwrap();
    assert_eq!(node.exec(&id, &["cat", "/srv/index.html"], None).await.1, "synced");
    assert!(matches!(node.status(&id).await.state, ContainerState::Running { .. }));
    node.stop().await;
}

#[tokio::test]
async fn containers_of_a_pod_share_what_they_should() {
    let node = Node::start().await;
    let mut pod = node.pod_spec([1, 9]);
    pod.share_process_namespace = true;
    pod.sysctls.insert("net.ipv4.tcp_syncookies".into(), "0".into());
    let pod = node.runtime.run_sandbox(pod).await.unwrap();
    let mut first = node.shell("sleep 4243 & exec sleep 4242");
    first.name = "first".into();
    let first = node.runtime.start_container(&pod, first).await.unwrap();
    let (_, log) = node.run(&pod, node.shell("ps; cat /proc/sys/net/ipv4/tcp_syncookies; ip -o addr show eth0")).await;
    assert!(log.contains("sleep 4242") && log.contains("\n0\n") && log.contains("10.244.1.9/16"), "{log}");
    node.runtime.stop_container(&first, Duration::ZERO).await.unwrap();
    assert_eq!(node.ended(&first).await.0, 137);
    node.runtime.remove_sandbox(&pod).await.unwrap();
    node.stop().await;
}
