//! The kubectl verbs of unmodified kubectl 1.27 and 1.33 against an environment.

use crate::support::{Project, text};
use std::process::Output;

struct Kubectl<'p> {
    project: &'p Project,
    program: &'static str,
}

impl Kubectl<'_> {
    fn run(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.project.kubectl_command(self.program, &words).output().unwrap()
    }

    /// Runs a line that must succeed and have `wanted` in its output.
    fn shows(&self, line: &str, wanted: &str) {
        let output = self.run(line);
        let said = text(&output);
        assert!(output.status.success(), "{} {line}: {}\n{said}", self.program, output.status);
        assert!(said.contains(wanted), "{} {line}: no {wanted:?} in\n{said}", self.program);
    }
}

fn verbs(project: &Project, program: &'static str) {
    let kubectl = Kubectl { project, program };
    let file = project.path("extra.yaml");
    let extra = file.display().to_string();
    project.write("extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {a: one}\n");
    let checks: &[(&str, &str)] = &[
        ("version", "Server Version: v1.36"),
        ("api-resources", "deployments"),
        ("explain deployment.spec.replicas", "replicas"),
        ("get nodes -o wide", "aksim://"),
        ("get pods -A", "web-"),
        ("get deployment web -o yaml", "kind: Deployment"),
        ("get deployment web -o json", "\"kind\": \"Deployment\""),
        ("get deployments -o name", "deployment.apps/web"),
        ("get pods -l app=web -o jsonpath={.items[0].status.phase}", "Running"),
        ("get pods --field-selector status.phase=Running", "web-"),
        ("describe deployment web", "RollingUpdateStrategy"),
        ("describe pod -l app=web", "Started"),
        ("get events", "Scheduled"),
        ("create configmap made --from-literal=a=b", "configmap/made created"),
        ("create deployment sleeper --image=example.invalid/x --replicas=0", "deployment.apps/sleeper created"),
        ("label configmap made k=v", "configmap/made labeled"),
        ("annotate configmap made k=v", "configmap/made annotated"),
        ("get configmap made -o jsonpath={.metadata.labels.k}", "v"),
        ("patch configmap made -p {\"data\":{\"a\":\"c\"}}", "configmap/made patched"),
        ("patch configmap made --type=merge -p {\"data\":{\"a\":\"d\"}}", "configmap/made patched"),
        (
            "patch configmap made --type=json -p [{\"op\":\"replace\",\"path\":\"/data/a\",\"value\":\"e\"}]",
            "configmap/made patched",
        ),
        ("get configmap made -o jsonpath={.data.a}", "e"),
        ("delete configmap made", "configmap \"made\" deleted"),
        ("delete deployment sleeper --cascade=foreground", "deleted"),
        ("auth can-i create deployments", "yes"),
        ("auth can-i create deployments --as=nobody", "no"),
        ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
        ("rollout history deployment/web", "REVISION"),
        ("scale deployment web --replicas=3", "deployment.apps/web scaled"),
        ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
        ("scale deployment web --replicas=2", "deployment.apps/web scaled"),
        ("wait --for=condition=Available deployment/web --timeout=60s", "condition met"),
        ("rollout restart deployment/web", "restarted"),
        ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
        ("rollout undo deployment/web", "rolled back"),
        ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
        ("exec deployment/web -- /bin/busybox cat /srv/index.html", "first"),
        ("logs deployment/web --since=1h", ""),
    ];
    // `auth can-i` answers no by exit code 1.
    for (line, wanted) in checks {
        if *wanted == "no" {
            assert!(text(&kubectl.run(line)).contains("no"), "{line}");
        } else {
            kubectl.shows(line, wanted);
        }
    }
    kubectl.shows(&format!("apply -f {extra}"), "configmap/extra created");
    kubectl.shows(&format!("apply -f {extra}"), "configmap/extra unchanged");
    project.write("extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {a: two}\n");
    kubectl.shows(&format!("apply -f {extra}"), "configmap/extra configured");
    kubectl.shows(&format!("apply --server-side --force-conflicts -f {extra}"), "configmap/extra serverside-applied");
    kubectl.shows(&format!("diff -f {extra}"), "");
    kubectl.shows(&format!("delete -f {extra}"), "deleted");
    project.write("extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndta: {a: two}\n");
    let refused = kubectl.run(&format!("apply -f {extra}"));
    assert!(!refused.status.success() && text(&refused).contains("unknown field \"dta\""), "{}", text(&refused));
    let missing = kubectl.run("get pod no-such-pod");
    assert!(
        text(&missing).contains("Error from server (NotFound): pods \"no-such-pod\" not found"),
        "{}",
        text(&missing)
    );
}

#[test]
fn the_oldest_and_newest_kubectl_do_their_verbs() {
    let project = Project::busybox("it-kubectl");
    project.up();
    verbs(&project, "kubectl-1.27");
    verbs(&project, "kubectl-1.33");
}
