//! `.dockerignore`: which files of the context are not there for the build.

use regex::Regex;

/// Why a pattern cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(".dockerignore line {line}: {pattern:?} is not a pattern")]
pub struct PatternError {
    /// Line, from 1.
    pub line: usize,
    /// The pattern.
    pub pattern: String,
}

/// The patterns of a `.dockerignore`, or of `--exclude`.
#[derive(Debug, Default)]
pub struct IgnoreFile {
    patterns: Vec<(Regex, bool)>,
}

impl IgnoreFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line_text = line.trim();
            if line.starts_with('#') || line_text.is_empty() {
                continue;
            }
            let (keep, pattern) = match line_text.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line_text),
            };
            let pattern = super::tree::clean(pattern);
            let error = || PatternError { line: number + 1, pattern: line_text.to_owned() };
            if pattern.is_empty() {
                // `.` and `/` are no pattern, and stand for nothing at Docker.
                continue;
            }
            patterns.push((Regex::new(&to_regex(&pattern)).map_err(|_| error())?, keep));
        }
        Ok(Self { patterns })
    }

    /// Whether a clean path is left out: the last pattern that fits it, or a folder above it, decides.
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for (pattern, keep) in &self.patterns {
            if ignored == *keep && fits(pattern, path) {
                ignored = !keep;
            }
        }
        ignored
    }

    /// Whether something below an ignored folder may come back.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(_, keep)| *keep)
    }
}

fn fits(pattern: &Regex, path: &str) -> bool {
    let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
    folders.chain([path]).any(|p| pattern.is_match(p))
}

/// A pattern as a regular expression: Go's `filepath.Match`, and `**` for any number of folders.
pub fn to_regex(pattern: &str) -> String {
    let mut out = String::from("(?s)^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                    out.push_str("(?:.*/)?");
                } else {
                    out.push_str(".*");
                }
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' => {
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                for inner in chars.by_ref() {
                    match inner {
                        ']' => break,
                        '[' | '&' | '~' => out.extend(['\\', inner]),
                        inner => out.push(inner),
                    }
                }
                out.push(']');
            }
            '\\' => out.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_docker_s() {
        let file = IgnoreFile::parse(
            "# comment\n*/temp*\n*.md\n!README.md\n**/target\n/dist/\nsecrets/**\n!secrets/public\na?c\n[xy]z\n",
        )
        .unwrap();
        for (path, ignored) in [
            ("one/temporary.txt", true),
            ("one/two/temporary.txt", false),
            ("notes.md", true),
            ("docs/notes.md", false),
            ("README.md", false),
            ("target", true),
            ("a/b/target/debug/x", true),
            ("dist/x", true),
            ("secrets/key", true),
            ("secrets/public", false),
            ("abc", true),
            ("abbc", false),
            ("xz", true),
            ("src/main.rs", false),
        ] {
            assert_eq!(file.ignores(path), ignored, "{path}");
        }
        assert!(file.has_exceptions());
    }

    #[test]
    fn everything_but() {
        let file = IgnoreFile::parse("*\n!bin\n").unwrap();
        assert!(file.ignores("src/main.rs") && !file.ignores("bin/web"));
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_panics(text in "[!a*?\\[\\]^\\-/.\\\\\n]{0,20}", path in "[a/.]{0,9}") {
            if let Ok(file) = IgnoreFile::parse(&text) {
                file.ignores(&path);
            }
        }
    }
}
