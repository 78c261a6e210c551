//! Log files in CRI's format: `TIME STREAM TAG TEXT`, TAG `F` for a full line, `P` for a part.

use jiff::Timestamp;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Longest text of one entry, bytes; longer lines are split (containerd's default).
const MAX_TEXT: usize = 16 * 1024;

/// Writes a container's log.
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    /// A write failed and was reported.
    complained: bool,
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

impl LogWriter {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, complained: false })
    }

    /// Starts a new file at the same path.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        self.complained = false;
        Ok(())
    }

    /// Takes a chunk of output; `line` keeps what has no line end yet.
    pub(super) fn write(&mut self, stream: &str, line: &mut Vec<u8>, chunk: &[u8]) {
        line.extend_from_slice(chunk);
        let entries = entries(Timestamp::now(), stream, line);
        self.put(&entries);
    }

    /// The stream has ended; what is left is the last line.
    pub(super) fn finish(&mut self, stream: &str, line: &mut Vec<u8>) {
        if !line.is_empty() {
            line.push(b'\n');
            let entries = entries(Timestamp::now(), stream, line);
            self.put(&entries);
        }
    }

    fn put(&mut self, entries: &[u8]) {
        if let Err(e) = self.file.write_all(entries)
            && !self.complained
        {
            self.complained = true;
            eprintln!("{}: {e}; output is lost until it can be written again", self.path.display());
        }
    }
}

/// Takes the complete entries out of `line`.
fn entries(now: Timestamp, stream: &str, line: &mut Vec<u8>) -> Vec<u8> {
    let head = format!("{now:.9} {stream} ");
    let mut out = Vec::with_capacity(line.len() + line.len() / 8 + head.len() + 3);
    let mut rest = &line[..];
    loop {
        let end = rest.iter().take(MAX_TEXT + 1).position(|b| *b == b'\n');
        let (text, tag, used) = match end {
            Some(end) => (&rest[..end], b"F ", end + 1),
            None if rest.len() > MAX_TEXT => (&rest[..MAX_TEXT], b"P ", MAX_TEXT),
            None => break,
        };
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(tag);
        out.extend_from_slice(text);
        out.push(b'\n');
        rest = &rest[used..];
    }
    let used = line.len() - rest.len();
    line.drain(..used);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &mut Vec<u8>) -> String {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        String::from_utf8(entries(now, "stdout", line)).unwrap()
    }

    #[test]
    fn writes_full_lines_and_keeps_the_rest() {
        let mut line = b"one\ntwo\nthr".to_vec();
        let want = "2023-11-14T22:13:20.000000000Z stdout F one\n2023-11-14T22:13:20.000000000Z stdout F two\n";
        assert_eq!(split(&mut line), want);
        assert_eq!(line, b"thr");
    }

    #[test]
    fn splits_long_lines_into_parts() {
        let mut line = vec![b'x'; 2 * MAX_TEXT + 5];
        line.push(b'\n');
        let text = split(&mut line);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains(" P x") && lines[1].contains(" P x") && lines[2].ends_with(" F xxxxx"));
        let mut exact = vec![b'y'; MAX_TEXT];
        exact.push(b'\n');
        assert_eq!(split(&mut exact).lines().count(), 1);
    }

    #[test]
    fn reopens_after_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let mut log = LogWriter::open(&path).unwrap();
        let mut line = Vec::new();
        log.write("stderr", &mut line, b"old\nta");
        std::fs::rename(&path, dir.path().join("rotated")).unwrap();
        log.reopen().unwrap();
        log.write("stderr", &mut line, b"il");
        log.finish("stderr", &mut line);
        assert!(std::fs::read_to_string(dir.path().join("rotated")).unwrap().ends_with(" stderr F old\n"));
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(" stderr F tail\n"));
    }
}
