//! Commits of a repository with what each changed.

use super::{
    GitError,
    repository::{Repositories, Repository},
};
use std::collections::HashMap;

/// Most commits that one push event lists (GitHub's number).
pub(super) const MAX_COMMITS: usize = 2048;
/// Most paths that are listed of one commit.
const MAX_PATHS: usize = 3000;
/// Object that a reference had which did not exist, or has which was deleted.
pub(super) const ZERO: &str = "0000000000000000000000000000000000000000";

/// Who wrote or committed, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub name: String,
    pub email: String,
    /// RFC 3339 with the person's offset.
    pub date: String,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub id: String,
    pub tree: String,
    pub parents: Vec<String>,
    pub author: Signature,
    pub committer: Signature,
    pub message: String,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub modified: Vec<String>,
}

impl Commit {
    /// First line of the message.
    pub(super) fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

/// One field a line, the message last; records end with NUL.
const FORMAT: &str = "--format=%H%n%T%n%P%n%an%n%ae%n%aI%n%cn%n%ce%n%cI%n%B";

impl Repositories {
    /// One commit with its changes.
    pub(super) async fn commit(&self, repository: &Repository, id: &str) -> Result<Commit, GitError> {
        let mut commits = self.log(repository, &["-n1", "--end-of-options", id]).await?;
        let missing = || GitError::Answer { command: format!("log {id}"), what: "no commit".into() };
        commits.pop().ok_or_else(missing)
    }

    /// Commits that a push brought to a reference, oldest first: those of `after` that are not of
    /// `before`, or, for a new reference, of none of `others`.
    pub(super) async fn pushed(
        &self,
        repository: &Repository,
        before: &str,
        after: &str,
        others: &[String],
    ) -> Result<Vec<Commit>, GitError> {
        let count = format!("-n{MAX_COMMITS}");
        let mut arguments = vec!["--reverse".to_owned(), count, "--end-of-options".to_owned(), after.to_owned()];
        match before == ZERO {
            true => arguments.extend(others.iter().filter(|o| *o != after).map(|other| format!("^{other}"))),
            false => arguments.push(format!("^{before}")),
        }
        if before == ZERO && others.iter().any(|other| other == after) {
            return Ok(Vec::new());
        }
        self.log(repository, &arguments).await
    }

    /// Whether `before` is an ancestor of `after`.
    pub(super) async fn is_ancestor(
        &self,
        repository: &Repository,
        before: &str,
        after: &str,
    ) -> Result<bool, GitError> {
        match self.git().output(&repository.dir, &["merge-base", "--is-ancestor", before, after]).await {
            Ok(_) => Ok(true),
            // 1 is "no", and says nothing.
            Err(GitError::Git { message, .. }) if message.is_empty() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn log(&self, repository: &Repository, arguments: &[impl AsRef<str>]) -> Result<Vec<Commit>, GitError> {
        let mut all = vec!["log", "-z", "--no-show-signature", "--encoding=UTF-8", FORMAT];
        all.extend(arguments.iter().map(AsRef::as_ref));
        let text = self.git().text(&repository.dir, &all).await?;
        let records = text.split('\0').filter(|record| !record.trim().is_empty());
        let mut commits = records.map(parse_commit).collect::<Result<Vec<_>, _>>()?;
        let mut changes = self.changes(repository, &commits).await?;
        for commit in &mut commits {
            for (status, path) in changes.remove(&commit.id).unwrap_or_default() {
                match status {
                    'A' => commit.added.push(path),
                    'D' => commit.removed.push(path),
                    _ => commit.modified.push(path),
                }
            }
        }
        Ok(commits)
    }

    /// Changed paths by commit, against the first parent.
    async fn changes(
        &self,
        repository: &Repository,
        commits: &[Commit],
    ) -> Result<HashMap<String, Vec<(char, String)>>, GitError> {
        let arguments = ["diff-tree", "--stdin", "-z", "-r", "--root", "--no-renames", "--name-status"];
        let first = |c: &Commit| match c.parents.first() {
            Some(parent) => format!("{} {parent}\n", c.id),
            None => format!("{}\n", c.id),
        };
        let input = commits.iter().map(first).collect::<String>().into_bytes();
        let output = self.git().answer(&repository.dir, &arguments, input).await?;
        Ok(parse_changes(&String::from_utf8_lossy(&output)))
    }
}

fn parse_commit(record: &str) -> Result<Commit, GitError> {
    let mut fields = record.trim_start_matches('\n').splitn(10, '\n');
    let mut next = || {
        let cut = || GitError::Answer { command: "log".into(), what: "a record is cut off".into() };
        fields.next().map(str::to_owned).ok_or_else(cut)
    };
    let (id, tree, parents) = (next()?, next()?, next()?);
    let author = Signature { name: next()?, email: next()?, date: next()? };
    let committer = Signature { name: next()?, email: next()?, date: next()? };
    let message = next()?.trim_end().to_owned();
    Ok(Commit {
        id,
        tree,
        parents: parents.split_ascii_whitespace().map(str::to_owned).collect(),
        author,
        committer,
        message,
        added: Vec::new(),
        removed: Vec::new(),
        modified: Vec::new(),
    })
}

/// Parses `HASH NUL (STATUS NUL PATH NUL)*`, repeated: a status is one letter, a hash is not.
fn parse_changes(text: &str) -> HashMap<String, Vec<(char, String)>> {
    let mut changes: HashMap<String, Vec<(char, String)>> = HashMap::new();
    let mut current = String::new();
    let mut tokens = text.split('\0').filter(|token| !token.is_empty());
    while let Some(token) = tokens.next() {
        let mut letters = token.chars();
        match (letters.next(), letters.next()) {
            (Some(status), None) => {
                let Some(path) = tokens.next() else { break };
                let paths = changes.entry(current.clone()).or_default();
                if paths.len() < MAX_PATHS {
                    paths.push((status, path.to_owned()));
                }
            }
            // With parents given, git prints "HASH PARENT".
            _ => current = token.split(' ').next().unwrap_or_default().trim().to_owned(),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_from_hashes() {
        let text = "1234567890\0A\0a b\0M\0D\0abcdef0123 99\0D\0x/y\0";
        let changes = parse_changes(text);
        assert_eq!(changes["1234567890"], [('A', "a b".to_owned()), ('M', "D".to_owned())]);
        assert_eq!(changes["abcdef0123"], [('D', "x/y".to_owned())]);
    }

    #[test]
    fn a_commit_record_is_read() {
        let record = "id\ntree\np1 p2\nAda\nada@x\n2026-01-01T00:00:00+01:00\nBob\nbob@x\n2026-01-01T00:00:01Z\nSubject\n\nBody\n";
        let commit = parse_commit(record).unwrap();
        assert_eq!((commit.subject(), commit.parents.len()), ("Subject", 2));
        assert_eq!(commit.message, "Subject\n\nBody");
        assert!(parse_commit("id\ntree\n").is_err());
    }
}
