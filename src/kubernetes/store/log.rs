//! The append log: CRC-framed records in segment files, and snapshots of the whole state.
//!
//! A frame is `length: u32 LE, crc32 of the payload: u32 LE, payload`. A payload is
//! `operation: u8, revision: u64 LE, table length: u16 LE, table, key length: u16 LE, key, bytes`.
//! Segment `log-R` holds the writes after revision R; `snapshot-R` the whole state at R. What a
//! crash tore off the end of the last segment is cut when it is read.

use super::{
    StoreError,
    object::{Key, Object},
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const FRAME_HEADER: usize = 8;
const PAYLOAD_HEADER: usize = 1 + 8 + 2;
/// A frame larger than this is not one of ours.
const FRAME_LIMIT: usize = 256 << 20;

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    /// The object is written.
    Put = 1,
    /// The object is removed; the bytes are its last state.
    Delete = 2,
    /// Ends a snapshot: without it the snapshot is not whole.
    End = 3,
}

/// A record read back.
pub(super) struct Record {
    pub operation: Operation,
    pub revision: u64,
    pub table: String,
    pub key: Key,
    pub bytes: Bytes,
}

/// Appends a frame to `out`.
pub(super) fn encode(out: &mut Vec<u8>, operation: Operation, table: &str, object: &Object) {
    frame(out, operation, object.revision, table, object.key.as_text(), &object.bytes);
}

fn frame(out: &mut Vec<u8>, operation: Operation, revision: u64, table: &str, key: &str, bytes: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER]);
    out.push(operation as u8);
    out.extend_from_slice(&revision.to_le_bytes());
    for text in [table, key] {
        // Names are bounded by validation far below 64 KiB.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
    out.extend_from_slice(bytes);
    let length = u32::try_from(out.len() - start - FRAME_HEADER).unwrap_or(u32::MAX);
    let crc = crc32fast::hash(&out[start + FRAME_HEADER..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + FRAME_HEADER].copy_from_slice(&crc.to_le_bytes());
}

/// Decodes frames from the front of `data`; gives the records and how many bytes were whole.
pub(super) fn decode(data: &Bytes, mut each: impl FnMut(Record)) -> usize {
    let mut good = 0;
    while let Some((record, next)) = decode_one(data, good) {
        each(record);
        good = next;
    }
    good
}

fn decode_one(data: &Bytes, at: usize) -> Option<(Record, usize)> {
    let header = data.get(at..at + FRAME_HEADER)?;
    let word = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let length = word(0)? as usize;
    let start = at + FRAME_HEADER;
    if length > FRAME_LIMIT {
        return None;
    }
    let payload = data.get(start..start + length)?;
    if crc32fast::hash(payload) != word(4)? || length < PAYLOAD_HEADER {
        return None;
    }
    let operation = match payload[0] {
        1 => Operation::Put,
        2 => Operation::Delete,
        3 => Operation::End,
        _ => return None,
    };
    let revision = u64::from_le_bytes(payload[1..9].try_into().ok()?);
    let (table, at) = text(payload, 9)?;
    let (key, at) = text(payload, at)?;
    let bytes = data.slice(start + at..start + length);
    let record = Record { operation, revision, table: table.to_owned(), key: Key::from_text(key), bytes };
    Some((record, start + length))
}

fn text(payload: &[u8], at: usize) -> Option<(&str, usize)> {
    let length = usize::from(u16::from_le_bytes(payload.get(at..at + 2)?.try_into().ok()?));
    let end = at + 2 + length;
    Some((std::str::from_utf8(payload.get(at + 2..end)?).ok()?, end))
}

/// Files of the log in `dir`, by the revision in their name, ascending.
pub(super) fn files(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::file(dir))? {
        let path = entry.map_err(StoreError::file(dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(revision) = name.strip_prefix(prefix).and_then(|r| r.parse().ok()) {
            found.push((revision, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a file whole.
pub(super) fn read(path: &Path) -> Result<Bytes, StoreError> {
    let mut data = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut data)).map_err(StoreError::file(path))?;
    Ok(data.into())
}

/// The segment being appended to.
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    length: u64,
    sync: bool,
    broken: bool,
}

impl Segment {
    /// Opens `log-REVISION` in `dir` for appending, cut to `length`; made if missing.
    pub fn open(dir: &Path, revision: u64, length: u64, sync: bool) -> Result<Self, StoreError> {
        let path = dir.join(format!("log-{revision}"));
        let open = || {
            let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            file.set_len(length)?;
            Ok(file)
        };
        let file = open().map_err(StoreError::file(&path))?;
        Ok(Self { file, path, length, sync, broken: false })
    }

    /// Bytes written.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends whole frames; on error nothing of them stays.
    pub fn append(&mut self, frames: &[u8]) -> Result<(), std::io::Error> {
        if self.broken {
            return Err(std::io::Error::other(format!(
                "{} could not be cut after a failed write",
                self.path.display()
            )));
        }
        let written = self.file.write_all(frames).and_then(|()| if self.sync { self.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                self.length += frames.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.broken = self.file.set_len(self.length).is_err();
                Err(error)
            }
        }
    }
}

/// Writes `snapshot-REVISION` from encoded objects, whole or not at all.
pub(super) fn write_snapshot<'a>(
    dir: &Path,
    revision: u64,
    objects: impl Iterator<Item = (&'a str, &'a Object)>,
) -> std::io::Result<()> {
    let temporary = dir.join("snapshot.tmp");
    let file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let mut buffer = Vec::new();
    for (table, object) in objects {
        buffer.clear();
        encode(&mut buffer, Operation::Put, table, object);
        out.write_all(&buffer)?;
    }
    buffer.clear();
    frame(&mut buffer, Operation::End, revision, "", "", b"");
    out.write_all(&buffer)?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&temporary, dir.join(format!("snapshot-{revision}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::object::Draft;
    use proptest::prelude::*;

    fn frames(count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for revision in 1..=count {
            let object = Draft::new(&serde_json::json!({"n": revision}), &[]).at(Key::new("ns", "name"), revision);
            encode(&mut out, Operation::Put, "pods", &object);
        }
        out
    }

    proptest! {
        /// Whatever is cut off or flipped, decoding gives a prefix of what was written.
        #[test]
        fn a_damaged_log_gives_a_prefix(cut in 0usize..600, flip in proptest::option::of((0usize..600, 1u8..=255))) {
            let mut data = frames(6);
            if let Some((at, mask)) = flip && at < data.len() {
                data[at] ^= mask;
            }
            data.truncate(cut);
            let mut revisions = Vec::new();
            let good = decode(&data.into(), |record| revisions.push(record.revision));
            prop_assert!(good <= cut);
            prop_assert_eq!(&revisions, &(1..=revisions.len() as u64).collect::<Vec<_>>());
        }
    }
}
