//! Tasks: a file each, and one line each in the table.
//!
//! To add a task: a file with a type that implements [`Task`], its `mod` line, its row here, and its versions and
//! inputs in `plan/tasks.toml`. The tests below hold both tables to each other.

mod artifact_download;
mod artifact_publish;
pub mod cache;
mod checkout;
mod copy_files;
mod docker;
mod glob;
mod helm;
mod kubectl;
mod kubernetes_manifest;
mod powershell;
mod script;
mod secure_file;
mod test_results;

use super::plan::{Action, tasks};
use crate::context::{StepContext, TaskError};
use async_trait::async_trait;

/// What a step does.
#[async_trait]
pub trait Task: Send + Sync {
    /// Does it. The step's log, inputs, variables and end are the context's.
    ///
    /// # Errors
    /// [`TaskError`]: the step fails with its text, or is canceled.
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError>;
}

/// What runs each task, by its name in `tasks.toml`, where its versions and inputs are too.
static TASKS: &[(&str, &dyn Task)] = &[
    ("CmdLine", &script::CmdLine),
    ("Bash", &script::Bash),
    ("PowerShell", &powershell::PowerShell),
    ("Docker", &docker::Docker),
    ("KubernetesManifest", &kubernetes_manifest::KubernetesManifest),
    ("Kubernetes", &kubectl::Kubernetes),
    ("KubectlInstaller", &kubectl::KubectlInstaller),
    ("HelmDeploy", &helm::HelmDeploy),
    ("CopyFiles", &copy_files::CopyFiles),
    ("PublishBuildArtifacts", &artifact_publish::PublishBuildArtifacts),
    ("PublishPipelineArtifact", &artifact_publish::PublishPipelineArtifact),
    ("DownloadPipelineArtifact", &artifact_download::DownloadArtifact),
    ("DownloadBuildArtifacts", &artifact_download::DownloadArtifact),
    ("Cache", &cache::Cache),
    ("PublishTestResults", &test_results::PublishTestResults),
    ("DownloadSecureFile", &secure_file::DownloadSecureFile),
];

/// What runs a task; `None` for one that the plan has as a gap, and for no other.
fn find(name: &str, version: &str) -> Option<&'static dyn Task> {
    let task = tasks::find(name, version)?;
    TASKS.iter().find(|(name, _)| *name == task.name).map(|(_, task)| *task)
}

/// Runs the step's task.
///
/// # Errors
/// [`TaskError`]; a task that is not in the table is one.
pub async fn run(step: &StepContext<'_>) -> Result<(), TaskError> {
    match (&step.step.action, step.call()) {
        (Action::Checkout(checkout), _) => checkout::run(step, checkout).await,
        (Action::NoDownload {}, _) => Ok(()),
        (Action::Task(_), Some(call)) => match find(&call.name, &call.version) {
            Some(task) => task.run(step).await,
            None => {
                // Said before the run, which was told to go on without it.
                step.log
                    .warning(&format!("{} is not supported and was left out (--skip-unsupported).", call.reference()));
                Ok(())
            }
        },
        (Action::Task(_), None) => Err(TaskError::Failed("a task without a call".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan of one step that calls the task; the values that it needs are left to the run.
    fn plan_of(reference: &str) -> crate::plan::Plan {
        let inputs = reference.split_once('@').and_then(|(name, version)| tasks::find(name, version));
        let inputs = inputs.into_iter().flat_map(|task| &task.inputs).filter(|input| input.required);
        let inputs: String = inputs.map(|input| format!("    {}: $(later)\n", input.name)).collect();
        let inputs = if inputs.is_empty() { inputs } else { format!("  inputs:\n{inputs}") };
        let text = format!("steps:\n- task: {reference}\n{inputs}");
        struct NoTemplates;
        impl crate::TemplateSource for NoTemplates {
            fn read(&self, at: crate::RepositoryRef<'_>, path: &str) -> Result<String, crate::SourceError> {
                let (repository, path) = (at.alias.to_owned(), path.to_owned());
                Err(crate::SourceError::NotFound { repository, path })
            }
        }
        crate::load(&text, "a.yml", &NoTemplates, &Default::default(), &Default::default())
            .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
    }

    /// The call that the plan of one step has.
    fn call_of(plan: &crate::plan::Plan) -> crate::plan::TaskCall {
        let crate::plan::Work::Steps(steps) = &plan.stages[0].jobs[0].work else { panic!("no steps: {plan:?}") };
        let mut calls = steps.iter().filter_map(|step| match &step.action {
            crate::plan::Action::Task(call) => Some(call.clone()),
            _ => None,
        });
        calls.next_back().unwrap_or_else(|| panic!("no task: {plan:?}"))
    }

    #[test]
    fn both_tables_have_the_same_tasks() {
        let mut versions = std::collections::BTreeSet::new();
        for task in tasks::all() {
            let name = &task.name;
            assert_eq!(TASKS.iter().filter(|(row, _)| row == name).count(), 1, "{name} has no one row in TASKS");
            assert!(!tasks::gaps().keys().any(|gap| gap.eq_ignore_ascii_case(name)), "{name} is also a gap");
            for version in &task.versions {
                assert!(versions.insert((name.to_ascii_lowercase(), version)), "{name}@{version} stands twice");
            }
        }
        for (row, _) in TASKS {
            assert!(tasks::all().iter().any(|task| task.name == *row), "{row} is not in tasks.toml");
        }
        assert!(find("docker", "2.1.0").is_some());
        assert!(find("Docker", "9").is_none() && find("Nothing", "1").is_none());
    }

    #[test]
    fn plan_and_run_say_the_same_of_every_version() {
        let (mut run, mut left_out) = (0, 0);
        let names = tasks::all().iter().map(|task| task.name.as_str()).chain(tasks::gaps().keys().map(String::as_str));
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            for version in 0..10 {
                let reference = format!("{name}@{version}");
                let plan = plan_of(&reference);
                let call = call_of(&plan);
                let gap = crate::run::refused(&plan).iter().any(|gap| gap.what == reference);
                let runs = find(&call.name, &call.version).is_some();
                assert_ne!(runs, gap, "{reference}: {:?}", plan.gaps);
                if runs { run += 1 } else { left_out += 1 }
            }
        }
        let listed: usize = tasks::all().iter().map(|task| task.versions.len()).sum();
        assert_eq!(run, listed);
        assert!(left_out > run, "{left_out}");
    }
}
