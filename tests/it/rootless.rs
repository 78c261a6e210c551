//! A whole environment as an ordinary user: user namespaces instead of root's rights.

use crate::{
    environment::{eventually, page, pods, traces},
    support::{Project, text},
};

#[test]
fn an_ordinary_user_runs_syncs_and_removes_an_environment() {
    let project = Project::busybox("it-rootless").for_ordinary_user();
    // As strict as AKS asks for: another user, a root file system that is read-only.
    let strict = "      securityContext: {runAsUser: 10001, runAsGroup: 10001, runAsNonRoot: true}\n      containers:\n      \
                  - name: web\n        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}\n";
    let manifest = std::fs::read_to_string(project.path("web/k8s/web.yaml")).unwrap();
    let changed = manifest.replace("      containers:\n      - name: web\n", strict);
    assert_ne!(changed, manifest);
    project.write("web/k8s/web.yaml", &changed);
    let output = project.run(&["up", "--detach"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("CPU and processes are not enforced"), "up does not say it: {}", text(&output));
    assert_eq!(page(&project, "/index.html").as_deref(), Some("first\n"));

    // Nothing of it belongs to root.
    let owner = |path| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap());
    assert_ne!(owner(project.environment_home().join("environment.json")), 0);
    let output = project.kubectl(&["exec", "deploy/web", "--", "/bin/busybox", "id", "-u"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "10001", "{}", text(&output));

    // A file is synced into the read-only root of the running containers.
    let before = pods(&project);
    project.write("web/static/index.html", "synced\n");
    eventually("the synced file is served", || page(&project, "/index.html").filter(|p| p == "synced\n"));
    assert_eq!(pods(&project), before);

    // What root would have and this user has not is said, once.
    let world: serde_json::Value = serde_json::from_str(&project.ok(&["status", "-o", "json"])).unwrap();
    let warnings = world["warnings"].as_array().unwrap();
    let of_limits =
        |w: &&serde_json::Value| w["message"].as_str().unwrap().contains("CPU and processes are not enforced");
    assert_eq!(warnings.iter().filter(of_limits).count(), 1, "{warnings:#?}");

    project.ok(&["down", "--purge"]);
    assert!(!project.environment_home().exists());
    assert_eq!(traces(project.home()), Vec::<String>::new());
}
