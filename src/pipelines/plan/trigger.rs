//! Whether a push or a pull request starts a run.

use super::{Filter, Trigger};

impl Trigger {
    /// Whether a change of `reference` (`refs/heads/…`, `refs/tags/…`; for a pull request its target branch) that
    /// touches `changed_paths` (from the root of the repository) starts a run. No paths means they are not known,
    /// as for a new branch, and then path filters do not hold it back.
    pub fn matches(&self, reference: &str, changed_paths: &[String]) -> bool {
        if self.none {
            return false;
        }
        if let Some(tag) = reference.strip_prefix("refs/tags/") {
            // Tags start a run only when they are asked for.
            return !self.tags.include.is_empty() && self.tags.takes(&|pattern| names(pattern, "refs/tags/", tag));
        }
        let branch = reference.strip_prefix("refs/heads/").unwrap_or(reference);
        // Naming tags alone leaves branches out.
        let only_tags = self.branches.is_empty() && !self.tags.include.is_empty();
        if only_tags || !self.branches.takes(&|pattern| names(pattern, "refs/heads/", branch)) {
            return false;
        }
        let path_counts = |path: &String| self.paths.takes(&|pattern| below(pattern, path));
        self.paths.is_empty() || changed_paths.is_empty() || changed_paths.iter().any(path_counts)
    }
}

impl Filter {
    fn takes(&self, matches: &dyn Fn(&str) -> bool) -> bool {
        let included = self.include.is_empty() || self.include.iter().any(|pattern| matches(pattern));
        included && !self.exclude.iter().any(|pattern| matches(pattern))
    }
}

/// A branch or tag by its name or full reference.
fn names(pattern: &str, prefix: &str, name: &str) -> bool {
    wildcard(pattern.strip_prefix(prefix).unwrap_or(pattern), name)
}

/// A path, or anything below a folder.
fn below(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches('/').trim_end_matches('/');
    let path = path.trim_start_matches('/');
    pattern.is_empty() || wildcard(pattern, path) || wildcard(&format!("{pattern}/*"), path)
}

/// `*` is any text, `/` too; `?` is one character. Case counts, as in git.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == '?' || *c == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Filter { include: owned(include), exclude: owned(exclude) }
    }

    #[test]
    fn branches_paths_and_tags() {
        let trigger = Trigger {
            branches: filter(&["main", "releases/*"], &["releases/old*"]),
            paths: filter(&["src", "docs/*.md"], &["src/vendor"]),
            tags: filter(&["v*"], &["v0.*"]),
            ..Trigger::default()
        };
        let at = |reference: &str, paths: &[&str]| {
            trigger.matches(reference, &paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
        };
        assert!(at("refs/heads/main", &["src/a.rs"]));
        assert!(at("refs/heads/releases/1/x", &[]));
        assert!(!at("refs/heads/releases/old1", &["src/a.rs"]));
        assert!(!at("refs/heads/feature", &["src/a.rs"]));
        assert!(!at("refs/heads/main", &["src/vendor/a.rs", "srcs/x"]));
        assert!(at("refs/heads/main", &["docs/a.md"]));
        assert!(at("refs/tags/v1.0", &[]));
        assert!(!at("refs/tags/v0.9", &[]));
        assert!(!Trigger::default().matches("refs/tags/v1", &[]), "tags have to be asked for");
        assert!(Trigger::default().matches("refs/heads/any", &[]));
        assert!(!Trigger { none: true, ..Trigger::default() }.matches("refs/heads/main", &[]));
    }

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("a*b?c", "aXXbYc", true),
            ("*", "", true),
            ("a", "b", false),
            ("**/x", "a/b/x", true),
            ("a*", "ba", false),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
