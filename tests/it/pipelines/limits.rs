//! Retries, time limits and cancellation.

use super::support::{DEADLINE, Repository, Service, processes_with, step_results};
use aksim::pipelines::record::{Outcome, State};
use std::time::Duration;

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
