//! Logs of a run: a file a step as Azure shows it, and one file of the whole run to follow.

use crate::logging::mask::SecretMasker;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// A line of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// Stage.
    pub stage: String,
    /// Job.
    pub job: String,
    /// Number of the step's log.
    pub log: u32,
    /// Masked text.
    pub line: String,
}

/// Bytes of the whole log so far, and whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    bytes: u64,
    ended: bool,
}

/// Log of a run; readers follow it by position, so nothing is read twice or missed.
pub struct RunLog {
    folder: PathBuf,
    whole: Mutex<File>,
    progress: watch::Sender<Progress>,
}

impl RunLog {
    /// Opens the log in the folder of a run; a torn last line is cut off.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(run_folder: &Path) -> io::Result<Self> {
        let folder = run_folder.join("logs");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("run.jsonl");
        let mut whole = File::options().create(true).read(true).append(true).open(&path)?;
        let mut good = 0;
        let mut reader = BufReader::new(&mut whole);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            good += read as u64;
        }
        whole.set_len(good)?;
        let progress = watch::Sender::new(Progress { bytes: good, ended: false });
        Ok(Self { folder, whole: Mutex::new(whole), progress })
    }

    /// Path of a step's log.
    pub fn step_path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:03}.log"))
    }

    /// No more lines will come.
    pub fn end(&self) {
        self.progress.send_if_modified(|p| !std::mem::replace(&mut p.ended, true));
    }

    /// More lines may come: a rerun.
    pub fn reopen(&self) {
        self.progress.send_if_modified(|p| std::mem::replace(&mut p.ended, false));
    }

    fn append(&self, line: &LogLine) -> io::Result<()> {
        let mut json = serde_json::to_vec(line)?;
        json.push(b'\n');
        let mut whole = self.whole.lock();
        whole.write_all(&json)?;
        self.progress.send_modify(|p| p.bytes += json.len() as u64);
        Ok(())
    }

    /// Lines (JSON, each with its line end) from `position` on, and the position after them. With `follow`,
    /// waits until there are some; an empty answer says that the log has ended.
    ///
    /// # Errors
    /// Any error of reading.
    pub async fn read(&self, position: u64, follow: bool) -> io::Result<(Vec<u8>, u64)> {
        let mut progress = self.progress.subscribe();
        let seen = match follow {
            // The sender lives as long as `self`.
            true => progress.wait_for(|p| p.bytes > position || p.ended).await.map_or(position, |p| p.bytes),
            false => progress.borrow().bytes,
        };
        let length = seen.saturating_sub(position).min(1 << 20);
        let mut file = File::open(self.folder.join("run.jsonl"))?;
        file.seek(SeekFrom::Start(position))?;
        let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact(&mut content)?;
        // Part of a line waits for the next call.
        let whole = content.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        content.truncate(whole);
        Ok((content, position + whole as u64))
    }
}

/// Writer of the log of one step.
pub struct StepLog {
    run: Arc<RunLog>,
    masker: Arc<SecretMasker>,
    stage: String,
    job: String,
    number: u32,
    file: Mutex<File>,
}

impl StepLog {
    /// Opens log `number` of a run.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(run: Arc<RunLog>, masker: Arc<SecretMasker>, stage: &str, job: &str, number: u32) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(run.step_path(number))?;
        let (stage, job) = (stage.to_owned(), job.to_owned());
        Ok(Self { run, masker, stage, job, number, file: Mutex::new(file) })
    }

    /// Writes text, masked, each of its lines with the time: `2026-01-31T12:00:00.0000000Z text`.
    pub fn write(&self, text: &str) {
        let masked = self.masker.mask(text);
        for line in masked.split('\n') {
            let line = line.trim_end_matches('\r');
            let at = Timestamp::now();
            let stamped = format!("{} {line}\n", at.strftime("%Y-%m-%dT%H:%M:%S.%7fZ"));
            let (stage, job) = (self.stage.clone(), self.job.clone());
            let whole = LogLine { at, stage, job, log: self.number, line: line.to_owned() };
            let written = self.file.lock().write_all(stamped.as_bytes()).and_then(|()| self.run.append(&whole));
            if let Err(error) = written {
                tracing::error!(%error, log = self.number, "a line of a pipeline log is lost");
            }
        }
    }

    /// The masker of the run.
    pub fn masker(&self) -> &Arc<SecretMasker> {
        &self.masker
    }

    /// `##[section]`.
    pub fn section(&self, text: &str) {
        self.write(&format!("##[section]{text}"));
    }
    /// `##[command]`.
    pub fn command(&self, text: &str) {
        self.write(&format!("##[command]{text}"));
    }
    /// `##[warning]`.
    pub fn warning(&self, text: &str) {
        self.write(&format!("##[warning]{text}"));
    }
    /// `##[error]`.
    pub fn error(&self, text: &str) {
        self.write(&format!("##[error]{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_read_every_line_once_and_masked() {
        let dir = tempfile::tempdir().unwrap();
        let run = Arc::new(RunLog::open(dir.path()).unwrap());
        let masker = Arc::new(SecretMasker::default());
        masker.add("hunter2");
        let step = StepLog::open(run.clone(), masker, "Build", "job", 1).unwrap();
        step.write("one\ntwo hunter2");
        let (first, position) = run.read(0, true).await.unwrap();
        let lines: Vec<LogLine> = first
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(lines.iter().map(|l| l.line.as_str()).collect::<Vec<_>>(), ["one", "two ***"]);
        let (rest, ()) = tokio::join!(run.read(position, true), async { step.write("three") });
        assert_eq!(rest.unwrap().0.iter().filter(|b| **b == b'\n').count(), 1);
        let (all, position) = run.read(0, false).await.unwrap();
        run.end();
        assert!(run.read(position, true).await.unwrap().0.is_empty());
        assert!(all.len() as u64 == position);
        let text = std::fs::read_to_string(run.step_path(1)).unwrap();
        let stamp = regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z one\n").unwrap();
        assert!(stamp.is_match(&text), "{text}");
        assert!(!text.contains("hunter2"));
    }
}
