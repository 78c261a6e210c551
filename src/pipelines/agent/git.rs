//! Git as the service and the agent use it: mirrors for reading pipelines, credentials by environment.

use crate::{
    connections::GitHost,
    template::{RepositoryRef, SourceError, TemplateSource},
};
use aksim_runtime::files::create_private_dir;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::process::Command;

/// How long a command of the service's own may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// Why git did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It cannot be started.
    #[error("git cannot be started: {0}")]
    Start(#[source] std::io::Error),
    /// It took too long.
    #[error("git {0}: no end within {DEADLINE:?}")]
    Deadline(String),
    /// It failed.
    #[error("git {command}: {message}")]
    Failed {
        /// Its first arguments.
        command: String,
        /// What it said.
        message: String,
    },
    /// A name that could be taken for an option or path.
    #[error("{0:?} is not a commit, branch or tag")]
    Name(String),
}

/// Environment with which git reaches `url`: credentials and CA of the host when it is the host's, no prompt, no
/// configuration of the user. Credentials are not on the command line, where every process can read them.
pub fn environment(host: Option<&GitHost>, url: &str) -> BTreeMap<String, String> {
    let mut pairs: Vec<(String, String)> = vec![("credential.helper".into(), String::new())];
    if let Some(host) = host.filter(|h| belongs(url, &h.url)) {
        let basic = STANDARD.encode(format!("{}:{}", host.username, host.token));
        pairs.push((format!("http.{}/.extraHeader", host.url), format!("AUTHORIZATION: basic {basic}")));
        if let Some(ca) = &host.ca {
            pairs.push((format!("http.{}/.sslCAInfo", host.url), ca.display().to_string()));
        }
    }
    let mut environment = BTreeMap::from([
        ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
        ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
        ("GCM_INTERACTIVE".to_owned(), "Never".to_owned()),
        ("GIT_CONFIG_COUNT".to_owned(), pairs.len().to_string()),
    ]);
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        environment.insert(format!("GIT_CONFIG_KEY_{index}"), key);
        environment.insert(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
    environment
}

/// Whether a URL is of the host; `https://host.evil/` is not of `https://host`.
fn belongs(url: &str, host: &str) -> bool {
    url.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a text can be given to git as a revision.
pub fn is_revision(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 256
        && !text.starts_with('-')
        && !text.contains("..")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+#@".contains(c))
}

/// Bare mirrors of repositories, for reading files at a commit.
#[derive(Clone, Debug)]
pub struct Mirrors {
    root: PathBuf,
    host: Option<Arc<GitHost>>,
}

/// A repository at a commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    git_dir: PathBuf,
    /// Commit.
    pub commit: String,
    /// Others that templates may name: repository name → URL.
    others: Option<String>,
    mirrors: Mirrors,
}

impl Mirrors {
    /// Mirrors below `root`.
    pub fn new(root: PathBuf, host: Option<GitHost>) -> Self {
        Self { root, host: host.map(Arc::new) }
    }

    /// URL of a repository by its name at the host.
    pub fn url_of(&self, name: &str) -> Option<String> {
        self.host.as_ref().map(|h| format!("{}/{name}", h.url))
    }

    /// Fetches `reference` (a branch, tag or commit) of `url`.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn fetch(&self, url: &str, reference: &str) -> Result<Snapshot, GitError> {
        let reference = if reference.is_empty() { "HEAD" } else { reference };
        if !is_revision(reference) {
            return Err(GitError::Name(reference.to_owned()));
        }
        let git_dir = self.root.join(format!("{}.git", &hex::encode(Sha256::digest(url))[..24]));
        create_private_dir(&git_dir).map_err(GitError::Start)?;
        if !git_dir.join("HEAD").exists() {
            self.git(&git_dir, url, &["init", "--quiet", "--bare", "."]).await?;
        }
        // A name of its own: fetches of the same repository may run side by side.
        let mine = format!("refs/aksim/fetch-{:016x}", rand::random::<u64>());
        let pair = format!("+{reference}:{mine}");
        let fetch =
            ["fetch", "--quiet", "--force", "--no-tags", "--no-auto-gc", "--no-write-fetch-head", "--", url, &pair];
        self.git(&git_dir, url, &fetch).await?;
        let tip = format!("{mine}^{{commit}}");
        let head = self.git(&git_dir, url, &["rev-parse", "--verify", "--quiet", &tip]).await?;
        let commit = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        // Kept by its commit, so that names do not pile up.
        self.git(&git_dir, url, &["update-ref", &format!("refs/aksim/commit-{commit}"), &commit]).await?;
        self.git(&git_dir, url, &["update-ref", "-d", &mine]).await?;
        Ok(Snapshot { git_dir, commit, others: Some(url.to_owned()), mirrors: self.clone() })
    }

    async fn git(&self, folder: &Path, url: &str, arguments: &[&str]) -> Result<Output, GitError> {
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(folder)
            .envs(environment(self.host.as_deref(), url))
            .env_remove("GIT_DIR")
            // It would win over the CA of the host.
            .env_remove("GIT_SSL_CAINFO")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let shown = arguments.first().copied().unwrap_or_default().to_owned();
        let output = tokio::time::timeout(DEADLINE, command.output()).await;
        let output = output.map_err(|_| GitError::Deadline(shown.clone()))?.map_err(GitError::Start)?;
        match output.status.success() {
            true => Ok(output),
            false => {
                let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(GitError::Failed { command: shown, message })
            }
        }
    }
}

impl Snapshot {
    /// The commit's subject line.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn subject(&self) -> Result<String, GitError> {
        let output = self.mirrors.git(&self.git_dir, "", &["log", "-1", "--format=%s", &self.commit]).await?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Paths that differ from `before`; all paths when `before` is not known.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn changed_since(&self, before: Option<&str>) -> Result<Vec<String>, GitError> {
        let known = match before.filter(|b| is_revision(b)) {
            Some(before) => {
                let object = format!("{before}^{{commit}}");
                self.mirrors.git(&self.git_dir, "", &["cat-file", "-e", &object]).await.is_ok().then_some(before)
            }
            None => None,
        };
        let output = match known {
            Some(before) => {
                self.mirrors.git(&self.git_dir, "", &["diff", "--name-only", "-z", before, &self.commit]).await?
            }
            None => self.mirrors.git(&self.git_dir, "", &["ls-tree", "-r", "--name-only", "-z", &self.commit]).await?,
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect())
    }

    /// A file's text at the commit.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn read_file(&self, path: &str) -> Result<String, SourceError> {
        let object = format!("{}:{}", self.commit, path.trim_start_matches('/'));
        let output = std::process::Command::new("git")
            .args(["cat-file", "blob", &object])
            .current_dir(&self.git_dir)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(SourceError::NotFound { repository: "self".into(), path: path.to_owned() }),
        }
    }
}

impl TemplateSource for Snapshot {
    fn read(&self, repository: RepositoryRef<'_>, path: &str) -> Result<String, SourceError> {
        if repository.alias == "self" {
            return self.read_file(path);
        }
        let unavailable = |reason: String| SourceError::Unavailable { repository: repository.alias.to_owned(), reason };
        let url = self.mirrors.url_of(repository.name).or_else(|| sibling(self.others.as_deref()?, repository.name));
        let url = url.ok_or_else(|| unavailable("there is no Git host to ask".into()))?;
        // Plans are made on a blocking thread; this waits there for the fetch.
        let mirrors = self.mirrors.clone();
        let handle = tokio::runtime::Handle::try_current().map_err(|e| unavailable(e.to_string()))?;
        let snapshot =
            handle.block_on(mirrors.fetch(&url, repository.reference)).map_err(|e| unavailable(e.to_string()))?;
        snapshot.read_file(path).map_err(|error| match error {
            SourceError::NotFound { path, .. } => {
                SourceError::NotFound { repository: repository.alias.to_owned(), path }
            }
            other => other,
        })
    }
}

/// A repository in the folder of another, when they are folders: `/srv/contoso/shop` → `/srv/contoso/NAME`.
fn sibling(url: &str, name: &str) -> Option<String> {
    let folder = Path::new(url);
    let last = name.rsplit('/').next().filter(|n| is_revision(n) && *n != "." && !n.contains(".."))?;
    let found = folder.is_absolute().then(|| folder.parent()).flatten()?.join(last);
    found.is_dir().then(|| found.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_the_host_alone() {
        let host = GitHost {
            url: "https://git.local".into(),
            username: "x".into(),
            token: "t".into(),
            ca: None,
            api_url: None,
        };
        let has = |url: &str| environment(Some(&host), url).values().any(|v| v.contains("AUTHORIZATION"));
        assert!(has("https://git.local/contoso/shop"));
        assert!(!has("https://git.local.evil/contoso/shop"));
        assert!(!has("/srv/repository"));
    }

    #[test]
    fn revisions_are_no_options() {
        for good in ["main", "refs/heads/a-b", "v1.0", "0123abcd"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "--upload-pack=x", "a..b", "a b", "a\nb", "a:b"] {
            assert!(!is_revision(bad), "{bad}");
        }
    }
}
