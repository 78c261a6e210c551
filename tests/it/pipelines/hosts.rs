//! The Git host beside the pipelines: pushes that start runs, checkouts, commit statuses; and the REST API.

use super::support::{DEADLINE, Repository, Service, succeeded};
use aksim::{
    git::{Access, RepositorySpec},
    pipelines::{
        GitHost, hmac,
        record::{Outcome, Reason, RunRecord, RunRequest},
    },
    runtime::net::azure_http_client,
};
use std::{path::PathBuf, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_push_starts_a_run_and_others_are_refused() {
    let service = Service::start().await;
    let pipeline =
        "trigger:\n  branches: {include: [main]}\n  paths: {exclude: [docs]}\nsteps:\n- bash: cat file.txt\n";
    let repository = Repository::new(pipeline, &[("file.txt", "pushed content\n")]);
    let before = repository.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let client = azure_http_client(&service.pki, &[]).unwrap();
    let send = |body: String, secret: &str, id: &str, kind: &str| {
        let signature = format!("sha256={}", hex::encode(hmac(secret.as_bytes(), body.as_bytes())));
        client
            .post(&service.webhook)
            .header("content-type", kind)
            .header("x-github-event", "push")
            .header("x-github-delivery", id)
            .header("x-hub-signature-256", signature)
            .body(body)
            .send()
    };
    let push = |before: &str, after: &str| {
        serde_json::json!({"ref": "refs/heads/main", "before": before, "after": after,
            "repository": {"full_name": "contoso/shop", "clone_url": repository.url()},
            "pusher": {"name": "ada"}, "head_commit": {"message": "a change"}})
        .to_string()
    };
    let zeros = "0".repeat(40);
    let json = "application/json";
    let wrong = send(push(&zeros, &before), "wrong", "d-1", json).await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(send(push(&zeros, &before), &service.secret, "d-1", "text/plain").await.unwrap().status(), 415);
    let large = " ".repeat(26 << 20);
    assert_eq!(send(large, &service.secret, "d-2", json).await.map(|r| r.status().as_u16()).unwrap_or(413), 413);
    assert_eq!(send(push(&zeros, &before), &service.secret, "d-3", json).await.unwrap().status(), 202);
    let run = service.when_first(&before).await;
    let run = service.ended(run).await;
    succeeded(&run, &service);
    assert!(service.log(run.id).contains("pushed content"));
    assert_eq!(run.request.reason, Reason::IndividualCI);
    assert_eq!(send(push(&zeros, &before), &service.secret, "d-3", json).await.unwrap().status(), 409);
    // A change of what the trigger leaves out starts nothing; the next one does, and is the second run.
    let docs = repository.commit(pipeline, &[("docs/a.md", "x")]);
    assert_eq!(send(push(&before, &docs), &service.secret, "d-4", json).await.unwrap().status(), 202);
    let next = repository.commit(pipeline, &[("file.txt", "more\n")]);
    assert_eq!(send(push(&docs, &next), &service.secret, "d-5", json).await.unwrap().status(), 202);
    let second = service.when_first(&next).await;
    service.ended(second).await;
    let commits: Vec<String> = service.engine.store.list().into_iter().map(|r| r.request.commit).collect();
    assert_eq!(commits, [next, before]);
    service.stop().await;
}

impl Service {
    /// Id of the run of a commit, once there is one.
    async fn when_first(&self, commit: &str) -> u64 {
        let mut changes = self.engine.store.changes();
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                changes.borrow_and_update();
                if let Some(run) = self.engine.store.list().into_iter().find(|r| r.request.commit == commit) {
                    return run.id;
                }
                changes.changed().await.unwrap();
            }
        });
        waited.await.expect("a run is queued")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_api_wants_its_token() {
    let service = Service::start().await;
    let client = azure_http_client(&service.pki, &[]).unwrap();
    let url = format!("{}/contoso/shop/_apis/build/builds", service.engine.url);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(client.get(&url).bearer_auth("wrong").send().await.unwrap().status(), 401);
    let token = &service.engine.access_token;
    for request in [client.get(&url).bearer_auth(token), client.get(&url).basic_auth("", Some(token))] {
        let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["count"], 0);
    }
    service.stop().await;
}

/// A pipeline service with a Git host beside it, and a repository that is pushed there.
struct Hosted {
    host: crate::git::Running,
    service: Service,
    repository: Repository,
}

impl Hosted {
    async fn start(pipeline: &str, files: &[(&str, &str)]) -> Self {
        let host = crate::git::Running::start().await;
        let token = host.token("ada", Access::Write);
        let service = Service::with(|c| {
            c.agents = 1;
            c.http = azure_http_client(&host.pki, &[]).unwrap();
            c.git = Some(GitHost {
                url: host.url.clone(),
                username: "ada".into(),
                token,
                ca: Some(host.pki.ca_path().to_owned()),
                api_url: Some(format!("{}/api/v3", host.url)),
            });
        })
        .await;
        let hosted = Self { host, service, repository: Repository::new(pipeline, files) };
        hosted.push().await;
        hosted
    }

    async fn push(&self) {
        let folder = PathBuf::from(self.repository.url());
        self.host.ok(&folder, &["push", "--quiet", &self.host.remote("ada"), "main"]).await;
    }

    async fn run(&self) -> RunRecord {
        let clone_url = format!("{}/contoso/shop", self.host.url);
        let queued = self.service.engine.queue(RunRequest { clone_url, ..self.repository.request() }).await.unwrap();
        self.service.ended(queued.id).await
    }

    /// Statuses of a commit, newest first, once there are so many.
    async fn statuses(&self, commit: &str, count: usize) -> Vec<serde_json::Value> {
        let asked = async {
            loop {
                let path = format!("repos/contoso/shop/commits/{commit}/statuses");
                let (status, answer) = self.host.api("GET", &path, None).await;
                assert_eq!(status, 200, "{answer}");
                let found = answer.as_array().unwrap().clone();
                if found.len() >= count {
                    return found;
                }
                // A run's last status follows its end; the host tells nobody of it.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.expect("the commit has its statuses")
    }

    async fn stop(self) {
        self.service.stop().await;
        self.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_tells_the_git_host_how_the_commit_stands() {
    let pipeline = |command: &str| format!("steps:\n- checkout: none\n- bash: {command}\n");
    let hosted = Hosted::start(&pipeline("echo good"), &[]).await;
    let run = hosted.run().await;
    succeeded(&run, &hosted.service);
    let shown = |statuses: &[serde_json::Value]| -> Vec<String> {
        statuses
            .iter()
            .map(|s| format!("{} {}", s["context"].as_str().unwrap(), s["state"].as_str().unwrap()))
            .collect()
    };
    let statuses = hosted.statuses(&run.request.commit, 2).await;
    assert_eq!(shown(&statuses), ["aksim/pipelines success", "aksim/pipelines pending"]);
    assert_eq!(statuses[0]["target_url"], hosted.service.engine.run_url(run.id));
    hosted.repository.commit(&pipeline("exit 7"), &[]);
    hosted.push().await;
    let run = hosted.run().await;
    assert_eq!(run.result, Some(Outcome::Failed));
    let statuses = hosted.statuses(&run.request.commit, 2).await;
    assert_eq!(shown(&statuses), ["aksim/pipelines failure", "aksim/pipelines pending"]);
    let why = statuses[0]["description"].as_str().unwrap();
    assert!(why.contains("failed") && why.contains("code '7'"), "{why}");
    hosted.stop().await;
}

/// One agent, one work folder: what a job leaves there, the next one finds.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_has_what_its_job_asks_for_and_no_more() {
    let job = |name: &str, after: &str, checkout: &str, script: &str| {
        let after = if after.is_empty() { String::new() } else { format!("  dependsOn: {after}\n") };
        format!(
            "- job: {name}\n{after}  steps:\n  - checkout: self\n{checkout}  - bash: |\n      set -ex\n      {script}\n"
        )
    };
    let fetches = "GIT_TERMINAL_PROMPT=0 git fetch --quiet origin main";
    let pipeline = [
        "jobs:\n".to_owned(),
        job("shallow", "", "    fetchDepth: 1\n", "test `git rev-list --count HEAD` = 1"),
        job("deep", "shallow", "    fetchDepth: 0\n", "test `git rev-list --count HEAD` = 2; test -e docs/b.txt"),
        job("sparse", "deep", "    sparseCheckoutDirectories: app\n", "test -e app/a.txt; test ! -e docs"),
        job("pattern", "sparse", "    sparseCheckoutPatterns: '/docs/*'\n", "test -e docs/b.txt; test ! -e app"),
        job("whole", "pattern", "", "test -e app/a.txt; test -e docs/b.txt; test ! -e libs/lib/file"),
        job("modules", "whole", "    submodules: true\n", "test `cat libs/lib/file` = first"),
        job("kept", "modules", "    persistCredentials: true\n", fetches),
        job("not_kept", "kept", "", &format!("if {fetches}; then exit 1; fi")),
        job("dirty", "not_kept", "", "echo x > left; echo x > app/a.txt"),
        job("clean", "dirty", "    clean: true\n", "test ! -e left; test `cat app/a.txt` = a"),
    ]
    .concat();
    let hosted = Hosted::start(&pipeline, &[("app/a.txt", "a\n"), ("docs/b.txt", "b\n")]).await;
    let lib = hosted.host.checkout("lib").await;
    hosted.host.handle.ensure_repository(RepositorySpec::new("lib")).await.unwrap();
    let remote = hosted.host.remote("ada").replace("/shop.git", "/lib.git");
    hosted.host.ok(&lib, &["push", "--quiet", &remote, "main"]).await;
    let commit = hosted.host.ok(&lib, &["rev-parse", "HEAD"]).await;
    let module = format!("160000,{commit},libs/lib");
    hosted.repository.git(&["update-index", "--add", "--cacheinfo", &module]);
    std::fs::create_dir_all(PathBuf::from(hosted.repository.url()).join("libs/lib")).unwrap();
    hosted.repository.commit(&pipeline, &[(".gitmodules", "[submodule \"lib\"]\n\tpath = libs/lib\n\turl = ../lib\n")]);
    hosted.push().await;
    let run = hosted.run().await;
    let log = hosted.service.log(run.id);
    succeeded(&run, &hosted.service);
    // The credentials are in no file that outlives the job, and on no line.
    let token = hosted.service.engine.config.git.as_ref().unwrap().token.clone();
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ada:{token}"));
    for entry in walkdir::WalkDir::new(hosted.service.engine.config.state_dir.join("agents")).into_iter().flatten() {
        if entry.file_type().is_file() {
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            assert!(!text.contains(&basic), "credentials are in {}", entry.path().display());
        }
    }
    assert!(!log.contains(&basic) && !log.contains(&token));
    hosted.stop().await;
}
