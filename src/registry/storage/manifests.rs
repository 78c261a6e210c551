//! Manifests, tags and referrers of a repository.

use super::{Storage, StorageError, io_error, names_in, present, remove};
use crate::name::{Digest, Reference, RepositoryName, Tag};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a repository keeps of a manifest besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestRecord {
    /// Of the manifest's bytes.
    pub digest: Digest,
    /// As it was pushed.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// Manifest that it refers to (specification 1.1, "subject").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// Blobs and manifests that it cannot do without.
    pub needs: Vec<Digest>,
    /// Bytes of all that it needs, as ACR's metadata tells it.
    pub image_size: u64,
    /// When it was first pushed here.
    pub created: Timestamp,
}

/// A manifest with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its record.
    pub record: ManifestRecord,
    /// Its bytes as they were pushed.
    pub content: Vec<u8>,
}

/// A tag and when it was last moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// Name.
    pub tag: String,
    /// What it names.
    pub digest: Digest,
    /// When it was last set.
    pub updated: Timestamp,
}

impl Storage {
    fn record_path(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository(name).join("_manifests").join(digest.hex())
    }

    fn tag_path(&self, name: &RepositoryName, tag: &Tag) -> PathBuf {
        self.repository(name).join("_tags").join(tag.as_str())
    }

    fn referrer_path(&self, name: &RepositoryName, subject: &Digest, digest: &Digest) -> PathBuf {
        self.repository(name).join("_referrers").join(subject.hex()).join(digest.hex())
    }

    /// Stores a manifest, tagged if `tag` is given. Returns the first digest that it needs and
    /// the repository lacks; nothing is stored then.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn put_manifest(
        &self,
        name: &RepositoryName,
        mut record: ManifestRecord,
        content: &[u8],
        tag: Option<&Tag>,
    ) -> Result<Option<Digest>, StorageError> {
        let _linking = self.sweep.read();
        for needed in &record.needs {
            let linked = self.link_path(name, needed).exists() || self.record_path(name, needed).exists();
            if !linked || self.renew(needed)?.is_none() {
                return Ok(Some(needed.clone()));
            }
        }
        if self.renew(&record.digest)?.is_none() {
            self.write(&self.blob_path(&record.digest), content)?;
            // Its age by the clock, not by the kernel's coarser tick, which may lie before a sweep's start.
            self.renew(&record.digest)?;
        }
        if let Some(subject) = &record.subject {
            self.write(&self.referrer_path(name, subject, &record.digest), b"")?;
        }
        if let Some(before) = self.record(name, &record.digest)? {
            record.created = before.created;
        }
        let path = self.record_path(name, &record.digest);
        let json = serde_json::to_vec(&record).map_err(|e| io_error("encode", &path)(e.into()))?;
        self.write(&path, &json)?;
        if let Some(tag) = tag {
            self.write(&self.tag_path(name, tag), record.digest.as_str().as_bytes())?;
        }
        Ok(None)
    }

    /// Record of a manifest, `None` when the repository has none such.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn record(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<ManifestRecord>, StorageError> {
        read_record(&self.record_path(name, digest))
    }

    /// All manifests of a repository, by digest.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn manifest_records(&self, name: &RepositoryName) -> Result<Vec<ManifestRecord>, StorageError> {
        let dir = self.repository(name).join("_manifests");
        let records = names_in(&dir)?.into_iter().map(|hex| read_record(&dir.join(hex)));
        records.filter_map(Result::transpose).collect()
    }

    /// Digest that a tag names.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn resolve(&self, name: &RepositoryName, reference: &Reference) -> Result<Option<Digest>, StorageError> {
        let tag = match reference {
            Reference::Digest(digest) => return Ok(Some(digest.clone())),
            Reference::Tag(tag) => tag,
        };
        let path = self.tag_path(name, tag);
        let Some(text) = present(std::fs::read_to_string(&path)).map_err(io_error("read", &path))? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|e| StorageError::Corrupt { path, reason: format!("{e}") })
    }

    /// A manifest with its bytes, by tag or digest.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, StorageError> {
        let Some(digest) = self.resolve(name, reference)? else { return Ok(None) };
        let Some(record) = self.record(name, &digest)? else { return Ok(None) };
        let path = self.blob_path(&digest);
        let content = present(std::fs::read(&path)).map_err(io_error("read", &path))?;
        Ok(content.map(|content| StoredManifest { record, content }))
    }

    /// Removes a manifest and the tags that name it; whether it was there.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn delete_manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StorageError> {
        let Some(record) = self.record(name, digest)? else { return Ok(false) };
        for tag in self.tags(name)? {
            if tag.digest == *digest {
                remove(&self.repository(name).join("_tags").join(&tag.tag))?;
            }
        }
        let removed = remove(&self.record_path(name, digest))?;
        if let Some(subject) = &record.subject {
            remove(&self.referrer_path(name, subject, digest))?;
        }
        Ok(removed)
    }

    /// Removes a tag, the manifest stays; whether it was there.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn delete_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<bool, StorageError> {
        remove(&self.tag_path(name, tag))
    }

    /// Removes all manifests, tags and links of a repository; whether it had any manifest.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn delete_repository(&self, name: &RepositoryName) -> Result<bool, StorageError> {
        let _linking = self.sweep.read();
        let known = self.is_known(name)?;
        // Only our own folders: another repository may lie below this one.
        for part in ["_tags", "_manifests", "_referrers", "_layers"] {
            let dir = self.repository(name).join(part);
            present(std::fs::remove_dir_all(&dir)).map_err(io_error("remove", &dir))?;
        }
        Ok(known)
    }

    /// Tags of a repository, sorted.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn tags(&self, name: &RepositoryName) -> Result<Vec<TagRecord>, StorageError> {
        let dir = self.repository(name).join("_tags");
        let mut tags = Vec::new();
        for tag in names_in(&dir)? {
            let path = dir.join(&tag);
            let read = std::fs::read_to_string(&path).and_then(|text| Ok((text, path.metadata()?.modified()?)));
            // Deleted since it was listed: not there.
            let Some((text, modified)) = present(read).map_err(io_error("read", &path))? else { continue };
            let digest =
                text.parse().map_err(|e| StorageError::Corrupt { path: path.clone(), reason: format!("{e}") })?;
            let updated = Timestamp::try_from(modified).unwrap_or(Timestamp::UNIX_EPOCH);
            tags.push(TagRecord { tag, digest, updated });
        }
        Ok(tags)
    }

    /// Manifests whose subject is `subject`, by digest.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Result<Vec<StoredManifest>, StorageError> {
        let dir = self.repository(name).join("_referrers").join(subject.hex());
        let digests = names_in(&dir)?.into_iter().filter_map(|hex| Digest::from_hex(&hex));
        let found = digests.map(|digest| self.manifest(name, &Reference::Digest(digest)));
        found.filter_map(Result::transpose).collect()
    }

    /// Whether a repository has a manifest.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn is_known(&self, name: &RepositoryName) -> Result<bool, StorageError> {
        Ok(!names_in(&self.repository(name).join("_manifests"))?.is_empty())
    }

    /// Repositories that have a manifest, sorted.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn repositories(&self) -> Result<Vec<RepositoryName>, StorageError> {
        let mut known = Vec::new();
        for name in self.all_repositories()? {
            if self.is_known(&name)? {
                known.push(name);
            }
        }
        Ok(known)
    }

    /// Every folder of a repository, sorted, empty ones too.
    pub(super) fn all_repositories(&self) -> Result<Vec<RepositoryName>, StorageError> {
        let root = self.root.join("repositories");
        let mut names = Vec::new();
        let walk = walkdir::WalkDir::new(&root)
            .min_depth(1)
            .into_iter()
            .filter_entry(|e| e.file_type().is_dir() && !e.file_name().as_encoded_bytes().starts_with(b"_"));
        for entry in walk {
            // A folder removed meanwhile is no error.
            let Ok(entry) = entry else { continue };
            let relative = entry.path().strip_prefix(&root).unwrap_or(Path::new(""));
            if let Some(Ok(name)) = relative.to_str().map(str::parse) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn read_record(path: &Path) -> Result<Option<ManifestRecord>, StorageError> {
    let Some(json) = present(std::fs::read(path)).map_err(io_error("read", path))? else { return Ok(None) };
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|e| StorageError::Corrupt { path: path.to_owned(), reason: e.to_string() })
}
