//! What a run does: conditions, outputs, secrets, artifacts, approvals, and what is refused.

use super::support::{Repository, Service, stage_result, step_results, succeeded};
use aksim::pipelines::{
    Approval, Checks, EngineError, GroupVariable,
    record::{Outcome, RunRecord, RunRequest, State},
};
use std::collections::BTreeMap;

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
