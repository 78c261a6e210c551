//! The steps of the Jenkinsfile and of the GitHub Actions workflow, run in their order against an environment.

use crate::support::{AKSIM, Project, client, text};
use std::process::Command;

const WORKFLOW: &str = include_str!("../../fixtures/ci/github-actions.yml");
const JENKINSFILE: &str = include_str!("../../fixtures/ci/Jenkinsfile");

/// `run:` of every step of the workflow.
fn workflow_steps() -> Vec<String> {
    let workflow: serde_json::Value = serde_saphyr::from_str(WORKFLOW).unwrap();
    let steps = workflow["jobs"]["deliver"]["steps"].as_array().unwrap();
    steps.iter().filter_map(|step| step["run"].as_str().map(str::to_owned)).collect()
}

/// What every `sh` of the pipeline is given, in single or triple quotes.
fn jenkins_steps() -> Vec<String> {
    let one = regex::Regex::new(r"(?s)sh '''(.*?)'''|sh '([^'\n]+)'").unwrap();
    let found = one.captures_iter(JENKINSFILE);
    found.map(|c| c.get(1).or(c.get(2)).unwrap().as_str().to_owned()).collect()
}

/// Runs steps as the services do: a shell that ends at the first failing command, in the project's folder.
fn run(name: &str, number: (&str, &str), steps: &[String]) {
    let project = Project::busybox(name);
    let programs = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(AKSIM, programs.path().join("aksim")).unwrap();
    std::os::unix::fs::symlink(client("kubectl-1.33"), programs.path().join("kubectl")).unwrap();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let shell = |script: &str| {
        let template = project.command(&[]);
        let mut command = Command::new("bash");
        command.args(["-e", "-c", script]).current_dir(template.get_current_dir().unwrap());
        for (name, value) in template.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        command.env("PATH", &path).env(number.0, number.1);
        command.envs([("SERVICE", "web"), ("CONTEXT", "web"), ("DOCKERFILE", "web/Dockerfile")]);
        command.output().unwrap()
    };
    assert!(steps.len() >= 4, "{steps:?}");
    let (last, first) = steps.split_last().unwrap();
    for step in first {
        let output = shell(step);
        assert!(output.status.success(), "{step}\n{}\n{}", output.status, text(&output));
    }
    let image = shell("eval \"$(aksim env)\"; kubectl get deployment web -o jsonpath={..image}");
    let wanted = format!("{}acr.azurecr.io/web:{}", name.replace('-', ""), number.1);
    assert_eq!(String::from_utf8_lossy(&image.stdout), wanted);
    let output = shell(last);
    assert!(output.status.success(), "{last}\n{}", text(&output));
    assert!(!project.environment_home().exists(), "the last step leaves the environment");
}

#[test]
fn the_steps_of_github_actions_deliver() {
    run("it-actions", ("GITHUB_RUN_NUMBER", "41"), &workflow_steps());
}

#[test]
fn the_steps_of_jenkins_deliver() {
    run("it-jenkins", ("BUILD_NUMBER", "42"), &jenkins_steps());
}
