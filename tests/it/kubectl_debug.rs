//! `kubectl cp`, `attach` and `debug` of unmodified kubectl 1.27 and 1.33 against real containers.

use crate::{
    environment::eventually,
    support::{Project, text},
};
use std::{
    io::Write,
    process::{Output, Stdio},
};

struct Kubectl<'p> {
    project: &'p Project,
    program: &'static str,
}

impl Kubectl<'_> {
    fn run(&self, line: &str, input: &str) -> Output {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = self.project.kubectl_command(self.program, &words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Dropped at once: the client sees the end of its input.
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.run(line, "");
        assert!(output.status.success(), "{} {line}: {}", self.program, text(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A pod that repeats what it is told once.
const LISTENER: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - name: c
    image: IMAGE
    stdin: true
    stdinOnce: true
    command: [/bin/busybox, sh, -c, "read word; echo heard $word"]
"#;

fn copies(kubectl: &Kubectl, pod: &str) {
    let (project, folder) = (kubectl.project, kubectl.project.path("tree"));
    project.write("tree/a.txt", "alpha\n");
    project.write("tree/deep/b.txt", &"beta\n".repeat(50_000));
    kubectl.ok(&format!("cp {} {pod}:/srv/tree", folder.display()));
    assert_eq!(kubectl.ok(&format!("exec {pod} -- /bin/busybox cat /srv/tree/a.txt")), "alpha\n");
    let back = project.path(&format!("back-{}", kubectl.program));
    kubectl.ok(&format!("cp {pod}:/srv/tree {}", back.display()));
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&back.join("deep/b.txt")), read(&folder.join("deep/b.txt")));
    kubectl.ok(&format!("exec {pod} -- /bin/busybox rm -r /srv/tree"));
    // kubectl may end before it has said why.
    let absent = project.path("none");
    kubectl.run(&format!("cp {pod}:/srv/none {}", absent.display()), "");
    assert!(!absent.exists());
}

fn attaches(kubectl: &Kubectl, image: &str) {
    kubectl.project.write("listener.yaml", &LISTENER.replace("IMAGE", image));
    kubectl.ok(&format!("apply -f {}", kubectl.project.path("listener.yaml").display()));
    kubectl.ok("wait --for=condition=Ready pod/listener --timeout=60s");
    let output = kubectl.run("attach -i listener", "word\n");
    assert!(text(&output).contains("heard word"), "{}", text(&output));
    kubectl.ok("wait --for=jsonpath={.status.phase}=Succeeded pod/listener --timeout=60s");
    kubectl.ok("delete pod listener");
}

fn state(kubectl: &Kubectl, pod: &str, name: &str, state: &str) {
    let path = format!("{{.status.ephemeralContainerStatuses[?(@.name==\"{name}\")].state.{state}}}");
    eventually(&format!("container {name} is {state}"), || {
        (!kubectl.ok(&format!("get pod {pod} -o jsonpath={path}")).is_empty()).then_some(())
    });
}

fn debugs(kubectl: &Kubectl, pod: &str, image: &str) {
    let name = kubectl.program.replace(['.'], "-");
    // The processes of the target are seen; what is said comes by attach, or by the log when the
    // container was faster.
    let once = format!("once-{name}");
    let line = format!("debug {pod} -i --image={image} --target=web --container={once} -- /bin/busybox ps");
    let output = kubectl.run(&line, "");
    assert!(output.status.success(), "{}", text(&output));
    state(kubectl, pod, &once, "terminated");
    let said = kubectl.ok(&format!("logs {pod} -c {once}"));
    assert!(said.contains("httpd"), "{said}");
    // Without a target it is alone.
    let stay = format!("stay-{name}");
    kubectl.ok(&format!("debug {pod} --image={image} --container={stay} -- /bin/busybox sleep 3600"));
    state(kubectl, pod, &stay, "running");
    let seen = kubectl.ok(&format!("exec {pod} -c {stay} -- /bin/busybox ps"));
    assert!(seen.contains("sleep 3600") && !seen.contains("httpd"), "{seen}");
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    assert_eq!(kubectl.ok(&format!("get pod {pod} -o {restarts}")), "0");
    // A copy with its processes shared.
    let copy = format!("copy-{name}");
    kubectl.ok(&format!(
        "debug {pod} --copy-to={copy} --share-processes --image={image} --container=side -- /bin/busybox sleep 3600"
    ));
    kubectl.ok(&format!("wait --for=condition=Ready pod/{copy} --timeout=60s"));
    let seen = kubectl.ok(&format!("exec {copy} -c side -- /bin/busybox ps"));
    assert!(seen.contains("httpd") && seen.contains("sleep 3600"), "{seen}");
    kubectl.ok(&format!("delete pod {copy} --grace-period=1"));
}

#[test]
fn cp_attach_and_debug_work_with_the_oldest_and_newest_kubectl() {
    let project = Project::busybox("it-debug");
    // `kubectl cp` wants a tar in the image; busybox is one by its name.
    let dockerfile = std::fs::read_to_string(project.path("web/Dockerfile")).unwrap();
    let copy = "COPY --chmod=755 busybox /bin/busybox\n";
    assert!(dockerfile.contains(copy));
    project.write("web/Dockerfile", &dockerfile.replace(copy, &format!("{copy}COPY --chmod=755 busybox /bin/tar\n")));
    project.up();
    for program in ["kubectl-1.27", "kubectl-1.33"] {
        let kubectl = Kubectl { project: &project, program };
        let pod = kubectl.ok("get pods -l app=web -o jsonpath={.items[0].metadata.name}");
        let image = kubectl.ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
        copies(&kubectl, &pod);
        attaches(&kubectl, &image);
        debugs(&kubectl, &pod, &image);
    }
}
