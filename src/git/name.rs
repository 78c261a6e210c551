//! Names of organizations and repositories, as GitHub takes them.

use std::{fmt, str::FromStr};

/// Longest name, characters (GitHub: 100).
const MAX_NAME: usize = 100;

/// A name is not one of a repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a repository name ORGANIZATION/REPOSITORY: {why}")]
pub struct NameError {
    /// What was given.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// `ORGANIZATION/REPOSITORY`, both checked: no path of the file system can be made of it other
/// than one two levels below a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName {
    organization: String,
    name: String,
}

impl RepositoryName {
    /// From its two halves; `.git` at the end of the second is dropped.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(organization: &str, name: &str) -> Result<Self, NameError> {
        let name = name.strip_suffix(".git").unwrap_or(name);
        let refused = |why| NameError { name: format!("{organization}/{name}"), why };
        for part in [organization, name] {
            check(part).map_err(refused)?;
        }
        Ok(Self { organization: organization.to_owned(), name: name.to_owned() })
    }

    /// The organization.
    pub fn organization(&self) -> &str {
        &self.organization
    }

    /// The repository's own name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn check(part: &str) -> Result<(), &'static str> {
    if part.is_empty() || part.len() > MAX_NAME {
        return Err("each part has 1 to 100 characters");
    }
    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err("letters, digits, `-`, `_` and `.` only");
    }
    if part.starts_with(['.', '-']) || part.ends_with('.') {
        return Err("no part begins with `.` or `-`, or ends with `.`");
    }
    if part.ends_with(".git") || part.ends_with(".lock") {
        return Err("no part ends with `.git` or `.lock`");
    }
    Ok(())
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organization, self.name)
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((organization, name)) = text.split_once('/') else {
            return Err(NameError { name: text.to_owned(), why: "a `/` is missing" });
        };
        Self::new(organization, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for bad in
            ["a", "a/..", "../b", "a/b/c", "a/%2e%2e", "a/.git", "a/b c", "a/", "/b", "a/b.lock", "a/-x", "a/b\0"]
        {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
        let good: RepositoryName = "contoso/shop.web.git".parse().unwrap();
        assert_eq!(good.to_string(), "contoso/shop.web");
    }
}
