//! Tasks that need nothing but their agent: caches, secure files, PowerShell.

use super::support::{Marks, Repository, Service, step_results, succeeded};
use aksim::pipelines::record::Outcome;
use std::path::Path;

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
