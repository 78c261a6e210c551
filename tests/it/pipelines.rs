//! Pipelines run for real: git repositories, processes, a registry, an environment.

use crate::support::{Project, text};
use aksim::{
    images::{Credentials, ImageBuilder, ImageBuilderConfig},
    model::endpoint::AzureName,
    pipelines::{
        Approval, Checks, Engine, EngineError, GroupVariable, Pipelines, PipelinesConfig, RegistryConnection, hmac,
        record::{Outcome, Reason, RunRecord, RunRequest, State},
    },
    runtime::{
        component::{Component, RunContext},
        net::azure_http_client,
        pki::Pki,
        recorder::Recorder,
    },
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far beyond what a run takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// A git repository with a pipeline.
pub(crate) struct Repository {
    folder: TempDir,
}

impl Repository {
    pub(crate) fn new(pipeline: &str, files: &[(&str, &str)]) -> Self {
        let repository = Self { folder: TempDir::new().unwrap() };
        repository.git(&["init", "--quiet", "--initial-branch=main", "."]);
        repository.commit(pipeline, files);
        repository
    }

    pub(crate) fn commit(&self, pipeline: &str, files: &[(&str, &str)]) -> String {
        for (name, content) in files.iter().chain([&("azure-pipelines.yml", pipeline)]) {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "a change"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"];
        let output =
            Command::new("git").args(identity).args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub(crate) fn request(&self) -> RunRequest {
        RunRequest {
            pipeline: "shop".into(),
            repository: "contoso/shop".into(),
            clone_url: self.url(),
            reference: "refs/heads/main".into(),
            commit: String::new(),
            message: String::new(),
            reason: Reason::Manual,
            requested_for: "ada".into(),
            file: "azure-pipelines.yml".into(),
            parameters: BTreeMap::new(),
            variables: BTreeMap::new(),
            stages_to_skip: Vec::new(),
            skip_unsupported: false,
        }
    }
}

/// A running pipeline service.
pub(crate) struct Service {
    _dir: TempDir,
    pub(crate) engine: Arc<Engine>,
    pki: Pki,
    webhook: String,
    secret: String,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut PipelinesConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
        let http = azure_http_client(&pki, &[]).unwrap();
        let mut config = PipelinesConfig::new(dir.path().join("state"), pki.clone(), http);
        change(&mut config);
        let pipelines = Pipelines::bind(config).await.unwrap();
        let (engine, webhook) = (pipelines.engine(), pipelines.webhook_url());
        let secret = pipelines.webhook_secret().to_owned();
        let context = RunContext::detached(Recorder::in_memory());
        let shutdown = context.shutdown.clone();
        let task = tokio::spawn(async move { Box::new(pipelines).run(context).await.unwrap() });
        Self { _dir: dir, engine, pki, webhook, secret, shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// Queues a run of a repository and waits for its end.
    pub(crate) async fn run(&self, repository: &Repository) -> RunRecord {
        let queued = self.engine.queue(repository.request()).await.unwrap();
        self.ended(queued.id).await
    }

    pub(crate) async fn ended(&self, id: u64) -> RunRecord {
        self.when(id, |run| run.state == State::Completed).await
    }

    pub(crate) async fn when(&self, id: u64, wanted: impl Fn(&RunRecord) -> bool) -> RunRecord {
        let mut changes = self.engine.store.changes();
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                changes.borrow_and_update();
                let run = self.engine.store.get(id).unwrap();
                if wanted(&run) {
                    return run;
                }
                changes.changed().await.unwrap();
            }
        });
        match waited.await {
            Ok(run) => run,
            Err(_) => panic!("run {id} did not get there: {:#?}\n{}", self.engine.store.get(id), self.log(id)),
        }
    }

    /// All text of a run's log.
    pub(crate) fn log(&self, id: u64) -> String {
        let folder = self.engine.store.folder(id).join("logs");
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "log"))
            .collect();
        files.sort();
        files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect()
    }
}

pub(crate) fn succeeded(run: &RunRecord, service: &Service) {
    assert_eq!(run.result, Some(Outcome::Succeeded), "{run:#?}\n{}", service.log(run.id));
}

pub(crate) fn stage_result(run: &RunRecord, name: &str) -> Option<Outcome> {
    run.stages.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no stage {name}")).result
}

pub(crate) fn step_results(run: &RunRecord, stage: &str, job: &str) -> Vec<(String, Option<Outcome>)> {
    let job = run.job(stage, job).unwrap_or_else(|| panic!("no job {job}: {run:#?}"));
    job.steps.iter().map(|s| (s.display_name.clone(), s.result)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_outputs_cross_jobs_and_stages() {
    let service = Service::start().await;
    let repository = Repository::new(
        r###"
variables:
  greeting: hello
stages:
- stage: A
  jobs:
  - job: make
    steps:
    - bash: |
        echo "##vso[task.setvariable variable=color;isOutput=true]blue"
        echo "##vso[task.setvariable variable=later]$GREETING again"
      name: out
    - bash: test "$(out.color) $(later)" = "blue hello again"
      displayName: in the same job
    - bash: exit 1
      displayName: never
      condition: eq(variables['greeting'], 'goodbye')
  - job: use
    dependsOn: make
    variables:
      color: $[ dependencies.make.outputs['out.color'] ]
    steps:
    - bash: test "$COLOR" = blue
- stage: B
  dependsOn: A
  condition: and(succeeded(), eq(dependencies.A.outputs['make.out.color'], 'blue'))
  variables:
    fromA: $[ stageDependencies.A.make.outputs['out.color'] ]
  jobs:
  - job: other
    steps:
    - bash: test "$FROMA" = blue
- stage: Skipped
  dependsOn: A
  condition: eq(dependencies.A.outputs['make.out.color'], 'red')
  jobs: [{job: j, steps: [{bash: exit 1}]}]
- stage: AfterSkipped
  dependsOn: Skipped
  jobs: [{job: j, steps: [{bash: exit 1}]}]
- stage: Always
  dependsOn: [Skipped, B]
  condition: always()
  jobs: [{job: j, steps: [{bash: 'echo done'}]}]
"###,
        &[],
    );
    let run = service.run(&repository).await;
    succeeded(&run, &service);
    assert_eq!(stage_result(&run, "B"), Some(Outcome::Succeeded));
    assert_eq!(stage_result(&run, "Skipped"), Some(Outcome::Skipped));
    assert_eq!(stage_result(&run, "AfterSkipped"), Some(Outcome::Skipped));
    assert_eq!(stage_result(&run, "Always"), Some(Outcome::Succeeded));
    let steps = step_results(&run, "A", "make");
    assert!(steps.contains(&("never".to_owned(), Some(Outcome::Skipped))), "{steps:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legs_retries_and_time_limits() {
    let service = Service::with(|c| c.minute = Duration::from_secs(2)).await;
    let repository = Repository::new(
        r###"
jobs:
- job: legs
  timeoutInMinutes: 0
  strategy:
    maxParallel: 1
    matrix:
      one: {which: first}
      two: {which: second}
  steps:
  - checkout: none
  - bash: echo "leg $(which) of $(System.TotalJobsInPhase)"
- job: retried
  timeoutInMinutes: 0
  steps:
  - checkout: none
  - bash: |
      echo x >> $(Agent.ToolsDirectory)/tries
      test $(wc -l < $(Agent.ToolsDirectory)/tries) -ge 3
    retryCountOnTaskFailure: 3
- job: slow
  timeoutInMinutes: 0
  continueOnError: true
  steps:
  - checkout: none
  - bash: sleep 600
    displayName: too long
    timeoutInMinutes: 1
  - bash: exit 1
    displayName: not after a failure
  - bash: echo cleanup
    displayName: cleanup
    condition: always()
"###
        .replace("$(wc -l < $(Agent.ToolsDirectory)/tries)", "`wc -l < $(Agent.ToolsDirectory)/tries`")
        .as_str(),
        &[],
    );
    let run = service.run(&repository).await;
    assert_eq!(run.result, Some(Outcome::SucceededWithIssues), "{run:#?}\n{}", service.log(run.id));
    let log = service.log(run.id);
    assert!(log.contains("leg first of 2") && log.contains("leg second of 2"), "{log}");
    assert_eq!(run.job("__default", "retried").map(|j| j.result), Some(Some(Outcome::Succeeded)), "{log}");
    assert!(log.contains("will retry"));
    let steps = step_results(&run, "__default", "slow");
    let result = |name: &str| steps.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(result("too long"), Some(Outcome::Failed));
    assert_eq!(result("not after a failure"), Some(Outcome::Skipped));
    assert_eq!(result("cleanup"), Some(Outcome::Succeeded));
    assert!(log.contains("The task has timed out."));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_ends_grandchildren_and_runs_what_is_always_run() {
    let service = Service::start().await;
    let repository = Repository::new(
        r###"
steps:
- checkout: none
- bash: |
    (trap '' INT TERM; exec sleep 7654) &
    setsid sleep 7653 >/dev/null 2>&1 &
    echo "child $!"
    wait
  displayName: long
- bash: exit 0
  displayName: not run
- bash: echo "status $AGENT_JOBSTATUS"
  displayName: last
  condition: always()
"###,
        &[],
    );
    let queued = service.engine.queue(repository.request()).await.unwrap();
    let log = service.engine.store.log(queued.id).unwrap();
    let mut position = 0;
    let begun = async {
        loop {
            let (lines, next) = log.read(position, true).await.unwrap();
            if String::from_utf8_lossy(&lines).contains("child ") {
                return;
            }
            position = next;
        }
    };
    tokio::time::timeout(DEADLINE, begun).await.unwrap();
    assert!(service.engine.cancel(queued.id));
    let run = service.ended(queued.id).await;
    assert_eq!(run.result, Some(Outcome::Canceled), "{run:#?}");
    let steps = step_results(&run, "__default", &run.stages[0].jobs[0].name);
    let result = |name: &str| steps.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(result("long"), Some(Outcome::Canceled));
    assert_eq!(result("not run"), Some(Outcome::Skipped));
    assert_eq!(result("last"), Some(Outcome::Succeeded), "{}", service.log(run.id));
    assert!(service.log(run.id).contains("status Canceled"));
    let lookup = &run.stages[0].jobs[0].lookup;
    assert!(!lookup.is_empty() && processes_with(lookup).is_empty(), "{:?}", processes_with(lookup));
    service.stop().await;
}

/// Living processes that have a mark in their environment.
pub(crate) fn processes_with(mark: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&environment).contains(mark).then(|| String::from_utf8_lossy(&line).replace('\0', " "))
    });
    processes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_on_no_line_and_in_no_environment() {
    let value = "s3cr3t/With \"quotes\"";
    let service = Service::with(|c| {
        let secret = GroupVariable { value: value.into(), secret: true };
        c.groups.insert("keys".into(), BTreeMap::from([("apiKey".into(), secret)]));
    })
    .await;
    let repository = Repository::new(
        r###"
variables:
- group: keys
steps:
- checkout: none
- bash: |
    test -z "$APIKEY" || exit 1
    echo "mapped: $MAPPED"
    printf '%s' "$MAPPED" | base64
    printf '%s' "$MAPPED"; printf '\n'
    echo "##vso[task.setvariable variable=made;isSecret=true]another-Secret-9"
  env:
    MAPPED: $(apiKey)
- bash: |
    test -z "$MADE" || exit 1
    echo "macro: $(made)"
    echo "##vso[task.setsecret]found-1234"
    echo "found-1234 and https://user:passw0rd@host/"
    echo "##vso[task.logissue type=warning]bad another-Secret-9"
"###,
        &[],
    );
    let run = service.run(&repository).await;
    succeeded(&run, &service);
    let log = service.log(run.id);
    assert!(
        log.contains("mapped: ***") && log.contains("macro: ***") && log.contains("https://user:***@host/"),
        "{log}"
    );
    let mut all = String::new();
    for entry in walkdir::WalkDir::new(service.engine.store.folder(run.id)).into_iter().flatten() {
        if entry.file_type().is_file() {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()));
        }
    }
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, value);
    for secret in [value, "s3cr3t", "another-Secret-9", "found-1234", "passw0rd", &encoded[..20]] {
        assert!(!all.contains(secret), "{secret} is in what is kept of the run");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_from_job_to_job_and_checkout_gives_the_commit() {
    let service = Service::start().await;
    let repository = Repository::new(
        r###"
stages:
- stage: Build
  jobs:
  - job: build
    steps:
    - checkout: self
      fetchDepth: 1
    - bash: |
        test "$(git rev-parse HEAD)" = "$BUILD_SOURCEVERSION"
        mkdir out && cp src/app.txt out/ && echo ignored > out/app.log
    - task: CopyFiles@2
      inputs:
        SourceFolder: out
        Contents: |
          **
          !**/*.log
        TargetFolder: $(Build.ArtifactStagingDirectory)
    - publish: $(Build.ArtifactStagingDirectory)
      artifact: drop
- stage: Deploy
  jobs:
  - deployment: deploy
    environment: local
    strategy:
      runOnce:
        deploy:
          steps:
          - bash: |
              test "$(cat $(Pipeline.Workspace)/drop/app.txt)" = "version one"
              test ! -e $(Pipeline.Workspace)/drop/app.log
              test "$ENVIRONMENT_NAME" = local
              echo "##vso[task.setvariable variable=where;isOutput=true]here"
            name: put
        on:
          success:
            steps: [{bash: 'echo "it went well"'}]
          failure:
            steps: [{bash: 'echo "it went badly"'}]
  - job: after
    dependsOn: deploy
    variables:
      where: $[ dependencies.deploy.outputs['deploy.put.where'] ]
    steps:
    - checkout: none
    - bash: test "$WHERE" = here
"###
        .replace("\"$(git rev-parse HEAD)\"", "`git rev-parse HEAD`")
        .replace("\"$(cat $(Pipeline.Workspace)/drop/app.txt)\"", "\"`cat $(Pipeline.Workspace)/drop/app.txt`\"")
        .as_str(),
        &[("src/app.txt", "version one\n")],
    );
    let run = service.run(&repository).await;
    succeeded(&run, &service);
    let log = service.log(run.id);
    assert!(log.contains("it went well") && !log.contains("it went badly"), "{log}");
    let environments = service.engine.environments.list();
    assert_eq!(environments[0].0, "local");
    assert_eq!(environments[0].2.as_ref().map(|d| d.run), Some(run.id));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_waits_for_its_approval() {
    let service = Service::start().await;
    service.engine.environments.set_checks("aks", Checks { approval: true, ..Checks::default() }).unwrap();
    let repository = Repository::new(
        "jobs:\n- deployment: d\n  environment: aks\n  strategy:\n    runOnce:\n      deploy:\n        steps:\n        - bash: echo deployed\n",
        &[],
    );
    let answer = |run: &RunRecord, approved| Approval {
        run: run.id,
        stage: run.stages[0].name.clone(),
        attempt: run.stages[0].attempt,
        approved,
        by: "olga".into(),
        comment: String::new(),
        at: jiff::Timestamp::now(),
    };
    let waits = |r: &RunRecord| r.stages.first().is_some_and(|s| s.state == State::Waiting);
    let queued = service.engine.queue(repository.request()).await.unwrap();
    let run = service.when(queued.id, waits).await;
    service.engine.environments.answer(answer(&run, false)).unwrap();
    let run = service.ended(queued.id).await;
    assert_eq!(run.result, Some(Outcome::Failed));
    assert!(run.message.contains("olga rejected"), "{}", run.message);
    service.engine.rerun(run.id).unwrap();
    let run = service.when(run.id, waits).await;
    assert_eq!(run.stages[0].attempt, 2);
    service.engine.environments.answer(answer(&run, true)).unwrap();
    let run = service.ended(run.id).await;
    succeeded(&run, &service);
    assert!(service.log(run.id).contains("deployed"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_test_does_not_deploy() {
    let service = Service::start().await;
    let results = |failure: &str| {
        format!(
            "<testsuite name=\"s\"><testcase classname=\"c\" name=\"good\"/><testcase classname=\"c\" name=\"sums\">{failure}</testcase></testsuite>"
        )
    };
    let pipeline = r###"
stages:
- stage: Test
  jobs:
  - job: test
    steps:
    - task: PublishTestResults@2
      inputs:
        testResultsFormat: JUnit
        testResultsFiles: 'results/*.xml'
        failTaskOnFailedTests: true
- stage: Deploy
  jobs:
  - job: deploy
    steps: [{bash: 'echo deployed'}]
"###;
    let repository = Repository::new(pipeline, &[("results/a.xml", &results("<failure message=\"1 != 2\"/>"))]);
    let run = service.run(&repository).await;
    assert_eq!(run.result, Some(Outcome::Failed), "{}", service.log(run.id));
    assert_eq!(stage_result(&run, "Deploy"), Some(Outcome::Skipped));
    assert_eq!(run.tests.len(), 2);
    assert!(service.log(run.id).contains("c.sums: 1 != 2"));
    repository.commit(pipeline, &[("results/a.xml", &results(""))]);
    let run = service.run(&repository).await;
    succeeded(&run, &service);
    assert!(service.log(run.id).contains("deployed"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_refused_unless_left_out() {
    let service = Service::start().await;
    let pipeline = "steps:\n- checkout: none\n- task: AzureCLI@2\n  inputs: {azureSubscription: s, scriptType: bash, scriptLocation: inlineScript, inlineScript: az version}\n- bash: echo went on\n";
    let repository = Repository::new(pipeline, &[]);
    let refused = service.engine.queue(repository.request()).await.unwrap_err();
    assert!(matches!(&refused, EngineError::Unsupported(gaps) if gaps[0].what.contains("AzureCLI")), "{refused}");
    assert!(service.engine.store.list().is_empty());
    let request = RunRequest { skip_unsupported: true, ..repository.request() };
    let queued = service.engine.queue(request).await.unwrap();
    let run = service.ended(queued.id).await;
    succeeded(&run, &service);
    assert!(service.log(run.id).contains("went on"));
    service.stop().await;
}

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

#[tokio::test(flavor = "multi_thread")]
async fn docker_pushes_to_a_real_registry() {
    let registry = crate::registry::Running::start().await;
    let names = [AzureName { host: "shopacr.azurecr.io".into(), port: 443, target: registry.address }];
    let http = azure_http_client(&registry.pki, &names).unwrap();
    let (user, password) = (registry.admin.username.clone(), registry.admin.password.clone());
    let cache = tempfile::tempdir().unwrap();
    let images = ImageBuilder::new(ImageBuilderConfig {
        cache_dir: cache.path().to_owned(),
        exe: crate::support::AKSIM.into(),
        http: http.clone(),
        credentials: Credentials::default().with("shopacr.azurecr.io", &user, &password),
    })
    .unwrap();
    let connection = RegistryConnection {
        login_server: "shopacr.azurecr.io".into(),
        username: user.clone(),
        password: password.clone(),
    };
    let service = Service::with(|c| {
        c.images = Some(images);
        c.registries.insert("*".into(), connection);
    })
    .await;
    let repository = Repository::new(
        r###"
steps:
- task: Docker@2
  inputs:
    command: buildAndPush
    containerRegistry: shop-acr
    repository: web
    Dockerfile: '**/Dockerfile'
    tags: |
      $(Build.BuildId)
      latest
"###,
        &[("web/Dockerfile", "FROM scratch\nCOPY page /page\n"), ("web/page", "hello\n")],
    );
    let run = service.run(&repository).await;
    succeeded(&run, &service);
    let url = "https://shopacr.azurecr.io/v2/web/tags/list";
    let tags: serde_json::Value =
        http.get(url).basic_auth(&user, Some(&password)).send().await.unwrap().json().await.unwrap();
    let mut tags: Vec<String> = serde_json::from_value(tags["tags"].clone()).unwrap();
    tags.sort();
    assert_eq!(tags, [run.id.to_string(), "latest".to_owned()]);
    assert!(!service.log(run.id).contains(&password));
    service.stop().await;
    registry.stop().await;
}

/// The whole way in a real environment: build, push, deploy, kill -9, lost, rerun.
#[test]
fn a_pipeline_deploys_and_survives_kill_9() {
    let project = Project::busybox("it-pipeline");
    let pipeline = |extra: &str| {
        format!(
            r###"
stages:
- stage: Build
  jobs:
  - job: image
    steps:
    - task: Docker@2
      inputs: {{command: buildAndPush, containerRegistry: acr, repository: web, Dockerfile: web/Dockerfile, tags: $(Build.BuildId)}}
- stage: Deploy
  jobs:
  - deployment: web
    environment: aks
    strategy:
      runOnce:
        deploy:
          steps:
          - checkout: self
          - task: KubernetesManifest@1
            inputs:
              action: deploy
              namespace: default
              manifests: web/k8s/web.yaml
              containers: itpipelineacr.azurecr.io/web:$(Build.BuildId)
{extra}"###
        )
    };
    project.write("azure-pipelines.yml", &pipeline(""));
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"];
        let mut command = Command::new("git");
        command.args(identity).args(arguments).current_dir(project.path(""));
        command.env("AKSIM_HOME", project.home()).env("HOME", project.home()).env_remove("GIT_SSL_CAINFO");
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
    };
    git(&["init", "--quiet", "--initial-branch=main", "."]);
    git(&["add", "-A"]);
    git(&["commit", "--quiet", "-m", "first"]);
    project.up();
    let folder = project.path("").display().to_string();
    let log = project.ok(&["pipeline", "run", "--folder", &folder, "--follow"]);
    assert!(log.contains("successfully rolled out"), "{log}");
    let shown =
        project.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]);
    assert_eq!(text(&shown), "itpipelineacr.azurecr.io/web:1");
    let journeys: serde_json::Value = serde_json::from_str(&project.ok(&["journey", "-o", "json"])).unwrap();
    let journey =
        journeys.as_array().unwrap().iter().find(|j| j["cause"].as_str().unwrap().starts_with("commit")).unwrap();
    let hops: Vec<&str> = journey["hops"].as_array().unwrap().iter().map(|h| h["hop"].as_str().unwrap()).collect();
    for hop in ["queued", "built", "pushed", "stage", "applied", "started", "ready", "served"] {
        assert!(hops.contains(&hop), "{hop} is not in {hops:?}");
    }
    killed_and_run_again(&project, &folder, &git);
    project.write("azure-pipelines.yml", &pipeline(""));
    git(&["commit", "--quiet", "-am", "third"]);
    git(&["push", "--quiet", "aksim", "main"]);
    let run = triggered(&project);
    assert_eq!(run.result.as_deref(), Some("Succeeded"), "{}", project.ok(&["pipeline", "show", &run.id.to_string()]));
    let shown =
        project.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]);
    assert_eq!(text(&shown), format!("itpipelineacr.azurecr.io/web:{}", run.id));
    let journeys: serde_json::Value = serde_json::from_str(&project.ok(&["journey", "-o", "json"])).unwrap();
    let journey =
        journeys.as_array().unwrap().iter().find(|j| run.commit.starts_with(j["id"].as_str().unwrap())).unwrap();
    let hops: Vec<&str> = journey["hops"].as_array().unwrap().iter().map(|h| h["hop"].as_str().unwrap()).collect();
    for hop in ["committed", "delivered", "queued", "built", "pushed", "applied", "served"] {
        assert!(hops.contains(&hop), "{hop} is not in {hops:?}");
    }
    assert_eq!(journey["outcome"]["outcome"], "served", "{journey}");
}

/// The first run that a push has started, once it has ended.
fn triggered(project: &Project) -> aksim::model::pipeline::PipelineRun {
    let client = aksim::runtime::control::ControlClient::new(&project.environment_home().join("control.sock"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::watch::channel(Arc::new(client.world().await.unwrap()));
        let find = |world: &aksim::model::world::World| {
            world.pipelines.iter().find(|r| r.reason == "IndividualCI" && r.state == "completed").cloned()
        };
        let waited = tokio::time::timeout(DEADLINE, async {
            tokio::select! {
                followed = client.follow(&sender) => panic!("the environment went away: {followed:?}"),
                world = receiver.wait_for(|world| find(world).is_some()) => find(&world.unwrap()).unwrap(),
            }
        });
        waited.await.expect("a push starts a run that ends")
    })
}

fn killed_and_run_again(project: &Project, folder: &str, git: &dyn Fn(&[&str])) {
    project.write(
        "azure-pipelines.yml",
        "stages:\n- stage: A\n  jobs: [{job: a, steps: [{bash: echo done}]}]\n- stage: B\n  jobs:\n  - job: b\n    steps:\n    - bash: |\n        echo \"begun on attempt $SYSTEM_JOBATTEMPT\"\n        test $SYSTEM_JOBATTEMPT -gt 1 || exec sleep 600\n",
    );
    git(&["commit", "--quiet", "-am", "second"]);
    let queued = project.ok(&["pipeline", "run", "--folder", folder, "-o", "name"]);
    let id = queued.trim().to_owned();
    let mut follow = project.command(&["pipeline", "logs", &id, "--follow"]);
    let mut follow = follow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    assert!(lines.map_while(Result::ok).any(|l| l.ends_with("begun on attempt 1")));
    kill_9(project);
    follow.wait().unwrap();
    project.up();
    let lost: RunRecord = serde_json::from_str(&project.ok(&["pipeline", "show", &id, "-o", "json"])).unwrap();
    assert_eq!(lost.result, Some(Outcome::Lost));
    let lookup = &lost.stages[1].jobs[0].lookup;
    assert!(!lookup.is_empty() && processes_with(lookup).is_empty());
    project.ok(&["pipeline", "rerun", &id]);
    project.ok(&["pipeline", "logs", &id, "--follow"]);
    let run: RunRecord = serde_json::from_str(&project.ok(&["pipeline", "show", &id, "-o", "json"])).unwrap();
    assert_eq!(run.result, Some(Outcome::Succeeded));
    assert_eq!((run.stages[0].attempt, run.stages[1].attempt), (1, 2));
}

/// Kills the running aksim of a project without a word.
fn kill_9(project: &Project) {
    let socket = project.environment_home().join("control.sock");
    let client = aksim::runtime::control::ControlClient::new(Path::new(&socket));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pid = runtime.block_on(client.info()).unwrap().pid;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // The lock of the environment is free once the process is gone.
    let lock = std::fs::File::open(project.environment_home().join("lock")).unwrap();
    lock.lock().unwrap();
}
