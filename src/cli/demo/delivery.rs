//! Rows 1 and 2: the project is pushed with stock git, and what a push starts is followed to the
//! first request that the new version serves.

use super::{
    Evidence, Shop,
    edits::{legs, served_version},
};
use aksim_model::{
    ids::JourneyId,
    journey::{Journey, JourneyOutcome},
    pipeline::PipelineRun,
    world::World,
};
use jiff::Timestamp;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{process::Command, sync::watch};

/// How long one git command may take.
const GIT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a push may take to become a queued run.
const QUEUE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a run may take: it compiles and tests the whole shop, the first time from nothing.
const RUN_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Branch of the demonstration.
const BRANCH: &str = "main";

/// Makes the working folder a checkout with everything committed. The commit starts no pipeline.
///
/// # Errors
/// What git says.
pub async fn make_checkout(folder: &Path) -> Result<(), String> {
    if !folder.join(".git").exists() {
        git(folder, &["init", "--quiet", "--initial-branch", BRANCH]).await?;
    }
    git(folder, &["add", "--all"]).await?;
    let staged = git(folder, &["diff", "--cached", "--name-only"]).await?;
    if staged.is_empty() {
        return Ok(());
    }
    commit(folder, "The shop [skip ci]").await
}

/// Row 1: stock git pushes the project to the environment's Git host, which then has the commit.
pub async fn push(shop: &Shop) -> Evidence {
    let folder = &shop.config.root;
    git(folder, &["push", "--quiet", "--force", "aksim", &format!("HEAD:refs/heads/{BRANCH}")]).await?;
    let local = git(folder, &["rev-parse", "HEAD"]).await?;
    let listed = git(folder, &["ls-remote", "aksim", &format!("refs/heads/{BRANCH}")]).await?;
    let there = listed.split_whitespace().next().unwrap_or_default();
    if there != local {
        return Err(format!("the host has {there}, not {local}"));
    }
    let url = git(folder, &["remote", "get-url", "aksim"]).await?;
    Ok(format!("{url} has {}", short(&local)))
}

/// A change on its way from a commit to a request.
pub struct Change {
    commit: String,
    version: String,
}

/// Row 1: a change is committed in a checkout of its own, as a colleague's is, and pushed.
pub async fn change(shop: &Shop) -> Result<(Change, String), String> {
    let folder = &shop.config.root;
    let elsewhere = Elsewhere::open(folder).await?;
    let version = format!("commit-{}", Timestamp::now().as_millisecond());
    let file = elsewhere.path.join("catalog/src/main.rs");
    let before = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let after = before.replacen("version: env!(\"CARGO_PKG_VERSION\")", &format!("version: \"{version}\""), 1);
    if after == before {
        return Err(format!("{} has no version to change", file.display()));
    }
    std::fs::write(&file, after).map_err(|e| e.to_string())?;
    git(&elsewhere.path, &["add", "--all"]).await?;
    commit(&elsewhere.path, &format!("Catalog {version}")).await?;
    let commit = git(&elsewhere.path, &["rev-parse", "HEAD"]).await?;
    git(&elsewhere.path, &["push", "--quiet", "aksim", &format!("HEAD:refs/heads/{BRANCH}")]).await?;
    elsewhere.close(folder).await?;
    let said = format!("{} pushed to {BRANCH}", short(&commit));
    Ok((Change { commit, version }, said))
}

/// Row 2: the webhook has become a run of the pipeline.
pub async fn queued(shop: &Shop, change: &Change) -> Evidence {
    let world = until(shop, QUEUE_DEADLINE, "a run was queued", |world| run_of(world, change).is_some()).await?;
    let run = run_of(&world, change).ok_or("the run is gone")?;
    let journey = journey_of(&world, change).ok_or("the push began no journey")?;
    let hops: Vec<&str> = journey.hops.iter().map(|hop| hop.hop.name()).collect();
    Ok(format!("{} #{} ({}), after {}", run.pipeline, run.name, run.reason, hops.join(", ")))
}

/// Rows 1 to 5: the run builds, tests, pushes and deploys; the pods serve what was committed.
pub async fn delivered(shop: &Shop, change: &Change) -> Evidence {
    let ended = |world: &World| {
        let over = |run: &PipelineRun| run.result.as_deref().is_some_and(|result| result != "Succeeded");
        let served = journey_of(world, change).is_some_and(|journey| journey.outcome.is_some());
        run_of(world, change).is_some_and(over) || served
    };
    let world = until(shop, RUN_DEADLINE, "the run ended", ended).await?;
    let run = run_of(&world, change).ok_or("the run is gone")?;
    let stages: Vec<String> = run
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.name, stage.result.as_deref().unwrap_or(&stage.state).to_lowercase()))
        .collect();
    let journey = journey_of(&world, change).ok_or("the push began no journey")?;
    if journey.outcome != Some(JourneyOutcome::Served) {
        return Err(format!("{:?}; stages: {}", journey.outcome, stages.join(", ")));
    }
    let served = served_version(shop).await?;
    if served != change.version {
        return Err(format!("catalog serves {served}, not {}", change.version));
    }
    Ok(format!("catalog serves {served}; {}; {}", stages.join(", "), legs(journey)))
}

fn run_of<'w>(world: &'w World, change: &Change) -> Option<&'w PipelineRun> {
    world.pipelines.iter().rev().find(|run| run.commit == change.commit)
}

fn journey_of<'w>(world: &'w World, change: &Change) -> Option<&'w Journey> {
    let id = JourneyId::of_commit(&change.commit);
    world.journeys.iter().find(|journey| journey.id == id)
}

/// Follows the world until `holds`.
async fn until(
    shop: &Shop,
    deadline: Duration,
    what: &str,
    holds: impl Fn(&World) -> bool,
) -> Result<Arc<World>, String> {
    let (sender, mut receiver) = watch::channel(Arc::new(World::default()));
    let wait = receiver.wait_for(|world| holds(world));
    tokio::select! {
        followed = shop.control.follow(&sender) => Err(format!("events ended before {what}: {followed:?}")),
        found = tokio::time::timeout(deadline, wait) => match found {
            Ok(Ok(world)) => Ok(world.clone()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("{} s went by before {what}", deadline.as_secs())),
        },
    }
}

/// A second checkout of the project, outside the folder that the inner loop watches.
struct Elsewhere {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Elsewhere {
    async fn open(project: &Path) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = folder.path().join("shop");
        // One that an interrupted demonstration has left is forgotten.
        git(project, &["worktree", "prune"]).await?;
        let there = path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
        git(project, &["worktree", "add", "--quiet", "--detach", there, "HEAD"]).await?;
        Ok(Self { path, _folder: folder })
    }

    async fn close(self, project: &Path) -> Result<(), String> {
        let there = self.path.to_str().ok_or_else(|| format!("{} is not UTF-8", self.path.display()))?;
        git(project, &["worktree", "remove", "--force", there]).await.map(drop)
    }
}

/// Commits what is staged, whoever git thinks the user is.
async fn commit(folder: &Path, message: &str) -> Result<(), String> {
    let author = ["-c", "user.name=Ada Lovelace", "-c", "user.email=ada@contoso.onmicrosoft.com"];
    let rest = ["-c", "commit.gpgsign=false", "commit", "--quiet", "--no-verify", "--message", message];
    git(folder, &[&author[..], &rest[..]].concat()).await.map(drop)
}

/// Runs git; its output without the line end.
async fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    // Nobody is there to be asked.
    command.env("GIT_TERMINAL_PROMPT", "0");
    // It would stand above the authority that the remote is configured with.
    command.env_remove("GIT_SSL_CAINFO");
    let said = |error: &dyn std::fmt::Display| format!("git {}: {error}", arguments.join(" "));
    let output = tokio::time::timeout(GIT_DEADLINE, command.output())
        .await
        .map_err(|_| said(&format!("not done within {} s", GIT_DEADLINE.as_secs())))?
        .map_err(|e| said(&e))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(said(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}
