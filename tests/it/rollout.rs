//! Rollouts under load: nobody's request fails.

use crate::support::{Project, text};
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
const ROLLOUTS: usize = 3;

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
