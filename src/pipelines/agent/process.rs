//! Processes of steps: output line by line, and an end that takes the whole process group.

use crate::logging::mask::SecretMasker;
use aksim_cluster::processes::signal_marked;
use aksim_runtime::process::{End, end, signal_group};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How the agent asks a process to end, with its patience.
const LADDER: [(Signal, Duration); 2] =
    [(Signal::SIGINT, Duration::from_millis(7_500)), (Signal::SIGTERM, Duration::from_millis(2_500))];
/// How long output may stay open after its process has ended: a background child may hold it.
const AFTER_EXIT: Duration = Duration::from_secs(5);
/// Longer lines are told in parts.
const LINE_LIMIT: usize = 64 << 10;

/// Environment variable by which the agent finds processes that a job left behind.
pub const LOOKUP_VARIABLE: &str = "VSTS_PROCESS_LOOKUP_ID";

/// What to start.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Program, found in `PATH` of `environment` when it is a bare name.
    pub program: PathBuf,
    /// Arguments; no shell reads them.
    pub arguments: Vec<OsString>,
    /// Working folder; it must exist.
    pub folder: PathBuf,
    /// The whole environment: nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Given to the standard input, which is then closed.
    pub input: Option<Vec<u8>>,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a process gave no exit status.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start {} in {}: {source}", program.display(), folder.display())]
    Start {
        /// Program.
        program: PathBuf,
        /// Working folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It could not be waited for.
    #[error("cannot wait for {}: {source}", program.display())]
    Wait {
        /// Program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was told to end, and has ended.
    #[error("The operation was canceled.")]
    Cancelled,
}

/// Runs a process to its end; every line goes to `on_line`. On cancellation the process group gets SIGINT,
/// then SIGTERM, then SIGKILL, as the agent does it, and nothing of the group is left.
///
/// # Errors
/// [`ProcessError`]; a bad exit status is none.
pub async fn run(
    spec: ProcessSpec,
    masker: &Arc<SecretMasker>,
    cancel: &CancellationToken,
    on_line: impl FnMut(Source, &str) + Send,
) -> Result<ExitStatus, ProcessError> {
    if cancel.is_cancelled() {
        return Err(ProcessError::Cancelled);
    }
    let mut child = start(&spec)?;
    let group = child.id();
    let (mut readers, mut lines) = read_output(child.stdout.take(), child.stderr.take(), masker);
    if let (Some(input), Some(mut stdin)) = (spec.input.clone(), child.stdin.take()) {
        // A program that does not read its input is free not to.
        readers.spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, &input).await;
        });
    }
    let send = |kind| {
        signal_group(group, kind);
        std::future::ready(())
    };
    let status = follow(child.wait(), &mut lines, on_line, cancel, send).await.ok_or(ProcessError::Cancelled)?;
    status.map_err(|source| ProcessError::Wait { program: spec.program.clone(), source })
}

/// Hands every line to `on_line` until the process has `ended` and its output is closed; output that a child in the
/// background holds open is read for [`AFTER_EXIT`]. On cancellation the process is ended by the agent's ladder, and
/// what it leaves by SIGKILL; `None` then.
pub(super) async fn follow<T, S: Future<Output = ()>>(
    ended: impl Future<Output = T>,
    lines: &mut mpsc::Receiver<(Source, String)>,
    mut on_line: impl FnMut(Source, &str),
    cancel: &CancellationToken,
    mut send: impl FnMut(Signal) -> S,
) -> Option<T> {
    let exited = Notify::new();
    let waiting = async {
        let result = ended.await;
        exited.notify_one();
        result
    };
    let reading = async {
        let late = async {
            exited.notified().await;
            tokio::time::sleep(AFTER_EXIT).await;
        };
        tokio::pin!(late);
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some((source, line)) => on_line(source, &line),
                    None => break,
                },
                () = &mut late => break,
            }
        }
        while let Ok((source, line)) = lines.try_recv() {
            on_line(source, &line);
        }
    };
    let whole = async { tokio::join!(waiting, reading).0 };
    tokio::pin!(whole);
    tokio::select! {
        result = &mut whole => return Some(result),
        () = cancel.cancelled() => {}
    }
    if !matches!(end(&LADDER, &mut send, whole).await, End::Killed(_)) {
        send(Signal::SIGKILL).await;
    }
    None
}

fn start(spec: &ProcessSpec) -> Result<Child, ProcessError> {
    let stdin = if spec.input.is_some() { Stdio::piped() } else { Stdio::null() };
    Command::new(&spec.program)
        .args(&spec.arguments)
        .current_dir(&spec.folder)
        .env_clear()
        .envs(&spec.environment)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ProcessError::Start { program: spec.program.clone(), folder: spec.folder.clone(), source })
}

/// The lines of both outputs as they come; the readers live as long as the set.
pub(super) fn read_output(
    stdout: Option<impl AsyncRead + Unpin + Send + 'static>,
    stderr: Option<impl AsyncRead + Unpin + Send + 'static>,
    masker: &Arc<SecretMasker>,
) -> (JoinSet<()>, mpsc::Receiver<(Source, String)>) {
    let (sender, lines) = mpsc::channel(256);
    let mut readers = JoinSet::new();
    if let Some(out) = stdout {
        readers.spawn(read_lines(out, Source::Stdout, masker.clone(), sender.clone()));
    }
    if let Some(err) = stderr {
        readers.spawn(read_lines(err, Source::Stderr, masker.clone(), sender));
    }
    (readers, lines)
}

async fn read_lines(
    mut from: impl AsyncRead + Unpin,
    source: Source,
    masker: Arc<SecretMasker>,
    to: mpsc::Sender<(Source, String)>,
) {
    let mut pending = Vec::new();
    let mut chunk = vec![0u8; 16 << 10];
    loop {
        let read = from.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        pending.extend_from_slice(&chunk[..read]);
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if to.send((source, text(&line))).await.is_err() {
                return;
            }
        }
        while pending.len() > LINE_LIMIT {
            let shown = String::from_utf8_lossy(&pending).into_owned();
            let cut = masker.safe_cut(&shown, LINE_LIMIT);
            if cut == 0 {
                break;
            }
            let (part, rest) = shown.split_at(cut);
            let part = part.to_owned();
            pending = rest.as_bytes().to_vec();
            if to.send((source, part)).await.is_err() {
                return;
            }
        }
    }
    if !pending.is_empty() {
        // The receiver is gone when nobody wants the rest.
        let _ = to.send((source, text(&pending))).await;
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned()
}

/// Ends every process whose environment names `lookup` (the agent's orphan clean-up); process id and name of each.
pub async fn end_orphans(lookup: &str) -> Vec<(i32, String)> {
    signal_marked(&format!("{LOOKUP_VARIABLE}={lookup}"), Signal::SIGKILL).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash(script: &str) -> ProcessSpec {
        ProcessSpec {
            program: "bash".into(),
            arguments: vec!["-c".into(), script.into()],
            folder: "/".into(),
            environment: std::env::vars().collect(),
            input: None,
        }
    }

    async fn lines(script: &str) -> (Vec<(Source, String)>, Result<ExitStatus, ProcessError>) {
        let mut seen = Vec::new();
        let status = run(bash(script), &Arc::default(), &CancellationToken::new(), |source, line| {
            seen.push((source, line.to_owned()));
        })
        .await;
        (seen, status)
    }

    #[tokio::test]
    async fn lines_and_status() {
        let (seen, status) = lines("echo one; printf 'two'; exit 3").await;
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(seen, [(Source::Stdout, "one".to_owned()), (Source::Stdout, "two".to_owned())]);
        let (seen, _) = lines("echo bad >&2").await;
        assert_eq!(seen, [(Source::Stderr, "bad".to_owned())]);
    }

    #[tokio::test]
    async fn a_background_child_does_not_hold_the_step() {
        let (_, status) = lines("sleep 600 & echo started").await;
        assert!(status.unwrap().success());
    }

    #[tokio::test]
    async fn cancellation_ends_grandchildren_that_ignore_it() {
        let cancel = CancellationToken::new();
        let (told, stop) = (cancel.clone(), "trap '' INT TERM; (trap '' INT TERM; sleep 600) & echo $!; wait");
        let mut grandchild = 0;
        let outcome = run(bash(stop), &Arc::default(), &cancel, |_, line| {
            grandchild = line.parse().unwrap();
            told.cancel();
        })
        .await;
        assert!(matches!(outcome, Err(ProcessError::Cancelled)));
        // A signal that cannot be refused is sent; when it takes effect is the kernel's.
        let gone = async {
            loop {
                let state = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
                if state.is_empty() || state.contains(" Z ") || state.contains(" X ") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the grandchild has ended");
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let mut spec = bash("");
        spec.program = "/no/such/program".into();
        let error = run(spec, &Arc::default(), &CancellationToken::new(), |_, _| {}).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot start /no/such/program in /"), "{error}");
    }

    /// Many times, for now and then one is met while its program is just being replaced.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn orphans_are_found_by_their_environment() {
        for _ in 0..50 {
            let lookup = format!("vsts_{:032x}", rand::random::<u128>());
            let mut spec = bash("setsid sleep 600 >/dev/null 2>&1 &");
            spec.environment.insert(LOOKUP_VARIABLE.to_owned(), lookup.clone());
            run(spec, &Arc::default(), &CancellationToken::new(), |_, _| {}).await.unwrap();
            assert_eq!(end_orphans(&lookup).await.len(), 1);
        }
        assert!(end_orphans("vsts_nobody").await.is_empty());
    }
}
