//! Image references, by the grammar of the `distribution/reference` project.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Registry used when a reference names none, as Docker does.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A parsed image reference: `registry/repository[:tag][@digest]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    /// Host and optional port.
    pub registry: String,
    /// Path below the registry, `library/` added for Docker Hub's short names.
    pub repository: String,
    /// Tag, if given.
    pub tag: Option<String>,
    /// `sha256:…`, if given.
    pub digest: Option<String>,
}

/// Why a text is not an image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid image reference {input:?}: {reason}")]
pub struct ImageRefError {
    /// The text.
    pub input: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ImageRef {
    /// Tag or digest to ask a registry for; `latest` when the reference names neither.
    pub fn manifest_reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// The same repository at another tag, without digest.
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// The same repository at a digest, without tag.
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }
}

fn path_component_ok(part: &str) -> bool {
    let bytes = part.as_bytes();
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            edge(first) && edge(last) && bytes.iter().all(|&b| edge(b) || matches!(b, b'.' | b'_' | b'-'))
        }
        _ => false,
    }
}

fn tag_ok(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 128
        && !matches!(bytes[0], b'.' | b'-')
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn digest_ok(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ImageRefError { input: input.to_owned(), reason };
        let (rest, digest) = match input.split_once('@') {
            Some((rest, digest)) if digest_ok(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(fail("the digest is not sha256 followed by 64 hex digits")),
            None => (input, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|t| !tag_ok(t)) {
            return Err(fail("the tag has a character outside [A-Za-z0-9_.-] or is too long"));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
                (host.to_owned(), rest.to_owned())
            }
            Some(_) => (DEFAULT_REGISTRY.to_owned(), path.to_owned()),
            None => (DEFAULT_REGISTRY.to_owned(), format!("library/{path}")),
        };
        if repository.len() > 255 || !repository.split('/').all(path_component_ok) {
            return Err(fail("the repository must be lower-case letters, digits and separators"));
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_docker_does() {
        for (input, want) in [
            ("nginx", "docker.io/library/nginx"),
            ("team/web:1", "docker.io/team/web:1"),
            ("shopacr.azurecr.io/web:v1", "shopacr.azurecr.io/web:v1"),
            ("localhost:5000/a/b", "localhost:5000/a/b"),
        ] {
            assert_eq!(input.parse::<ImageRef>().unwrap().to_string(), want);
        }
    }

    #[test]
    fn refuses_what_registries_refuse() {
        for input in ["", "UPPER/x", "a.io/../etc", "a.io/x:", "a.io/x@sha256:12", "a.io/x:-t"] {
            assert!(input.parse::<ImageRef>().is_err(), "{input}");
        }
    }
}
