//! Deployments: the hooks of their strategies, and who has an environment when.

use super::support::{Marks, Repository, Service, stage_result, step_results, succeeded};
use aksim::pipelines::record::{Outcome, RunRecord, State};
use std::path::PathBuf;

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
