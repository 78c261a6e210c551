//! Bad input: one clear screen, the right exit code, nothing left behind.

use crate::{
    environment::{eventually, kill_9, pods, traces},
    support::{Project, text},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::os::unix::fs::PermissionsExt;

/// Nothing of the environment is there: no file, process, mount.
fn assert_nothing_left(project: &Project) {
    assert_eq!(traces(project.home()), Vec::<String>::new());
    let files: Vec<_> = std::fs::read_dir(project.home()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| name == "cache"), "{files:?}");
}

#[test]
fn unknown_keys_are_named_with_their_place() {
    let project = Project::new("name = \"bad\"\n[regstry]\nname = \"x\"\n");
    let output = project.run(&["up", "--detach"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output);
    assert!(said.contains("unknown key `regstry`") && said.contains("did you mean `registry`?"), "{said}");
    assert!(said.lines().count() < 25, "more than a screen:\n{said}");
    assert_nothing_left(&project);
    // The file must be valid for `down` in the end.
    project.write("aksim.toml", "name = \"bad\"\n");
}

#[test]
fn a_missing_project_is_said() {
    let project = Project::new("name = \"gone\"\n");
    std::fs::remove_file(project.path("aksim.toml")).unwrap();
    let output = project.run(&["status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("hint: make one with `aksim init`"), "{}", text(&output));
    project.write("aksim.toml", "name = \"gone\"\n");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let project = Project::new(&format!("name = \"port-taken\"\n[ingress]\nport = {port}\n"));
    let output = project.run(&["up", "--detach"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains(&format!("127.0.0.1:{port}")), "{}", text(&output));
    assert_nothing_left(&project);
}

/// A start that fails ends what it has started, not what ran before it.
#[test]
fn pods_outlive_a_start_that_fails() {
    let project = Project::busybox("fails-later");
    project.up();
    let before = pods(&project);
    kill_9(&project);
    let config = std::fs::read_to_string(project.path("aksim.toml")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    project.write("aksim.toml", &format!("{config}\n[ingress]\nport = {port}\n"));
    let output = project.run(&["up", "--detach"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    project.write("aksim.toml", &config);
    project.up();
    assert_eq!(pods(&project), before, "pods were restarted");
}

#[test]
fn an_interrupted_start_leaves_no_process() {
    let project =
        Project::new("name = \"interrupted\"\n[database]\nname = \"slowdb\"\nengine = \"process:./mysqld\"\n");
    project.write("mysqld", "#!/bin/sh\necho $$ > asked\nexec sleep 1000\n");
    std::fs::set_permissions(project.path("mysqld"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut up = project.command(&["up"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let server = eventually("the server is asked for its version", || {
        std::fs::read_to_string(project.path("asked")).ok()?.trim().parse::<i32>().ok()
    });
    let id = i32::try_from(up.id()).unwrap();
    kill(Pid::from_raw(id), Signal::SIGINT).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(130));
    assert_eq!(traces(project.home()), Vec::<String>::new());
    eventually("the server has ended", || kill(Pid::from_raw(server), None).is_err().then_some(()));
}

#[test]
fn a_missing_manifest_is_named() {
    let project = Project::busybox("no-manifest");
    std::fs::remove_dir_all(project.path("web/k8s")).unwrap();
    let output = project.run(&["up", "--detach"]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("web/k8s") && said.contains("hint:"), "{said}");
    assert_nothing_left(&project);
}

#[test]
fn invalid_yaml_is_named_with_its_line() {
    let project = Project::busybox("bad-yaml");
    project.write("web/k8s/web.yaml", "apiVersion: v1\nkind: [\n");
    let output = project.run(&["up", "--detach"]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("web.yaml:"), "{said}");
    assert_nothing_left(&project);
}

#[test]
fn a_broken_dockerfile_is_shown_with_its_line() {
    let project = Project::busybox("bad-dockerfile");
    project.write("web/Dockerfile", "FROM scratch\nCOPPY busybox /bin/busybox\n");
    let output = project.run(&["up", "--detach"]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("COPPY") && said.contains("COPY"), "{said}");
    // It runs on, for the next save to mend.
    assert!(said.contains("hint: the environment runs; `aksim down` stops it"), "{said}");
    project.ok(&["status"]);
    project.ok(&["down", "--purge"]);
    assert_nothing_left(&project);
}

#[test]
fn a_missing_database_server_is_said_with_the_way_to_get_it() {
    let project =
        Project::new("name = \"no-mysql\"\n[database]\nname = \"nodb\"\nengine = \"process:/no/such/mysqld\"\n");
    let output = project.run(&["up", "--detach"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("/no/such/mysqld"), "{}", text(&output));
    assert_nothing_left(&project);
}

#[test]
fn a_service_that_is_not_there_is_said() {
    let project = Project::busybox("no-service");
    let output = project.run(&["logs", "wbe"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("hint: services: web"), "{}", text(&output));
}
