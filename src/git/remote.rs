//! The remote `aksim` of the project's own checkout: URL, credential helper and CA, in the
//! repository's local configuration alone and for this host's URL alone.
//!
//! Here git runs as the user runs it, with the user's configuration: it is the user's checkout.

use super::{GitError, RepositoryName};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;

/// Name of the remote.
pub const REMOTE: &str = "aksim";
/// How long one question to the checkout may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a remote is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSpec {
    /// `https://127.0.0.1:PORT` of the host.
    pub host_url: String,
    /// The repository.
    pub repository: RepositoryName,
    /// CA certificate of the environment.
    pub ca: PathBuf,
    /// This program.
    pub exe: PathBuf,
    /// Folder or file of the project, for the credential helper to find its environment by.
    pub project: PathBuf,
}

/// What became of the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteOutcome {
    /// It was made.
    Added,
    /// Its URL was changed.
    Changed,
    /// It was as it is to be.
    Unchanged,
    /// The folder is not in a checkout of git: nothing was done.
    NotACheckout,
}

/// Makes the remote `aksim` of the checkout that `folder` is in. No other remote and no other
/// setting is touched.
///
/// # Errors
/// [`GitError`] when git refuses, or is missing.
pub async fn set_remote(folder: &Path, spec: &RemoteSpec) -> Result<RemoteOutcome, GitError> {
    let inside = run(folder, &["rev-parse", "--is-inside-work-tree"]).await?;
    if inside.as_deref().map(str::trim) != Ok("true") {
        return Ok(RemoteOutcome::NotACheckout);
    }
    let url = format!("{}/{}.git", spec.host_url, spec.repository);
    let key = format!("remote.{REMOTE}.url");
    let before = run(folder, &["config", "--local", "--get", &key]).await?.ok();
    forget_settings(folder, before.as_deref().map(str::trim), &spec.host_url).await?;
    let outcome = match before.as_deref().map(str::trim) {
        Some(kept) if kept == url => RemoteOutcome::Unchanged,
        Some(_) => {
            must(folder, &["remote", "set-url", REMOTE, &url]).await?;
            RemoteOutcome::Changed
        }
        None => {
            must(folder, &["remote", "add", REMOTE, &url]).await?;
            RemoteOutcome::Added
        }
    };
    let helper = format!("!{} --project {} git-credential", quoted(&spec.exe)?, quoted(&spec.project)?);
    let ca = utf8(&spec.ca)?;
    let (http, credential) = (format!("http.{}", spec.host_url), format!("credential.{}", spec.host_url));
    set(folder, &format!("{http}.sslCAInfo"), &[ca]).await?;
    // Loopback is not reached through a proxy.
    set(folder, &format!("{http}.proxy"), &[""]).await?;
    // The empty helper ends the list of the user's own helpers: none of them is asked or told.
    set(folder, &format!("{credential}.helper"), &["", &helper]).await?;
    Ok(outcome)
}

/// Takes away the settings for a host that had another port.
async fn forget_settings(folder: &Path, before: Option<&str>, host_url: &str) -> Result<(), GitError> {
    let old = before.and_then(|url| url::Url::parse(url).ok());
    let Some(old) = old.filter(|u| u.host_str() == Some("127.0.0.1")).map(|u| u.origin().ascii_serialization()) else {
        return Ok(());
    };
    if old != host_url {
        for section in [format!("http.{old}"), format!("credential.{old}")] {
            // A section that is not there is gone already.
            let _ = run(folder, &["config", "--local", "--remove-section", &section]).await?;
        }
    }
    Ok(())
}

/// Gives a setting exactly these values; one that has them is not written.
async fn set(folder: &Path, key: &str, values: &[&str]) -> Result<(), GitError> {
    let kept = run(folder, &["config", "--local", "--null", "--get-all", key]).await?.unwrap_or_default();
    let wanted: String = values.iter().map(|v| format!("{v}\0")).collect();
    if kept == wanted {
        return Ok(());
    }
    let _ = run(folder, &["config", "--local", "--unset-all", key]).await?;
    for value in values {
        must(folder, &["config", "--local", "--add", key, value]).await?;
    }
    Ok(())
}

/// A word for the shell that git runs credential helpers with; there is no other way to give
/// one arguments (gitcredentials(7)).
fn quoted(path: &Path) -> Result<String, GitError> {
    Ok(format!("'{}'", utf8(path)?.replace('\'', r"'\''")))
}

fn utf8(path: &Path) -> Result<&str, GitError> {
    path.to_str().ok_or_else(|| GitError::invalid("path", format!("{} is not UTF-8", path.display())))
}

async fn must(folder: &Path, arguments: &[&str]) -> Result<(), GitError> {
    let failed = |message| GitError::Git { command: arguments.join(" "), dir: folder.to_owned(), message };
    run(folder, arguments).await?.map(drop).map_err(failed)
}

/// What git prints, or what it says when it refuses.
async fn run(folder: &Path, arguments: &[&str]) -> Result<Result<String, String>, GitError> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    // Those of a hook that started aksim would name another repository.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG"] {
        command.env_remove(variable);
    }
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .map_err(|_| GitError::Deadline { command: arguments.join(" "), deadline: DEADLINE })?
        .map_err(|source| GitError::GitMissing { what: "git".into(), source })?;
    Ok(match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn config(dir: &Path) -> String {
        run(dir, &["config", "--local", "--list"]).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_remote_is_made_and_follows_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |port: u16| RemoteSpec {
            host_url: format!("https://127.0.0.1:{port}"),
            repository: "contoso/shop".parse().unwrap(),
            ca: "/state/pki/ca.crt".into(),
            exe: "/opt/it's here/aksim".into(),
            project: dir.path().to_owned(),
        };
        // The temporary folder may itself be below a checkout.
        if run(dir.path(), &["rev-parse", "--is-inside-work-tree"]).await.unwrap().is_err() {
            assert_eq!(set_remote(dir.path(), &spec(1)).await.unwrap(), RemoteOutcome::NotACheckout);
        }
        must(dir.path(), &["init", "--quiet"]).await.unwrap();
        must(dir.path(), &["remote", "add", "origin", "https://github.com/contoso/shop"]).await.unwrap();
        let before = config(dir.path()).await;
        assert_eq!(set_remote(dir.path(), &spec(1)).await.unwrap(), RemoteOutcome::Added);
        let first = config(dir.path()).await;
        assert!(first.starts_with(&before), "{first}");
        assert!(first.contains("remote.aksim.url=https://127.0.0.1:1/contoso/shop.git"), "{first}");
        assert!(first.contains(r"!'/opt/it'\''s here/aksim' --project"), "{first}");
        assert_eq!(set_remote(dir.path(), &spec(1)).await.unwrap(), RemoteOutcome::Unchanged);
        assert_eq!(config(dir.path()).await, first);
        assert_eq!(set_remote(dir.path(), &spec(2)).await.unwrap(), RemoteOutcome::Changed);
        let second = config(dir.path()).await;
        assert!(!second.contains("127.0.0.1:1/") && !second.contains("127.0.0.1:1."), "{second}");
        assert!(second.starts_with(&before));
    }
}
