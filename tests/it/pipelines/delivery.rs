//! From a commit to what is served, against a real registry and in a real environment.

use super::support::{DEADLINE, Repository, Service, processes_with, succeeded};
use crate::{
    environment::{gone, kill_9},
    support::{Project, text},
};
use aksim::{
    images::{Credentials, ImageBuilder, ImageBuilderConfig},
    model::endpoint::AzureName,
    pipelines::{
        RegistryConnection,
        record::{Outcome, RunRecord},
    },
    runtime::net::azure_http_client,
};
use std::{process::Command, sync::Arc};

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
    gone(kill_9(project));
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
