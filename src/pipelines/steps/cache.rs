//! `Cache@2`: a folder kept under a key, which may name files by their content.
//!
//! The cache is saved when the job ends well: `finish`, which the job calls, is the task's post step.

use super::{Task, glob};
use crate::{
    agent::pool::remove_tree,
    artifacts,
    context::{JobContext, PendingCache, StepContext, TaskError},
};
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// `Cache@2`.
pub struct Cache;

/// Marks an entry that is whole, and holds its key.
const KEY_FILE: &str = "key.txt";

#[async_trait]
impl Task for Cache {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let key = resolved(step, step.required("key")?)?;
        let path = step.path(step.required("path")?);
        step.log.write(&format!("Resolved to: {key}"));
        let root = root(step.job);
        let exact = entry(&root, &key);
        let mut hit = "false";
        let found = if exact.join(KEY_FILE).is_file() {
            hit = "true";
            Some(exact)
        } else {
            let mut found = None;
            for line in step.lines("restoreKeys") {
                let prefix = resolved(step, &line)?;
                found = newest_with(&root, &prefix);
                if found.is_some() {
                    hit = "inexact";
                    break;
                }
            }
            found
        };
        match found {
            Some(entry) => {
                let files = artifacts::copy_tree(&entry.join("content"), &path, |_| true)
                    .map_err(|e| TaskError::Failed(e.to_string()))?;
                step.log.write(&format!("Cache restored: {files} file(s) to {}", path.display()));
            }
            None => step.log.write("There is a cache miss."),
        }
        if hit != "true" {
            step.job.state.lock().caches.push(PendingCache { key, path });
        }
        if let Some(variable) = step.input("cacheHitVar") {
            step.set_variable(variable, hit, false, false, false).map_err(TaskError::Failed)?;
        }
        Ok(())
    }
}

/// Saves the caches that were missed.
pub fn finish(job: &JobContext) {
    let pending = std::mem::take(&mut job.state.lock().caches);
    for cache in pending {
        if let Err(error) = save(&root(job), &cache) {
            tracing::warn!(%error, key = cache.key, "a pipeline cache was not saved");
        }
    }
}

fn save(root: &Path, cache: &PendingCache) -> Result<(), String> {
    if !cache.path.exists() {
        return Err(format!("{} does not exist", cache.path.display()));
    }
    let to = entry(root, &cache.key);
    if to.join(KEY_FILE).is_file() {
        // Entries never change: the first one wins, as in Azure.
        return Ok(());
    }
    let temporary = root.join(format!(".{:016x}", rand::random::<u64>()));
    let copied = artifacts::copy_tree(&cache.path, &temporary.join("content"), |_| true).map_err(|e| e.to_string());
    let done = copied.and_then(|_| {
        std::fs::write(temporary.join(KEY_FILE), &cache.key).map_err(|e| e.to_string())?;
        remove_tree(&to).map_err(|e| e.to_string())?;
        std::fs::rename(&temporary, &to).map_err(|e| e.to_string())
    });
    if done.is_err() {
        let _ = remove_tree(&temporary);
    }
    done
}

fn root(job: &JobContext) -> PathBuf {
    job.run.engine.config.state_dir.join("caches")
}

fn entry(root: &Path, key: &str) -> PathBuf {
    root.join(&hex::encode(Sha256::digest(key))[..40])
}

/// The newest entry whose key begins with the segments of `prefix`.
fn newest_with(root: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root).ok()?.flatten().filter_map(|entry| {
        let file = entry.path().join(KEY_FILE);
        let key = std::fs::read_to_string(&file).ok()?;
        let whole = key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('|'));
        let time = std::fs::metadata(&file).ok()?.modified().ok()?;
        whole.then(|| (time, entry.path()))
    });
    entries.max_by_key(|(time, _)| *time).map(|(_, path)| path)
}

/// Whether the agent takes a segment of a key for paths or patterns: it is not quoted and has a dot or a slash, the
/// dot not as its end. A file that is not there must not become a text that never changes.
fn names_files(segment: &str) -> bool {
    let quoted = segment.len() > 1 && segment.starts_with('"') && segment.ends_with('"');
    !quoted && segment.contains(['.', '/']) && !segment.ends_with('.')
}

/// A key with its segments resolved: `"text"`, `Agent.OS`, and files by the hash of their content.
fn resolved(step: &StepContext<'_>, key: &str) -> Result<String, TaskError> {
    let mut segments = Vec::new();
    for segment in key.split('|').map(str::trim).filter(|s| !s.is_empty()) {
        if !names_files(segment) {
            segments.push(segment.trim_matches('"').to_owned());
            continue;
        }
        let patterns: Vec<String> = segment.split(',').map(|p| p.trim().to_owned()).collect();
        let files = glob::find(&step.sources(), &patterns)?;
        if files.is_empty() {
            return Err(TaskError::Failed(format!("No matching files found for pattern: {segment}")));
        }
        let mut hash = Sha256::new();
        for file in files {
            let content = std::fs::read(&file).map_err(|e| TaskError::file("read", &file, &e))?;
            let name = file.strip_prefix(step.sources()).unwrap_or(&file).display().to_string();
            hash.update(format!("{name}\0{}\0", content.len()));
            hash.update(&content);
        }
        segments.push(hex::encode(hash.finalize()));
    }
    if segments.is_empty() {
        return Err(TaskError::Failed("The cache key is empty.".into()));
    }
    Ok(segments.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_texts_or_files() {
        for text in ["npm", "\"a/b.c\"", "Linux", "two words", "The end."] {
            assert!(!names_files(text), "{text}");
        }
        for files in ["package.json", "a/b", "**/*.lock", "a.lock, b.lock", "**/go.sum, !vendor/**"] {
            assert!(names_files(files), "{files}");
        }
    }

    #[test]
    fn a_prefix_is_of_whole_segments_and_the_newest_wins() {
        let root = tempfile::tempdir().unwrap();
        let keep = |key: &str, age: u64| {
            let folder = entry(root.path(), key);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(KEY_FILE), key).unwrap();
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            std::fs::File::options().write(true).open(folder.join(KEY_FILE)).unwrap().set_modified(time).unwrap();
            folder
        };
        let old = keep("npm|Linux|1", 20);
        let new = keep("npm|Linux|2", 10);
        keep("npm|LinuxArm|3", 0);
        assert_eq!(newest_with(root.path(), "npm|Linux"), Some(new));
        assert_eq!(newest_with(root.path(), "npm|Linux|1"), Some(old));
        assert_eq!(newest_with(root.path(), "yarn"), None);
    }
}
