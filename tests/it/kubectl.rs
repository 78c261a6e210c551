//! The kubectl verbs of unmodified kubectl 1.27 and 1.33 against an environment.

use crate::support::{Project, client, text};
use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How long a line of a running kubectl may take.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Kubectl<'p> {
    pub(crate) project: &'p Project,
    pub(crate) program: &'static str,
}

impl Kubectl<'_> {
    pub(crate) fn command(&self, line: &str) -> Command {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.project.kubectl_command(self.program, &words)
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a line that must succeed, and gives its output.
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{} {line}: {}\n{}", self.program, output.status, text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a line that must succeed and have `wanted` in its output.
    pub(crate) fn shows(&self, line: &str, wanted: &str) {
        let said = self.ok(line);
        assert!(said.contains(wanted), "{} {line}: no {wanted:?} in\n{said}", self.program);
    }

    /// Runs a line that must fail and say `wanted`.
    pub(crate) fn fails(&self, line: &str, wanted: &str) {
        let output = self.run(line);
        let said = text(&output);
        assert!(!output.status.success(), "{} {line} succeeded:\n{said}", self.program);
        assert!(said.contains(wanted), "{} {line}: no {wanted:?} in\n{said}", self.program);
    }

    /// Starts a line that goes on.
    pub(crate) fn follow(&self, line: &str) -> Following {
        Following::new(self.command(line), format!("{} {line}", self.program))
    }
}

/// A process whose output is read line by line; ended with the value.
pub(crate) struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
    name: String,
}

impl Following {
    fn new(mut command: Command, name: String) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, name }
    }

    /// The next line that has `wanted`.
    pub(crate) fn until(&self, wanted: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(_) => {}
                Err(error) => panic!("{}: no {wanted:?}: {error}", self.name),
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is there, in every form.
const READS: &[(&str, &str)] = &[
    ("version -o json", "\"gitVersion\": \"v1.36"),
    ("api-resources", "deployments"),
    ("explain deployment.spec.replicas", "Number of desired pods"),
    ("get nodes -o wide", "aksim://"),
    ("get pods -A", "web-"),
    ("get deployment web -o yaml", "kind: Deployment"),
    ("get deployment web -o json", "\"kind\": \"Deployment\""),
    ("get deployments -o name", "deployment.apps/web"),
    ("get pods -l app=web -o jsonpath={.items[0].status.phase}", "Running"),
    ("get pods --field-selector status.phase=Running", "web-"),
    ("describe deployment web", "RollingUpdateStrategy"),
    ("describe pod -l app=web", "Container started: web"),
    ("describe node", "Allocated resources"),
    ("describe service web", "10.244."),
    ("get events", "Scheduled"),
    ("events --for deployment/web", "ScalingReplicaSet"),
    ("auth can-i create deployments", "yes"),
    ("top nodes", "aks-nodepool1"),
    ("top pods -l app=web", "web-"),
];

/// What changes a ConfigMap.
const WRITES: &[(&str, &str)] = &[
    ("create configmap made --from-literal=a=b", "configmap/made created"),
    ("label configmap made k=v", "configmap/made labeled"),
    ("annotate configmap made k=v", "configmap/made annotate"),
    ("get configmap made -o jsonpath={.metadata.labels.k}{.metadata.annotations.k}", "vv"),
    ("patch configmap made -p {\"data\":{\"a\":\"c\"}}", "configmap/made patched"),
    ("get configmap made -o jsonpath={.data.a}", "c"),
    ("patch configmap made --type=merge -p {\"data\":{\"a\":\"d\"}}", "configmap/made patched"),
    ("get configmap made -o jsonpath={.data.a}", "d"),
    (
        "patch configmap made --type=json -p [{\"op\":\"replace\",\"path\":\"/data/a\",\"value\":\"e\"}]",
        "configmap/made patched",
    ),
    ("get configmap made -o jsonpath={.data.a}", "e"),
];

/// What rolls out; `SETTLED` after each, so that the next finds no pod on its way out.
const ROLLOUTS: &[(&str, &str)] = &[
    ("rollout history deployment/web", "REVISION"),
    ("scale deployment web --replicas=3", "deployment.apps/web scaled"),
    ("get deployment web -o jsonpath={.status.readyReplicas}", "3"),
    ("scale deployment web --replicas=2", "deployment.apps/web scaled"),
    ("get deployment web -o jsonpath={.status.readyReplicas}", "2"),
    ("rollout restart deployment/web", "restarted"),
    ("get deployment web -o jsonpath={.spec.template.metadata.annotations}", "restartedAt"),
    ("rollout undo deployment/web", "rolled back"),
    ("wait --for=condition=Available deployment/web --timeout=60s", "condition met"),
];
const SETTLED: [&str; 2] = [
    "rollout status deployment/web --timeout=60s",
    "wait --for=jsonpath={.status.terminatingReplicas}=0 deployment/web --timeout=60s",
];

fn rows(kubectl: &Kubectl, rows: &[(&str, &str)], after: &[&str]) {
    for (line, wanted) in rows {
        kubectl.shows(line, wanted);
        for line in after {
            kubectl.ok(line);
        }
    }
}

fn edit(kubectl: &Kubectl) {
    let editor = kubectl.project.path("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/^  a: e$/  a: edited/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = kubectl.command("edit configmap made").env("KUBE_EDITOR", &editor).output().unwrap();
    assert!(text(&output).contains("configmap/made edited"), "{}", text(&output));
    kubectl.shows("get configmap made -o jsonpath={.data.a}", "edited");
    kubectl.shows("delete configmap made", "configmap \"made\" deleted");
}

fn apply(kubectl: &Kubectl) {
    let extra = kubectl.project.path("extra.yaml").display().to_string();
    let write = |data: &str| {
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: extra}}\n{data}\n");
        kubectl.project.write("extra.yaml", &text);
    };
    write("data: {a: one}");
    kubectl.shows(&format!("apply -f {extra}"), "configmap/extra created");
    kubectl.shows(&format!("apply -f {extra}"), "configmap/extra unchanged");
    write("data: {a: two}");
    let diff = kubectl.run(&format!("diff -f {extra}"));
    assert_eq!(diff.status.code(), Some(1), "{}", text(&diff));
    assert!(text(&diff).contains("-  a: one\n+  a: two"), "{}", text(&diff));
    kubectl.shows(&format!("apply -f {extra}"), "configmap/extra configured");
    assert_eq!(kubectl.ok(&format!("diff -f {extra}")), "");
    let applied = format!("apply --server-side -f {extra}");
    kubectl.shows(&applied, "configmap/extra serverside-applied");
    write("data: {a: three}");
    kubectl.shows(&applied, "configmap/extra serverside-applied");
    assert_eq!(kubectl.ok("get configmap extra -o jsonpath={.data.a}"), "three");
    kubectl.shows(&format!("delete -f {extra}"), "configmap \"extra\" deleted");
    write("dta: {a: two}");
    kubectl.fails(&format!("apply -f {extra}"), "unknown field \"dta\"");
}

fn cascade(kubectl: &Kubectl) {
    for mode in ["foreground", "background", "orphan"] {
        kubectl.ok("create deployment sleeper --image=example.invalid/x --replicas=1");
        kubectl.ok("wait --for=jsonpath={.status.replicas}=1 deployment/sleeper --timeout=60s");
        kubectl.shows(&format!("delete deployment sleeper --cascade={mode}"), "deployment.apps \"sleeper\" deleted");
        let left = kubectl.ok("get replicasets -l app=sleeper -o name");
        match mode {
            // kubectl returns when the deployment is gone, and so its dependents are.
            "foreground" => assert_eq!(left, ""),
            "background" => drop(kubectl.ok("wait --for=delete replicasets -l app=sleeper --timeout=60s")),
            _ => {
                assert!(left.starts_with("replicaset.apps/sleeper-"), "{left}");
                kubectl.ok("delete replicasets -l app=sleeper");
                kubectl.ok("wait --for=delete pods -l app=sleeper --timeout=60s");
            }
        }
    }
}

fn exec(kubectl: &Kubectl) {
    assert_eq!(kubectl.ok("exec deployment/web -- /bin/busybox cat /srv/index.html"), "first\n");
    assert_eq!(kubectl.ok("exec deployment/web -- /bin/busybox echo true false"), "true false\n");
    let failed = kubectl.run("exec deployment/web -- /bin/busybox sh -c exit${IFS}7");
    assert_eq!(failed.status.code(), Some(7), "{}", text(&failed));
    kubectl.fails("exec deployment/web -c nobody -- /bin/busybox true", "nobody");
    // With a terminal: it has the size of ours, and what it says comes once.
    let program = client(kubectl.program).display().to_string();
    let line = format!(
        "stty rows 33 cols 90; exec timeout 60 {program} exec -it deployment/web -- /bin/busybox sh -c \
         'until [ \"$(/bin/busybox stty size)\" = \"33 90\" ]; do /bin/busybox sleep 0.1; done; /bin/busybox tty; exit 5'"
    );
    let mut script = Command::new("script");
    for (name, value) in kubectl.command("").get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    let output = script.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("/dev/pts/"), "{said}");
    assert!(!said.contains("Unknown stream"), "{said}");
}

/// A container that ends once, then goes on talking.
const TALKER: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: mark, emptyDir: {}}]
  containers:
  - name: talker
    image: IMAGE
    command: [/bin/busybox, sh, -c]
    args:
    - if [ -e /mark/x ]; then echo second; while :; do echo tick; /bin/busybox sleep 0.1; done; fi; echo first; echo > /mark/x; exit 3
    volumeMounts: [{name: mark, mountPath: /mark}]
"#;

fn logs(kubectl: &Kubectl) {
    let image = kubectl.ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
    kubectl.project.write("talker.yaml", &TALKER.replace("IMAGE", &image));
    let file = kubectl.project.path("talker.yaml").display().to_string();
    let watch = kubectl.follow("get pods -w --field-selector metadata.name=talker");
    kubectl.ok(&format!("apply -f {file}"));
    watch.until("talker");
    kubectl.ok("wait --for=jsonpath={.status.containerStatuses[0].restartCount}=1 pod/talker --timeout=60s");
    kubectl.ok("wait --for=condition=Ready pod/talker --timeout=60s");
    watch.until("Running");
    assert_eq!(kubectl.ok("logs -p talker"), "first\n");
    let follow = kubectl.follow("logs -f talker --since=1h");
    follow.until("second");
    for _ in 0..3 {
        assert_eq!(follow.until(""), "tick");
    }
    let last = kubectl.ok("logs talker --tail=1");
    assert!(last.lines().all(|line| line == "tick") && !last.is_empty(), "{last}");
    kubectl.fails("logs talker -c nobody", "container nobody is not valid for pod talker");
    kubectl.shows("delete pod talker", "pod \"talker\" deleted");
    kubectl.ok("run absent --image=none.invalid/x --restart=Never");
    kubectl.ok("wait --for=jsonpath={.status.containerStatuses[0].name}=absent pod/absent --timeout=60s");
    kubectl.fails("logs absent", "container \"absent\" in pod \"absent\" is waiting to start");
    kubectl.ok("delete pod absent");
}

fn port_forward(kubectl: &Kubectl) {
    let forward = kubectl.follow("port-forward deployment/web :8080");
    let line = forward.until("Forwarding from 127.0.0.1:");
    let port: u16 = line.split([':', ' ']).find_map(|word| word.parse().ok()).unwrap();
    let url = format!("http://127.0.0.1:{port}/index.html");
    for _ in 0..3 {
        let output = Command::new("curl").args(["-sS", "--fail", &url]).output().unwrap();
        assert_eq!(text(&output), "first\n");
    }
}

fn verbs(project: &Project, program: &'static str) {
    let kubectl = Kubectl { project, program };
    rows(&kubectl, &SETTLED.map(|line| (line, "")), &[]);
    rows(&kubectl, READS, &[]);
    kubectl.fails("auth can-i create deployments --as=nobody", "no");
    kubectl.fails("get pod no-such-pod", "Error from server (NotFound): pods \"no-such-pod\" not found");
    rows(&kubectl, WRITES, &[]);
    edit(&kubectl);
    apply(&kubectl);
    cascade(&kubectl);
    rows(&kubectl, ROLLOUTS, &SETTLED);
    let template = kubectl.ok("get deployment web -o jsonpath={.spec.template.metadata.annotations}");
    assert!(!template.contains("restartedAt"), "the restart was not undone: {template}");
    exec(&kubectl);
    logs(&kubectl);
    port_forward(&kubectl);
}

#[test]
fn the_oldest_and_newest_kubectl_do_their_verbs() {
    let project = Project::busybox("it-kubectl");
    project.up();
    verbs(&project, "kubectl-1.27");
    verbs(&project, "kubectl-1.33");
}
