//! Bad input: one clear screen, the right exit code, nothing left behind.

use crate::support::{Project, text};

#[test]
fn unknown_keys_are_named_with_their_place() {
    let project = Project::new("name = \"bad\"\n[regstry]\nname = \"x\"\n");
    let output = project.run(&["up", "--detach"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output);
    assert!(said.contains("unknown key `regstry`") && said.contains("did you mean `registry`?"), "{said}");
    assert!(said.lines().count() < 25, "more than a screen:\n{said}");
    assert!(!project.environment_home().exists(), "state was made for a project that is not valid");
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
}

#[test]
fn a_missing_manifest_is_named() {
    let project = Project::busybox("no-manifest");
    std::fs::remove_dir_all(project.path("web/k8s")).unwrap();
    let output = project.run(&["up", "--detach"]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("web/k8s") && said.contains("hint:"), "{said}");
}

#[test]
fn invalid_yaml_is_named_with_its_line() {
    let project = Project::busybox("bad-yaml");
    project.write("web/k8s/web.yaml", "apiVersion: v1\nkind: [\n");
    let output = project.run(&["up", "--detach"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("web.yaml:"), "{}", text(&output));
}

#[test]
fn a_broken_dockerfile_is_shown_with_its_line() {
    let project = Project::busybox("bad-dockerfile");
    project.write("web/Dockerfile", "FROM scratch\nCOPPY busybox /bin/busybox\n");
    let output = project.run(&["up", "--detach"]);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(said.contains("COPPY") && said.contains("COPY"), "{said}");
}

#[test]
fn a_missing_database_server_is_said_with_the_way_to_get_it() {
    let project =
        Project::new("name = \"no-mysql\"\n[database]\nname = \"nodb\"\nengine = \"process:/no/such/mysqld\"\n");
    let output = project.run(&["up", "--detach"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("/no/such/mysqld"), "{}", text(&output));
}

#[test]
fn a_service_that_is_not_there_is_said() {
    let project = Project::busybox("no-service");
    let output = project.run(&["logs", "wbe"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("hint: services: web"), "{}", text(&output));
}
