//! OCI image layouts (folder, or tar archive of one) as a source of images.

use super::{
    for_this_machine,
    store::{BlobSource, MAX_DOCUMENT, digest_of},
};
use aksim_model::image_ref::ImageRef;
use async_trait::async_trait;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Annotation with the whole reference (containerd, Docker).
const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation of the specification: a tag, or a whole reference.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An opened layout.
pub(super) struct Layout {
    path: PathBuf,
    /// Offset and length of the files of an archive; `None` for a folder.
    entries: Option<HashMap<PathBuf, (u64, u64)>>,
}

/// An image of a layout.
pub(super) struct LayoutImage {
    pub(super) digest: String,
    pub(super) manifest: ImageManifest,
    /// Names that the layout gives it.
    pub(super) names: Vec<ImageRef>,
}

impl Layout {
    pub(super) async fn open(path: &Path) -> Result<Self, String> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || -> io::Result<Self> {
            if path.is_dir() {
                return Ok(Self { path, entries: None });
            }
            let mut archive = tar::Archive::new(File::open(&path)?);
            let mut entries = HashMap::new();
            for entry in archive.entries_with_seek()? {
                let entry = entry?;
                let name =
                    entry.path()?.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            }
            Ok(Self { path, entries: Some(entries) })
        });
        let layout = opened.await.map_err(|e| e.to_string())?.map_err(|e| format!("open the layout: {e}"))?;
        layout.document("oci-layout").map_err(|e| format!("not an OCI image layout: {e}"))?;
        Ok(layout)
    }

    fn reader(&self, name: &Path) -> io::Result<Box<dyn Read + Send>> {
        let Some(entries) = &self.entries else { return Ok(Box::new(File::open(self.path.join(name))?)) };
        let (offset, length) = entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(*offset))?;
        Ok(Box::new(file.take(*length)))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        let reader = self.reader(Path::new(name)).map_err(|e| format!("{name}: {e}"))?;
        reader.take(MAX_DOCUMENT + 1).read_to_end(&mut text).map_err(|e| format!("{name}: {e}"))?;
        if text.len() as u64 > MAX_DOCUMENT { Err(format!("{name} is too large")) } else { Ok(text) }
    }

    fn blob_document(&self, blob: &Descriptor) -> Result<Vec<u8>, String> {
        let text = self.document(&blob_name(blob)?)?;
        if digest_of(&text) == blob.digest().to_string() {
            Ok(text)
        } else {
            Err(format!("{} is not what its name says", blob.digest()))
        }
    }

    pub(super) fn images(&self) -> Result<Vec<LayoutImage>, String> {
        let parse =
            |text: &[u8]| -> Result<ImageIndex, String> { serde_json::from_slice(text).map_err(|e| e.to_string()) };
        let index = parse(&self.document("index.json")?)?;
        let mut all = Vec::new();
        for top in index.manifests() {
            let mut blob = top.clone();
            while matches!(blob.media_type(), MediaType::ImageIndex)
                || blob.media_type().as_ref() == "application/vnd.docker.distribution.manifest.list.v2+json"
            {
                let nested = parse(&self.blob_document(&blob)?)?;
                blob = for_this_machine(&nested)?.clone();
            }
            let manifest = serde_json::from_slice(&self.blob_document(&blob)?).map_err(|e| e.to_string())?;
            all.push(LayoutImage { digest: blob.digest().to_string(), manifest, names: names(top) });
        }
        if all.is_empty() { Err("the layout has no image".into()) } else { Ok(all) }
    }
}

fn names(blob: &Descriptor) -> Vec<ImageRef> {
    let annotations = blob.annotations().clone().unwrap_or_default();
    [FULL_NAME, REF_NAME]
        .iter()
        .filter_map(|key| annotations.get(*key))
        // A bare tag names no repository.
        .filter(|name| name.contains(['/', ':']))
        .filter_map(|name| name.parse().ok())
        .take(1)
        .collect()
}

fn blob_name(blob: &Descriptor) -> Result<String, String> {
    let hex = blob.as_digest_sha256().ok_or_else(|| format!("unusable digest {}", blob.digest()))?;
    Ok(format!("blobs/sha256/{hex}"))
}

#[async_trait]
impl BlobSource for Layout {
    async fn fetch(&self, blob: &Descriptor, to: &Path) -> Result<(), String> {
        let name = blob_name(blob)?;
        let mut reader = self.reader(Path::new(&name)).map_err(|e| format!("{name}: {e}"))?;
        let (to, blob) = (to.to_owned(), blob.clone());
        let copied = tokio::task::spawn_blocking(move || -> Result<(), String> {
            let mut sink = super::registry::BlobFile::create(&to, &blob)?;
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match reader.read(&mut buffer).map_err(|e| e.to_string())? {
                    0 => return sink.finish(),
                    count => sink.write(&buffer[..count])?,
                }
            }
        });
        copied.await.map_err(|e| e.to_string())?
    }
}
