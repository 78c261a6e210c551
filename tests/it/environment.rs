//! A whole environment with a small service: up, save, kill -9, down.

use crate::support::{Project, text};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Waits until `check` gives something; the deadline is the failure.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within 60 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A page of the service `web`, when it is served.
pub fn page(project: &Project, path: &str) -> Option<String> {
    let status = project.ok(&["status", "-o", "json"]);
    let world: serde_json::Value = serde_json::from_str(&status).unwrap();
    let url = world["services"]["web"]["endpoints"][0]["url"].as_str()?.trim_end_matches('/').to_owned();
    let ca = project.environment_home().join("pki/ca.crt");
    let output =
        Command::new("curl").args(["-sS", "--fail", "--cacert"]).arg(ca).arg(format!("{url}{path}")).output().unwrap();
    if !output.status.success() {
        // Shown with a test that fails for it.
        println!("{url}{path}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Names with start times and restart counts: the same after a restart of aksim.
pub fn pods(project: &Project) -> String {
    let columns = "custom-columns=N:.metadata.name,U:.metadata.uid,R:.status.containerStatuses[0].restartCount,C:.status.containerStatuses[0].containerID";
    let output = project.kubectl(&["get", "pods", "--no-headers", "-o", columns]);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What the kernel knows of us: mounts, network namespaces, processes, control groups.
pub fn traces(home: &Path) -> Vec<String> {
    let home = home.display().to_string();
    let mut found: Vec<String> = std::fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&home))
        .map(|line| format!("mount {line}"))
        .collect();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&home) {
            found.push(format!("process {} {command}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

#[test]
fn a_service_is_served_changed_and_survives_kill_9() {
    let project = Project::busybox("it-env");
    project.up();
    assert_eq!(page(&project, "/index.html").as_deref(), Some("first\n"));

    // kill -9, then up: same pods, same objects.
    let before = pods(&project);
    let info = std::fs::read_to_string(project.environment_home().join("environment.json")).unwrap();
    let world: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert!(world["ports"]["registry"].is_number());
    gone(kill_9(&project));
    project.up();
    assert_eq!(pods(&project), before, "pods were restarted");
    assert_eq!(page(&project, "/index.html").as_deref(), Some("first\n"));

    // A synced file: no new pods.
    project.write("web/static/index.html", "synced\n");
    eventually("the synced file is served", || page(&project, "/index.html").filter(|p| p == "synced\n"));
    assert_eq!(pods(&project), before);

    // A rebuilt image: a new version by a rollout.
    project.write(
        "web/Dockerfile",
        &std::fs::read_to_string(project.path("web/Dockerfile")).unwrap().replace("static", "other"),
    );
    project.write("web/other/index.html", "rebuilt\n");
    project.ok(&["trigger", "web"]);
    eventually("the rebuilt file is served", || page(&project, "/index.html").filter(|p| p == "rebuilt\n"));
    let journey = project.ok(&["journey", "--last"]);
    assert!(journey.contains("built") || journey.contains("synced"), "{journey}");

    // down --purge leaves nothing.
    project.ok(&["down", "--purge"]);
    assert!(!project.environment_home().exists());
    assert_eq!(traces(&project.environment_home()), Vec::<String>::new());
}

/// One that runs is told from one that dies, which holds lock and socket a moment longer.
#[test]
fn an_environment_runs_once_and_a_killed_one_is_followed_at_once() {
    let project = Project::new("name = \"it-once\"\n");
    project.up();
    let again = project.run(&["up", "--detach"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    let said = text(&again);
    assert!(said.contains("the environment is running already") && said.contains("hint: `aksim status`"), "{said}");
    for _ in 0..5 {
        kill_9(&project);
        project.up();
    }
    kill_9(&project);
    project.ok(&["down", "--purge"]);
    assert_eq!(traces(project.home()), Vec::<String>::new());
}

/// A pod that outlives its sandbox has the new one's address, and only that: the old one would
/// stay in the Services' rotation.
#[test]
fn after_down_and_up_a_pod_has_one_address() {
    let project = Project::busybox("it-again");
    project.up();
    let addresses = |what: &str| {
        let output = project.kubectl(&["get", "pods", "-o", &format!("jsonpath={{.items[*].{what}}}")]);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = addresses("status.podIP");
    assert_eq!(first.len(), 2, "{first:?}");
    project.ok(&["down"]);
    project.up();
    assert_eq!(page(&project, "/index.html").as_deref(), Some("first\n"));
    let settled = eventually("both pods have an address each", || {
        let (one, all) = (addresses("status.podIP"), addresses("status.podIPs[*].ip"));
        (one.len() == 2 && one == all).then_some(all)
    });
    let slices = project.kubectl(&[
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "jsonpath={.items[*].endpoints[*].addresses[*]}",
    ]);
    let mut serving: Vec<_> = String::from_utf8(slices.stdout).unwrap().split(' ').map(str::to_owned).collect();
    let mut wanted = settled;
    serving.sort();
    wanted.sort();
    assert_eq!(serving, wanted, "the Service has other addresses than the pods; before: {first:?}");
}

/// `kill -9` of the running aksim of a project, which may be dying for a moment longer: its process id.
pub fn kill_9(project: &Project) -> Pid {
    let pid = daemon(project);
    kill(pid, Signal::SIGKILL).unwrap();
    pid
}

/// Waits until a process has ended.
pub fn gone(pid: Pid) {
    eventually("the process is gone", || (!alive(pid)).then_some(()));
}

/// The process of a detached aksim.
fn daemon(project: &Project) -> Pid {
    let home = project.home().display().to_string();
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let command = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        let ours = String::from_utf8_lossy(&environment).contains(&format!("AKSIM_HOME={home}"));
        (ours && command.contains(" up") && !command.contains("__"))
            .then(|| entry.file_name().to_string_lossy().parse().ok())?
    });
    Pid::from_raw(found.expect("the detached aksim was not found"))
}

fn alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}
