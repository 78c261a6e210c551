//! The Git host with the stock git client, over TLS with the environment's CA; and its webhooks
//! with a receiver that checks what GitHub's receivers check.

use crate::support::{AKSIM, Project, text};
use aksim::{
    git::{
        Access, Account, BranchRule, ContentType, GitHandle, GitHost, GitHostConfig, HookSpec, RepositorySpec,
        RetryPolicy,
        remote::{RemoteOutcome, RemoteSpec, set_remote},
        signature,
    },
    identity::{DirectorySpec, IdentityConfig, Issuer, UserSpec},
    model::{event::FlowRow, ids::JourneyId, journey::Hop},
    runtime::{
        component::{Component, RunContext, readiness},
        http::serve,
        net::{azure_http_client, listen_loopback},
        oidc::{OidcConfig, TokenVerifier},
        pki::Pki,
        recorder::Recorder,
    },
};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    convert::Infallible,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{process::Command, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What anything here may take; a failure, not a measure.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Running {
    dir: TempDir,
    pub(crate) pki: Pki,
    pub(crate) url: String,
    pub(crate) handle: GitHandle,
    recorder: Recorder,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

fn account(login: &str, access: Access) -> Account {
    Account {
        login: login.into(),
        name: login.to_uppercase(),
        email: format!("{login}@contoso.onmicrosoft.com"),
        object_id: None,
        access: Some(access),
    }
}

fn config(dir: &Path) -> GitHostConfig {
    let pki = Pki::open(&dir.join("pki"), "aksim test").unwrap();
    let mut config = GitHostConfig::new(dir.join("git"), pki, AKSIM, Recorder::in_memory());
    config.accounts = vec![account("olga", Access::Admin), account("ada", Access::Write), account("bob", Access::Read)];
    config.repositories = vec![RepositorySpec::new("shop")];
    // Pauses do not measure anything here: short, so that the tests do not wait.
    config.retry = RetryPolicy { first: Duration::from_millis(20), longest: Duration::from_secs(1), attempts: 10_000 };
    config
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut GitHostConfig)) -> Self {
        Self::start_in(TempDir::new().unwrap(), change).await
    }

    async fn start_in(dir: TempDir, change: impl FnOnce(&mut GitHostConfig)) -> Self {
        let mut config = config(dir.path());
        change(&mut config);
        let (pki, recorder) = (config.pki.clone(), config.recorder.clone());
        let host = GitHost::bind(config).await.unwrap();
        let (url, handle) = (host.url().to_owned(), host.handle());
        let (signal, mut ready) = readiness();
        let shutdown = CancellationToken::new();
        let context = RunContext { shutdown: shutdown.clone(), readiness: signal, recorder: recorder.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { Box::new(host).run(context).await.unwrap() });
        assert!(ready.wait().await);
        Self { dir, pki, url, handle, recorder, shutdown, tasks }
    }

    pub(crate) async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.dir
    }

    pub(crate) fn token(&self, user: &str, access: Access) -> String {
        self.handle.issue_token(user, "test", access).unwrap()
    }

    /// URL of the repository for a user who may do what their account allows.
    pub(crate) fn remote(&self, user: &str) -> String {
        self.remote_with(user, &self.token(user, Access::Admin))
    }

    fn remote_with(&self, user: &str, password: &str) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap();
        format!("{scheme}://{user}:{password}@{rest}/contoso/shop.git")
    }

    fn git(&self, dir: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(dir)
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_SSL_CAINFO", self.pki.ca_path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("NO_PROXY", "127.0.0.1")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Ada")
                .env(format!("GIT_{role}_EMAIL"), "ada@contoso.onmicrosoft.com");
        }
        command
    }

    async fn run(&self, dir: &Path, arguments: &[&str]) -> Output {
        finish(self.git(dir).args(arguments)).await
    }

    pub(crate) async fn ok(&self, dir: &Path, arguments: &[&str]) -> String {
        let output = self.run(dir, arguments).await;
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn refused(&self, dir: &Path, arguments: &[&str]) -> String {
        let output = self.run(dir, arguments).await;
        assert!(!output.status.success(), "git {arguments:?} succeeded: {}", text(&output));
        text(&output)
    }

    /// A checkout with one commit of `file` on `main`.
    pub(crate) async fn checkout(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        self.ok(&dir, &["init", "--quiet", "--initial-branch=main"]).await;
        self.commit(&dir, "file", "first").await;
        dir
    }

    async fn commit(&self, dir: &Path, file: &str, content: &str) -> String {
        std::fs::write(dir.join(file), content).unwrap();
        self.ok(dir, &["add", "--all"]).await;
        self.ok(dir, &["commit", "--quiet", "--message", &format!("{content} of {file}")]).await;
        self.ok(dir, &["rev-parse", "HEAD"]).await
    }

    fn client(&self) -> reqwest::Client {
        azure_http_client(&self.pki, &[]).unwrap()
    }

    /// Calls the API as olga, who may do everything.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.api_as(&self.token("olga", Access::Admin), method, path, body).await
    }

    async fn api_as(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("{}/api/v3/{path}", self.url);
        let request = self.client().request(method.parse().unwrap(), url).bearer_auth(token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// curl with the paths as they are written, and what it got: status and body.
    async fn curl(&self, arguments: &[&str], path: &str) -> (String, String) {
        let mut command = Command::new("curl");
        command.args(["-sS", "--path-as-is", "--noproxy", "*", "-w", "\n%{http_code}", "--cacert"]);
        command.arg(self.pki.ca_path()).args(arguments).arg(format!("{}{path}", self.url));
        let output = finish(command.stdin(Stdio::null()).kill_on_drop(true)).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = said.rsplit_once('\n').unwrap_or_else(|| panic!("{}", text(&output)));
        (code.to_owned(), body.to_owned())
    }
}

async fn finish(command: &mut Command) -> Output {
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    output.expect("the client ends in time").expect("the client is installed; hint: aksim doctor --fix")
}

/// A receiver of webhooks with the environment's certificate. It answers by its list, then 204.
struct Receiver {
    url: String,
    received: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
    stop: tokio_util::sync::DropGuard,
    tasks: JoinSet<()>,
}

impl Receiver {
    async fn start(pki: &Pki, port: u16) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let answers: Arc<Mutex<VecDeque<StatusCode>>> = Arc::default();
        let queue = answers.clone();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let (sender, queue) = (sender.clone(), queue.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let status = queue.lock().pop_front().unwrap_or(StatusCode::NO_CONTENT);
                let _ = sender.send((parts.headers, body));
                let mut response = Response::new(Body::from("thanks"));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        let listener = listen_loopback(port).await.unwrap();
        let url = format!("https://{}/hook", listener.local_addr().unwrap());
        let tls = pki.server_config(&["127.0.0.1"], false).unwrap();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let stopping = shutdown.clone();
        tasks.spawn(async move { serve(listener, Some(tls), service, stopping).await.unwrap() });
        Self { url, received, answers, stop: shutdown.drop_guard(), tasks }
    }

    /// The next request and its body as JSON, its signature held to the raw body.
    async fn next(&mut self, secret: &str) -> (HeaderMap, Value) {
        let (headers, body) = tokio::time::timeout(DEADLINE, self.received.recv()).await.unwrap().unwrap();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-hub-signature-256"), signature::sha256(secret, &body));
        assert_eq!(header("x-hub-signature"), signature::sha1(secret, &body));
        assert!(header("user-agent").starts_with("GitHub-Hookshot/"));
        let payload = match header("content-type").as_str() {
            "application/json" => serde_json::from_slice(&body).unwrap(),
            _ => {
                let (key, value) = url::form_urlencoded::parse(&body).next().unwrap();
                assert_eq!(key, "payload");
                serde_json::from_str(&value).unwrap()
            }
        };
        (headers, payload)
    }

    async fn stop(mut self) {
        drop(self.stop);
        while self.tasks.join_next().await.is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_clones_fetches_pushes_shallowly_and_with_tags() {
    let host = Running::start().await;
    let (first, remote) = (host.checkout("first").await, host.remote("ada"));
    host.ok(&first, &["push", "--quiet", &remote, "main"]).await;
    for n in 0..5 {
        host.commit(&first, "file", &format!("change {n}")).await;
    }
    host.ok(&first, &["tag", "light"]).await;
    host.ok(&first, &["tag", "--annotate", "v1", "--message", "one"]).await;
    host.ok(&first, &["push", "--quiet", "--tags", &remote, "main", "main:refs/heads/feature/x"]).await;

    host.ok(host.dir.path(), &["clone", "--quiet", &remote, "second"]).await;
    let second = host.dir.path().join("second");
    assert_eq!(std::fs::read_to_string(second.join("file")).unwrap(), "change 4");
    assert_eq!(host.ok(&second, &["tag"]).await, "light\nv1");
    assert_eq!(host.ok(&second, &["branch", "--show-current"]).await, "main");
    let id = host.commit(&first, "other", "more").await;
    host.ok(&first, &["push", "--quiet", &remote, "main"]).await;
    host.ok(&second, &["fetch", "--quiet"]).await;
    assert_eq!(host.ok(&second, &["rev-parse", "origin/main"]).await, id);

    for version in ["0", "1", "2"] {
        let (name, protocol) = (format!("shallow{version}"), format!("protocol.version={version}"));
        host.ok(host.dir.path(), &["-c", &protocol, "clone", "--quiet", "--depth=1", &remote, &name]).await;
        let shallow = host.dir.path().join(&name);
        assert_eq!(host.ok(&shallow, &["rev-list", "--count", "HEAD"]).await, "1");
        host.ok(&shallow, &["-c", &protocol, "fetch", "--quiet", "--unshallow"]).await;
        assert_eq!(host.ok(&shallow, &["rev-list", "--count", "HEAD"]).await, "7");
    }
    // A branch that was deleted is gone for the next clone.
    host.ok(&first, &["push", "--quiet", &remote, "--delete", "feature/x"]).await;
    assert!(!host.ok(&first, &["ls-remote", &remote]).await.contains("feature/x"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_pack_goes_in_and_out() {
    let host = Running::start().await;
    let (dir, remote) = (host.checkout("large").await, host.remote("ada"));
    // Does not compress: 48 MiB on the wire.
    let mut content = vec![0u8; 48 << 20];
    rand::fill(&mut content[..]);
    std::fs::write(dir.join("blob"), &content).unwrap();
    host.commit(&dir, "file", "with a blob").await;
    host.ok(&dir, &["push", "--quiet", &remote, "main"]).await;
    host.ok(host.dir.path(), &["clone", "--quiet", &remote, "again"]).await;
    assert!(std::fs::read(host.dir.path().join("again/blob")).unwrap() == content);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_refused() {
    let host = Running::start().await;
    let dir = host.checkout("work").await;
    let path = "/contoso/shop.git/info/refs?service=git-upload-pack";
    let anonymous = host.client().get(format!("{}{path}", host.url)).send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    assert!(anonymous.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic realm="));
    let wrong = host.refused(&dir, &["push", &host.remote_with("ada", "akp_wrong"), "main"]).await;
    assert!(wrong.contains("Authentication failed"), "{wrong}");

    host.ok(&dir, &["push", "--quiet", &host.remote("ada"), "main"]).await;
    // A reader by account, and a writer with a token that only reads.
    for remote in [host.remote("bob"), host.remote_with("ada", &host.token("ada", Access::Read))] {
        host.ok(&dir, &["ls-remote", &remote]).await;
        let denied = host.refused(&dir, &["push", &remote, "main:refs/heads/other"]).await;
        assert!(denied.contains("403") && denied.contains("remote: Write access to repository"), "{denied}");
    }
    // A token that was revoked.
    let (_, made) = host.api("POST", "aksim/tokens", Some(json!({"user": "ada", "access": "write"}))).await;
    let remote = host.remote_with("ada", made["token"].as_str().unwrap());
    host.ok(&dir, &["ls-remote", &remote]).await;
    let (status, _) = host.api("DELETE", &format!("aksim/tokens/{}", made["id"]), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    host.refused(&dir, &["ls-remote", &remote]).await;
    // Nobody makes a token that allows more.
    let reader = host.token("bob", Access::Admin);
    let (status, _) = host.api_as(&reader, "POST", "aksim/tokens", Some(json!({"access": "write"}))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = host.api_as(&reader, "GET", "repos/contoso/shop/hooks", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entra_token_is_a_password() {
    const DEVOPS: &str = "499b84ac-1321-427f-aa17-267ca6975798";
    let dir = TempDir::new().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
    let user = |name: &str| UserSpec { name: name.into(), ..UserSpec::default() };
    let directory =
        DirectorySpec { tenant: "contoso".into(), users: vec![user("ada"), user("eve")], ..DirectorySpec::default() };
    let issuer = Issuer::bind(IdentityConfig::new(dir.path().join("identity"), pki.clone(), directory)).await.unwrap();
    let http = azure_http_client(&pki, &issuer.azure_names()).unwrap();
    let verifier =
        TokenVerifier::new(OidcConfig { issuer: issuer.issuer(), audiences: vec![DEVOPS.into()], http: http.clone() });
    let ada = issuer.directory().user("ada").unwrap().id.to_string();
    let mut host = Running::start_in(dir, |config| {
        config.accounts[1].object_id = Some(ada);
        config.entra = Some(verifier);
    })
    .await;
    let context = RunContext { shutdown: host.shutdown.clone(), ..RunContext::detached(Recorder::in_memory()) };
    host.tasks.spawn(async move { Box::new(issuer).run(context).await.unwrap() });
    let token = async |user: &str, scope: &str| {
        let upn = format!("{user}@contoso.onmicrosoft.com");
        let form = [
            ("grant_type", "password"),
            ("client_id", "04b07795-8ddb-461a-bbee-02f9e1bf7b46"),
            ("scope", scope),
            ("username", upn.as_str()),
            ("password", aksim::identity::DEVELOPMENT_PASSWORD),
        ];
        let url = "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token";
        let answer: Value = http.post(url).form(&form).send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let work = host.checkout("work").await;
    let devops = format!("{DEVOPS}/.default");
    let good = token("ada", &devops).await;
    host.ok(&work, &["push", "--quiet", &host.remote_with("ada", &good), "main"]).await;
    let header = format!("http.extraHeader=Authorization: Bearer {good}");
    let bare = format!("{}/contoso/shop.git", host.url);
    assert!(host.ok(&work, &["-c", &header, "ls-remote", &bare]).await.contains("refs/heads/main"));
    // For another service; and of a user of the tenant whom nobody has given access.
    let other = token("ada", "6dae42f8-4368-4678-94ff-3960e28e3630/.default").await;
    assert!(
        host.refused(&work, &["ls-remote", &host.remote_with("ada", &other)]).await.contains("Authentication failed")
    );
    let eve = token("eve", &devops).await;
    assert!(host.refused(&work, &["ls-remote", &host.remote_with("eve", &eve)]).await.contains("not found"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protected_branch_keeps_its_history() {
    let rule = BranchRule { pattern: "main".into(), required_contexts: vec!["ci".into()] };
    let host = Running::with(|config| config.repositories[0].protected = Some(vec![rule])).await;
    let (dir, remote) = (host.checkout("work").await, host.remote("ada"));
    let first = host.ok(&dir, &["rev-parse", "HEAD"]).await;
    host.ok(&dir, &["push", "--quiet", &remote, "main", "main:topic"]).await;
    // The status is asked for, may come first on another branch, and then lets the commit pass.
    let second = host.commit(&dir, "file", "second").await;
    let expected = host.refused(&dir, &["push", &remote, "main"]).await;
    assert!(expected.contains("remote: error: Required status check \"ci\" is expected."), "{expected}");
    host.ok(&dir, &["push", "--quiet", &remote, "main:topic"]).await;
    let statuses = format!("repos/contoso/shop/statuses/{second}");
    for (state, passes) in [("pending", false), ("failure", false), ("success", true)] {
        let (status, _) = host.api("POST", &statuses, Some(json!({"state": state, "context": "ci"}))).await;
        assert_eq!(status, StatusCode::CREATED);
        let pushed = host.run(&dir, &["push", &remote, "main"]).await;
        assert_eq!(pushed.status.success(), passes, "{state}: {}", text(&pushed));
    }
    let forced = host.refused(&dir, &["push", "--force", &remote, &format!("{first}:main")]).await;
    for part in ["GH006: Protected branch update failed for refs/heads/main", "Cannot force-push", "[remote rejected]"]
    {
        assert!(forced.contains(part), "no {part:?} in {forced}");
    }
    let deleted = host.refused(&dir, &["push", &remote, "--delete", "main"]).await;
    assert!(deleted.contains("Cannot delete this branch"), "{deleted}");
    assert!(host.ok(&dir, &["ls-remote", &remote, "refs/heads/main"]).await.starts_with(&second));
    // What is not protected may be forced.
    host.ok(&dir, &["push", "--quiet", "--force", &remote, &format!("{first}:topic")]).await;
    // A host whose hook cannot run takes no push.
    std::fs::remove_file(host.dir.path().join("git/hooks/pre-receive")).unwrap();
    assert!(host.refused(&dir, &["push", &remote, "main:new"]).await.contains("pre-receive"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_are_told_to_webhooks_signed_and_again() {
    let host = Running::start().await;
    let mut receiver = Receiver::start(&host.pki, 0).await;
    let hook = json!({"config": {"url": receiver.url, "content_type": "json", "secret": "s3cret"}, "events": ["push"]});
    let (status, hook) = host.api("POST", "repos/contoso/shop/hooks", Some(hook)).await;
    assert_eq!((status, &hook["config"]["secret"]), (StatusCode::CREATED, &json!("********")));
    let (headers, ping) = receiver.next("s3cret").await;
    assert_eq!((headers["x-github-event"].as_bytes(), &ping["hook_id"]), (&b"ping"[..], &hook["id"]));
    assert_eq!(headers["x-github-hook-id"].to_str().unwrap(), hook["id"].to_string());

    let (dir, remote) = (host.checkout("work").await, host.remote("ada"));
    let first = host.ok(&dir, &["rev-parse", "HEAD"]).await;
    host.ok(&dir, &["push", "--quiet", &remote, "main"]).await;
    let (headers, push) = receiver.next("s3cret").await;
    assert_eq!(headers["x-github-event"], "push");
    assert_eq!(
        (&push["ref"], &push["after"], &push["created"]),
        (&json!("refs/heads/main"), &json!(first), &json!(true))
    );
    assert_eq!(push["before"], "0".repeat(40));
    assert_eq!(push["head_commit"]["added"], json!(["file"]));
    assert_eq!((&push["pusher"]["name"], &push["sender"]["login"]), (&json!("ada"), &json!("ada")));
    assert_eq!(push["repository"]["full_name"], "contoso/shop");

    // One push of two commits; the receiver is out of order twice.
    std::fs::remove_file(dir.join("file")).unwrap();
    host.commit(&dir, "b", "second").await;
    let third = host.commit(&dir, "b", "third").await;
    receiver.answers.lock().extend([StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE]);
    host.ok(&dir, &["push", "--quiet", &remote, "main"]).await;
    let mut guids = Vec::new();
    for _ in 0..3 {
        let (headers, push) = receiver.next("s3cret").await;
        guids.push(headers["x-github-delivery"].to_str().unwrap().to_owned());
        assert_eq!((&push["before"], &push["after"]), (&json!(first), &json!(third)));
        let changes: Vec<_> = push["commits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| json!([c["message"], c["added"], c["removed"], c["modified"]]))
            .collect();
        let expected = [json!(["second of b", ["b"], ["file"], []]), json!(["third of b", [], [], ["b"]])];
        assert_eq!(changes, expected);
        assert_eq!((&push["forced"], &push["deleted"]), (&json!(false), &json!(false)));
    }
    assert!(uuid::Uuid::parse_str(&guids[0]).is_ok() && guids.iter().all(|g| *g == guids[0]), "{guids:?}");

    // The log has the three tries; and the same can be sent again, under the same guid.
    let log = format!("repos/contoso/shop/hooks/{}/deliveries", hook["id"]);
    let delivery = eventually("the delivery is logged", async || {
        let (_, list) = host.api("GET", &log, None).await;
        let newest = list[0].clone();
        (newest["state"] == "delivered" && newest["guid"] == guids[0]).then_some(newest)
    })
    .await;
    let codes: Vec<_> = delivery["attempts"].as_array().unwrap().iter().map(|a| a["status_code"].clone()).collect();
    assert_eq!(codes, [500, 503, 204]);
    let (_, detail) = host.api("GET", &format!("{log}/{}", delivery["id"]), None).await;
    assert_eq!(detail["request"]["payload"]["after"], third);
    assert!(detail["request"]["headers"]["x-hub-signature-256"].as_str().unwrap().starts_with("sha256="));
    let (status, _) = host.api("POST", &format!("{log}/{}/attempts", delivery["id"]), None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (headers, again) = receiver.next("s3cret").await;
    assert_eq!((headers["x-github-delivery"].to_str().unwrap(), &again["after"]), (guids[0].as_str(), &json!(third)));
    let (_, list) = host.api("GET", &log, None).await;
    assert_eq!((&list[0]["redelivery"], list[0]["id"] == delivery["id"]), (&json!(true), false));

    // The same as a form; and nothing more for one that is removed.
    let path = format!("repos/contoso/shop/hooks/{}", hook["id"]);
    let form = json!({"config": {"url": receiver.url, "content_type": "form", "secret": "other"}});
    assert_eq!(host.api("PATCH", &path, Some(form)).await.0, StatusCode::OK);
    host.ok(&dir, &["push", "--quiet", "--force", &remote, &format!("{first}:main")]).await;
    let (_, forced) = receiver.next("other").await;
    assert_eq!((&forced["forced"], &forced["commits"]), (&json!(true), &json!([])));
    assert_eq!(host.api("DELETE", &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(host.api("GET", &log, None).await.0, StatusCode::NOT_FOUND);

    // The journeys tell the way of the commits.
    let world = host.recorder.world();
    let journey = world.journeys.iter().find(|j| j.id == JourneyId::of_commit(&third)).unwrap();
    assert_eq!(journey.cause, format!("commit {} by ada: third of b", &third[..7]));
    assert_eq!(journey.service.as_str(), "shop");
    assert_eq!(journey.hops.iter().map(|h| h.hop).collect::<Vec<_>>(), [Hop::Committed, Hop::Delivered]);
    assert!(world.flow[&FlowRow::Commit].ok && world.flow[&FlowRow::Trigger].ok);
    receiver.stop().await;
    host.stop().await;
}

/// Waits for a condition; the deadline is the failure.
async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_delivered_after_a_restart() {
    let host = Running::start().await;
    let receiver = Receiver::start(&host.pki, 0).await;
    let (url, port) =
        (receiver.url.clone(), receiver.url.rsplit(':').next().unwrap().trim_end_matches("/hook").parse().unwrap());
    receiver.stop().await;
    host.handle.ensure_webhook("shop", HookSpec::push(&url, "s")).unwrap();
    let (dir, remote) = (host.checkout("work").await, host.remote("ada"));
    // Nobody listens: the push is acknowledged, its delivery waits.
    host.ok(&dir, &["push", "--quiet", &remote, "main"]).await;
    let first = host.ok(&dir, &["rev-parse", "HEAD"]).await;
    let second = host.commit(&dir, "file", "second").await;
    let folder = host.stop().await;
    // As if the host had been killed after git moved the branch, and before anything was written down.
    let bare = folder.path().join("git/repositories/contoso/shop.git");
    let moved =
        Command::new("git").args(["push", "--quiet", bare.to_str().unwrap(), "main"]).current_dir(&dir).status();
    assert!(moved.await.unwrap().success());

    let host = Running::start_in(folder, |_| {}).await;
    let mut receiver = Receiver::start(&host.pki, port).await;
    let mut after = Vec::new();
    for _ in 0..2 {
        after.push(receiver.next("s").await.1["after"].as_str().unwrap().to_owned());
    }
    after.sort();
    let mut expected = [first, second];
    expected.sort();
    assert_eq!(after, expected);
    receiver.stop().await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_refuses_is_not_asked_again() {
    let host = Running::start().await;
    let mut receiver = Receiver::start(&host.pki, 0).await;
    let spec = HookSpec { content_type: ContentType::Form, ..HookSpec::push(&receiver.url, "s") };
    let hook = host.handle.ensure_webhook("shop", spec).unwrap();
    receiver.answers.lock().push_back(StatusCode::FORBIDDEN);
    let (dir, remote) = (host.checkout("work").await, host.remote("ada"));
    host.ok(&dir, &["push", "--quiet", &remote, "main"]).await;
    receiver.next("s").await;
    let log = format!("repos/contoso/shop/hooks/{}/deliveries", hook.id);
    let failed = eventually("the delivery fails", async || {
        let (_, list) = host.api("GET", &log, None).await;
        (list[0]["state"] == "failed").then(|| list[0].clone())
    })
    .await;
    assert_eq!((&failed["status_code"], failed["attempts"].as_array().unwrap().len()), (&json!(403), 1));
    assert!(!host.recorder.world().flow[&FlowRow::Trigger].ok);
    receiver.stop().await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_and_odd_paths_are_refused() {
    let host = Running::with(|config| config.max_push_bytes = 100_000).await;
    let (dir, remote) = (host.checkout("work").await, host.remote("ada"));
    let mut content = vec![0u8; 200_000];
    rand::fill(&mut content[..]);
    std::fs::write(dir.join("blob"), &content).unwrap();
    host.commit(&dir, "file", "with a blob").await;
    let refused = host.refused(&dir, &["push", &remote, "main"]).await;
    // Over HTTP/2 the end of the stream, which comes while git still sends, may hide the status.
    assert!(refused.contains("413") || refused.contains("RPC failed"), "{refused}");
    // In pieces of unknown length, too.
    host.refused(&dir, &["-c", "http.postBuffer=65536", "push", &remote, "main"]).await;
    assert_eq!(host.ok(&dir, &["ls-remote", &remote]).await, "");

    let user = format!("olga:{}", host.token("olga", Access::Admin));
    let odd = [
        "/contoso/../../pki/ca.key/info/refs?service=git-upload-pack",
        "/contoso/%2e%2e/shop.git/info/refs?service=git-upload-pack",
        "/contoso/shop.git/..%2f..%2f..%2fcredential.json",
        "/contoso/shop.git/config",
        "/contoso/shop.git/HEAD",
        "/contoso/shop.git/objects/info/alternates",
        "/../repositories/contoso/shop.git/info/refs?service=git-upload-pack",
        "/api/v3/repos/contoso/..%2f..%2fshop",
        "/api/v3/repos/contoso/shop/commits/..%2f..%2fHEAD",
    ];
    for path in odd {
        let (code, body) = host.curl(&["--user", &user], path).await;
        assert!(["404", "422"].contains(&code.as_str()), "{path}: {code} {body}");
    }
    let statuses = "/api/v3/repos/contoso/shop/statuses/..%2f..%2fx";
    let (code, _) = host.curl(&["--user", &user, "--data", r#"{"state":"success"}"#], statuses).await;
    assert_eq!(code, "422");
    host.stop().await;
}

/// Programs that work in a folder.
fn programs_in(folder: &Path) -> usize {
    let folder = folder.canonicalize().unwrap();
    let in_folder = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(in_folder).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_takes_its_programs_with_it() {
    let host = Running::start().await;
    let bare = host.dir.path().join("git/repositories");
    let (body_sender, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = futures::stream::unfold(body, |mut body| async { body.recv().await.map(|piece| (piece, body)) });
    let request = host
        .client()
        .post(format!("{}/contoso/shop.git/git-receive-pack", host.url))
        .basic_auth("ada", Some(host.token("ada", Access::Write)))
        .header("content-type", "application/x-git-receive-pack-request")
        .body(reqwest::Body::wrap_stream(body));
    let mut sending = JoinSet::new();
    sending.spawn(async move { request.send().await.map(drop) });
    // The beginning of a request whose rest never comes.
    body_sender.send(Ok(Bytes::from_static(b"00"))).await.unwrap();
    eventually("the program runs", async || (programs_in(&bare) > 0).then_some(())).await;
    sending.shutdown().await;
    eventually("the program is gone", async || (programs_in(&bare) == 0).then_some(())).await;
    // And the turn is free again.
    let dir = host.checkout("work").await;
    host.ok(&dir, &["push", "--quiet", &host.remote("ada"), "main"]).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_shows_commits_branches_and_statuses() {
    let host = Running::start().await;
    let (dir, remote) = (host.checkout("work").await, host.remote("ada"));
    let sha = host.ok(&dir, &["rev-parse", "HEAD"]).await;
    host.ok(&dir, &["push", "--quiet", &remote, "main", "main:feature/x"]).await;
    let repo = "repos/contoso/shop";
    let (_, branch) = host.api("GET", &format!("{repo}/branches/feature/x"), None).await;
    assert_eq!((&branch["name"], &branch["commit"]["sha"]), (&json!("feature/x"), &json!(sha)));
    let (_, commit) = host.api("GET", &format!("{repo}/commits/main"), None).await;
    assert_eq!((&commit["sha"], &commit["commit"]["message"]), (&json!(sha), &json!("first of file")));

    let writer = host.token("ada", Access::Write);
    let path = format!("{repo}/statuses/{sha}");
    for (context, state) in [("build", "pending"), ("test", "failure"), ("build", "success")] {
        let body = json!({"state": state, "context": context, "target_url": "https://localhost/run/1"});
        assert_eq!(host.api_as(&writer, "POST", &path, Some(body)).await.0, StatusCode::CREATED);
    }
    let (_, combined) = host.api("GET", &format!("{repo}/commits/feature/x/status"), None).await;
    assert_eq!((&combined["state"], &combined["total_count"]), (&json!("failure"), &json!(2)));
    let (_, all) = host.api("GET", &format!("{repo}/commits/{sha}/statuses"), None).await;
    assert_eq!((all.as_array().unwrap().len(), &all[0]["creator"]["login"]), (3, &json!("ada")));
    let unknown = format!("{repo}/statuses/{}", "a".repeat(40));
    let refused = [
        (unknown.as_str(), json!({"state": "success"})),
        (&path, json!({"state": "success", "description": "x".repeat(141)})),
        (&path, json!({"state": "success", "target_url": "javascript:x"})),
    ];
    for (path, body) in refused {
        assert_eq!(host.api_as(&writer, "POST", path, Some(body)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let reader = host.token("bob", Access::Write);
    let success = json!({"state": "success"});
    assert_eq!(host.api_as(&reader, "POST", &path, Some(success)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(host.api("POST", "orgs/contoso/repos", Some(json!({"name": "other"}))).await.0, StatusCode::CREATED);
    let (_, list) = host.api("GET", "orgs/contoso/repos", None).await;
    assert_eq!(list.as_array().unwrap().len(), 2);

    // Statuses stay.
    let host = Running::start_in(host.stop().await, |_| {}).await;
    let (_, combined) = host.api("GET", &format!("{repo}/commits/main/status"), None).await;
    assert_eq!(combined["state"], "failure");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_remote_of_a_checkout_pushes_by_the_credential_helper() {
    let project = Project::new("name = \"it-git\"\n");
    let home = project.environment_home();
    std::fs::create_dir_all(&home).unwrap();
    let recorder = Recorder::in_memory();
    let mut config = config(&home);
    config.recorder = recorder.clone();
    let host = GitHost::bind(config).await.unwrap();
    let credential = host.handle().keep_credential("olga").unwrap();
    assert!(credential == host.handle().keep_credential("olga").unwrap(), "a good credential stays");
    let (signal, mut ready) = readiness();
    let shutdown = CancellationToken::new();
    let context = RunContext { shutdown: shutdown.clone(), readiness: signal, recorder };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { Box::new(host).run(context).await.unwrap() });
    assert!(ready.wait().await);

    let dir = project.path("");
    let git = async |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=Olga", "-c", "user.email=olga@contoso.onmicrosoft.com"]).args(arguments);
        command.current_dir(&dir).env("AKSIM_HOME", project.home()).env("HOME", project.home());
        // It would win over every configuration, that of the remote too.
        command.env("GIT_TERMINAL_PROMPT", "0").env_remove("GIT_SSL_CAINFO").kill_on_drop(true);
        let output = finish(&mut command).await;
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet", "--initial-branch=main"]).await;
    let spec = RemoteSpec {
        host_url: credential.url.clone(),
        repository: "contoso/shop".parse().unwrap(),
        ca: home.join("pki/ca.crt"),
        exe: AKSIM.into(),
        project: dir.join("aksim.toml"),
    };
    assert_eq!(set_remote(&dir, &spec).await.unwrap(), RemoteOutcome::Added);
    git(&["add", "aksim.toml"]).await;
    git(&["commit", "--quiet", "--message", "first"]).await;
    git(&["push", "--quiet", "aksim", "main"]).await;
    let sha = git(&["rev-parse", "HEAD"]).await.trim().to_owned();

    // The command line reads what the API has.
    let status = |arguments: &'static [&'static str]| project.ok(arguments);
    let shown: Value = serde_json::from_str(&status(&["git", "--repository", "shop", "status", "-o", "json"])).unwrap();
    assert_eq!((&shown["sha"], &shown["state"]), (&json!(sha), &json!("pending")));
    let token = status(&["git", "token", "create", "--user", "ada", "--note", "laptop"]);
    assert!(token.starts_with("akp_"), "{token}");
    assert!(status(&["git", "token", "list"]).contains("laptop"));
    let hook = status(&["git", "--repository", "shop", "webhook", "add", "http://127.0.0.1:9/hook", "--secret", "s"]);
    let listed = status(&["git", "--repository", "shop", "webhook", "list", "-o", "name"]);
    assert_eq!(listed, hook);
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
}
