//! What a save takes until the new version answers, seen from outside: a file is written, and
//! the ingress is asked again and again over HTTPS until the new content comes.

use crate::{
    support::Project,
    table::{Budget, Report},
};
use aksim::{
    model::endpoint::AzureName,
    runtime::{net::azure_http_client, pki::Pki},
};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Row of a synced file.
pub const SYNCED: &str = "file saved → new version answers, synced file";
/// Row of a rebuilt image.
pub const REBUILT: &str = "file saved → new version answers, rebuilt image without compile time";

const SAVES: usize = 15;
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two requests, so that asking does not take the cores from what is measured.
const PAUSE: Duration = Duration::from_millis(2);
/// Answers in a row that show that both pods have the new content.
const SETTLED: usize = 6;

/// A service with a synced folder (`static`) and one that is copied into the image (`pages`).
pub fn project() -> Project {
    let project = Project::busybox("bench-env");
    let dockerfile = std::fs::read_to_string(project.path("web/Dockerfile")).unwrap();
    project.write(
        "web/Dockerfile",
        &dockerfile.replace("COPY static /srv\n", "COPY static /srv\nCOPY pages /srv/pages\n"),
    );
    project.write("web/pages/page.html", "page\n");
    project
}

/// The rows of saves.
pub fn measure(report: &mut Report, project: &Project, runtime: &Runtime) {
    let front = Front::of(project);
    if report.wants(SYNCED) {
        let times = runtime.block_on(front.saves(project, "web/static/index.html", "index.html"));
        report.times(SYNCED, Budget::Below(Duration::from_millis(150)), "Tilt live update: 1.5 s", &times);
    }
    if report.wants(REBUILT) {
        let times = runtime.block_on(front.saves(project, "web/pages/page.html", "pages/page.html"));
        report.times(REBUILT, Budget::Below(Duration::from_millis(500)), "Tilt: 3.5–4.2 s", &times);
    }
}

/// The service's front door.
pub struct Front {
    http: reqwest::Client,
    url: String,
}

impl Front {
    /// The front door of a project that is up.
    pub fn of(project: &Project) -> Self {
        let world: serde_json::Value = serde_json::from_str(&project.ok(&["status", "-o", "json"])).unwrap();
        let url = world["services"]["web"]["endpoints"][0]["url"].as_str().unwrap().trim_end_matches('/').to_owned();
        let parsed = url::Url::parse(&url).unwrap();
        let port = parsed.port_or_known_default().unwrap();
        let name = AzureName {
            host: parsed.host_str().unwrap().to_owned(),
            port,
            target: std::net::SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let pki = Pki::open(&project.environment_home().join("pki"), "").unwrap();
        Self { http: azure_http_client(&pki, &[name]).unwrap(), url }
    }

    /// The page at `path`.
    pub async fn get(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}/{path}", self.url)).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success() || status == reqwest::StatusCode::NOT_FOUND, "{status}: {text}");
        text
    }

    async fn saves(&self, project: &Project, file: &str, path: &str) -> Vec<Duration> {
        let mut times = Vec::new();
        for number in 0..=SAVES {
            let content = format!("version {number} of {path}\n");
            let began = Instant::now();
            project.write(file, &content);
            self.until(path, &content, 1).await;
            times.push(began.elapsed());
            // The next save finds a service at rest.
            self.until(path, &content, SETTLED).await;
            self.until_ready(project).await;
        }
        times.split_off(1)
    }

    async fn until(&self, path: &str, content: &str, in_a_row: usize) {
        let began = Instant::now();
        let mut seen = 0;
        while seen < in_a_row {
            seen = if self.get(path).await == content { seen + 1 } else { 0 };
            assert!(began.elapsed() < DEADLINE, "{path}: {content:?} is not served");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Until the program says that the rollout is complete: it rolls out one version at a time.
    async fn until_ready(&self, project: &Project) {
        let began = Instant::now();
        loop {
            let world: serde_json::Value = serde_json::from_str(&project.ok(&["status", "-o", "json"])).unwrap();
            if world["services"]["web"]["state"] == "ready" {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "the service is not ready: {}", world["services"]["web"]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
