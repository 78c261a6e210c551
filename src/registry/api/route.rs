//! Paths of the distribution specification. A repository's name may hold slashes, so paths are read from their end.

use super::error::ApiError;
use crate::{
    auth::{Access, Action},
    name::{Digest, Reference, RepositoryName, Tag},
    storage::UploadId,
};
use http::Method;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`, `/acr/v1/_catalog`
    Catalog,
    /// `/oauth2/token`
    Token,
    /// `/oauth2/exchange`
    Exchange,
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest(RepositoryName, Reference),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(RepositoryName, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(RepositoryName),
    /// `/v2/NAME/blobs/uploads/ID`
    Upload(RepositoryName, UploadId),
    /// `/v2/NAME/tags/list`
    Tags(RepositoryName),
    /// `/v2/NAME/referrers/DIGEST`
    Referrers(RepositoryName, Digest),
    /// `/acr/v1/NAME`
    AcrRepository(RepositoryName),
    /// `/acr/v1/NAME/_tags`
    AcrTags(RepositoryName),
    /// `/acr/v1/NAME/_tags/TAG`
    AcrTag(RepositoryName, Tag),
    /// `/acr/v1/NAME/_manifests`
    AcrManifests(RepositoryName),
    /// `/acr/v1/NAME/_manifests/DIGEST`
    AcrManifest(RepositoryName, Digest),
}

impl Route {
    /// Reads a path.
    ///
    /// # Errors
    /// [`ApiError::NotFound`], or what is wrong with a name in it.
    pub fn parse(path: &str) -> Result<Self, ApiError> {
        // The one character of a valid name that some clients escape.
        let path = path.replace("%3A", ":").replace("%3a", ":");
        match path.as_str() {
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" | "/acr/v1/_catalog" => return Ok(Self::Catalog),
            "/oauth2/token" => return Ok(Self::Token),
            "/oauth2/exchange" => return Ok(Self::Exchange),
            _ => {}
        }
        if let Some(rest) = path.strip_prefix("/acr/v1/") {
            return Self::parse_acr(rest);
        }
        let rest = path.strip_prefix("/v2/").ok_or(ApiError::NotFound)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let name = |parts: &[&str]| parts.join("/").parse::<RepositoryName>();
        match parts.as_slice() {
            [n @ .., "blobs", "uploads", ""] | [n @ .., "blobs", "uploads"] if !n.is_empty() => {
                Ok(Self::Uploads(name(n)?))
            }
            [n @ .., "blobs", "uploads", id] if !n.is_empty() => {
                Ok(Self::Upload(name(n)?, id.parse().map_err(|_| ApiError::BlobUploadUnknown)?))
            }
            [n @ .., "blobs", digest] if !n.is_empty() => Ok(Self::Blob(name(n)?, digest.parse()?)),
            [n @ .., "manifests", reference] if !n.is_empty() => Ok(Self::Manifest(name(n)?, reference.parse()?)),
            [n @ .., "tags", "list"] if !n.is_empty() => Ok(Self::Tags(name(n)?)),
            [n @ .., "referrers", digest] if !n.is_empty() => Ok(Self::Referrers(name(n)?, digest.parse()?)),
            _ => Err(ApiError::NotFound),
        }
    }

    fn parse_acr(rest: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = rest.split('/').collect();
        let name = |parts: &[&str]| parts.join("/").parse::<RepositoryName>();
        Ok(match parts.as_slice() {
            [n @ .., "_tags"] => Self::AcrTags(name(n)?),
            [n @ .., "_tags", tag] => Self::AcrTag(name(n)?, tag.parse()?),
            [n @ .., "_manifests"] => Self::AcrManifests(name(n)?),
            [n @ .., "_manifests", digest] => Self::AcrManifest(name(n)?, digest.parse()?),
            n => Self::AcrRepository(name(n)?),
        })
    }

    /// Scope that a challenge for this path names. Asking whether a blob is there begins a push, and
    /// clients that keep their first token (oras for Python) need it to be good for the rest.
    /// Who may only pull is granted the part they may have.
    pub fn suggests(&self, method: &Method) -> Option<Access> {
        match self {
            Self::Blob(name, _) if *method == Method::HEAD => {
                Some(Access::repository(name, [Action::Pull, Action::Push]))
            }
            _ => self.needs(method),
        }
    }

    /// What a request for this path needs; `None` is anybody who is signed in.
    pub fn needs(&self, method: &Method) -> Option<Access> {
        let reading = matches!(*method, Method::GET | Method::HEAD);
        let on = |name, actions: &[Action]| Some(Access::repository(name, actions.iter().copied()));
        match self {
            Self::Base | Self::Token | Self::Exchange => None,
            Self::Catalog => Some(Access::catalog()),
            Self::Manifest(name, _) | Self::Blob(name, _) => match *method {
                Method::DELETE => on(name, &[Action::Delete]),
                _ if reading => on(name, &[Action::Pull]),
                _ => on(name, &[Action::Pull, Action::Push]),
            },
            // An upload's status and cancellation belong to the push.
            Self::Uploads(name) | Self::Upload(name, _) => on(name, &[Action::Pull, Action::Push]),
            Self::Tags(name) | Self::Referrers(name, _) => on(name, &[Action::Pull]),
            Self::AcrRepository(name)
            | Self::AcrTags(name)
            | Self::AcrTag(name, _)
            | Self::AcrManifests(name)
            | Self::AcrManifest(name, _) => match *method {
                Method::DELETE => on(name, &[Action::Delete]),
                _ => on(name, &[Action::MetadataRead]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_slashes_and_words_of_the_protocol() {
        let name = |n: &str| n.parse::<RepositoryName>().unwrap();
        assert_eq!(Route::parse("/v2/a/b/tags/list").unwrap(), Route::Tags(name("a/b")));
        assert_eq!(
            Route::parse("/v2/tags/manifests/list").unwrap(),
            Route::Manifest(name("tags"), "list".parse().unwrap())
        );
        assert_eq!(Route::parse("/v2/blobs/blobs/uploads/").unwrap(), Route::Uploads(name("blobs")));
        let digest = format!("sha256%3A{}", "a".repeat(64));
        assert!(matches!(Route::parse(&format!("/v2/a/blobs/{digest}")).unwrap(), Route::Blob(..)));
        assert!(matches!(Route::parse("/acr/v1/a/b/_tags").unwrap(), Route::AcrTags(_)));
    }

    #[test]
    fn nothing_leads_out_of_the_registry() {
        for path in [
            "/",
            "/v2x",
            "/v2/../../etc/passwd",
            "/v2/..%2f..%2fetc/manifests/x",
            "/v2/a/../b/tags/list",
            "/v2/_tags/tags/list",
            "/v2/a/blobs/sha256:../../x",
            "/v2/a/manifests/..",
            "/v2/a/blobs/uploads/../x",
            "/acr/v1/",
            "/acr/v1/..",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }
}
