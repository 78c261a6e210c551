//! Runs a service's build command on the host, its output streamed line by line.

use aksim_runtime::process::signal_group;
use nix::sys::signal::Signal;
use std::{
    collections::VecDeque,
    path::Path,
    process::{ExitStatus, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use tokio_util::sync::CancellationToken;

/// Lines of output kept as evidence of a failure.
const KEPT_LINES: usize = 60;

/// Why a build command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BuildCommandError {
    /// It cannot be started.
    #[error("build command {command:?} cannot be started: {source}")]
    Start {
        /// Program and arguments.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended badly.
    #[error("build command {command:?} failed ({status})\n{output}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Last lines of its output.
        output: String,
    },
    /// A newer change took over.
    #[error("superseded")]
    Cancelled,
}

/// Runs `command` in `folder`; every line goes to `on_line`.
///
/// # Errors
/// [`BuildCommandError`]; on cancellation the whole process group is killed.
pub async fn run(
    command: &[String],
    folder: &Path,
    cancel: &CancellationToken,
    mut on_line: impl FnMut(&str),
) -> Result<(), BuildCommandError> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let shown = command.join(" ");
    let start = |source| BuildCommandError::Start { command: shown.clone(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let group = child.id();
    let missing = || start(std::io::ErrorKind::BrokenPipe.into());
    let mut out = BufReader::new(child.stdout.take().ok_or_else(missing)?).lines();
    let mut err = BufReader::new(child.stderr.take().ok_or_else(missing)?).lines();
    let mut kept = VecDeque::new();
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let line = tokio::select! {
            () = cancel.cancelled() => {
                signal_group(group, Signal::SIGKILL);
                return Err(BuildCommandError::Cancelled);
            }
            line = out.next_line(), if out_open => line.ok().flatten().or_else(|| { out_open = false; None }),
            line = err.next_line(), if err_open => line.ok().flatten().or_else(|| { err_open = false; None }),
        };
        if let Some(line) = line {
            on_line(&line);
            kept.push_back(line);
            if kept.len() > KEPT_LINES {
                kept.pop_front();
            }
        }
    }
    let status = child.wait().await.map_err(start)?;
    if status.success() {
        return Ok(());
    }
    let output = kept.into_iter().collect::<Vec<_>>().join("\n");
    Err(BuildCommandError::Failed { command: shown, status, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[tokio::test]
    async fn output_is_streamed_and_kept_as_evidence() {
        let mut lines = Vec::new();
        let words = command(&["sh", "-c", "echo one; echo two >&2; exit 3"]);
        let error =
            run(&words, Path::new("/"), &CancellationToken::new(), |l| lines.push(l.to_owned())).await.unwrap_err();
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        assert!(matches!(error, BuildCommandError::Failed { status, .. } if status.code() == Some(3)));
    }

    #[tokio::test]
    async fn cancelling_kills_what_it_started() {
        let cancel = CancellationToken::new();
        let words = command(&["sh", "-c", "echo started; sleep 1000 & wait"]);
        let stop = cancel.clone();
        let error = run(&words, Path::new("/"), &cancel, move |_| stop.cancel()).await.unwrap_err();
        assert!(matches!(error, BuildCommandError::Cancelled));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = run(&command(&["no-such-compiler"]), Path::new("/"), &CancellationToken::new(), |_| {}).await;
        assert!(error.unwrap_err().to_string().contains("no-such-compiler"));
    }
}
