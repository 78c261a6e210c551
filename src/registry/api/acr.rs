//! ACR's own metadata interface, `/acr/v1`: what `az acr repository` and `az acr manifest` ask.

use super::{Answer, ApiError, App, answer, listing};
use crate::{
    auth::Fields,
    name::{Digest, Reference, RepositoryName, Tag},
    storage::{ManifestRecord, TagRecord},
};
use axum::{body::Body, response::IntoResponse};
use http::StatusCode;
use serde_json::{Value, json};

/// Nothing can be locked here yet, so everything may be changed.
fn attributes() -> Value {
    json!({ "deleteEnabled": true, "writeEnabled": true, "readEnabled": true, "listEnabled": true })
}

fn tag_json(tag: &TagRecord) -> Value {
    json!({
        "name": tag.tag,
        "digest": tag.digest,
        "createdTime": tag.updated.to_string(),
        "lastUpdateTime": tag.updated.to_string(),
        "signed": false,
        "changeableAttributes": attributes(),
    })
}

fn manifest_json(record: &ManifestRecord, tags: &[TagRecord]) -> Value {
    let names: Vec<&str> = tags.iter().filter(|t| t.digest == record.digest).map(|t| t.tag.as_str()).collect();
    json!({
        "digest": record.digest,
        "imageSize": record.image_size,
        "createdTime": record.created.to_string(),
        "lastUpdateTime": record.created.to_string(),
        "mediaType": record.media_type,
        "tags": names,
        "changeableAttributes": attributes(),
    })
}

impl App {
    async fn contents(&self, name: &RepositoryName) -> Result<(Vec<ManifestRecord>, Vec<TagRecord>), ApiError> {
        let repository = name.clone();
        let (manifests, tags) =
            self.blocking(move |s| Ok((s.manifest_records(&repository)?, s.tags(&repository)?))).await?;
        if manifests.is_empty() {
            return Err(ApiError::NameUnknown(name.to_string()));
        }
        Ok((manifests, tags))
    }

    fn acr_answer(&self, name: &RepositoryName, key: &str, value: Value) -> Answer {
        let body = json!({ "registry": self.login_server, "imageName": name, key: value });
        Ok(axum::Json(body).into_response())
    }

    /// `GET /acr/v1/NAME`.
    pub(super) async fn acr_repository(&self, name: RepositoryName) -> Answer {
        let (manifests, tags) = self.contents(&name).await?;
        let created = manifests.iter().map(|m| m.created).min().unwrap_or_default();
        let updated = manifests.iter().map(|m| m.created).chain(tags.iter().map(|t| t.updated)).max();
        let body = json!({
            "registry": self.login_server,
            "imageName": name,
            "createdTime": created.to_string(),
            "lastUpdateTime": updated.unwrap_or(created).to_string(),
            "manifestCount": manifests.len(),
            "tagCount": tags.len(),
            "changeableAttributes": attributes(),
        });
        Ok(axum::Json(body).into_response())
    }

    /// `DELETE /acr/v1/NAME`.
    pub(super) async fn acr_delete_repository(&self, name: RepositoryName) -> Answer {
        let (manifests, tags) = self.contents(&name).await?;
        self.blocking(move |s| s.delete_repository(&name)).await?;
        let digests: Vec<Digest> = manifests.into_iter().map(|m| m.digest).collect();
        let tags: Vec<String> = tags.into_iter().map(|t| t.tag).collect();
        let body = json!({ "manifestsDeleted": digests, "tagsDeleted": tags });
        Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
    }

    /// `GET /acr/v1/NAME/_tags`.
    pub(super) async fn acr_tags(&self, name: RepositoryName, query: &Fields) -> Answer {
        let (_, tags) = self.contents(&name).await?;
        let page = listing::page(tags, query, |t| &t.tag)?;
        let body = json!({
            "registry": self.login_server,
            "imageName": name,
            "tags": page.entries.iter().map(tag_json).collect::<Vec<_>>(),
        });
        Ok(listing::paged(body, &format!("/acr/v1/{name}/_tags"), query, page.more))
    }

    /// `GET /acr/v1/NAME/_tags/TAG`.
    pub(super) async fn acr_tag(&self, name: RepositoryName, tag: Tag) -> Answer {
        let (_, tags) = self.contents(&name).await?;
        let found = tags.iter().find(|t| t.tag == tag.as_str());
        let found = found.ok_or_else(|| ApiError::ManifestUnknown(tag.to_string()))?;
        self.acr_answer(&name, "tag", tag_json(found))
    }

    /// `DELETE /acr/v1/NAME/_tags/TAG`: untag.
    pub(super) async fn acr_untag(&self, name: RepositoryName, tag: Tag) -> Answer {
        let wanted = tag.clone();
        match self.blocking(move |s| s.delete_tag(&name, &wanted)).await? {
            true => Ok(answer(StatusCode::ACCEPTED, [], Body::empty())),
            false => Err(ApiError::ManifestUnknown(tag.to_string())),
        }
    }

    /// `GET /acr/v1/NAME/_manifests`.
    pub(super) async fn acr_manifests(&self, name: RepositoryName, query: &Fields) -> Answer {
        let (manifests, tags) = self.contents(&name).await?;
        let page = listing::page(manifests, query, |m| m.digest.as_str())?;
        let body = json!({
            "registry": self.login_server,
            "imageName": name,
            "manifests": page.entries.iter().map(|m| manifest_json(m, &tags)).collect::<Vec<_>>(),
        });
        Ok(listing::paged(body, &format!("/acr/v1/{name}/_manifests"), query, page.more))
    }

    /// `GET /acr/v1/NAME/_manifests/DIGEST`.
    pub(super) async fn acr_manifest(&self, name: RepositoryName, digest: Digest) -> Answer {
        let (manifests, tags) = self.contents(&name).await?;
        let found = manifests.iter().find(|m| m.digest == digest);
        let found = found.ok_or_else(|| ApiError::ManifestUnknown(Reference::Digest(digest).to_string()))?;
        self.acr_answer(&name, "manifest", manifest_json(found, &tags))
    }
}
