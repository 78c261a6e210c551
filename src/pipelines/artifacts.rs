//! Published files of a run: `runs/ID/artifacts/NAME/…`.

use crate::store::record::RunRecord;
use std::{
    io,
    path::{Component, Path, PathBuf},
};

/// Why files could not be published or downloaded.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A name that is no folder's.
    #[error(
        "{0:?} is not a valid artifact name. It cannot contain '\\', '/', \"\\\"\", ':', '<', '>', '|', '*', and '?'"
    )]
    Name(String),
    /// There is none of that name.
    #[error("Artifact {0} was not found.")]
    NotFound(String),
    /// A file cannot be copied.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A name that stays in its folder.
///
/// # Errors
/// With what is wrong.
pub fn safe_name(name: &str) -> Result<&str, String> {
    let bad = name.is_empty()
        || name.len() > 200
        || name.starts_with('.')
        || name.contains(|c: char| "\\/\":<>|*?".contains(c) || c.is_control());
    if bad { Err(ArtifactError::Name(name.to_owned()).to_string()) } else { Ok(name) }
}

/// Folder of a published artifact of a run.
///
/// # Errors
/// [`ArtifactError::NotFound`].
pub fn folder(run: &RunRecord, name: &str) -> Result<PathBuf, ArtifactError> {
    let found = run.artifacts.iter().find(|a| a.name.eq_ignore_ascii_case(name));
    let folder = found.map(|a| PathBuf::from(&a.data)).filter(|f| f.is_dir());
    folder.ok_or_else(|| ArtifactError::NotFound(name.to_owned()))
}

/// Copies an attachment.
///
/// # Errors
/// For people.
pub fn attach(from: &Path, folder: &Path, name: &str) -> Result<(), String> {
    copy_file(from, &folder.join(safe_name(name)?)).map_err(|e| e.to_string())
}

/// Copies what `wanted` says of a folder, by path relative to it; the number of files. Links are followed
/// where they stay in the folder, and left out where they leave it.
///
/// # Errors
/// [`ArtifactError::File`].
pub fn copy_tree(from: &Path, to: &Path, wanted: impl Fn(&Path) -> bool) -> Result<usize, ArtifactError> {
    let root = from.canonicalize().map_err(file(from))?;
    let mut files = 0;
    make(to)?;
    for entry in walkdir::WalkDir::new(&root).follow_links(false) {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(&root).to_owned();
            ArtifactError::File { source: e.into(), path }
        })?;
        let relative = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        if entry.file_type().is_dir() || !wanted(relative) {
            continue;
        }
        if entry.file_type().is_symlink() {
            let inside = entry.path().canonicalize().is_ok_and(|target| target.starts_with(&root) && target.is_file());
            if !inside {
                continue;
            }
        }
        copy_file(entry.path(), &to.join(relative))?;
        files += 1;
    }
    Ok(files)
}

/// Copies a file, folders made as needed, permission bits kept.
///
/// # Errors
/// [`ArtifactError::File`].
pub fn copy_file(from: &Path, to: &Path) -> Result<(), ArtifactError> {
    debug_assert!(to.components().all(|c| c != Component::ParentDir));
    if let Some(parent) = to.parent() {
        make(parent)?;
    }
    std::fs::copy(from, to).map_err(file(from))?;
    Ok(())
}

fn make(folder: &Path) -> Result<(), ArtifactError> {
    std::fs::create_dir_all(folder).map_err(file(folder))
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> ArtifactError + use<> {
    let path = path.to_owned();
    move |source| ArtifactError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for bad in ["", "..", "a/b", "a\\b", ".git", "a\nb", "a*"] {
            assert!(safe_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(safe_name("drop 1.0"), Ok("drop 1.0"));
    }

    #[test]
    fn links_out_of_the_folder_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::write(from.join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("out")).unwrap();
        std::os::unix::fs::symlink("sub/file", from.join("in")).unwrap();
        assert_eq!(copy_tree(&from, &to, |_| true).unwrap(), 2);
        assert!(to.join("in").is_file() && !to.join("out").exists());
    }
}
