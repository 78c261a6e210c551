//! Rollouts: each kind of workload is waited for until it answers or fails, on every way to deploy; under load
//! nobody's request fails.

use crate::support::{Project, client as program, text};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Time between requests of the open-loop load.
const PERIOD: Duration = Duration::from_millis(10);
const ROLLOUTS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_during_rollouts() {
    let project = Arc::new(tokio::task::spawn_blocking(|| Project::busybox("it-rollout")).await.unwrap());
    let runs = project.clone();
    tokio::task::spawn_blocking(move || runs.up()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(client(&project), url(&project), stop.clone()));
    let runs = project.clone();
    let names = tokio::task::spawn_blocking(move || (0..ROLLOUTS).map(|_| rollout(&runs)).collect::<Vec<_>>()).await;
    stop.store(true, Ordering::Relaxed);
    let outcomes = load.await.unwrap();
    let names = names.unwrap();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "no new pods: {names:?}");
    let failures: Vec<&String> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
    assert!(outcomes.len() > 100, "only {} requests were sent", outcomes.len());
    assert!(failures.is_empty(), "{} of {} requests failed: {failures:?}", failures.len(), outcomes.len());
    // Its drop runs a program.
    tokio::task::spawn_blocking(move || drop(project)).await.unwrap();
}

/// One rollout to its end; the names of the pods after it.
fn rollout(project: &Project) -> String {
    // As `rollout restart`, which names the moment in whole seconds and refuses two within one.
    let moment = format!("{:?}", std::time::SystemTime::now()).replace(['"', '{', '}'], "");
    let patch = serde_json::json!({"spec": {"template": {"metadata": {"annotations": {"round": moment}}}}}).to_string();
    for arguments in
        [&["patch", "deployment/web", "-p", &patch][..], &["rollout", "status", "deployment/web", "--timeout=60s"]]
    {
        let output = project.kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    let running = ["get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "name"];
    String::from_utf8(project.kubectl(&running).stdout).unwrap()
}

/// Sends a request every [`PERIOD`], whatever became of the earlier ones.
async fn load(client: reqwest::Client, url: String, stop: Arc<AtomicBool>) -> Vec<Result<(), String>> {
    let mut requests = JoinSet::new();
    let mut clock = tokio::time::interval(PERIOD);
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let request = client.get(&url);
        requests.spawn(async move {
            let response = request.send().await.map_err(|e| format!("{e:?}"))?;
            let status = response.status();
            let body = response.text().await.map_err(|e| format!("body: {e:?}"))?;
            match status.as_u16() == 200 && body == "first\n" {
                true => Ok(()),
                false => Err(format!("{status}: {body}")),
            }
        });
    }
    requests.join_all().await
}

fn url(project: &Project) -> String {
    let world: serde_json::Value = serde_json::from_str(&project.ok(&["status", "-o", "json"])).unwrap();
    let url = world["services"]["web"]["endpoints"][0]["url"].as_str().expect("web has an address");
    format!("{}/index.html", url.trim_end_matches('/'))
}

fn client(project: &Project) -> reqwest::Client {
    aksim::runtime::pki::install_crypto_provider();
    let pki = aksim::runtime::pki::Pki::open(&project.environment_home().join("pki"), "aksim CA").unwrap();
    let url = url::Url::parse(&url(project)).unwrap();
    let ingress = SocketAddr::from(([127, 0, 0, 1], url.port_or_known_default().unwrap()));
    reqwest::Client::builder()
        .tls_backend_preconfigured(pki.client_config(None).unwrap())
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .resolve(url.host_str().unwrap(), ingress)
        .build()
        .unwrap()
}

/// A workload whose pods run a line of the shell; its image has its name.
fn workload(kind: &str, name: &str, shell: &str) -> String {
    let spec = match kind {
        "Job" => "backoffLimit: 0".to_owned(),
        kind => {
            let service = if kind == "StatefulSet" { format!("serviceName: {name}, ") } else { String::new() };
            format!("{service}replicas: 1, selector: {{matchLabels: {{app: {name}}}}}").replace(", ", "\n  ")
        }
    };
    let (api_version, restart) = if kind == "Job" { ("batch/v1", "Never") } else { ("apps/v1", "Always") };
    format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      restartPolicy: {restart}\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: itdeployacr.azurecr.io/{name}:dev\n        args: [\"sh\", \"-c\", \"{shell}\"]\n"
    )
}

fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

/// It listens after some time and has no readiness probe: ready long before it answers.
const SLOW: &str = "/bin/busybox sleep 4; exec /bin/busybox httpd -f -p 8080 -h /";
const EXITS: &str = "echo there is no schema; exit 3";

const PIPELINE: &str = r###"
steps:
- task: KubernetesManifest@1
  inputs: {action: deploy, manifests: pipeline/late.yaml, containers: IMAGE}
- task: KubernetesManifest@1
  inputs: {action: deploy, manifests: pipeline/broken.yaml, containers: IMAGE}
"###;

/// A project of services that come up each in its own way: their name, kind and line of the shell.
fn services(all: &[(&str, &str, &str)]) -> Project {
    let mut config = "name = \"it-deploy\"\n".to_owned();
    for (name, ..) in all {
        config += &format!("\n[[service]]\nname = \"{name}\"\npath = \"box\"\nmanifests = [\"k8s/{name}.yaml\"]\n");
    }
    let project = Project::new(&config);
    project.write(
        "box/Dockerfile",
        "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nENTRYPOINT [\"/bin/busybox\"]\n",
    );
    std::fs::copy(program("busybox"), project.path("box/busybox")).unwrap();
    for (name, kind, shell) in all {
        let more = if *kind == "Job" || *name == "worker" { String::new() } else { service(name) };
        project.write(&format!("box/k8s/{name}.yaml"), &(workload(kind, name, shell) + &more));
    }
    project
}

#[test]
fn every_kind_of_workload_is_waited_for() {
    let project = services(&[
        ("slow", "Deployment", SLOW),
        ("broken", "StatefulSet", EXITS),
        ("echo", "Deployment", "exec /bin/busybox nc -ll -p 8080 -e /bin/busybox cat"),
        ("worker", "Deployment", "exec /bin/busybox sleep 86400"),
        ("good-job", "Job", "/bin/busybox sleep 1"),
        ("bad-job", "Job", "echo no such table; exit 4"),
    ]);
    let output = project.run(&["up", "--detach"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for wanted in ["exited with code 3", "there is no schema", "job bad-job: BackoffLimitExceeded", "no such table"] {
        assert!(said.contains(wanted), "{wanted:?} is not in {said}");
    }
    let world: serde_json::Value = serde_json::from_str(&project.ok(&["status", "-o", "json"])).unwrap();
    for (name, state) in [
        ("slow", "ready"),
        ("broken", "failed"),
        ("echo", "ready"),
        ("worker", "ready"),
        ("good-job", "ready"),
        ("bad-job", "failed"),
    ] {
        assert_eq!(world["services"][name]["state"], state, "{name}: {world}");
    }
    let journeys: serde_json::Value = serde_json::from_str(&project.ok(&["journey", "-o", "json"])).unwrap();
    let served = |service: &str| {
        let journey = journeys.as_array().unwrap().iter().find(|j| j["service"] == service).unwrap();
        let hops = journey["hops"].as_array().unwrap();
        let served = hops.iter().find(|hop| hop["hop"] == "served");
        served.map(|hop| hop["detail"].as_str().unwrap().to_owned())
    };
    assert!(served("slow").unwrap().starts_with("404 from slow-"), "{journeys}");
    assert!(served("echo").unwrap().contains("connected, no HTTP answer (another protocol)"), "{journeys}");
    assert_eq!(served("worker").as_deref(), Some("deployment worker: ready; no Service leads to it"));
    assert_eq!(served("good-job").as_deref(), Some("job good-job: complete"));
    assert_eq!((served("broken"), served("bad-job")), (None, None));
    a_pipeline_waits_as_the_inner_loop_does(&project);
}

fn a_pipeline_waits_as_the_inner_loop_does(project: &Project) {
    let image =
        project.kubectl(&["get", "deployment", "slow", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]);
    let image = String::from_utf8(image.stdout).unwrap();
    project.write("azure-pipelines.yml", &PIPELINE.replace("IMAGE", &image));
    let of_slow = |name: &str, kind: &str, shell: &str| {
        workload(kind, name, shell).replace(&format!("azurecr.io/{name}:"), "azurecr.io/slow:")
    };
    project.write("pipeline/late.yaml", &(of_slow("late", "Deployment", SLOW) + &service("late")));
    project.write("pipeline/broken.yaml", &of_slow("wrong", "StatefulSet", EXITS));
    for arguments in
        [&["init", "--quiet", "--initial-branch=main", "."][..], &["add", "-A"], &["commit", "--quiet", "-m", "all"]]
    {
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"]).args(arguments);
        let output = git.current_dir(project.path("")).env("HOME", project.home()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
    }
    let run = project.run(&["pipeline", "run", "--folder", ".", "--follow"]);
    let log = text(&run);
    assert!(!run.status.success(), "{log}");
    for wanted in [
        "served: 404 from late-",
        "deployment \"late\" successfully rolled out",
        "rollout status statefulset/wrong",
        "statefulset wrong: pod wrong-0, container main: CrashLoopBackOff: exited with code 3",
        "there is no schema",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in {log}");
    }
    assert!(!log.contains("\"wrong\" successfully rolled out"), "{log}");
}
