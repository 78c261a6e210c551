//! `download`, `DownloadPipelineArtifact@2`, `DownloadBuildArtifacts@1`.

use super::{Task, glob::Patterns};
use crate::{
    artifacts,
    context::{StepContext, TaskError},
    store::record::{RunRecord, State},
};
use async_trait::async_trait;

/// Both tasks: their inputs differ by name alone.
pub struct DownloadArtifact;

#[async_trait]
impl Task for DownloadArtifact {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let run = source(step)?;
        let one = step.input("artifact").or_else(|| step.input("artifactName"));
        let single = step.input("downloadType").is_none_or(|t| !t.eq_ignore_ascii_case("specific"));
        let one = one.filter(|_| single);
        let lines = [step.lines("itemPattern"), step.lines("patterns")].concat();
        let lines: Vec<&str> = if lines.is_empty() { vec!["**"] } else { lines.iter().map(String::as_str).collect() };
        let patterns = Patterns::parse(lines)?;
        let classic = step.call().is_some_and(|c| c.name.eq_ignore_ascii_case("DownloadBuildArtifacts"));
        let default = if classic { step.job.workspace.artifacts.clone() } else { step.job.workspace.root.clone() };
        let given = ["path", "targetPath", "downloadPath"].into_iter().find_map(|n| step.input(n));
        let to = given.map_or(default.clone(), |p| step.path(p));
        let names: Vec<String> = match one {
            Some(name) => vec![name.to_owned()],
            None => run.artifacts.iter().filter(|a| a.kind != "filepath").map(|a| a.name.clone()).collect(),
        };
        for name in names {
            let from = artifacts::folder(&run, &name).map_err(|e| TaskError::Failed(e.to_string()))?;
            // One artifact goes right into a path that is given; all, and `download:`, into folders of their names.
            let direct = one.is_some() && !classic && given.is_some() && to != default;
            let target = if direct { to.clone() } else { to.join(&name) };
            let wanted = |path: &std::path::Path| {
                patterns.matches(path) || patterns.matches(&std::path::Path::new(&name).join(path))
            };
            let files = artifacts::copy_tree(&from, &target, wanted).map_err(|e| TaskError::Failed(e.to_string()))?;
            step.log.write(&format!(
                "Downloaded {files} file(s) of artifact {name} of run {} to {}",
                run.id,
                target.display()
            ));
        }
        Ok(())
    }
}

/// The run whose artifacts are wanted: this one, a named one, or the latest good one of a pipeline.
fn source(step: &StepContext<'_>) -> Result<RunRecord, TaskError> {
    let store = &step.job.run.engine.store;
    let failed = |e: crate::store::StoreError| TaskError::Failed(e.to_string());
    let own = || store.get(step.job.run.id).map_err(failed);
    let kind = step.input("buildType").or_else(|| step.input("source")).unwrap_or("current").to_ascii_lowercase();
    if kind == "current" {
        return own();
    }
    if let Some(id) = ["buildId", "runId", "pipelineId"].into_iter().find_map(|n| step.input(n)?.parse::<u64>().ok())
        && step
            .input("buildVersionToDownload")
            .or_else(|| step.input("runVersion"))
            .is_some_and(|v| v.eq_ignore_ascii_case("specific"))
    {
        return store.get(id).map_err(failed);
    }
    let pipeline = step.input("definition").or_else(|| step.input("pipeline"));
    let resource =
        step.job.run.plan.resources.pipelines.iter().find(|p| Some(p.alias.as_str()) == step.input("source"));
    let name = resource.and_then(|r| r.properties.get("source")?.as_str()).or(pipeline);
    let name = name.ok_or_else(|| TaskError::Failed("the pipeline whose artifacts are wanted is not named".into()))?;
    let found = store
        .list()
        .into_iter()
        .find(|r| r.request.pipeline == name && r.state == State::Completed && r.result.is_some_and(|o| o.good()));
    found.ok_or_else(|| TaskError::Failed(format!("No run of pipeline {name} has succeeded.")))
}
