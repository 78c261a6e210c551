//! Predefined variables: `Build.*`, `System.*`, `Agent.*`, `Pipeline.*`, `Environment.*`.
//!
//! <https://learn.microsoft.com/azure/devops/pipelines/build/variables>.

use super::legs::Leg;
use crate::{
    agent::pool::{Agent, Workspace},
    context::{RunContext, variables::Variables},
    engine::Engine,
    plan::{Deployment, Job},
    store::record::{Reason, RunRecord, RunRequest, branch_name},
};
use indexmap::IndexMap;

/// Variables that `${{ }}` sees: those known when a run is queued.
pub fn at_queue(engine: &Engine, request: &RunRequest) -> IndexMap<String, String> {
    let mut variables = Variables::default();
    of_request(&mut variables, engine, request);
    let mut map: IndexMap<String, String> = variables.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
    map.extend(request.variables.clone());
    map
}

/// Variables of a run, before those of its pipeline.
pub fn of_run(context: &RunContext, record: &RunRecord) -> Variables {
    let mut variables = Variables::default();
    of_request(&mut variables, &context.engine, &record.request);
    for (name, value) in [
        ("Build.BuildId", record.id.to_string()),
        ("Build.BuildNumber", record.name.clone()),
        ("Build.BuildUri", format!("vstfs:///Build/Build/{}", record.id)),
        ("Build.ContainerId", record.id.to_string()),
        ("System.PlanId", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, record.id.to_string().as_bytes()).to_string()),
        ("Build.QueuedBy", record.request.requested_for.clone()),
        ("Build.RequestedFor", record.request.requested_for.clone()),
        ("Build.RequestedForEmail", String::new()),
    ] {
        variables.put_readonly(name, value);
    }
    variables.put_secret("System.AccessToken", &context.engine.access_token);
    variables
}

fn of_request(variables: &mut Variables, engine: &Engine, request: &RunRequest) {
    let name = branch_name(&request.reference);
    let short = name.rsplit('/').next().unwrap_or(name);
    let definition = request.pipeline.clone();
    // A pipeline keeps its number as long as it keeps its name.
    let id = u32::from_be_bytes(std::array::from_fn(|i| {
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, definition.as_bytes()).as_bytes()[i]
    })) % 100_000;
    let collection = format!("{}/{}/", engine.url, engine.config.organization);
    for (key, value) in [
        ("Build.DefinitionName", definition),
        ("Build.DefinitionVersion", "1".to_owned()),
        ("Build.Reason", request.reason.name().to_owned()),
        ("Build.Repository.Clean", "False".to_owned()),
        ("Build.Repository.ID", request.repository.clone()),
        ("Build.Repository.Name", request.repository.clone()),
        ("Build.Repository.Provider", if engine.config.git.is_some() { "GitHub" } else { "Git" }.to_owned()),
        ("Build.Repository.Uri", request.clone_url.clone()),
        ("Build.Repository.Git.SubmoduleCheckout", "False".to_owned()),
        ("Build.SourceBranch", request.reference.clone()),
        ("Build.SourceBranchName", short.to_owned()),
        ("Build.SourceVersion", request.commit.clone()),
        ("Build.SourceVersionAuthor", request.requested_for.clone()),
        ("Build.SourceVersionMessage", request.message.clone()),
        ("System.CollectionUri", collection.clone()),
        ("System.TeamFoundationCollectionUri", collection.clone()),
        ("System.TeamFoundationServerUri", collection),
        (
            "System.CollectionId",
            uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, engine.config.organization.as_bytes()).to_string(),
        ),
        ("System.TeamProject", engine.config.project.clone()),
        (
            "System.TeamProjectId",
            uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, engine.config.project.as_bytes()).to_string(),
        ),
        ("System.DefinitionId", id.to_string()),
        ("System.DefinitionName", request.pipeline.clone()),
        ("System.HostType", "build".to_owned()),
        ("System.ServerType", "Hosted".to_owned()),
        ("System.IsScheduled", "False".to_owned()),
        ("System", "build".to_owned()),
    ] {
        variables.put_readonly(key, value);
    }
    // What the queue may set.
    variables.put("System.Debug", "false");
    if request.reason == Reason::PullRequest {
        variables.put_readonly("System.PullRequest.SourceBranch", name);
        variables.put_readonly("System.PullRequest.SourceCommitId", &request.commit);
    }
}

/// Variables of a job on its agent.
pub fn of_job(
    variables: &mut Variables,
    run: &RunContext,
    job: &Job,
    name: &str,
    leg: &Leg,
    agent: &Agent,
    workspace: &Workspace,
) {
    let attempt = run
        .record()
        .ok()
        .and_then(|r| r.stages.iter().flat_map(|s| &s.jobs).find(|j| j.name == name).map(|j| j.attempt));
    let display = job.display_name.clone().unwrap_or_else(|| job.name.clone());
    let path = |p: &std::path::Path| p.display().to_string();
    let os = if cfg!(target_os = "macos") { "Darwin" } else { "Linux" };
    let architecture = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    for (key, value) in [
        ("Agent.Id", agent.number.to_string()),
        ("Agent.Name", agent.name.clone()),
        ("Agent.MachineName", nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default()),
        ("Agent.OS", os.to_owned()),
        ("Agent.OSArchitecture", architecture.to_owned()),
        ("Agent.Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("Agent.HomeDirectory", path(&agent.home)),
        ("Agent.RootDirectory", path(&workspace.work)),
        ("Agent.WorkFolder", path(&workspace.work)),
        ("Agent.BuildDirectory", path(&workspace.root)),
        ("Agent.TempDirectory", path(&workspace.temp)),
        ("Agent.ToolsDirectory", path(&workspace.tools)),
        ("Agent.JobName", super::legs::record_name(&display, leg.name.as_deref())),
        ("Agent.JobStatus", "Succeeded".to_owned()),
        ("Pipeline.Workspace", path(&workspace.root)),
        ("Build.ArtifactStagingDirectory", path(&workspace.artifacts)),
        ("Build.StagingDirectory", path(&workspace.artifacts)),
        ("Build.BinariesDirectory", path(&workspace.binaries)),
        ("Build.SourcesDirectory", path(&workspace.sources)),
        ("Build.Repository.LocalPath", path(&workspace.sources)),
        ("Common.TestResultsDirectory", path(&workspace.test_results)),
        ("System.ArtifactsDirectory", path(&workspace.artifacts)),
        ("System.DefaultWorkingDirectory", path(&workspace.sources)),
        ("System.WorkFolder", path(&workspace.work)),
        ("System.PhaseName", job.name.clone()),
        ("System.PhaseDisplayName", display.clone()),
        ("System.PhaseAttempt", "1".to_owned()),
        ("System.JobName", leg.name.clone().unwrap_or_else(|| job.name.clone())),
        ("System.JobDisplayName", super::legs::record_name(&display, leg.name.as_deref())),
        ("System.JobAttempt", attempt.unwrap_or(1).to_string()),
        ("System.JobId", uuid::Uuid::new_v4().to_string()),
        ("System.JobPositionInPhase", leg.position.to_string()),
        ("System.TotalJobsInPhase", leg.total.to_string()),
        ("System.JobParallelismTag", "Private".to_owned()),
    ] {
        variables.put_readonly(key, value);
    }
}

/// Variables of a deployment; the environment's name.
pub fn of_environment(variables: &mut Variables, deployment: &Deployment, run: u64) -> String {
    let name = variables.expand(&deployment.environment.name);
    variables.put_readonly("Environment.Name", &name);
    variables.put_readonly("Environment.Id", run.to_string());
    let resource = deployment.environment.resource_name.clone().unwrap_or_default();
    variables.put_readonly("Environment.ResourceName", variables.expand(&resource));
    variables.put_readonly("Environment.ResourceId", deployment.environment.resource_id.clone().unwrap_or_default());
    name
}
