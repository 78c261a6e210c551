//! Patterns of tasks: several lines, `**`, `*`, `?`, `[ ]`, `{ }`, lines with `!` take away again.

use crate::context::TaskError;
use globset::{GlobBuilder, GlobMatcher};
use std::path::{Component, Path, PathBuf};

/// Patterns of one input.
pub struct Patterns {
    rules: Vec<(bool, GlobMatcher)>,
}

impl Patterns {
    /// Reads lines of patterns; `./` at the beginning is left away.
    ///
    /// # Errors
    /// With the line that is no pattern.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, TaskError> {
        let mut rules = Vec::new();
        for line in lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keep, pattern) = line.strip_prefix('!').map_or((true, line), |rest| (false, rest));
            let pattern = pattern.trim_start_matches("./");
            let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
            let glob = glob.map_err(|e| TaskError::Failed(format!("pattern '{pattern}': {e}")))?;
            rules.push((keep, glob.compile_matcher()));
        }
        Ok(Self { rules })
    }

    /// Whether a path counts: the last line that matches it decides.
    pub fn matches(&self, path: &Path) -> bool {
        self.rules.iter().rev().find(|(_, glob)| glob.is_match(path)).is_some_and(|(keep, _)| *keep)
    }
}

/// Files below `root` that the lines name, in order; a line without wildcards is that file or folder, absolute or not.
///
/// # Errors
/// With what is wrong with a pattern.
pub fn find(root: &Path, lines: &[String]) -> Result<Vec<PathBuf>, TaskError> {
    let mut found: Vec<PathBuf> = Vec::new();
    let relative = |line: &str| {
        let negated = line.starts_with('!');
        let bare = line.trim_start_matches('!');
        let bare = Path::new(bare).strip_prefix(root).map_or_else(|_| bare.to_owned(), |p| p.display().to_string());
        if negated { format!("!{bare}") } else { bare }
    };
    let lines: Vec<String> = lines.iter().map(|l| relative(l.trim())).collect();
    let wild = |line: &str| line.contains(['*', '?', '[', '{', '!']);
    for line in lines.iter().filter(|l| !wild(l)) {
        let path = root.join(line);
        if path.exists() && !found.contains(&path) {
            found.push(path);
        }
    }
    let patterns = Patterns::parse(lines.iter().map(String::as_str))?;
    if lines.iter().any(|l| wild(l)) {
        let entries = walkdir::WalkDir::new(root).sort_by_file_name();
        let git = |e: &walkdir::DirEntry| e.file_name() == ".git" && e.depth() == 1;
        for entry in entries.into_iter().filter_entry(|e| !git(e)).flatten() {
            let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
            if entry.file_type().is_file() && patterns.matches(below) && !found.iter().any(|f| f == entry.path()) {
                found.push(entry.path().to_owned());
            }
        }
    }
    Ok(found)
}

/// A path below `root` that does not leave it.
///
/// # Errors
/// When it does.
pub fn inside(root: &Path, relative: &str) -> Result<PathBuf, TaskError> {
    let mut path = root.to_owned();
    for part in Path::new(relative).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(TaskError::Failed(format!("'{relative}' leaves {}", root.display()))),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_decides() {
        let patterns = Patterns::parse(["**/*.yaml", "!**/secret*", "./k8s/secret-ok.yaml"]).unwrap();
        for (path, wanted) in [
            ("a/b.yaml", true),
            ("b.yaml", true),
            ("a/secret.yaml", false),
            ("k8s/secret-ok.yaml", true),
            ("a.yml", false),
        ] {
            assert_eq!(patterns.matches(Path::new(path)), wanted, "{path}");
        }
        assert!(Patterns::parse(["a[", ""]).is_err());
    }

    #[test]
    fn files_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["k8s/b.yaml", "k8s/a.yaml", ".git/c.yaml", "Dockerfile"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let names = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
            let found = find(dir.path(), &lines).unwrap();
            found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["**/*.yaml"]), ["k8s/a.yaml", "k8s/b.yaml"]);
        assert_eq!(names(&["Dockerfile", "**/Dockerfile"]), ["Dockerfile"]);
        assert_eq!(names(&[&dir.path().join("k8s/a.yaml").display().to_string()]), ["k8s/a.yaml"]);
        assert!(inside(dir.path(), "../x").is_err());
    }
}
