//! `CopyFiles@2`.

use super::{Task, glob::Patterns};
use crate::{
    agent::pool::remove_tree,
    artifacts,
    context::{StepContext, TaskError},
};
use async_trait::async_trait;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// `CopyFiles@2`: files by pattern from a folder to another.
pub struct CopyFiles;

#[async_trait]
impl Task for CopyFiles {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let from = step.input("SourceFolder").map_or_else(|| step.sources(), |f| step.path(f));
        let to = step.path(step.required("TargetFolder")?);
        if !from.is_dir() {
            return Err(TaskError::Failed(format!("Not found SourceFolder: {}", from.display())));
        }
        let lines = step.lines("Contents");
        let lines: Vec<&str> = if lines.is_empty() { vec!["**"] } else { lines.iter().map(String::as_str).collect() };
        let patterns = Patterns::parse(lines)?;
        if step.flag("CleanTargetFolder", false) {
            remove_tree(&to).map_err(|e| TaskError::file("clean", &to, &e))?;
        }
        let (flatten, overwrite) = (step.flag("flattenFolders", false), step.flag("OverWrite", false));
        let log =
            |path: &Path, target: &Path| step.log.write(&format!("Copying {} to {}", path.display(), target.display()));
        let files = matching(&from, &patterns);
        step.log.write(&format!("found {} files", files.len()));
        let mut taken = BTreeSet::new();
        for relative in files {
            let target = if flatten { to.join(relative.file_name().unwrap_or_default()) } else { to.join(&relative) };
            if target.exists() && !overwrite {
                step.log.write(&format!("File {} already exists at {}", relative.display(), target.display()));
                continue;
            }
            if !taken.insert(target.clone()) {
                return Err(TaskError::Failed(format!("two files would be {}", target.display())));
            }
            log(&from.join(&relative), &target);
            artifacts::copy_file(&from.join(&relative), &target).map_err(|e| TaskError::Failed(e.to_string()))?;
        }
        Ok(())
    }
}

fn matching(from: &Path, patterns: &Patterns) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(from).sort_by_file_name().into_iter().flatten();
    let files = entries.filter(|e| e.file_type().is_file());
    let relative = files.filter_map(|e| e.path().strip_prefix(from).ok().map(Path::to_owned));
    relative.filter(|p| patterns.matches(p)).collect()
}
