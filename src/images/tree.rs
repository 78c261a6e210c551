//! The file system that layers make together, read from the layers themselves without unpacking them.

use super::{
    error::{BuildError, io_error},
    layer::{Content, Entries, Entry, EntryKind},
};
use std::{fs::File, path::Path};

/// Longest chain of symbolic links that is followed (Linux: 40).
const MAX_LINKS: usize = 40;

/// A path without a slash at begin and end, without `.`; `..` never leads above the root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// `name` below the folder `parent`, both clean.
pub fn join(parent: &str, name: &str) -> String {
    match (parent.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => parent.to_owned(),
        _ => format!("{parent}/{name}"),
    }
}

/// A file system, by clean paths.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: Entries,
}

impl Tree {
    /// Everything in it; parents come before their children.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// What is at a path, the path's links not followed.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Names in a folder.
    pub fn children<'a>(&'a self, folder: &str) -> impl Iterator<Item = &'a str> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let length = prefix.len();
        self.entries
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(move |(path, _)| &path[length..])
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
    }

    /// Whether a folder is at a path.
    pub fn is_folder(&self, path: &str) -> bool {
        path.is_empty() || matches!(self.get(path), Some(Entry { kind: EntryKind::Folder, .. }))
    }

    /// The path with the symbolic links of its folders followed, and its own with `last`.
    /// What does not exist is taken as it stands.
    pub fn resolve(&self, path: &str, last: bool) -> String {
        let mut todo: Vec<String> = clean(path).split('/').rev().map(str::to_owned).collect();
        let mut done = String::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done = done.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
                continue;
            }
            let here = join(&done, &part);
            match self.get(&here) {
                Some(Entry { kind: EntryKind::Symlink(target), .. })
                    if links < MAX_LINKS && (last || !todo.is_empty()) =>
                {
                    links += 1;
                    if target.starts_with('/') {
                        done.clear();
                    }
                    todo.extend(target.split('/').rev().filter(|p| !p.is_empty() && *p != ".").map(str::to_owned));
                }
                _ => done = here,
            }
        }
        done
    }

    /// Content of a small file, its links followed; `None` when there is no such file.
    ///
    /// # Errors
    /// [`BuildError`] when it cannot be read or is larger than 1 MiB.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, BuildError> {
        match self.get(&self.resolve(path, true)) {
            Some(Entry { kind: EntryKind::File(content), .. }) => content.read(1 << 20).map(Some),
            _ => Ok(None),
        }
    }

    /// Puts an entry. Whatever a layer says, every entry has real folders above it: links on the way are
    /// followed within the root, missing folders are made, so that nothing can be written through a link.
    fn put(&mut self, path: String, entry: Entry) {
        let path = match path.rsplit_once('/') {
            None => path,
            Some((parent, _)) if self.is_folder(parent) => path,
            Some((parent, name)) => {
                let parent = self.resolve(parent, true);
                for (at, _) in parent.match_indices('/').chain([(parent.len(), "")]) {
                    if !self.is_folder(&parent[..at]) {
                        self.entries.insert(parent[..at].to_owned(), Entry::folder());
                    }
                }
                join(&parent, name)
            }
        };
        match &entry.kind {
            EntryKind::Whiteout => self.remove(&path, true),
            EntryKind::Folder => {
                if !self.is_folder(&path) {
                    self.remove(&path, true);
                }
                self.entries.insert(path, entry);
            }
            EntryKind::HardLink(target) => {
                self.remove(&path, true);
                // Same content, owner and mode: the layer has had the target before.
                if let Some(target) = self.entries.get(target).cloned() {
                    self.entries.insert(path, target);
                }
            }
            _ => {
                self.remove(&path, true);
                self.entries.insert(path, entry);
            }
        }
    }

    /// Removes what is below a path, and the path itself with `own`.
    fn remove(&mut self, path: &str, own: bool) {
        if own {
            self.entries.remove(path);
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let below: Vec<String> = self
            .entries
            .range(prefix.clone()..)
            .take_while(|(p, _)| p.starts_with(&prefix))
            .map(|(p, _)| p.clone())
            .collect();
        for path in below {
            self.entries.remove(&path);
        }
    }

    /// Puts an uncompressed layer file on top, whiteouts obeyed.
    ///
    /// # Errors
    /// [`BuildError::Malformed`] for a path that leads out of the root, or an archive that is none.
    pub fn apply_archive(&mut self, path: &Path) -> Result<(), BuildError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let mut archive = tar::Archive::new(file);
        let malformed = |e: std::io::Error| BuildError::malformed(path.display(), e);
        for entry in archive.entries_with_seek().map_err(malformed)? {
            let entry = entry.map_err(malformed)?;
            if let Some((name, node)) = read_entry(&entry, path)? {
                let (parent, last) = name.rsplit_once('/').map_or(("", name.as_str()), |(p, l)| (p, l));
                if last == ".wh..wh..opq" {
                    self.remove(parent, false);
                } else if let Some(gone) = last.strip_prefix(".wh.") {
                    self.remove(&join(parent, gone), true);
                } else {
                    self.put(name, node);
                }
            }
        }
        Ok(())
    }
}

/// An archive's entries, those of the same path merged; `prefix` is put before every path.
///
/// # Errors
/// As [`Tree::apply_archive`].
pub fn archive_entries(path: &Path) -> Result<Entries, BuildError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let malformed = |e: std::io::Error| BuildError::malformed(path.display(), e);
    let mut entries = Entries::new();
    for entry in tar::Archive::new(file).entries_with_seek().map_err(malformed)? {
        if let Some((name, node)) = read_entry(&entry.map_err(malformed)?, path)? {
            entries.insert(name, node);
        }
    }
    Ok(entries)
}

/// An archive's entry as ours; `None` for the root itself and for what is no file.
fn read_entry(entry: &tar::Entry<'_, File>, archive: &Path) -> Result<Option<(String, Entry)>, BuildError> {
    let malformed = |reason: &str| BuildError::malformed(archive.display(), reason);
    let raw = entry.path().map_err(|e| malformed(&e.to_string()))?;
    let raw = raw.to_str().ok_or_else(|| malformed("a path that is not UTF-8"))?.to_owned();
    if raw.split('/').any(|part| part == "..") {
        return Err(malformed(&format!("path {raw:?} leads out of the root")));
    }
    let path = clean(&raw);
    let header = entry.header();
    // A field that is left blank means 0, as every tar reads it.
    let blank = |field: &[u8]| field.iter().all(|b| matches!(b, 0 | b' '));
    let number = |field: &[u8], result: std::io::Result<u64>| match blank(field) {
        true => Ok(0),
        false => result.map_err(|e| malformed(&e.to_string())),
    };
    let old = header.as_old();
    let link = || -> Result<String, BuildError> {
        let target = entry.link_name().map_err(|e| malformed(&e.to_string()))?;
        let target = target.as_deref().and_then(Path::to_str).map(str::to_owned);
        target.ok_or_else(|| malformed(&format!("{raw:?} is a link without a target")))
    };
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let (path, offset, size) = (archive.to_owned(), entry.raw_file_position(), entry.size());
            EntryKind::File(Content::Disk { path, offset, size })
        }
        tar::EntryType::Directory => EntryKind::Folder,
        tar::EntryType::Symlink => EntryKind::Symlink(link()?),
        tar::EntryType::Link => EntryKind::HardLink(clean(&link()?)),
        kind @ (tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo) => {
            let device = |d: std::io::Result<Option<u32>>| d.ok().flatten().unwrap_or(0);
            EntryKind::Special(kind.as_byte(), device(header.device_major()), device(header.device_minor()))
        }
        _ => return Ok(None),
    };
    if path.is_empty() {
        return Ok(None);
    }
    let mode = header.mode().map_err(|e| malformed(&e.to_string()))? & 0o7777;
    Ok(Some((path, Entry { kind, mode, uid: number(&old.uid, header.uid())?, gid: number(&old.gid, header.gid())? })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let link = |t: &str| Entry { kind: EntryKind::Symlink(t.to_owned()), ..Entry::folder() };
        let file = || Entry { kind: EntryKind::File(Content::Memory(b"x"[..].into())), ..Entry::folder() };
        for (path, entry) in [
            ("bin", link("usr/bin")),
            ("loop", link("loop")),
            ("usr", Entry::folder()),
            ("usr/bin", Entry::folder()),
            ("usr/bin/sh", link("dash")),
            ("usr/bin/dash", file()),
            ("usr.txt", file()),
            ("abs", link("/usr/bin")),
            ("up", link("../../usr")),
        ] {
            tree.put(path.to_owned(), entry);
        }
        tree
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let tree = tree();
        for (path, last, want) in [
            ("/bin/sh", true, "usr/bin/dash"),
            ("bin/sh", false, "usr/bin/sh"),
            ("bin", false, "bin"),
            ("abs/new/x", true, "usr/bin/new/x"),
            ("up/bin", true, "usr/bin"),
            ("../../etc", true, "etc"),
        ] {
            assert_eq!(tree.resolve(path, last), want, "{path}");
        }
        tree.resolve("loop/x", true);
    }

    #[test]
    fn nothing_is_ever_put_through_a_link() {
        let mut tree = tree();
        let link = |t: &str| Entry { kind: EntryKind::Symlink(t.to_owned()), ..Entry::folder() };
        let file = || Entry { kind: EntryKind::File(Content::Memory(b"x"[..].into())), ..Entry::folder() };
        tree.put("evil".to_owned(), link("/etc"));
        tree.put("evil/passwd".to_owned(), file());
        tree.put("out".to_owned(), link("../../../tmp"));
        tree.put("out/x/y".to_owned(), file());
        tree.put("loop/x".to_owned(), file());
        tree.put("usr.txt/x".to_owned(), file());
        assert!(tree.get("etc/passwd").is_some() && tree.get("tmp/x/y").is_some());
        for path in tree.entries().keys() {
            let above = path.rsplit_once('/').map_or("", |(p, _)| p);
            assert!(tree.is_folder(above), "{path}");
        }
    }

    #[test]
    fn whiteouts_and_replacements_take_everything_below() {
        let mut tree = tree();
        assert_eq!(tree.children("usr").collect::<Vec<_>>(), ["bin"]);
        assert_eq!(tree.children("").count(), 6);
        let gone = Entry { kind: EntryKind::Whiteout, ..Entry::folder() };
        tree.put("usr".to_owned(), gone);
        assert!(tree.get("usr/bin/dash").is_none() && tree.get("usr.txt").is_some());
    }
}
