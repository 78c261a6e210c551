//! What pipelines do besides the first way through: hooks of deployments, tasks, time limits, locks, checkouts,
//! commit statuses, and the command line with its exit codes.

use crate::pipelines::{DEADLINE, Repository, Service, processes_with, stage_result, step_results, succeeded};
use crate::support::{Project, client, text};
use aksim::{
    git::{Access, RepositorySpec},
    model::pipeline::PipelineRun,
    pipelines::{
        GitHost,
        record::{Outcome, RunRecord, RunRequest, State},
    },
    runtime::net::azure_http_client,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A file that steps write lines to, in the order they run.
struct Marks {
    folder: tempfile::TempDir,
}

impl Marks {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A hook of one step that writes its name, the strategy's, and the increment.
    fn hook(&self, name: &str, more: &str) -> String {
        let file = self.path("marks").display().to_string();
        format!(
            "{{steps: [{{bash: 'echo \"{name} $(strategy.name) ${{STRATEGY_INCREMENT:-none}}\" >> {file}; {more}'}}]}}"
        )
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("marks")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A deployment whose hooks leave marks; `deploy` ends with `last`.
fn deployment(marks: &Marks, strategy: &str, first: &str, last: &str) -> String {
    let hooks = [("preDeploy", "true"), ("deploy", last), ("routeTraffic", "true"), ("postRouteTraffic", "true")];
    let hooks: String =
        hooks.iter().map(|(name, more)| format!("      {name}: {}\n", marks.hook(name, more))).collect();
    // What the strategy's variables are in `on` is asked by name alone: the increment is not for them.
    let file = marks.path("marks").display().to_string();
    let on =
        |name: &str| format!("{{steps: [{{bash: 'echo \"{name} $(strategy.name) $(strategy.action)\" >> {file}'}}]}}");
    format!(
        "jobs:\n- deployment: web\n  environment: aks\n  strategy:\n    {strategy}:\n{first}{hooks}      on:\n        failure: {}\n        success: {}\n- job: after\n  dependsOn: web\n  steps: [{{checkout: none}}, {{bash: 'echo after'}}]\n",
        on("failure"),
        on("success"),
    )
}

fn deployed(service: &Service) -> Option<String> {
    service.engine.environments.list().into_iter().find(|(name, ..)| name == "aks")?.2.map(|d| d.result)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_runs_its_hooks_for_each_increment() {
    let (service, marks) = (Service::start().await, Marks::new());
    let increments = "      increments: [10, 20]\n";
    let repository = Repository::new(&deployment(&marks, "canary", increments, "true"), &[]);
    let run = service.run(&repository).await;
    succeeded(&run, &service);
    let mut wanted = vec!["preDeploy canary none".to_owned()];
    for increment in [10, 20, 100] {
        wanted.extend(["deploy", "routeTraffic", "postRouteTraffic"].map(|h| format!("{h} canary {increment}")));
    }
    wanted.push("success canary promote".to_owned());
    assert_eq!(marks.lines(), wanted, "{}", service.log(run.id));
    assert_eq!(deployed(&service).as_deref(), Some("Succeeded"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_goes_no_further_and_is_rejected() {
    let (service, marks) = (Service::start().await, Marks::new());
    let increments = "      increments: [10, 20]\n";
    let fails_at_20 = "test \"$STRATEGY_INCREMENT\" != 20";
    let repository = Repository::new(&deployment(&marks, "canary", increments, fails_at_20), &[]);
    let run = service.run(&repository).await;
    assert_eq!(run.result, Some(Outcome::Failed), "{}", service.log(run.id));
    assert_eq!(
        marks.lines(),
        [
            "preDeploy canary none",
            "deploy canary 10",
            "routeTraffic canary 10",
            "postRouteTraffic canary 10",
            "deploy canary 20",
            "failure canary reject",
        ]
    );
    // The hook for failures went well; the deployment did not, and what comes after it is not run.
    assert_eq!(run.job("__default", "web").and_then(|j| j.result), Some(Outcome::Failed));
    assert_eq!(run.job("__default", "after").and_then(|j| j.result), Some(Outcome::Skipped));
    let steps = step_results(&run, "__default", "web");
    let ended = |result| steps.iter().filter(|(_, r)| *r == Some(result)).count();
    // Of 13 steps (the implicit download before each deploy included) those above ran.
    assert_eq!(ended(Outcome::Failed), 1, "{steps:?}");
    assert!(steps.iter().any(|(name, r)| name.starts_with("on.success") && *r == Some(Outcome::Skipped)), "{steps:?}");
    assert_eq!(deployed(&service).as_deref(), Some("Failed"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_runs_its_hooks_once() {
    let service = Service::start().await;
    for (last, result, end) in
        [("true", Outcome::Succeeded, "success rolling"), ("false", Outcome::Failed, "failure rolling")]
    {
        let marks = Marks::new();
        let repository = Repository::new(&deployment(&marks, "rolling", "      maxParallel: 2\n", last), &[]);
        let run = service.run(&repository).await;
        assert_eq!(run.result, Some(result), "{}", service.log(run.id));
        let lines = marks.lines();
        let hooks = ["preDeploy", "deploy", "routeTraffic", "postRouteTraffic"].map(|h| format!("{h} rolling none"));
        let ran = if result.good() { &hooks[..] } else { &hooks[..2] };
        assert_eq!(lines[..lines.len() - 1], *ran);
        assert!(lines.last().unwrap().starts_with(end), "{lines:?}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_missed_saved_hit_and_restored_by_its_prefix() {
    let (service, marks) = (Service::start().await, Marks::new());
    let deps = marks.path("deps");
    let pipeline = |write: &str| {
        format!(
            r###"
steps:
- task: Cache@2
  inputs:
    key: 'deps | "$(Agent.OS)" | lock.txt, more.txt'
    restoreKeys: |
      other | "$(Agent.OS)"
      deps | "$(Agent.OS)"
    path: {deps}
    cacheHitVar: HIT
- bash: echo "hit=$HIT of `cat {deps}/content 2>/dev/null || echo nothing`"
- bash: {write}
"###,
            deps = deps.display()
        )
    };
    let writes = |text: &str| pipeline(&format!("mkdir -p {0} && echo {text} > {0}/content", deps.display()));
    let repository = Repository::new(&writes("one"), &[("lock.txt", "1"), ("more.txt", "1")]);
    // What a run says of its cache; the folder is gone before, as on a fresh agent.
    let says = async |pipeline: &str, files: &[(&str, &str)], outcome: Outcome, wanted: &str| {
        let _ = std::fs::remove_dir_all(&deps);
        repository.commit(pipeline, files);
        let run = service.run(&repository).await;
        let log = service.log(run.id);
        assert_eq!(run.result, Some(outcome), "{log}");
        assert!(log.contains(wanted), "{wanted:?} is not in {log}");
    };
    says(&writes("one"), &[], Outcome::Succeeded, "hit=false of nothing").await;
    // The key is known: it is hit, and what this run writes is not kept.
    says(&writes("not kept"), &[], Outcome::Succeeded, "hit=true of one").await;
    says(&writes("not kept"), &[], Outcome::Succeeded, "hit=true of one").await;
    // Any file of the key makes another one; the prefix finds the old one, and the new one is kept.
    says(&writes("two"), &[("more.txt", "2")], Outcome::Succeeded, "hit=inexact of one").await;
    says(&writes("not kept"), &[], Outcome::Succeeded, "hit=true of two").await;
    // A job that fails keeps nothing.
    says(&pipeline("exit 1"), &[("lock.txt", "3")], Outcome::Failed, "hit=inexact of two").await;
    says(&pipeline("'true'"), &[], Outcome::Succeeded, "hit=inexact of two").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_key_names_files_that_are_there() {
    let service = Service::start().await;
    let pipeline = "steps:\n- task: Cache@2\n  inputs: {key: 'deps | none.lock', path: deps}\n";
    let run = service.run(&Repository::new(pipeline, &[])).await;
    assert_eq!(run.result, Some(Outcome::Failed), "{}", service.log(run.id));
    assert!(service.log(run.id).contains("none.lock"), "{}", service.log(run.id));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secure_file_is_there_for_its_job_alone() {
    let service = Service::start().await;
    let files = service.engine.config.state_dir.join("secure-files");
    std::fs::write(files.join("key.pem"), "content-of-the-key\n").unwrap();
    let pipeline = r###"
steps:
- checkout: none
- task: DownloadSecureFile@1
  name: pem
  inputs: {secureFile: key.pem}
- bash: |
    grep -qx content-of-the-key "$(pem.secureFilePath)"
    echo "mode `stat -c %a "$(pem.secureFilePath)"` at [$(pem.secureFilePath)]"
"###;
    let run = service.run(&Repository::new(pipeline, &[])).await;
    succeeded(&run, &service);
    let log = service.log(run.id);
    let path = log.split("at [").last().unwrap().split(']').next().unwrap();
    assert!(log.contains("mode 600 at [/") && path.ends_with("/key.pem"), "{log}");
    assert!(!Path::new(path).exists(), "{path} outlives its job");
    for (name, why) in [("other.pem", "there is no secure file 'other.pem'"), ("../access-token", "leaves")] {
        let pipeline =
            format!("steps:\n- checkout: none\n- task: DownloadSecureFile@1\n  inputs: {{secureFile: '{name}'}}\n");
        let run = service.run(&Repository::new(&pipeline, &[])).await;
        assert_eq!(run.result, Some(Outcome::Failed));
        assert!(service.log(run.id).contains(why), "{}", service.log(run.id));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn powershell_is_run_where_it_is_and_missed_where_it_is_not() {
    let (service, marks) = (Service::start().await, Marks::new());
    // Stands for PowerShell: shows the script that it is given, and ends as that is told to.
    let pwsh = marks.path("pwsh");
    std::fs::write(&pwsh, "#!/bin/sh\nfor last; do :; done\ncat \"$last\"\n! grep -q 'exit 3' \"$last\" || exit 3\n")
        .unwrap();
    std::fs::set_permissions(&pwsh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let pipeline = format!(
        r###"
steps:
- checkout: none
- pwsh: Write-Host hello
  displayName: without
  env: {{PATH: /nonexistent}}
  continueOnError: true
- bash: echo "##vso[task.prependpath]{}"
- pwsh: Write-Host hello
  displayName: with
- powershell: exit 3
  displayName: fails
"###,
        marks.folder.path().display()
    );
    let run = service.run(&Repository::new(&pipeline, &[])).await;
    let log = service.log(run.id);
    assert_eq!(run.result, Some(Outcome::Failed), "{log}");
    let steps = step_results(&run, "__default", &run.stages[0].jobs[0].name);
    let result = |name: &str| steps.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(result("without"), Some(Outcome::SucceededWithIssues));
    assert!(log.contains("Unable to locate executable file: 'pwsh'. Install PowerShell"), "{log}");
    assert_eq!(result("with"), Some(Outcome::Succeeded));
    assert!(log.contains("$ErrorActionPreference = 'stop'") && log.contains("Write-Host hello"), "{log}");
    assert_eq!(result("fails"), Some(Outcome::Failed));
    assert!(log.contains("PowerShell exited with code '3'."), "{log}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_is_canceled_and_so_is_its_end() {
    let service = Service::with(|c| c.minute = Duration::from_secs(5)).await;
    let pipeline = r###"
jobs:
- job: slow
  timeoutInMinutes: 1
  cancelTimeoutInMinutes: 4
  steps:
  - checkout: none
  - bash: sleep 7651
    displayName: too long
  - bash: exit 1
    displayName: not run
  - bash: echo "status $AGENT_JOBSTATUS"
    displayName: end
    condition: always()
  - bash: sleep 7652
    displayName: end that takes too long
    condition: always()
- job: other
  dependsOn: slow
  condition: always()
  steps: [{checkout: none}, {bash: 'echo the other ran'}]
"###;
    let run = service.run(&Repository::new(pipeline, &[])).await;
    let log = service.log(run.id);
    let slow = run.job("__default", "slow").unwrap();
    assert_eq!(slow.result, Some(Outcome::Canceled), "{log}");
    assert!(slow.message.contains("ran longer than the maximum time of 1 minutes"), "{}", slow.message);
    let steps = step_results(&run, "__default", "slow");
    let result = |name: &str| steps.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(result("too long"), Some(Outcome::Canceled));
    assert_eq!(result("not run"), Some(Outcome::Skipped));
    assert_eq!(result("end"), Some(Outcome::Succeeded), "{log}");
    assert!(log.contains("status Canceled"), "{log}");
    assert_eq!(result("end that takes too long"), Some(Outcome::Canceled));
    assert!(processes_with(&slow.lookup).is_empty(), "{:?}", processes_with(&slow.lookup));
    // The run is not: a job that is always run is.
    assert!(log.contains("the other ran"), "{log}");
    assert_ne!(run.result, Some(Outcome::Succeeded));
    service.stop().await;
}

/// A named pipe that steps read a line from, and so wait for the test.
struct Gate {
    path: PathBuf,
    pipe: std::fs::File,
}

impl Gate {
    fn new(marks: &Marks) -> Self {
        let path = marks.path("gate");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        // Open for both, so that neither side waits for the other to open it.
        let pipe = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        Self { path, pipe }
    }

    fn open(&self) {
        std::io::Write::write_all(&mut &self.pipe, b"go\n").unwrap();
    }
}

/// A build, and a deployment that writes its run's number when it begins and ends, and waits in between when `which`.
fn locked_pipeline(lock: &str, marks: &Marks, gate: &Gate, which: u64) -> String {
    format!(
        "{lock}stages:\n- stage: Build\n  jobs: [{{job: b, steps: [{{checkout: none}}, {{bash: 'true'}}]}}]\n- stage: Deploy\n  jobs:\n  - deployment: d\n    environment: aks\n    strategy:\n      runOnce:\n        deploy:\n          steps:\n          - bash: |\n              echo \"in $(Build.BuildId)\" >> {0}\n              test $(Build.BuildId) != {which} || read line < {1}\n              echo \"out $(Build.BuildId)\" >> {0}\n",
        marks.path("marks").display(),
        gate.path.display()
    )
}

fn stage_state(run: &RunRecord, name: &str) -> State {
    run.stages.iter().find(|s| s.name == name).map_or(State::Pending, |s| s.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn sequential_runs_have_an_environment_one_after_the_other() {
    let service = Service::with(|c| c.agents = 4).await;
    let marks = Marks::new();
    let gate = Gate::new(&marks);
    let repository = Repository::new(&locked_pipeline("lockBehavior: sequential\n", &marks, &gate, 1), &[]);
    let first = service.engine.queue(repository.request()).await.unwrap();
    service.when(first.id, |run| stage_state(run, "Deploy") == State::InProgress).await;
    let second = service.engine.queue(repository.request()).await.unwrap();
    service.when(second.id, |run| stage_state(run, "Build") == State::Completed).await;
    // One that asks for no lock, queued after the second, deploys meanwhile: so could the second, but for the lock.
    let other = Repository::new(&locked_pipeline("", &marks, &gate, 1), &[]);
    let third = service.run(&other).await;
    succeeded(&third, &service);
    let waiting = service.engine.store.get(second.id).unwrap();
    assert_eq!(stage_state(&waiting, "Deploy"), State::Pending, "{waiting:#?}");
    gate.open();
    succeeded(&service.ended(first.id).await, &service);
    succeeded(&service.ended(second.id).await, &service);
    assert_eq!(marks.lines(), ["in 1", "in 3", "out 3", "out 1", "in 2", "out 2"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_runs_that_wait_for_an_environment_the_latest_has_it() {
    let service = Service::with(|c| c.agents = 4).await;
    let marks = Marks::new();
    let gate = Gate::new(&marks);
    let repository = Repository::new(&locked_pipeline("lockBehavior: runLatest\n", &marks, &gate, 1), &[]);
    let first = service.engine.queue(repository.request()).await.unwrap();
    service.when(first.id, |run| stage_state(run, "Deploy") == State::InProgress).await;
    let second = service.engine.queue(repository.request()).await.unwrap();
    service.when(second.id, |run| stage_state(run, "Build") == State::Completed).await;
    let third = service.engine.queue(repository.request()).await.unwrap();
    // The second gives way before the lock is free, and says to whom.
    let second = service.ended(second.id).await;
    assert_eq!(second.result, Some(Outcome::Canceled), "{second:#?}");
    assert_eq!(stage_result(&second, "Deploy"), Some(Outcome::Canceled));
    assert!(second.message.contains(&format!("run {} is newer", third.id)), "{}", second.message);
    gate.open();
    succeeded(&service.ended(first.id).await, &service);
    succeeded(&service.ended(third.id).await, &service);
    assert_eq!(marks.lines(), ["in 1", "out 1", "in 3", "out 3"]);
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

fn code(project: &Project, arguments: &[&str]) -> (Option<i32>, String) {
    let output = project.run(arguments);
    (output.status.code(), text(&output))
}

#[test]
fn files_are_planned_and_checked_without_an_environment() {
    let project = Project::new("name = \"it-plan\"\n");
    project.write(
        "good.yml",
        "parameters:\n- name: where\n  type: string\n  default: here\nsteps:\n- bash: echo ${{ parameters.where }}\n- task: AzureKeyVault@2\n  inputs: {azureSubscription: s, KeyVaultName: v}\n",
    );
    project.write("bad.yml", "steps:\n- bash: echo a\n- bosh: echo b\n");
    let plan: serde_json::Value =
        serde_json::from_str(&project.ok(&["pipeline", "plan", "good.yml", "-p", "where=there", "-o", "json"]))
            .unwrap();
    assert_eq!(plan["stages"][0]["jobs"][0]["work"]["steps"].as_array().map(Vec::len), Some(3), "{plan:#}");
    assert!(plan.to_string().contains("echo there"), "{plan:#}");
    assert!(project.ok(&["pipeline", "plan", "good.yml"]).contains("echo here"));
    let valid: serde_json::Value =
        serde_json::from_str(&project.ok(&["pipeline", "validate", "good.yml", "-o", "json"])).unwrap();
    assert_eq!(valid, serde_json::json!({"valid": true, "stages": 1, "jobs": 1, "unsupported": 1}));
    let gaps = project.ok(&["pipeline", "plan", "good.yml", "--fidelity"]);
    assert!(gaps.contains("good.yml:7:") && gaps.contains("AzureKeyVault") && gaps.contains("gap"), "{gaps}");
    for verb in ["plan", "validate"] {
        let (status, said) = code(&project, &["pipeline", verb, "bad.yml"]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("bad.yml:3:") && said.contains("bosh") && said.contains("1 mistake"), "{said}");
        let (status, said) = code(&project, &["pipeline", verb, "none.yml"]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("none.yml"), "{said}");
    }
    assert_eq!(code(&project, &["pipeline", "plan", "good.yml", "-p", "where"]).0, Some(2));
    assert_eq!(code(&project, &["pipeline", "plan", "good.yml", "-p", "unknown=1"]).0, Some(2));
    // What needs the environment says that there is none.
    let (status, said) = code(&project, &["pipeline", "list"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("aksim up"), "{said}");
}

/// An environment with the tools of pipelines, and its project as a git repository.
struct Environment {
    project: Project,
}

impl Environment {
    fn up() -> Self {
        let project = Project::busybox("it-tasks");
        std::fs::create_dir(project.path("tools")).unwrap();
        for (name, version) in [("kubectl", "kubectl-1.33"), ("helm", "helm-1.33")] {
            std::os::unix::fs::symlink(client(version), project.path("tools").join(name)).unwrap();
        }
        let environment = Self { project };
        for (file, text) in FILES {
            environment.project.write(file, text);
        }
        let tools = environment.project.path("tools").display().to_string();
        environment.project.write("cluster.yml", &CLUSTER.replace("TOOLS", &tools));
        environment.git(&["init", "--quiet", "--initial-branch=main", "."]);
        environment.git(&["add", "-A"]);
        environment.git(&["commit", "--quiet", "-m", "all"]);
        environment.project.up();
        environment
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"]).args(arguments);
        let output = command.current_dir(self.project.path("")).env("HOME", self.project.home()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
    }

    /// Queues a run of a file of the project.
    fn queue(&self, file: &str) -> String {
        self.project.ok(&["pipeline", "run", "--folder", ".", "--file", file, "-o", "name"]).trim().to_owned()
    }

    /// Follows a run to its end: exit code, and all that was said.
    fn follow(&self, id: &str) -> (Option<i32>, String) {
        code(&self.project, &["pipeline", "logs", id, "--follow"])
    }

    /// Waits until whoever looks at the environment sees a run so.
    fn when(&self, id: &str, wanted: impl Fn(&PipelineRun) -> bool) {
        let socket = self.project.environment_home().join("control.sock");
        let client = aksim::runtime::control::ControlClient::new(&socket);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = |world: &aksim::model::world::World| {
            world.pipelines.iter().any(|run| run.id.to_string() == id && wanted(run))
        };
        runtime.block_on(async {
            let (sender, mut receiver) =
                tokio::sync::watch::channel(std::sync::Arc::new(client.world().await.unwrap()));
            let waited = tokio::time::timeout(DEADLINE, async {
                tokio::select! {
                    followed = client.follow(&sender) => panic!("the environment went away: {followed:?}"),
                    world = receiver.wait_for(|world| seen(world)) => drop(world.unwrap()),
                }
            });
            waited.await.unwrap_or_else(|_| panic!("run {id} did not get there: {}", self.show(id)));
        });
    }

    fn show(&self, id: &str) -> String {
        self.project.ok(&["pipeline", "show", id])
    }

    fn get(&self, object: &str, path: &str) -> String {
        let output = self.project.kubectl(&["get", object, "--output", &format!("jsonpath={path}")]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }
}

const FILES: &[(&str, &str)] = &[
    ("cluster/settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: red}\n"),
    ("cluster/doomed.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: doomed}\n"),
    (
        "cluster/other.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: doomed, namespace: other}\n",
    ),
    ("chart/Chart.yaml", "apiVersion: v2\nname: paint\nversion: 1.2.3\n"),
    ("chart/values.yaml", "color: red\nshape: round\nsize: small\n"),
    (
        "chart/templates/paint.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-paint'}\ndata: {is: '{{ .Values.size }} {{ .Values.shape }} {{ .Values.color }}'}\n",
    ),
    ("square.yaml", "shape: square\n"),
    (
        "approved.yml",
        "jobs:\n- deployment: d\n  environment: production\n  strategy:\n    runOnce:\n      deploy:\n        steps:\n        - bash: echo deployed\n",
    ),
    ("long.yml", "steps:\n- checkout: none\n- bash: |\n    echo begun\n    sleep 7650\n"),
    (
        "fails.yml",
        "steps:\n- checkout: self\n- task: PublishTestResults@2\n  inputs: {testResultsFiles: results.xml, failTaskOnFailedTests: true}\n",
    ),
    (
        "results.xml",
        "<testsuite name=\"s\"><testcase classname=\"c\" name=\"good\" time=\"1.5\"/><testcase classname=\"c\" name=\"less &lt; more\"><failure message=\"1 != 2\"/></testcase></testsuite>",
    ),
    ("gap.yml", "steps:\n- task: AzureKeyVault@2\n  inputs: {azureSubscription: s, KeyVaultName: v}\n"),
    (
        "canary.yml",
        "steps:\n- task: KubernetesManifest@1\n  inputs: {action: deploy, strategy: canary, manifests: cluster/settings.yaml}\n",
    ),
    ("wrong.yml", "steps:\n- bosh: echo\n"),
    (
        "absent.yml",
        "steps:\n- checkout: none\n- task: KubernetesManifest@1\n  inputs: {action: delete, arguments: configmap/absent}\n",
    ),
];

const CLUSTER: &str = r###"
steps:
- checkout: self
- bash: echo "##vso[task.prependpath]TOOLS"
- task: KubernetesManifest@1
  inputs: {action: deploy, manifests: 'cluster/*.yaml'}
- task: KubernetesManifest@1
  inputs:
    action: createSecret
    secretType: generic
    secretName: keys
    secretArguments: --from-literal=plain='a value' --from-file=page=web/static/index.html
- task: KubernetesManifest@1
  inputs: {action: createSecret, secretName: pull, dockerRegistryEndpoint: acr}
- task: KubernetesManifest@1
  inputs: {action: scale, kind: deployment, name: web, replicas: 1}
- task: KubernetesManifest@1
  inputs:
    action: patch
    resourceToPatch: name
    kind: deploy
    name: web
    patch: '{"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "PATCHED", "value": "yes"}]}]}}}}'
- task: KubernetesManifest@1
  inputs:
    action: patch
    resourceFileToPatch: cluster/settings.yaml
    mergeStrategy: merge
    patch: '{"data": {"merged": "yes"}}'
- task: KubernetesManifest@1
  inputs:
    action: patch
    resourceToPatch: name
    kind: configmap
    name: settings
    mergeStrategy: json
    patch: '[{"op": "replace", "path": "/data/color", "value": "green"}]'
- task: KubernetesManifest@1
  inputs: {action: delete, arguments: -n other configmap doomed}
- task: KubernetesManifest@1
  inputs: {action: delete, arguments: --ignore-not-found configmap/absent}
- task: KubectlInstaller@0
- task: Kubernetes@1
  name: got
  inputs:
    connectionType: Kubernetes Service Connection
    kubernetesServiceEndpoint: aks
    command: get
    arguments: configmap settings
    outputFormat: jsonpath={.data.color}-{.data.merged}
- bash: test "$(got.KubectlOutput)" = green-yes
- task: Kubernetes@1
  inputs:
    command: apply
    namespace: other
    useConfigurationFile: true
    configurationType: inline
    inline: |
      apiVersion: v1
      kind: ConfigMap
      metadata: {name: inline}
- task: Kubernetes@1
  inputs: {command: login}
- bash: test "`kubectl get configmap inline -n other -o name`" = configmap/inline
- task: HelmDeploy@1
  name: helm
  inputs:
    command: upgrade
    chartType: FilePath
    chartPath: chart
    releaseName: shop
    valueFile: square.yaml
    overrideValues: |
      color=blue
      size=large
- bash: |
    test "$(helm.helmExitCode)" = 0
    echo '$(helm.helmOutput)' | grep -q 'STATUS: deployed'
- task: HelmDeploy@1
  inputs: {command: package, chartType: FilePath, chartPath: chart}
- bash: test -s $(Build.ArtifactStagingDirectory)/paint-1.2.3.tgz
- task: HelmDeploy@1
  name: missing
  continueOnError: true
  inputs: {command: uninstall, arguments: nothing}
- bash: test "$(missing.helmExitCode)" = 1
"###;

/// One environment for all that needs a cluster or the service behind the command line.
#[test]
fn tasks_of_a_cluster_and_the_command_line() {
    let environment = Environment::up();
    tasks_change_the_cluster(&environment);
    runs_are_listed_shown_and_refused(&environment);
    approvals_are_asked_for_and_given(&environment);
    a_run_is_canceled(&environment);
}

fn tasks_change_the_cluster(environment: &Environment) {
    let (status, log) = environment.follow(&environment.queue("cluster.yml"));
    assert_eq!(status, Some(0), "{log}");
    let decoded = |object: &str, key: &str| {
        let value = environment.get(object, &format!("{{.data.{key}}}"));
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(decoded("secret/keys", "plain"), "a value");
    assert_eq!(decoded("secret/keys", "page"), "first\n");
    assert_eq!(environment.get("secret/keys", "{.type}"), "Opaque");
    assert_eq!(environment.get("secret/pull", "{.type}"), "kubernetes.io/dockerconfigjson");
    let docker: serde_json::Value = serde_json::from_str(&decoded("secret/pull", "\\.dockerconfigjson")).unwrap();
    let password = docker["auths"]["ittasksacr.azurecr.io"]["password"].as_str().unwrap();
    assert!(!password.is_empty() && !log.contains(password), "the registry's password is on a line");
    assert_eq!(environment.get("deployment/web", "{.spec.replicas}"), "1");
    // The strategic patch merged the one container with the one that was there.
    let container = "{.spec.template.spec.containers[*].env[0].name} {.spec.template.spec.containers[*].image}";
    assert_eq!(environment.get("deployment/web", container).split(' ').next(), Some("PATCHED"));
    assert!(environment.get("deployment/web", container).contains("/web"));
    // The namespace of the arguments counts where the step has none.
    assert_eq!(environment.get("configmap/doomed", "{.metadata.name}"), "doomed");
    let gone = environment.project.kubectl(&["get", "configmap", "doomed", "-n", "other"]);
    assert!(text(&gone).contains("NotFound"), "{}", text(&gone));
    assert_eq!(environment.get("configmap/shop-paint", "{.data.is}"), "large square blue");
    let (status, log) = environment.follow(&environment.queue("absent.yml"));
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("delete configmap/absent") && log.contains("not found"), "{log}");
}

fn runs_are_listed_shown_and_refused(environment: &Environment) {
    let project = &environment.project;
    let id = environment.queue("fails.yml");
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains(&format!("run {id} failed")) && log.contains(&format!("aksim pipeline show {id}")), "{log}");
    assert!(
        environment.show(&id).contains("tests: 2 tests, 1 passed, 1 failed, 0 skipped"),
        "{}",
        environment.show(&id)
    );
    let junit = project.ok(&["pipeline", "show", &id, "-o", "junit"]);
    assert!(junit.contains("tests=\"2\" failures=\"1\" skipped=\"0\""), "{junit}");
    assert!(junit.contains("<testcase classname=\"c\" name=\"good\" time=\"1.500\"></testcase>"), "{junit}");
    let failed = "name=\"less &lt; more\" time=\"0.000\"><failure message=\"1 != 2\"/>";
    assert!(junit.contains(failed), "{junit}");
    let listed: Vec<RunRecord> = serde_json::from_str(&project.ok(&["pipeline", "list", "-o", "json"])).unwrap();
    assert_eq!(listed[0].id.to_string(), id);
    assert_eq!((listed[0].result, listed.last().map(|r| r.id)), (Some(Outcome::Failed), Some(1)));
    assert!(project.ok(&["pipeline", "list", "-o", "name"]).starts_with(&format!("{id}\n")));
    let runs = listed.len();
    for (file, why) in [
        ("gap.yml", "--skip-unsupported"),
        ("canary.yml", "canaries are not deployed here"),
        ("wrong.yml", "wrong.yml:2:"),
    ] {
        let (status, said) = code(project, &["pipeline", "run", "--folder", ".", "--file", file]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
    for verb in ["show", "cancel", "rerun", "approve", "logs"] {
        let (status, said) = code(project, &["pipeline", verb, "999"]);
        assert_eq!(status, Some(1), "{verb}: {said}");
        assert!(said.contains("999"), "{verb}: {said}");
    }
    assert_eq!(project.ok(&["pipeline", "list", "-o", "name"]).lines().count(), runs, "what is refused is not queued");
}

fn approvals_are_asked_for_and_given(environment: &Environment) {
    let project = &environment.project;
    assert_eq!(code(project, &["pipeline", "environment", "--approval", "true"]).0, Some(2));
    project.ok(&["pipeline", "environment", "production", "--approval", "true"]);
    let asked = |wanted: &str| {
        let listed = project.ok(&["pipeline", "environment"]);
        let line =
            listed.lines().find(|l| l.starts_with("production")).unwrap_or_else(|| panic!("{listed}")).to_owned();
        assert!(line.contains(wanted), "{listed}");
    };
    asked("true");
    let waits = |run: &PipelineRun| run.stages.iter().any(|s| s.state == "waiting");
    let id = environment.queue("approved.yml");
    environment.when(&id, waits);
    let said = project.ok(&["pipeline", "approve", &id, "--reject", "--comment", "not today"]);
    assert!(said.contains("rejected"), "{said}");
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("rejected the deployment to production"), "{log}");
    let (status, said) = code(project, &["pipeline", "approve", &id]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("waits for an approval"), "{said}");
    project.ok(&["pipeline", "rerun", &id]);
    environment.when(&id, waits);
    project.ok(&["pipeline", "approve", &id]);
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("deployed"), "{log}");
    asked("succeeded");
    project.ok(&["pipeline", "environment", "production", "--approval", "false"]);
    asked("false");
    let (status, log) = environment.follow(&environment.queue("approved.yml"));
    assert_eq!(status, Some(0), "{log}");
}

fn a_run_is_canceled(environment: &Environment) {
    let project = &environment.project;
    let id = environment.queue("long.yml");
    // Canceled in the middle of its step.
    let mut follow = project.command(&["pipeline", "logs", &id, "--follow"]);
    let mut follow = follow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    assert!(lines.map_while(Result::ok).any(|l| l.ends_with("| begun")));
    let said = project.ok(&["pipeline", "cancel", &id]);
    assert!(said.contains(&format!("run {id} is being canceled")), "{said}");
    follow.wait().unwrap();
    let (status, log) = environment.follow(&id);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains(&format!("run {id} canceled")), "{log}");
    let (status, said) = code(project, &["pipeline", "cancel", &id]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("not under way"), "{said}");
}

/// A cancellation ends the job whether that is being decided, waits for its agent, begins, or is in its step.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_canceled_however_far_its_job_has_got() {
    let service = Service::start().await;
    let repository = Repository::new("steps:\n- checkout: none\n- bash: sleep 7649\n", &[]);
    for round in 0..20 {
        let queued = service.engine.queue(repository.request()).await.unwrap();
        service.when(queued.id, |run| run.stages.first().is_some_and(|s| s.state == State::InProgress)).await;
        // Each round a little further on.
        for _ in 0..round * round {
            tokio::task::yield_now().await;
        }
        assert!(service.engine.cancel(queued.id));
        let run = service.ended(queued.id).await;
        assert_eq!(run.result, Some(Outcome::Canceled), "round {round}: {run:#?}");
    }
    service.stop().await;
}
