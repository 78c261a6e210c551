//! Lists: tags, repositories, referrers.

use super::{
    Answer, ApiError, App, answer,
    manifests::{Document, OCI_INDEX, OCI_MANIFEST},
};
use crate::{
    auth::Fields,
    name::{Digest, Reference, RepositoryName},
    storage::StoredManifest,
};
use axum::{body::Body, response::IntoResponse};
use http::{HeaderName, StatusCode, header};
use serde_json::{Value, json};
use std::borrow::Cow;

/// A page of a sorted list.
pub(super) struct Page<T> {
    /// Its entries.
    pub(super) entries: Vec<T>,
    /// The last entry's key when more follow.
    pub(super) more: Option<String>,
}

/// Cuts the page that `n` and `last` ask for out of a list sorted by `key`.
pub(super) fn page<T>(all: Vec<T>, query: &Fields, key: impl Fn(&T) -> &str) -> Result<Page<T>, ApiError> {
    let limit = match query.get("n") {
        None => usize::MAX,
        Some(n) => n.parse().map_err(|_| ApiError::Unsupported(format!("n={n:?} is not a number")))?,
    };
    let begin = query.get("last").map_or(0, |last| all.partition_point(|e| key(e) <= last));
    let mut entries: Vec<T> = all.into_iter().skip(begin).take(limit.saturating_add(1)).collect();
    let cut = entries.len() > limit;
    entries.truncate(limit);
    let more = if cut { entries.last().map(|e| key(e).to_owned()) } else { None };
    Ok(Page { entries, more })
}

/// A JSON answer, with the link to the next page if there is one.
pub(super) fn paged(body: Value, path: &str, query: &Fields, more: Option<String>) -> http::Response<Body> {
    let mut response = axum::Json(body).into_response();
    if let Some(last) = more {
        let next: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("last", &last)
            .append_pair("n", query.get("n").unwrap_or_default())
            .finish();
        if let Ok(value) = format!("<{path}?{next}>; rel=\"next\"").parse() {
            response.headers_mut().insert(header::LINK, value);
        }
    }
    response
}

impl App {
    /// `GET /v2/_catalog`.
    pub(super) async fn catalog(&self, path: &str, query: &Fields) -> Answer {
        let all = self.blocking(|s| s.repositories()).await?;
        let page = page(all, query, RepositoryName::as_str)?;
        Ok(paged(json!({ "repositories": page.entries }), path, query, page.more))
    }

    /// `GET /v2/NAME/tags/list`.
    pub(super) async fn tags(&self, name: RepositoryName, path: &str, query: &Fields) -> Answer {
        let repository = name.clone();
        let (known, all) = self.blocking(move |s| Ok((s.is_known(&repository)?, s.tags(&repository)?))).await?;
        if !known {
            return Err(ApiError::NameUnknown(name.to_string()));
        }
        let page = page(all, query, |t| &t.tag)?;
        let tags: Vec<String> = page.entries.into_iter().map(|t| t.tag).collect();
        Ok(paged(json!({ "name": name, "tags": tags }), path, query, page.more))
    }

    /// `GET /v2/NAME/referrers/DIGEST`, with what older clients left under the fallback tag.
    pub(super) async fn referrers(&self, name: RepositoryName, subject: Digest, query: &Fields) -> Answer {
        let fallback = format!("sha256-{}", subject.hex());
        let (found, fallback) = self
            .blocking(move |s| {
                let fallback = match fallback.parse() {
                    Ok(tag) => s.manifest(&name, &Reference::Tag(tag))?,
                    Err(_) => None,
                };
                Ok((s.referrers(&name, &subject)?, fallback))
            })
            .await?;
        let mut descriptors: Vec<Value> = found.iter().map(descriptor).collect::<Result<_, _>>()?;
        let fallback = fallback.and_then(|f| Document::parse(&f.content).ok()).and_then(|d| d.manifests);
        for old in fallback.unwrap_or_default() {
            if !descriptors.iter().any(|d| d["digest"] == old["digest"]) {
                descriptors.push(old);
            }
        }
        let mut headers: Vec<(HeaderName, Cow<str>)> = vec![(header::CONTENT_TYPE, OCI_INDEX.into())];
        if let Some(wanted) = query.get("artifactType") {
            descriptors.retain(|d| d["artifactType"] == wanted);
            headers.push((HeaderName::from_static("oci-filters-applied"), "artifactType".into()));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors });
        Ok(answer(StatusCode::OK, headers, Body::from(index.to_string())))
    }
}

/// Descriptor of a referrer (specification 1.1, "Listing Referrers").
fn descriptor(manifest: &StoredManifest) -> Result<Value, ApiError> {
    let document = Document::parse(&manifest.content)?;
    let record = &manifest.record;
    let mut descriptor = json!({ "mediaType": record.media_type, "digest": record.digest, "size": record.size });
    // An image manifest without artifactType is of the type of its config.
    let of_config =
        || document.config.as_ref().filter(|_| record.media_type == OCI_MANIFEST).map(|c| c.media_type.clone());
    if let Some(artifact_type) = document.artifact_type.clone().or_else(of_config) {
        descriptor["artifactType"] = artifact_type.into();
    }
    if let Some(annotations) = document.annotations {
        descriptor["annotations"] = annotations.into();
    }
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_up() {
        let all: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let at = |q: &str| page(all.clone(), &Fields::parse(q.as_bytes()), String::as_str).unwrap();
        assert_eq!((at("").entries.len(), at("").more), (4, None));
        assert_eq!((at("n=2").entries, at("n=2").more), (vec!["a".into(), "b".into()], Some("b".into())));
        assert_eq!((at("n=2&last=b").entries, at("n=2&last=b").more), (vec!["c".into(), "d".into()], None));
        assert_eq!(at("last=bb").entries, vec!["c".to_owned(), "d".into()]);
        assert!(at("n=0").entries.is_empty());
        assert!(page(all.clone(), &Fields::parse(b"n=x"), String::as_str).is_err());
    }
}
