//! The oldest and newest kubectl with StatefulSets, DaemonSets, CronJobs and drains, against an
//! environment with real containers.

use crate::{
    kubectl::Kubectl,
    support::{Project, text},
};

const MANIFESTS: &str = r#"apiVersion: v1
kind: Service
metadata: {name: dbs}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: dbs
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: IMAGE}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: IMAGE}]
"#;

fn stateful_set(kubectl: &Kubectl) {
    kubectl.shows(
        "rollout status statefulset/db --timeout=120s",
        "partitioned roll out complete: 2 new pods have been updated",
    );
    kubectl.shows("get statefulset db", "2/2");
    kubectl.shows("get sts db -o wide", "c ");
    kubectl.shows("describe statefulset db", "create Pod db-1 in StatefulSet db successful");
    assert_eq!(kubectl.ok("exec db-1 -- /bin/busybox hostname"), "db-1\n");
    let address = kubectl.ok("get pod db-0 -o jsonpath={.status.podIP}");
    kubectl.shows("exec db-1 -- /bin/busybox nslookup db-0.dbs.default.svc.cluster.local", &address);
    kubectl.ok("rollout restart statefulset/db");
    kubectl.ok("rollout status statefulset/db --timeout=120s");
    kubectl.shows("get pod db-0 -o jsonpath={.metadata.annotations}", "restartedAt");
    let history = kubectl.ok("rollout history statefulset/db");
    assert_eq!(history.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count(), 2, "{history}");
    kubectl.shows("rollout undo statefulset/db", "rolled back");
    kubectl.ok("rollout status statefulset/db --timeout=120s");
    let pod = kubectl.ok("get pod db-0 -o jsonpath={.metadata.annotations}");
    assert!(!pod.contains("restartedAt"), "{pod}");
    kubectl.shows("get controllerrevisions", "statefulset.apps/db");
    kubectl.shows("scale statefulset db --replicas=1", "statefulset.apps/db scaled");
    kubectl.ok("wait --for=jsonpath={.status.replicas}=1 statefulset/db --timeout=120s");
    kubectl.ok("wait --for=delete pod/db-1 --timeout=120s");
}

fn daemon_set(kubectl: &Kubectl) {
    kubectl.shows("rollout status daemonset/agent --timeout=120s", "successfully rolled out");
    kubectl.shows("get daemonset agent", "agent   1         1         1       1            1");
    kubectl.shows("describe daemonset agent", "Created pod: agent-");
    kubectl.ok("rollout restart daemonset/agent");
    kubectl.ok("rollout status daemonset/agent --timeout=120s");
    kubectl.shows("get pods -l app=agent -o jsonpath={.items[*].metadata.annotations}", "restartedAt");
    kubectl.shows("rollout history daemonset/agent", "REVISION");
    kubectl.shows("rollout undo daemonset/agent", "rolled back");
    kubectl.ok("rollout status daemonset/agent --timeout=120s");
    kubectl.shows("get controllerrevisions", "daemonset.apps/agent");
}

fn cron_job(kubectl: &Kubectl, image: &str) {
    kubectl.fails(
        &format!("create cronjob bad --image={image} --schedule=sometimes"),
        "expected exactly 5 fields, found 1",
    );
    let watch = kubectl.follow("get jobs -w --field-selector status.successful=1");
    // Kubernetes' schedules are in minutes but for this one.
    kubectl.shows(
        &format!("create cronjob tick --image={image} --schedule=@hourly -- /bin/busybox true"),
        "cronjob.batch/tick created",
    );
    let every = r#"{"spec": {"schedule": "@every 1s"}}"#;
    let output = kubectl.command("patch cronjob tick --type=merge -p").arg(every).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    watch.until("tick-");
    kubectl.ok("patch cronjob tick --type=merge -p {\"spec\":{\"suspend\":true}}");
    kubectl.shows("get cronjob tick", "True");
    kubectl.shows("describe cronjob tick", "Created job tick-");
    kubectl.shows("create job now --from=cronjob/tick", "job.batch/now created");
    kubectl.ok("wait --for=condition=Complete job/now --timeout=120s");
    kubectl.ok("delete cronjob tick --cascade=foreground");
    // It was the CronJob's own, as all that it started.
    assert_eq!(kubectl.ok("get jobs -o name"), "");
}

fn drain(kubectl: &Kubectl) {
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
    kubectl.shows(&format!("cordon {node}"), "cordoned");
    kubectl.shows("get nodes", "Ready,SchedulingDisabled");
    kubectl.shows(&format!("uncordon {node}"), "uncordoned");
    kubectl.ok("rollout status deployment/web --timeout=120s");
    kubectl.shows("create pdb web --selector=app=web --min-available=2", "poddisruptionbudget.policy/web created");
    kubectl.ok("wait --for=jsonpath={.status.currentHealthy}=2 pdb/web --timeout=60s");
    kubectl.shows("get pdb web", "web    2               N/A               0");
    let line = format!("drain {node} --ignore-daemonsets --delete-emptydir-data --force");
    kubectl.fails(
        &format!("{line} --pod-selector=app=web --timeout=2s"),
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    kubectl.ok("delete pdb web");
    kubectl.shows(&format!("{line} --pod-selector=app=web --timeout=120s"), "drained");
    kubectl.shows(&format!("{line} --timeout=120s"), "drained");
    // What a drain leaves is what DaemonSets have put there.
    let running = kubectl.ok("get pods --field-selector status.phase=Running -o name");
    assert!(running.lines().all(|pod| pod.starts_with("pod/agent-")) && !running.is_empty(), "{running}");
    kubectl.shows(&format!("uncordon {node}"), "uncordoned");
    kubectl.ok("rollout status deployment/web --timeout=120s");
    kubectl.ok("rollout status statefulset/db --timeout=120s");
}

fn workloads(project: &Project, program: &'static str) {
    let kubectl = Kubectl { project, program };
    kubectl.ok("rollout status deployment/web --timeout=120s");
    let image = kubectl.ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
    project.write("workloads.yaml", &MANIFESTS.replace("IMAGE", &image));
    let file = project.path("workloads.yaml").display().to_string();
    kubectl.shows(&format!("apply -f {file}"), "statefulset.apps/db created");
    stateful_set(&kubectl);
    daemon_set(&kubectl);
    cron_job(&kubectl, &image);
    drain(&kubectl);
    kubectl.ok(&format!("delete -f {file} --cascade=foreground"));
    assert_eq!(kubectl.ok("get pods -l app=db -o name"), "");
}

#[test]
fn the_oldest_and_newest_kubectl_roll_schedule_and_drain() {
    let project = Project::busybox("it-workloads");
    project.up();
    workloads(&project, "kubectl-1.27");
    workloads(&project, "kubectl-1.33");
}
