//! COPY and ADD: from sources to the entries of a layer.

use super::{
    error::BuildError,
    files::{Files, matches},
    ignore_file::IgnoreFile,
    layer::{Content, Entries, Entry, EntryKind},
    tree::{Tree, clean, join},
};

/// Where files go and how they look there.
pub struct Placement<'a> {
    /// Destination, absolute; a slash at the end means a folder.
    pub destination: String,
    /// Owner and group, if given.
    pub owner: Option<(u64, u64)>,
    /// Permission bits, if given.
    pub mode: Option<u32>,
    /// The destination's links are not followed.
    pub link: bool,
    /// The sources' folders are kept.
    pub parents: bool,
    /// More than one source.
    pub many: bool,
    /// What is left out, relative to a source that is a folder.
    pub exclude: IgnoreFile,
    /// The file system that the files go into.
    pub stage: &'a Tree,
}

impl Placement<'_> {
    fn base(&self) -> String {
        if self.link { clean(&self.destination) } else { self.stage.resolve(&self.destination, true) }
    }

    fn is_folder_target(&self, base: &str) -> bool {
        self.many || self.destination.ends_with('/') || self.destination.ends_with("/.") || self.stage.is_folder(base)
    }

    fn owned(&self, mut entry: Entry) -> Entry {
        if let Some((uid, gid)) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let (Some(mode), EntryKind::File(_) | EntryKind::Folder) = (self.mode, &entry.kind) {
            entry.mode = mode;
        }
        entry
    }

    /// Puts an entry, and the folders above it that are missing.
    pub fn put(&self, entries: &mut Entries, path: &str, entry: Entry) {
        let folder = entry.kind == EntryKind::Folder;
        let path = if self.link { path.to_owned() } else { self.stage.resolve(path, folder) };
        for (at, _) in path.match_indices('/') {
            self.missing_folder(entries, &path[..at]);
        }
        if !path.is_empty() {
            entries.insert(path, self.owned(entry));
        }
    }

    /// A folder that is to be there, whatever it looks like.
    fn missing_folder(&self, entries: &mut Entries, path: &str) {
        if (self.link || !self.stage.is_folder(path)) && !entries.contains_key(path) && !path.is_empty() {
            let mut folder = Entry::folder();
            if let Some((uid, gid)) = self.owner {
                (folder.uid, folder.gid) = (uid, gid);
            }
            entries.insert(path.to_owned(), folder);
        }
    }

    /// Puts a file by its own name into the destination, or as the destination.
    pub fn put_file(&self, entries: &mut Entries, name: &str, entry: Entry) {
        let base = self.base();
        let path = if self.is_folder_target(&base) { join(&base, name) } else { base };
        self.put(entries, &path, entry);
    }

    /// Puts all of `below` under the destination.
    pub fn put_all(&self, entries: &mut Entries, below: Entries) {
        let base = self.base();
        self.missing_folder_with_parents(entries, &base);
        for (path, mut entry) in below {
            if let EntryKind::HardLink(target) = &mut entry.kind {
                *target = join(&base, target);
            }
            self.put(entries, &join(&base, &path), entry);
        }
    }

    fn missing_folder_with_parents(&self, entries: &mut Entries, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.missing_folder(entries, &path[..at]);
        }
        self.missing_folder(entries, path);
    }

    /// Puts what a source means.
    ///
    /// # Errors
    /// [`BuildError`], also when the source means nothing.
    pub fn put_source(&self, entries: &mut Entries, files: &dyn Files, source: &str) -> Result<bool, BuildError> {
        let found = matches(files, source)?;
        let base = self.base();
        for path in &found {
            let real = files.resolve(path)?;
            let Some(entry) = files.entry(&real)? else { continue };
            let kept = if self.parents { kept_part(source, path) } else { String::new() };
            if entry.kind == EntryKind::Folder {
                if matches!(self.stage.get(&base), Some(Entry { kind: EntryKind::File(_), .. })) {
                    return Err(BuildError::malformed(format!("/{base}"), "a folder cannot be copied onto a file"));
                }
                let target = join(&base, &kept);
                self.missing_folder_with_parents(entries, &target);
                self.put_folder(entries, files, &real, "", &target)?;
            } else if self.parents {
                self.put(entries, &join(&base, &kept), entry);
            } else {
                let name = path.rsplit('/').next().unwrap_or(path);
                if !self.exclude.ignores(name) {
                    self.put_file(entries, name, entry);
                }
            }
        }
        Ok(!found.is_empty())
    }

    fn put_folder(
        &self,
        entries: &mut Entries,
        files: &dyn Files,
        source: &str,
        below: &str,
        target: &str,
    ) -> Result<(), BuildError> {
        for name in files.children(&join(source, below))? {
            let relative = join(below, &name);
            let Some(entry) = files.entry(&join(source, &relative))? else { continue };
            let excluded = self.exclude.ignores(&relative);
            let folder = entry.kind == EntryKind::Folder;
            if excluded && !(folder && self.exclude.has_exceptions()) {
                continue;
            }
            if !excluded {
                self.put(entries, &join(target, &relative), entry);
            }
            if folder {
                self.put_folder(entries, files, source, &relative, target)?;
            }
        }
        Ok(())
    }
}

/// The part of a path that `--parents` keeps: what follows `/./` in the source, or all of it.
fn kept_part(source: &str, path: &str) -> String {
    match source.split_once("/./") {
        Some((before, _)) => {
            let skip = clean(before).split('/').filter(|p| !p.is_empty()).count();
            path.split('/').skip(skip).collect::<Vec<_>>().join("/")
        }
        None => path.to_owned(),
    }
}

/// A file from a text of the Dockerfile.
pub fn inline_file(content: &str) -> Entry {
    let content = Content::Memory(content.as_bytes().into());
    Entry { kind: EntryKind::File(content), mode: 0o644, uid: 0, gid: 0 }
}

/// Reads `--chmod`: octal permission bits.
///
/// # Errors
/// What is wrong with it.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("--chmod={text}: octal permission bits such as 755 are supported")),
    }
}

/// Reads `USER[:GROUP]`: numbers, or names of the stage's `/etc/passwd` and `/etc/group`.
/// The third value says whether the group was given.
///
/// # Errors
/// [`BuildError::Malformed`] for a name that is not there.
pub fn parse_owner(text: &str, stage: &Tree) -> Result<(u64, u64, bool), BuildError> {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let unknown = |kind: &str, name: &str, file: &str| {
        BuildError::malformed(
            format!("{kind} {name:?}"),
            format!("is not in {file} of this stage; a number always works"),
        )
    };
    let (uid, own_group) = match user.parse::<u64>() {
        Ok(uid) => (uid, uid),
        Err(_) => {
            let fields = lookup(stage, "etc/passwd", user)?.ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            let number = |n: usize| fields.get(n).and_then(|f| f.parse().ok());
            let uid = number(2).ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            (uid, number(3).unwrap_or(uid))
        }
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match group.parse::<u64>() {
            Ok(gid) => gid,
            Err(_) => lookup(stage, "etc/group", group)?
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| unknown("group", group, "/etc/group"))?,
        },
    };
    Ok((uid, gid, group.is_some()))
}

/// Fields of the line of a file like `/etc/passwd` that begins with `name`.
fn lookup(stage: &Tree, file: &str, name: &str) -> Result<Option<Vec<String>>, BuildError> {
    let Some(content) = stage.read(file)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&content).into_owned();
    let line = text.lines().map(|l| l.split(':').map(str::to_owned).collect::<Vec<_>>()).find(|f| f[0] == name);
    Ok(line)
}
