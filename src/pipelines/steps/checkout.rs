//! `checkout`: by real git, as the agent does it.

use crate::{
    agent::{git, pool::remove_tree},
    context::{StepContext, TaskError},
    plan::Checkout,
};
use std::{collections::BTreeMap, path::PathBuf};

/// Checks out a repository.
pub(super) async fn run(step: &StepContext<'_>, checkout: &Checkout) -> Result<(), TaskError> {
    if checkout.repository == "none" {
        return Ok(());
    }
    let source = source_of(step, checkout)?;
    let folder = folder_of(step, checkout, &source)?;
    step.log.write(&format!("Syncing repository: {} (Git)", source.name));
    let git = Git { step, environment: git::environment(step.job.run.engine.config.git.as_ref(), &source.url), folder };
    let clean = checkout.clean.as_ref().is_none_or(|c| step.late_flag(Some(c)));
    git.prepare(&source, clean && checkout.clean.is_some()).await?;
    git.fetch(step, checkout, &source).await?;
    sparse(&git, checkout).await?;
    git.ok(&["checkout", "--progress", "--force", "--detach", &source.commit]).await?;
    submodules(&git, checkout).await?;
    if checkout.persist_credentials.as_ref().is_some_and(|p| step.late_flag(Some(p))) {
        git.persist(&source).await?;
    }
    Ok(())
}

struct Source {
    name: String,
    url: String,
    reference: String,
    /// Commit, or the fetched branch's tip.
    commit: String,
    own: bool,
}

fn source_of(step: &StepContext<'_>, checkout: &Checkout) -> Result<Source, TaskError> {
    let record = step.job.run.record().map_err(|e| TaskError::Failed(e.to_string()))?;
    let request = &record.request;
    if checkout.repository.eq_ignore_ascii_case("self") {
        return Ok(Source {
            name: request.repository.clone(),
            url: request.clone_url.clone(),
            reference: request.reference.clone(),
            commit: request.commit.clone(),
            own: true,
        });
    }
    let repositories = &step.job.run.plan.resources.repositories;
    let (name, reference) = match repositories.iter().find(|r| r.alias.eq_ignore_ascii_case(&checkout.repository)) {
        Some(repository) => (repository.name.clone(), repository.reference.clone()),
        // `git://PROJECT/REPO@REF`, `github://ORG/REPO@REF`
        None => {
            let (_, rest) = checkout.repository.split_once("://").ok_or_else(|| {
                TaskError::Failed(format!("Repository {} is not a resource of this pipeline.", checkout.repository))
            })?;
            let (name, reference) = rest.split_once('@').unwrap_or((rest, ""));
            (name.to_owned(), reference.to_owned())
        }
    };
    let engine = &step.job.run.engine;
    let mirrors = git::Mirrors::new(engine.config.state_dir.join("mirrors"), engine.config.git.clone());
    let sibling = || {
        let own = PathBuf::from(&request.clone_url);
        let found = own.parent()?.join(name.rsplit('/').next()?);
        (own.is_absolute() && found.is_dir()).then(|| found.display().to_string())
    };
    let url = mirrors.url_of(&name).or_else(sibling);
    let url =
        url.ok_or_else(|| TaskError::Failed(format!("Repository {name} cannot be reached: there is no Git host.")))?;
    let reference = if reference.is_empty() { "HEAD".to_owned() } else { reference };
    Ok(Source { name, url, reference, commit: "FETCH_HEAD".into(), own: false })
}

/// `s`, or `s/NAME` when the job checks out several, or `path` below the workspace.
fn folder_of(step: &StepContext<'_>, checkout: &Checkout, source: &Source) -> Result<PathBuf, TaskError> {
    let workspace = &step.job.workspace;
    let short = source.name.rsplit('/').next().unwrap_or("s").trim_end_matches(".git").to_owned();
    let folder = match &checkout.path {
        Some(path) => {
            let path = step.job.state.lock().variables.expand(path);
            let mut folder = workspace.root.clone();
            for part in std::path::Path::new(&path).components() {
                match part {
                    std::path::Component::Normal(part) => folder.push(part),
                    std::path::Component::CurDir => {}
                    _ => {
                        return Err(TaskError::Failed(format!(
                            "Input path '{path}' should resolve to a directory under {}.",
                            workspace.root.display()
                        )));
                    }
                }
            }
            folder
        }
        None if step.job.checkouts > 1 => workspace.sources.join(short),
        None => workspace.sources.clone(),
    };
    let mut state = step.job.state.lock();
    state.checkouts += 1;
    // With one checkout the sources are where it is; with several they stay at `s`.
    if step.job.checkouts == 1 || (source.own && checkout.workspace_repo.is_some()) {
        let shown = folder.display().to_string();
        for name in ["Build.SourcesDirectory", "Build.Repository.LocalPath", "System.DefaultWorkingDirectory"] {
            state.variables.put_readonly(name, &shown);
        }
    }
    Ok(folder)
}

struct Git<'a> {
    step: &'a StepContext<'a>,
    environment: BTreeMap<String, String>,
    folder: PathBuf,
}

impl Git<'_> {
    async fn ok(&self, arguments: &[&str]) -> Result<(), TaskError> {
        match self.code(arguments).await? {
            Some(0) => Ok(()),
            code => Err(TaskError::Failed(format!(
                "Git {} failed with exit code: {}",
                arguments[0],
                code.map_or("signal".into(), |c| c.to_string())
            ))),
        }
    }

    async fn code(&self, arguments: &[&str]) -> Result<Option<i32>, TaskError> {
        self.step.log.command(&format!("git {}", arguments.join(" ")));
        let all = arguments.iter().map(|a| (*a).to_owned());
        Ok(self.step.exec_with("git", all, &self.folder, self.environment.clone(), |_| {}).await?.code())
    }

    /// A repository with the right remote, cleaned as asked; a folder of something else is removed.
    async fn prepare(&self, source: &Source, clean: bool) -> Result<(), TaskError> {
        let marker = self.folder.join(".git/aksim-origin");
        let same = std::fs::read_to_string(&marker).is_ok_and(|url| url == source.url);
        if !same {
            remove_contents(&self.folder)?;
            std::fs::create_dir_all(&self.folder).map_err(|e| TaskError::file("make", &self.folder, &e))?;
            self.ok(&["init", "--quiet", "."]).await?;
            self.ok(&["remote", "add", "origin", &source.url]).await?;
            std::fs::write(&marker, &source.url).map_err(|e| TaskError::file("write", &marker, &e))?;
        }
        // Left behind by a git that was killed.
        for lock in ["index.lock", "shallow.lock", "HEAD.lock"] {
            let _ = std::fs::remove_file(self.folder.join(".git").join(lock));
        }
        self.ok(&["config", "gc.auto", "0"]).await?;
        if same && clean {
            self.ok(&["clean", "-ffdx"]).await?;
            // A repository without a commit has nothing to reset.
            let _ = self.code(&["reset", "--hard", "HEAD"]).await?;
        }
        Ok(())
    }

    async fn fetch(&self, step: &StepContext<'_>, checkout: &Checkout, source: &Source) -> Result<(), TaskError> {
        let depth = step.late_number(checkout.fetch_depth.as_ref());
        let tags =
            if checkout.fetch_tags.as_ref().is_some_and(|t| step.late_flag(Some(t))) { "--tags" } else { "--no-tags" };
        let mut arguments = vec![
            "fetch".to_owned(),
            "--force".into(),
            tags.into(),
            "--prune".into(),
            "--progress".into(),
            "--no-recurse-submodules".into(),
        ];
        if depth > 0 {
            arguments.push(format!("--depth={depth}"));
        } else if self.folder.join(".git/shallow").exists() {
            arguments.push("--unshallow".into());
        }
        arguments.extend(checkout.fetch_filter.iter().map(|f| format!("--filter={f}")));
        arguments.push("origin".into());
        let wanted = if source.own { &source.commit } else { &source.reference };
        if !git::is_revision(wanted) || !git::is_revision(&source.reference) {
            return Err(TaskError::Failed(format!("{wanted:?} is not a commit, branch or tag")));
        }
        if depth == 0 && source.own {
            arguments.push("+refs/heads/*:refs/remotes/origin/*".into());
        }
        arguments.push(format!("+{wanted}"));
        let all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if self.code(&all).await? == Some(0) {
            return Ok(());
        }
        // A host that serves no single commits: its branch, whole.
        step.log.warning("Fetching the commit failed; fetching its branch.");
        self.ok(&["fetch", "--force", tags, "--progress", "origin", &format!("+{}", source.reference)]).await
    }

    /// The credentials stay in the repository's configuration until the job ends.
    async fn persist(&self, source: &Source) -> Result<(), TaskError> {
        for index in 0..self.environment.get("GIT_CONFIG_COUNT").and_then(|c| c.parse().ok()).unwrap_or(0) {
            let get = |kind: &str| self.environment.get(&format!("GIT_CONFIG_{kind}_{index}"));
            let (Some(key), Some(value)) = (get("KEY"), get("VALUE")) else { continue };
            if key.ends_with("extraHeader") {
                self.step.log.masker().add(value.trim_start_matches("AUTHORIZATION: basic "));
            }
            if !value.is_empty() {
                // Not by `git config`: its arguments are for every process to see.
                let before = append_config(&self.folder, key, value)?;
                let mut state = self.step.job.state.lock();
                if !state.restore.iter().any(|(path, _)| *path == before.0) {
                    state.restore.push(before);
                }
            }
        }
        self.step.log.write(&format!("Credentials for {} are kept in this repository until the job ends.", source.url));
        Ok(())
    }
}

/// Adds `http.URL.key = value` to the repository's own configuration file; the file with its text before.
fn append_config(folder: &std::path::Path, key: &str, value: &str) -> Result<(PathBuf, String), TaskError> {
    let path = folder.join(".git/config");
    let (section, name) = key.rsplit_once('.').unwrap_or((key, ""));
    let (kind, subsection) = section.split_once('.').unwrap_or((section, ""));
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let before = std::fs::read_to_string(&path).map_err(|e| TaskError::file("read", &path, &e))?;
    let text = before.clone();
    let text = format!("{text}[{kind} \"{}\"]\n\t{name} = \"{}\"\n", escape(subsection), escape(value));
    aksim_runtime::files::write_atomic(&path, text.as_bytes(), aksim_runtime::files::PRIVATE)
        .map_err(|e| TaskError::file("write", &path, &e))?;
    Ok((path, before))
}

async fn sparse(git: &Git<'_>, checkout: &Checkout) -> Result<(), TaskError> {
    let (mode, list) = match (&checkout.sparse_checkout_directories, &checkout.sparse_checkout_patterns) {
        (Some(folders), _) => ("--cone", folders),
        (None, Some(patterns)) => ("--no-cone", patterns),
        // The work folder may be that of a job that wanted less.
        (None, None) if git.folder.join(".git/info/sparse-checkout").exists() => {
            return git.ok(&["sparse-checkout", "disable"]).await;
        }
        (None, None) => return Ok(()),
    };
    let words: Vec<&str> = list.split_whitespace().filter(|w| !w.starts_with('-')).collect();
    git.ok(&[&["sparse-checkout", "set", mode][..], &words].concat()).await
}

async fn submodules(git: &Git<'_>, checkout: &Checkout) -> Result<(), TaskError> {
    let mut arguments = vec!["submodule", "update", "--init", "--force"];
    match checkout.submodules.as_deref().map(str::trim) {
        Some("recursive") => arguments.push("--recursive"),
        Some(text) if text.eq_ignore_ascii_case("true") => {}
        _ => return Ok(()),
    }
    git.ok(&arguments).await
}

/// Empties a folder without removing it: it may be the working folder of somebody.
fn remove_contents(folder: &std::path::Path) -> Result<(), TaskError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        let removed = match entry.file_type().is_ok_and(|t| t.is_dir()) {
            true => remove_tree(&path),
            false => std::fs::remove_file(&path),
        };
        removed.map_err(|e| TaskError::file("remove", &path, &e))?;
    }
    Ok(())
}
