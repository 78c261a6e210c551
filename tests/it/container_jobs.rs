//! Container jobs, services and step targets in a real environment.

use crate::support::{Project, client, text};
use aksim::pipelines::record::{Outcome, RunRecord};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

const TOOLS: &str = "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
    COPY --chmod=755 bash /bin/bash\nENV FROM_IMAGE=yes\n";
/// The agent asks for bash; busybox's shell does here.
const BASH: &str = "#!/bin/sh\nwhile [ \"${1#--no}\" != \"$1\" ]; do shift; done\nexec /bin/sh \"$@\"\n";

const PIPELINE: &str = r###"
resources:
  containers:
  - container: tools
    image: itcontaineracr.azurecr.io/tools:1
    env: {FROM_RESOURCE: it's $(Build.BuildId)}
  - container: page
    image: itcontaineracr.azurecr.io/page:1
    ports: ['8080']
stages:
- stage: Images
  jobs:
  - job: images
    steps:
    - task: Docker@2
      inputs: {command: buildAndPush, containerRegistry: acr, repository: tools, Dockerfile: tools/Dockerfile, tags: '1'}
    - task: Docker@2
      inputs: {command: buildAndPush, containerRegistry: acr, repository: page, Dockerfile: web/Dockerfile, tags: '1'}
- stage: Run
  jobs:
  - job: inside
    strategy:
      matrix:
        container: {image: tools}
        machine: {image: ''}
    container: $[ variables['image'] ]
    services: {page: page}
    steps:
    - bash: |
        echo "here: ${FROM_IMAGE:-no} ${FROM_RESOURCE:-none} $SHOWN"
        pwd
        echo "##vso[task.setvariable variable=set;isOutput=true]by $(hostname)"
        echo "##vso[task.prependpath]/opt/first"
      name: first
      env: {SHOWN: $(Build.DefinitionName)}
    - bash: |
        echo "path: $PATH"
        wget -qO- http://page:8080/ > served.txt
      condition: and(succeeded(), ne(variables.image, ''))
    - bash: cat served.txt; echo "host has ${FROM_IMAGE:-no image} set $(first.set)"
      target: host
      condition: and(succeeded(), ne(variables.image, ''))
    - bash: exit 7
      continueOnError: true
  - job: outside
    services: {page: page}
    steps:
    - bash: curl --silent --fail http://127.0.0.1:$AGENT_SERVICES_PAGE_PORTS_8080/
    - bash: echo "target ${FROM_IMAGE:-no}"
      target: tools
"###;

fn git(project: &Project, arguments: &[&str]) {
    let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@contoso.example"];
    let output =
        std::process::Command::new("git").args(identity).args(arguments).current_dir(project.path("")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
}

fn record(project: &Project, id: &str) -> RunRecord {
    serde_json::from_str(&project.ok(&["pipeline", "show", id, "-o", "json"])).unwrap()
}

/// Whether a container of a job is still there.
fn namespaces(project: &Project) -> String {
    let selector = "app.kubernetes.io/managed-by=azure-pipelines";
    text(&project.kubectl(&["get", "namespaces", "-l", selector, "-o", "name"]))
}

fn gone(project: &Project) {
    let names = namespaces(project);
    let wait = ["wait", "--for=delete", "--timeout=60s"];
    let arguments: Vec<&str> = wait.into_iter().chain(names.lines().filter(|l| l.starts_with("namespace/"))).collect();
    if arguments.len() > wait.len() {
        let waited = project.kubectl(&arguments);
        assert!(waited.status.success(), "{}", text(&waited));
    }
}

#[test]
fn jobs_run_in_containers_beside_their_services() {
    let project = Project::busybox("it-container");
    project.write("tools/Dockerfile", TOOLS);
    project.write("tools/bash", BASH);
    std::fs::copy(client("busybox"), project.path("tools/busybox")).unwrap();
    project.write("azure-pipelines.yml", PIPELINE);
    git(&project, &["init", "--quiet", "--initial-branch=main", "."]);
    git(&project, &["add", "-A"]);
    git(&project, &["commit", "--quiet", "-m", "first"]);
    project.up();
    let folder = project.path("").display().to_string();
    let output = project.run(&["pipeline", "run", "--folder", &folder, "--follow"]);
    let log = text(&output);
    let run = record(&project, "1");
    assert!(run.result.is_some_and(Outcome::good), "{log}");
    for wanted in [
        "here: yes it's 1 it-container",
        "here: no none it-container",
        "path: /opt/first:/",
        "host has no image set by job",
        "target yes",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in {log}");
    }
    // The service was asked from the container of a job and from the machine.
    assert!(log.matches("first\n").count() >= 2, "{log}");
    let stage = run.stages.iter().find(|s| s.name == "Run").unwrap();
    for job in stage.jobs.iter().filter(|j| j.name.starts_with("inside")) {
        assert_eq!(job.result, Some(Outcome::SucceededWithIssues), "{}: exit 7 was allowed", job.name);
        assert!(job.steps.iter().any(|s| s.issues.iter().any(|i| i.message.contains("exited with code '7'"))));
    }
    gone(&project);

    what_hinders_a_container_is_said(&project, &folder);
    cancellation_ends_what_runs_in_a_container(&project, &folder);
}

fn what_hinders_a_container_is_said(project: &Project, folder: &str) {
    let container = "- job: a\n  container: itcontaineracr.azurecr.io/none:1\n  steps: [{bash: echo never}]\n";
    project.write("azure-pipelines.yml", &format!("jobs:\n{container}"));
    git(project, &["commit", "--quiet", "-am", "no such image"]);
    let output = project.run(&["pipeline", "run", "--folder", folder, "--follow"]);
    let log = text(&output);
    assert!(!output.status.success() && !log.contains("echo never"), "{log}");
    let why = log.split_once("container of the job (itcontaineracr.azurecr.io/none:1) did not start: ").map(|(_, w)| w);
    assert!(why.is_some_and(|w| w.contains("ErrImagePull") && w.contains("MANIFEST_UNKNOWN")), "{log}");
    gone(project);
}

fn cancellation_ends_what_runs_in_a_container(project: &Project, folder: &str) {
    let script = "trap '' INT TERM; echo \"begun\"; (trap '' INT TERM; sleep 600) & wait";
    let container =
        format!("- job: a\n  container: itcontaineracr.azurecr.io/tools:1\n  steps:\n  - bash: |\n      {script}\n");
    project.write("azure-pipelines.yml", &format!("jobs:\n{container}"));
    git(project, &["commit", "--quiet", "-am", "stays"]);
    let id = project.ok(&["pipeline", "run", "--folder", folder, "-o", "name"]).trim().to_owned();
    let mut follow = project.command(&["pipeline", "logs", &id, "--follow"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|l| l.ends_with("begun")));
    project.ok(&["pipeline", "cancel", &id]);
    lines.for_each(drop);
    follow.wait().unwrap();
    let run = record(project, &id);
    assert_eq!(run.result, Some(Outcome::Canceled));
    gone(project);
    let lookup = &run.stages[0].jobs[0].lookup;
    assert!(!lookup.is_empty());
    let marked = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.windows(lookup.len()).any(|w| w == lookup.as_bytes())
    });
    assert_eq!(marked.count(), 0, "nothing of the job runs on");
}
