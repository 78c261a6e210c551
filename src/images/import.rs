//! Import: OCI archives and layouts, and archives of `docker save`, into the store.

use super::{
    ImageBuilder, Inner, archive,
    error::{BuildError, io_error},
    layer::Content,
    manifest::{
        CONFIG, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, ImageConfig, Index, LAYER_TAR, MANIFEST, Manifest,
        Platform,
    },
    tree::{self, archive_entries},
};
use aksim_model::image_ref::ImageRef;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Largest JSON document that is read, bytes.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Names that tools write into a layout's index for an image.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An image that was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedImage {
    /// Its name in the store.
    pub reference: ImageRef,
    /// Digest of its manifest.
    pub digest: String,
}

impl ImageBuilder {
    /// Imports all images of an OCI layout (folder or archive, packed or not) or a `docker save` archive.
    /// `name` names the image when the archive does not, or has one image that is to be called otherwise.
    ///
    /// # Errors
    /// [`BuildError::Malformed`] when it is none of these, a digest does not fit, or an image has no name.
    pub async fn import(&self, path: &Path, name: Option<&ImageRef>) -> Result<Vec<ImportedImage>, BuildError> {
        let (inner, path, name) = (self.inner.clone(), path.to_owned(), name.cloned());
        tokio::task::spawn_blocking(move || inner.import(&path, name.as_ref())).await?
    }
}

/// Files of a layout or archive by clean path.
struct Source {
    name: String,
    files: BTreeMap<String, Content>,
    /// Holds what was unpacked for the length of the import.
    _unpacked: Option<tempfile::TempDir>,
}

impl Source {
    fn open(path: &Path, work: &Path) -> Result<Self, BuildError> {
        let name = path.display().to_string();
        let metadata = path.metadata().map_err(io_error("open", path))?;
        if metadata.is_dir() {
            let mut files = BTreeMap::new();
            for entry in walkdir::WalkDir::new(path).into_iter().flatten().filter(|e| e.file_type().is_file()) {
                let size = entry.metadata().map_err(|e| io_error("stat", entry.path())(e.into()))?.len();
                let relative = entry.path().strip_prefix(path).unwrap_or(entry.path());
                let content = Content::Disk { path: entry.path().to_owned(), offset: 0, size };
                files.insert(relative.to_string_lossy().into_owned(), content);
            }
            return Ok(Self { name, files, _unpacked: None });
        }
        let content = Content::Disk { path: path.to_owned(), offset: 0, size: metadata.len() };
        let packing = archive::packing(&content).map_err(io_error("read", path))?;
        let (archive, unpacked): (PathBuf, _) = match packing {
            archive::Packing::None => return Err(BuildError::malformed(name, "is not a tar archive")),
            archive::Packing::Tar => (path.to_owned(), None),
            packing => {
                let folder = tempfile::tempdir_in(work).map_err(io_error("make a folder in", work))?;
                let tar = folder.path().join("archive.tar");
                archive::unpack(path, packing, &tar)?;
                (tar, Some(folder))
            }
        };
        let entries = archive_entries(&archive)?;
        let content = |path: &str| match entries.get(path).map(|e| &e.kind) {
            Some(super::layer::EntryKind::File(content)) => Some(content.clone()),
            _ => None,
        };
        // docker save of old links a layer that two images share.
        let files = entries.iter().filter_map(|(path, entry)| {
            let content = match &entry.kind {
                super::layer::EntryKind::File(content) => Some(content.clone()),
                super::layer::EntryKind::HardLink(target) => content(target),
                super::layer::EntryKind::Symlink(target) => {
                    let parent = path.rsplit_once('/').map_or("", |(p, _)| p);
                    content(&tree::clean(&format!("{parent}/{target}")))
                }
                _ => None,
            };
            content.map(|c| (path.clone(), c))
        });
        Ok(Self { name, files: files.collect(), _unpacked: unpacked })
    }

    fn malformed(&self, reason: impl std::fmt::Display) -> BuildError {
        BuildError::malformed(&self.name, reason)
    }

    fn file(&self, path: &str) -> Result<&Content, BuildError> {
        self.files.get(path).ok_or_else(|| self.malformed(format!("has no {path}")))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, BuildError> {
        let bytes = self.file(path)?.read(MAX_DOCUMENT)?;
        serde_json::from_slice(&bytes).map_err(|e| self.malformed(format!("{path}: {e}")))
    }

    /// Path of a blob of a layout.
    fn blob(digest: &str) -> String {
        format!("blobs/{}", digest.replacen(':', "/", 1))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Inner {
    fn import(self: &Arc<Self>, path: &Path, name: Option<&ImageRef>) -> Result<Vec<ImportedImage>, BuildError> {
        let source = Source::open(path, &self.cache_dir.join("work"))?;
        // `docker save` of today writes both; the layout says more.
        let imported = if source.files.contains_key("index.json") {
            self.import_layout(&source, name)?
        } else if source.files.contains_key("manifest.json") {
            self.import_saved(&source, name)?
        } else {
            return Err(source.malformed("is neither an OCI layout nor an archive of docker save"));
        };
        match imported.is_empty() {
            true => Err(source.malformed(format!("has no image for {}", Platform::host()))),
            false => Ok(imported),
        }
    }

    fn import_layout(&self, source: &Source, name: Option<&ImageRef>) -> Result<Vec<ImportedImage>, BuildError> {
        let index: Index = source.json("index.json")?;
        let single = index.manifests.len() == 1;
        let mut imported = Vec::new();
        for entry in &index.manifests {
            let own = NAMES.iter().find_map(|n| entry.annotations.get(*n)?.parse::<ImageRef>().ok());
            let reference = match name {
                Some(name) if single => name.clone(),
                _ => own.ok_or_else(|| source.malformed("an image without a full name: give it one"))?,
            };
            let Some(manifest) = self.pick(source, entry)? else { continue };
            let digest = manifest.digest.clone();
            let document: Manifest = source.json(&Source::blob(&digest))?;
            for blob in document.layers.iter().chain([&document.config, &manifest]) {
                self.take(source, &Source::blob(&blob.digest), Some(&blob.digest))?;
            }
            self.store.image(&manifest)?;
            self.store.tag(&reference, &manifest)?;
            imported.push(ImportedImage { reference, digest });
        }
        Ok(imported)
    }

    /// The manifest for this machine behind an entry of an index.
    fn pick(&self, source: &Source, entry: &Descriptor) -> Result<Option<Descriptor>, BuildError> {
        match entry.media_type.as_str() {
            MANIFEST | DOCKER_MANIFEST => {
                Ok(Some(Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size)))
            }
            INDEX | DOCKER_LIST => {
                let index: Index = source.json(&Source::blob(&entry.digest))?;
                let host = Platform::host();
                let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| host.fits(p));
                let found = index.manifests.iter().find(fits).or(match index.manifests.as_slice() {
                    [only] if only.platform.is_none() => Some(only),
                    _ => None,
                });
                Ok(found.map(|d| Descriptor::new(&d.media_type, d.digest.clone(), d.size)))
            }
            _ => Ok(None),
        }
    }

    fn import_saved(&self, source: &Source, name: Option<&ImageRef>) -> Result<Vec<ImportedImage>, BuildError> {
        let images: Vec<SavedImage> = source.json("manifest.json")?;
        let single = images.len() == 1;
        let mut imported = Vec::new();
        for image in images {
            let (config_digest, config_size) = self.take(source, &image.config, None)?;
            let config: ImageConfig = self.store.json(&config_digest)?;
            if config.rootfs.diff_ids.len() != image.layers.len() {
                return Err(source.malformed("as many layers as diff ids must be there"));
            }
            let mut layers = Vec::new();
            for (path, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
                let (digest, size) = self.take(source, path, Some(diff_id))?;
                layers.push(Descriptor::new(LAYER_TAR, digest, size));
            }
            let config = Descriptor::new(CONFIG, config_digest, config_size);
            let manifest = Manifest { schema_version: 2, media_type: Some(MANIFEST.to_owned()), config, layers };
            let json = serde_json::to_vec(&manifest).map_err(|e| source.malformed(e))?;
            let manifest = self.store.put(&json, MANIFEST)?;
            let own = image.repo_tags.unwrap_or_default();
            let names: Vec<ImageRef> = match name {
                Some(name) if single => vec![name.clone()],
                _ => own.iter().filter_map(|t| t.parse().ok()).collect(),
            };
            if names.is_empty() {
                return Err(source.malformed("an image without a name: give it one"));
            }
            for reference in names {
                self.store.tag(&reference, &manifest)?;
                imported.push(ImportedImage { reference, digest: manifest.digest.clone() });
            }
        }
        Ok(imported)
    }

    /// Copies a file into the store; its digest, compared with `expected`, and size.
    fn take(&self, source: &Source, path: &str, expected: Option<&str>) -> Result<(String, u64), BuildError> {
        let content = source.file(path)?;
        let size = content.size();
        if let Some(expected) = expected
            && self.store.has(expected)?
        {
            return Ok((expected.to_owned(), size));
        }
        let mut writer = self.store.writer()?;
        let failed = || io_error("copy into the image store", self.store.root());
        let mut reader = content.reader().map_err(failed())?;
        std::io::copy(&mut reader, &mut writer).map_err(failed())?;
        writer.flush().map_err(failed())?;
        let (digest, _) = writer.finish()?;
        match expected {
            Some(expected) if expected != digest => {
                Err(source.malformed(format!("{path} has the digest {digest}, not {expected}")))
            }
            _ => Ok((digest, size)),
        }
    }
}
