//! Bare repositories below the state folder, and what the host knows of each besides its objects.

use super::{GitError, name::RepositoryName, program::GitProgram, protection::BranchRule, records};
use aksim_runtime::files::create_private_dir;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// References by full name, with the object each points at.
pub(super) type Refs = BTreeMap<String, String>;

/// What is kept of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RepositoryRecord {
    /// Id as GitHub's API shows it.
    pub id: u64,
    /// For people.
    pub description: String,
    /// Branch that a clone checks out.
    pub default_branch: String,
    /// Rules of branches.
    pub protected: Vec<BranchRule>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last pushed to.
    pub pushed_at: Timestamp,
}

/// A repository that exists.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    pub name: RepositoryName,
    pub record: RepositoryRecord,
    /// The bare repository.
    pub dir: PathBuf,
    /// The host's own records of it.
    pub data: PathBuf,
}

/// All repositories.
pub(super) struct Repositories {
    root: PathBuf,
    data: PathBuf,
    git: GitProgram,
    ids: records::Ids,
    /// One creation or change of a record at a time.
    changes: parking_lot::Mutex<()>,
}

impl Repositories {
    /// Those below `state_dir`.
    pub(super) fn open(state_dir: &Path, git: GitProgram) -> Result<Self, GitError> {
        let (root, data) = (state_dir.join("repositories"), state_dir.join("records"));
        for dir in [&root, &data] {
            create_private_dir(dir).map_err(GitError::file(dir))?;
        }
        Ok(Self { root, data, git, ids: records::Ids::default(), changes: parking_lot::Mutex::default() })
    }

    /// Folder of all bare repositories.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// git.
    pub(super) fn git(&self) -> &GitProgram {
        &self.git
    }

    fn dir(&self, name: &RepositoryName) -> PathBuf {
        self.root.join(name.organization()).join(format!("{}.git", name.name()))
    }

    fn record_path(&self, name: &RepositoryName) -> PathBuf {
        self.data(name).join("repository.json")
    }

    fn data(&self, name: &RepositoryName) -> PathBuf {
        self.data.join(name.organization()).join(name.name())
    }

    /// A repository by name; `None` when there is none.
    pub(super) fn find(&self, name: &RepositoryName) -> Result<Option<Repository>, GitError> {
        let dir = self.dir(name);
        if !dir.is_dir() {
            return Ok(None);
        }
        let record = records::read(&self.record_path(name))?;
        Ok(record.map(|record| Repository { name: name.clone(), record, dir, data: self.data(name) }))
    }

    /// Every repository, by name.
    pub(super) fn list(&self) -> Result<Vec<Repository>, GitError> {
        let mut found = Vec::new();
        for organization in names_in(&self.root)? {
            for name in names_in(&self.root.join(&organization))? {
                // Half-made repositories have names that are none.
                if let Ok(name) = RepositoryName::new(&organization, &name) {
                    found.extend(self.find(&name)?);
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Makes a repository; one that exists stays as it is and is returned with `false`.
    pub(super) async fn create(
        &self,
        name: &RepositoryName,
        default_branch: &str,
        description: &str,
    ) -> Result<(Repository, bool), GitError> {
        check_branch(default_branch)?;
        if let Some(found) = self.find(name)? {
            return Ok((found, false));
        }
        let dir = self.dir(name);
        let parent = self.root.join(name.organization());
        create_private_dir(&parent).map_err(GitError::file(&parent))?;
        // No repository's name begins with a dot: nobody sees it before it is whole.
        let making =
            tempfile::Builder::new().prefix(".making-").tempdir_in(&parent).map_err(GitError::file(&parent))?;
        let branch = format!("--initial-branch={default_branch}");
        self.git.output(making.path(), &["init", "--quiet", "--bare", "--template=", &branch, "."]).await?;
        let now = Timestamp::now();
        let record = RepositoryRecord {
            id: self.ids.next(),
            description: description.to_owned(),
            default_branch: default_branch.to_owned(),
            protected: Vec::new(),
            created_at: now,
            pushed_at: now,
        };
        let _one = self.changes.lock();
        if let Some(found) = self.find(name)? {
            return Ok((found, false));
        }
        records::write(&self.record_path(name), &record)?;
        std::fs::rename(making.path(), &dir).map_err(GitError::file(&dir))?;
        // Renamed, so there is nothing left to remove.
        let _ = making.keep();
        Ok((Repository { name: name.clone(), record, dir, data: self.data(name) }, true))
    }

    /// Changes what is kept of a repository.
    pub(super) fn change(
        &self,
        name: &RepositoryName,
        change: impl FnOnce(&mut RepositoryRecord),
    ) -> Result<Option<Repository>, GitError> {
        let _one = self.changes.lock();
        let Some(mut repository) = self.find(name)? else { return Ok(None) };
        let before = repository.record.clone();
        change(&mut repository.record);
        if repository.record != before {
            records::write(&self.record_path(name), &repository.record)?;
        }
        Ok(Some(repository))
    }

    /// References under `refs/heads/` and `refs/tags/`.
    pub(super) async fn refs(&self, repository: &Repository) -> Result<Refs, GitError> {
        let arguments = ["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"];
        let text = self.git.text(&repository.dir, &arguments).await?;
        let pair = |line: &str| line.split_once(' ').map(|(id, name)| (name.to_owned(), id.to_owned()));
        Ok(text.lines().filter_map(pair).collect())
    }

    /// The commit that a branch, tag, full reference or hash names; `None` when there is none.
    pub(super) async fn resolve(&self, repository: &Repository, revision: &str) -> Result<Option<String>, GitError> {
        if !is_plain_revision(revision) {
            return Ok(None);
        }
        // A branch before a tag of the same name, as GitHub's API reads it.
        let spellings = [format!("refs/heads/{revision}"), format!("refs/{revision}"), revision.to_owned()];
        for spelling in spellings {
            let commit = format!("{spelling}^{{commit}}");
            let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit];
            match self.git.text(&repository.dir, &arguments).await {
                Ok(id) => return Ok(Some(id.trim().to_owned())),
                Err(GitError::Git { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>, GitError> {
    let entries = std::fs::read_dir(dir).map_err(GitError::file(dir))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Whether a text is a reference or hash, not an expression of gitrevisions(7).
fn is_plain_revision(text: &str) -> bool {
    let expression = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !text.is_empty() && text.len() <= 250 && !text.contains(expression) && !text.contains("..") && !text.contains("@{")
}

/// Whether a text can be a branch.
pub(super) fn check_branch(branch: &str) -> Result<(), GitError> {
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if is_plain_revision(branch)
        && !branch.starts_with('-')
        && !branch.ends_with('.')
        && !branch.split('/').any(bad_part)
    {
        return Ok(());
    }
    Err(GitError::invalid("branch", format!("{branch:?} is not the name of a branch")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_no_revisions() {
        for bad in ["main~1", "main^{tree}", ":/fix", "a..b", "main@{1}", "", "a b", "main:file"] {
            assert!(!is_plain_revision(bad), "{bad}");
        }
        for branch in ["-x", "a//b", ".a", "a.lock", "a/", "a."] {
            assert!(check_branch(branch).is_err(), "{branch}");
        }
        assert!(check_branch("feature/login").is_ok());
    }
}
