//! The COPY and ADD steps of a build.

use super::{
    archive::{self, Packing},
    build::Session,
    dockerfile::{Heredoc, Span, Transfer},
    error::{BuildError, io_error},
    files::Files,
    ignore_file::IgnoreFile,
    layer::{Content, Entries, Entry, EntryKind, Layer},
    stage::StageState,
    transfer::{Placement, inline_file, parse_mode, parse_owner},
    tree,
};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use std::io::Write;

impl Session {
    /// COPY: files of the context, a stage or an image, and heredocs.
    pub(super) fn copy(
        &mut self,
        stage: usize,
        state: &mut StageState,
        transfer: &Transfer,
        span: Span,
    ) -> Result<(Layer, bool), BuildError> {
        let from = match &transfer.from {
            Some(from) => Some(self.files_of(from, stage, span)?),
            None => None,
        };
        let mut entries = Entries::new();
        let sources = self.words(state, &transfer.sources, span)?;
        let inline = self.inline(state, transfer, span)?;
        let placement = self.placement(state, transfer, sources.len(), span)?;
        let files: &dyn Files = match &from {
            Some(tree) => tree,
            None => &self.context,
        };
        for source in &sources {
            if !placement.put_source(&mut entries, files, source)? {
                return Err(self.not_found(source, transfer.from.as_deref(), span));
            }
        }
        for (name, file) in inline {
            placement.put_file(&mut entries, &name, file);
        }
        self.write(state, &entries)
    }

    /// ADD: as COPY from the context; archives are unpacked, URLs are fetched.
    pub(super) fn add(
        &mut self,
        _stage: usize,
        state: &mut StageState,
        transfer: &Transfer,
        span: Span,
    ) -> Result<(Layer, bool), BuildError> {
        let mut entries = Entries::new();
        let sources = self.words(state, &transfer.sources, span)?;
        let inline = self.inline(state, transfer, span)?;
        let placement = self.placement(state, transfer, sources.len(), span)?;
        for source in &sources {
            if source.starts_with("git@") || source.starts_with("git://") || source.ends_with(".git") {
                return Err(self.error(span, "ADD of a Git repository is not supported by the builtin builder", None));
            }
            if source.starts_with("http://") || source.starts_with("https://") {
                let (name, file) = self.fetch(source, transfer.checksum.as_deref(), span)?;
                match transfer.unpack.unwrap_or(false) {
                    true => placement.put_all(&mut entries, self.unpacked_archive(&file)?),
                    false => placement.put_file(&mut entries, &name, file),
                }
                continue;
            }
            if transfer.checksum.is_some() {
                return Err(self.error(span, "--checksum is for URLs", None));
            }
            match self.local_archive(source, transfer.unpack)? {
                Some(file) => placement.put_all(&mut entries, self.unpacked_archive(&file)?),
                None => {
                    if !placement.put_source(&mut entries, &self.context, source)? {
                        return Err(self.not_found(source, None, span));
                    }
                }
            }
        }
        for (name, file) in inline {
            placement.put_file(&mut entries, &name, file);
        }
        self.write(state, &entries)
    }

    fn words(&self, state: &StageState, words: &[String], span: Span) -> Result<Vec<String>, BuildError> {
        words.iter().map(|w| self.expand(state, w).map_err(|m| self.error(span, m, None))).collect()
    }

    fn placement<'a>(
        &self,
        state: &'a mut StageState,
        transfer: &Transfer,
        sources: usize,
        span: Span,
    ) -> Result<Placement<'a>, BuildError> {
        let fail = |m: String| self.error(span, m, None);
        let destination = state.absolute(&self.expand(state, &transfer.destination).map_err(fail)?);
        let text = |word: &Option<String>| word.as_ref().map(|w| self.expand(state, w)).transpose().map_err(fail);
        let (chown, chmod) = (text(&transfer.chown)?, text(&transfer.chmod)?);
        let exclude = self.words(state, &transfer.exclude, span)?.join("\n");
        let stage = &*self.inner.tree(state)?;
        let owner = match chown {
            Some(owner) => parse_owner(&owner, stage).map(|(uid, gid, _)| Some((uid, gid)))?,
            None => None,
        };
        Ok(Placement {
            destination,
            owner,
            mode: chmod.map(|m| parse_mode(&m)).transpose().map_err(fail)?,
            link: transfer.link,
            parents: transfer.parents,
            many: sources + transfer.heredocs.len() > 1,
            exclude: IgnoreFile::parse(&exclude).map_err(|e| fail(e.to_string()))?,
            stage,
        })
    }

    /// Heredoc sources, by name.
    fn inline(&self, state: &StageState, transfer: &Transfer, span: Span) -> Result<Vec<(String, Entry)>, BuildError> {
        let file = |heredoc: &Heredoc| match self.heredoc(state, heredoc) {
            Ok(text) => Ok((heredoc.name.clone(), inline_file(&text))),
            Err(message) => Err(self.error(span, message, None)),
        };
        transfer.heredocs.iter().map(file).collect()
    }

    fn not_found(&self, source: &str, from: Option<&str>, span: Span) -> BuildError {
        match from {
            Some(from) => self.error(span, format!("{source} is not in {from}"), None),
            None => {
                let hint = match self.context.ignored(source) {
                    true => "a pattern of .dockerignore leaves it out".to_owned(),
                    false => format!("paths are relative to the build context, {}", self.request.context.display()),
                };
                self.error(span, format!("{source} is not in the build context"), Some(hint))
            }
        }
    }

    /// The file that a source means if it is an archive that ADD unpacks.
    fn local_archive(&self, source: &str, unpack: Option<bool>) -> Result<Option<Entry>, BuildError> {
        if unpack == Some(false) {
            return Ok(None);
        }
        let path = self.context.resolve(&tree::clean(source))?;
        let Some(entry) = self.context.entry(&path)? else { return Ok(None) };
        let EntryKind::File(content) = &entry.kind else { return Ok(None) };
        let packing = archive::packing(content).map_err(|e| BuildError::malformed(source, e))?;
        Ok((packing != Packing::None).then_some(entry))
    }

    /// Entries of an archive, unpacked for the length of the build.
    fn unpacked_archive(&self, file: &Entry) -> Result<Entries, BuildError> {
        let EntryKind::File(Content::Disk { path, .. }) = &file.kind else { return Ok(Entries::new()) };
        let size = path.metadata().map_err(io_error("stat", path))?.len();
        let content = Content::Disk { path: path.clone(), offset: 0, size };
        let packing = archive::packing(&content).map_err(io_error("read", path))?;
        let unpacked = self.temporary.path().join(format!("{:016x}.tar", rand::random::<u64>()));
        archive::unpack(path, packing, &unpacked)?;
        tree::archive_entries(&unpacked)
    }

    /// Fetches a URL into a file that lives as long as the build; its name by the URL.
    fn fetch(&self, url: &str, checksum: Option<&str>, span: Span) -> Result<(String, Entry), BuildError> {
        let parsed = url::Url::parse(url).map_err(|e| self.error(span, format!("{url}: {e}"), None))?;
        let name = parsed.path_segments().and_then(|mut s| s.next_back()).unwrap_or_default().to_owned();
        if name.is_empty() || name == ".." {
            return Err(self.error(span, format!("{url} ends without a file name"), None));
        }
        let path = self.temporary.path().join(format!("{:016x}", rand::random::<u64>()));
        let failed = |reason: String| BuildError::malformed(url, reason);
        let digest = self.wait(async {
            let response = self.inner.client.get(parsed).await.map_err(|e| failed(e.to_string()))?;
            let response = response.error_for_status().map_err(|e| failed(e.to_string()))?;
            let mut file = std::fs::File::create(&path).map_err(io_error("create", &path))?;
            let mut hasher = Sha256::new();
            let mut stream = response.bytes_stream();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|e| failed(e.to_string()))?;
                hasher.update(&chunk);
                file.write_all(&chunk).map_err(io_error("write", &path))?;
            }
            Ok(format!("sha256:{}", hex::encode(hasher.finalize())))
        })?;
        if let Some(wanted) = checksum
            && wanted != digest
        {
            return Err(self.error(span, format!("{url} has the checksum {digest}, not {wanted}"), None));
        }
        let size = path.metadata().map_err(io_error("stat", &path))?.len();
        let kind = EntryKind::File(Content::Disk { path, offset: 0, size });
        // Docker: what comes from a URL is for its owner alone.
        Ok((name, Entry { kind, mode: 0o600, uid: 0, gid: 0 }))
    }
}
