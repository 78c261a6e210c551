//! Golden pipelines of `fixtures/pipelines` that need nothing but an agent, run to their end.

use super::support::{Repository, Service, stage_result, succeeded};
use aksim::pipelines::record::{Outcome, RunRequest};
use std::path::Path;

const PIPELINES: [&str; 11] = [
    "02-jobs.yml",
    "03-stages.yml",
    "04-matrix.yml",
    "06-parameters.yml",
    "07-conditional-insertion.yml",
    "12-artifacts.yml",
    "14-expressions.yml",
    "15-conditions.yml",
    "17-each-environment.yml",
    "18-job-template-context.yml",
    "20-disabled-and-empty.yml",
];

/// What the log must hold: values that went through variables, outputs, parameters, matrices and conditions.
const SHOWN: [(&str, &[&str]); 8] = [
    ("02-jobs.yml", &["1.2.3", "report"]),
    ("03-stages.yml", &["tested", "linted", "yes", "sign"]),
    ("04-matrix.yml", &["Python 3.", "4 of 4"]),
    ("06-parameters.yml", &["check two", "neu", "ship", "bye"]),
    ("07-conditional-insertion.yml", &["LABEL_TIER=gold", "KNOWN=True"]),
    ("14-expressions.yml", &["100 True"]),
    ("17-each-environment.yml", &["apply to aks-prod"]),
    ("18-job-template-context.yml", &["echo one", "\"enabled\": true"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn golden_pipelines_run() {
    let service = Service::with(|config| config.agents = 4).await;
    std::fs::write(service.engine.config.state_dir.join("secure-files/signing.pem"), "a key\n").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pipelines");
    let texts = PIPELINES.map(|name| std::fs::read_to_string(folder.join(name)).unwrap());
    let mut files: Vec<(&str, &str)> = PIPELINES.into_iter().zip(texts.iter().map(String::as_str)).collect();
    files.push(("Cargo.lock", "version = 4\n"));
    let repository = Repository::new("steps: [{script: echo}]\n", &files);
    for name in PIPELINES {
        // The one stage that waits for a person.
        let stages_to_skip = if name.starts_with("03") { vec!["Release".to_owned()] } else { Vec::new() };
        let request = RunRequest { file: name.to_owned(), stages_to_skip, ..repository.request() };
        let queued = service.engine.queue(request).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let run = service.ended(queued.id).await;
        succeeded(&run, &service);
        let log = service.log(run.id);
        for text in SHOWN.iter().filter(|(of, _)| *of == name).flat_map(|(_, texts)| *texts) {
            assert!(log.contains(text), "{name}: {text:?} is not in\n{log}");
        }
        if name.starts_with("03") {
            assert_eq!(stage_result(&run, "Release"), Some(Outcome::Skipped));
        }
    }
    service.stop().await;
}
