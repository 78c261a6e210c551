//! Protected branches: rules, and the `pre-receive` hook that holds pushes to them.
//!
//! The hook is this program, found by git under the name `pre-receive` in the folder of hooks:
//! no shell takes part. It sees the pushed objects before they are taken in, so that a forced
//! push can be told from an ordinary one. Whatever it cannot find out refuses the push.

use super::{
    GitError,
    history::ZERO,
    statuses::{self, StatusState},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Variable that tells the hook its rules, as JSON.
const VARIABLE: &str = "AKSIM_GIT_PRE_RECEIVE";
/// Name git calls the hook by.
const HOOK: &str = "pre-receive";
/// Most that is read of the list of updates, bytes.
const MAX_UPDATES: u64 = 16 << 20;

/// What may not happen to branches: no forced push, no deletion, and no commit without the
/// statuses that are required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BranchRule {
    /// Branch, or a pattern in which `*` stands for anything but `/`.
    pub pattern: String,
    /// Contexts whose newest status must be `success` on a commit before the branch may get it.
    /// Making the branch is exempt.
    #[serde(default)]
    pub required_contexts: Vec<String>,
}

impl BranchRule {
    /// A rule without required statuses.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self { pattern: pattern.into(), required_contexts: Vec::new() }
    }

    /// Whether the rule is about a branch.
    pub fn covers(&self, branch: &str) -> bool {
        matches(self.pattern.as_bytes(), branch.as_bytes())
    }
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if matches(rest, text) => true,
        (Some((b'*', _)), Some((c, after))) => *c != b'/' && matches(pattern, after),
        (Some((p, rest)), Some((c, after))) => p == c && matches(rest, after),
        _ => false,
    }
}

/// What the hook is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    git: PathBuf,
    statuses: PathBuf,
    rules: Vec<BranchRule>,
}

/// Variable and value that tell the hook of one push its rules.
pub(super) fn order(git: &Path, statuses: &Path, rules: &[BranchRule]) -> (&'static str, String) {
    let order = Order { git: git.to_owned(), statuses: statuses.to_owned(), rules: rules.to_vec() };
    // Paths that are not UTF-8 have no JSON form: the empty order refuses every push.
    (VARIABLE, serde_json::to_string(&order).unwrap_or_default())
}

/// Puts this program into the folder of hooks.
pub(super) fn install(hooks: &Path, exe: &Path) -> Result<(), GitError> {
    let link = hooks.join(HOOK);
    if std::fs::read_link(&link).is_ok_and(|target| target == exe) {
        return Ok(());
    }
    super::records::remove(&link)?;
    std::os::unix::fs::symlink(exe, &link).map_err(GitError::file(&link))
}

/// Whether the hook can run: git skips one that it does not find.
pub(super) fn check_installed(hooks: &Path) -> Result<(), GitError> {
    let link = hooks.join(HOOK);
    link.metadata().map(drop).map_err(GitError::file(&link))
}

/// Runs the hook, if this process was started by git as one; returns its exit code.
pub fn run_hook(arguments: &[OsString]) -> Option<i32> {
    let name = Path::new(arguments.first()?).file_name()?;
    if name != HOOK {
        return None;
    }
    let mut updates = String::new();
    let read = std::io::stdin().lock().take(MAX_UPDATES).read_to_string(&mut updates);
    let order = std::env::var(VARIABLE).ok().and_then(|json| serde_json::from_str::<Order>(&json).ok());
    let refusals = match (read, order) {
        (Ok(_), Some(order)) => updates.lines().flat_map(|line| refusals(&order, line)).collect(),
        _ => vec!["the rules of this repository are not known".to_owned()],
    };
    let mut stderr = std::io::stderr().lock();
    for refusal in &refusals {
        // The client may be gone; the exit code is what counts.
        let _ = writeln!(stderr, "error: {refusal}");
    }
    Some(i32::from(!refusals.is_empty()))
}

/// Why one update, `OLD NEW REF`, is refused; empty when it is not.
fn refusals(order: &Order, line: &str) -> Vec<String> {
    let mut parts = line.split(' ');
    let (Some(old), Some(new), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return vec![format!("cannot read the update {line:?}")];
    };
    let Some(branch) = name.strip_prefix("refs/heads/") else { return Vec::new() };
    let rules: Vec<&BranchRule> = order.rules.iter().filter(|rule| rule.covers(branch)).collect();
    if rules.is_empty() || old == ZERO {
        return Vec::new();
    }
    let mut why = Vec::new();
    if new == ZERO {
        why.push("Cannot delete this branch".to_owned());
    } else {
        match is_ancestor(&order.git, old, new) {
            Ok(true) => {}
            Ok(false) => why.push("Cannot force-push to this branch".to_owned()),
            Err(error) => why.push(format!("Cannot compare {old} with {new}: {error}")),
        }
        let contexts = rules.iter().flat_map(|rule| &rule.required_contexts);
        why.extend(contexts.filter_map(|context| unmet(&order.statuses, new, context)));
    }
    if !why.is_empty() {
        why.insert(0, format!("GH006: Protected branch update failed for {name}."));
    }
    why
}

fn unmet(statuses: &Path, sha: &str, context: &str) -> Option<String> {
    match statuses::newest(statuses, sha, context) {
        Ok(Some(StatusState::Success)) => None,
        Ok(Some(StatusState::Pending)) => Some(format!("Required status check \"{context}\" is pending.")),
        Ok(Some(_)) => Some(format!("Required status check \"{context}\" is failing.")),
        Ok(None) => Some(format!("Required status check \"{context}\" is expected.")),
        Err(error) => Some(format!("Required status check \"{context}\" cannot be read: {error}")),
    }
}

/// git's environment is that of the hook: it reaches the objects that wait to be taken in.
fn is_ancestor(git: &Path, old: &str, new: &str) -> std::io::Result<bool> {
    let mut command = Command::new(git);
    let status = command.args(["merge-base", "--is-ancestor", old, new]).stdin(Stdio::null()).status()?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(std::io::Error::other(format!("git merge-base: {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_branches() {
        let covers = |pattern: &str, branch: &str| BranchRule::new(pattern).covers(branch);
        assert!(covers("main", "main") && !covers("main", "main2") && !covers("main", "x/main"));
        assert!(covers("release/*", "release/1.0") && !covers("release/*", "release/1/x"));
        assert!(covers("*", "main") && !covers("*", "a/b") && covers("*-stable", "v1-stable"));
    }

    #[test]
    fn unreadable_updates_and_deletions_are_refused() {
        let rules = vec![BranchRule::new("main")];
        let order = Order { git: "/nonexistent/git".into(), statuses: "/nonexistent".into(), rules };
        let one = "1".repeat(40);
        assert_eq!(refusals(&order, "x").len(), 1);
        assert!(refusals(&order, &format!("{ZERO} {one} refs/heads/main")).is_empty());
        assert!(refusals(&order, &format!("{one} {ZERO} refs/heads/topic")).is_empty());
        let deletion = refusals(&order, &format!("{one} {ZERO} refs/heads/main"));
        assert!(deletion[0].starts_with("GH006") && deletion[1].contains("delete"), "{deletion:?}");
        // Without git nothing can be found out, and that refuses.
        assert!(!refusals(&order, &format!("{one} {one} refs/heads/main")).is_empty());
    }
}
