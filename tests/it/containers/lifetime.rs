//! What outlives the daemon, and what is left when a node is taken down.

use super::support::{Node, is_root, log_has, program};
use aksim::node::{
    container::ContainerRuntime,
    runtime::{ContainerState, NodeRuntime},
};
use std::{collections::BTreeSet, process::Command, time::Duration};

#[tokio::test]
async fn a_new_daemon_finds_everything() {
    let node = Node::start().await;
    let pod = node.pod([3, 5]).await;
    let running = node.runtime.start_container(&pod, node.shell("echo up; while :; do sleep 1; done")).await.unwrap();
    log_has(&node, &running, "up").await;
    let mut ended = node.shell("exit 5");
    ended.name = "ended".into();
    let ended = node.runtime.start_container(&pod, ended).await.unwrap();
    node.ended(&ended).await;
    let before = node.runtime.sandboxes().await.unwrap();

    // Another daemon: nothing is handed over but the state folder. (The first one does nothing
    // at its end either, as one that is killed.)
    let other = ContainerRuntime::open(Node::config(node.folder.path())).await.unwrap();
    assert_eq!(other.sandboxes().await.unwrap(), before);
    assert_eq!(other.images().await.unwrap(), node.runtime.images().await.unwrap());
    assert!(matches!(node.status(&running).await.state, ContainerState::Running { .. }));
    let mut events = other.events();
    other.stop_container(&running, Duration::ZERO).await.unwrap();
    let event = events.recv().await.unwrap();
    assert_eq!((event.pod_uid.as_str(), event.container.as_ref()), ("uid-3-5", Some(&running)));
    node.stop().await;
}

/// The streams of such a container end just when the daemon connects to its shim.
#[tokio::test]
async fn the_end_of_every_short_container_is_heard() {
    let node = Node::start().await;
    let pod = node.pod([3, 6]).await;
    for round in 0..50 {
        let containers = (0..8).map(|index| {
            let mut spec = node.shell("exit 3");
            (spec.name, spec.attempt) = (format!("c{index}"), round);
            node.run(&pod, spec)
        });
        let ends = futures::future::join_all(containers).await;
        assert!(ends.iter().all(|end| *end == (3, String::new())), "round {round}: {ends:?}");
    }
    node.stop().await;
}

/// Everything that a node could leave behind on the machine, of this test's own folder.
fn left(marker: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(marker) && entry.file_name() != "self" {
            found.insert(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    found.extend(mounts.lines().filter(|l| l.contains(marker)).map(|l| format!("mount {l}")));
    let name = format!("aksim-{}", marker.trim_start_matches('.').to_lowercase());
    let groups = walkdir::WalkDir::new("/sys/fs/cgroup").max_depth(3).into_iter().flatten();
    found.extend(groups.filter(|g| g.file_name() == name.as_str()).map(|g| g.path().display().to_string()));
    found
}

fn links() -> String {
    std::fs::read_to_string("/proc/net/dev").unwrap().lines().filter_map(|l| l.split(':').next()).collect()
}

#[tokio::test]
async fn taking_down_leaves_nothing() {
    let before = links();
    let node = Node::start().await;
    let marker = node.folder.path().file_name().unwrap().to_string_lossy().into_owned();
    for last in [5, 6, 7] {
        let pod = node.pod([4, last]).await;
        let id = node.runtime.start_container(&pod, node.shell("echo up; sleep 1000 & wait")).await.unwrap();
        log_has(&node, &id, "up").await;
    }
    assert!(left(&marker).len() > 3, "the agent and its shims are there");
    if is_root() && !node.reduced("limits") {
        assert!(left(&marker).iter().any(|f| f.contains("cgroup")), "control groups are there");
    }
    node.runtime.teardown().await.unwrap();
    assert_eq!(left(&marker), BTreeSet::new());
    assert_eq!(links(), before, "no link in the machine's own network");
    let state = node.folder.path().join("node");
    for folder in ["containers", "sandboxes", "agent.sock"] {
        assert!(!state.join(folder).exists(), "{folder}");
    }
    // And a node can be made there again.
    let again = ContainerRuntime::open(Node::config(node.folder.path())).await.unwrap();
    assert!(again.sandboxes().await.unwrap().is_empty());
    again.teardown().await.unwrap();
}

#[tokio::test]
async fn pods_are_not_ready_when_their_agent_is_killed() {
    let node = Node::start().await;
    let pod = node.pod([3, 6]).await;
    let id = node.runtime.start_container(&pod, node.shell("sleep 1000")).await.unwrap();
    let mut events = node.runtime.events();
    let marker = node.folder.path().to_string_lossy().into_owned();
    for found in left(&marker).iter().filter_map(|f| f.strip_prefix("process ")) {
        let pid = nix::unistd::Pid::from_raw(found.parse().unwrap());
        // The shims may end with the agent before their turn.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    while node.runtime.sandboxes().await.unwrap()[0].ready {
        events.recv().await.unwrap();
    }
    assert_eq!(node.ended(&id).await.0, 137);
    node.runtime.remove_sandbox(&pod).await.unwrap();
    // A new agent comes up by itself.
    let pod = node.pod([3, 7]).await;
    assert_eq!(node.run(&pod, node.shell("echo again")).await, (0, "again\n".into()));
    node.stop().await;
}

#[test]
fn a_bundle_runs_in_the_foreground() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("rootfs");
    for layer in super::support::busybox_layers().iter().take(1) {
        let mut archive = tar::Archive::new(&layer[..]);
        archive.set_preserve_ownerships(false);
        archive.unpack(&root).unwrap();
    }
    let config = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": {
            "args": ["sh", "-c", "cat; pwd; echo $A; echo made > /made; ls /proc | grep -c '^1$'; exit 6"],
            "env": ["A=1", "PATH=/bin"], "cwd": "/work/dir", "user": { "uid": 0, "gid": 0 },
        },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }] },
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("input"), "from stdin\n").unwrap();
    let output = Command::new(program())
        .args(["__container-run", "--bundle"])
        .arg(folder.path())
        .stdin(std::fs::File::open(folder.path().join("input")).unwrap())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out, &*err), (Some(6), "from stdin\n/work/dir\n1\n1\n", ""));
    assert_eq!(std::fs::read_to_string(root.join("made")).unwrap(), "made\n");
    assert!(left(&folder.path().to_string_lossy()).is_empty());
}
