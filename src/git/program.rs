//! The git program: found once, run without a shell, with an environment of its own.

use super::GitError;
use aksim_runtime::process::signal_group;
use nix::sys::signal::Signal;
use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// How long a question to a repository may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Most that is read of an answer, bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Most that is read of an error, bytes.
const MAX_MESSAGE: u64 = 64 << 10;

/// Settings that hold for every command, whatever a repository says.
const SETTINGS: &[(&str, &str)] = &[
    ("http.receivepack", "true"),
    ("http.getanyfile", "false"),
    ("receive.fsckObjects", "true"),
    // Old histories have these; GitHub takes them.
    ("receive.fsck.zeroPaddedFilemode", "ignore"),
    ("receive.fsck.badTimezone", "ignore"),
    ("receive.fsck.missingSpaceBeforeDate", "ignore"),
    ("receive.denyDeleteCurrent", "ignore"),
    // Nothing may go on behind a request: the host tidies up when it starts.
    ("receive.autogc", "false"),
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
    // CI systems fetch a commit by its hash.
    ("uploadpack.allowReachableSHA1InWant", "true"),
    ("uploadpack.allowTipSHA1InWant", "true"),
    ("uploadpack.allowFilter", "true"),
    ("core.quotePath", "false"),
];

/// git, as the host runs it.
#[derive(Clone, Debug)]
pub struct GitProgram {
    git: PathBuf,
    backend: PathBuf,
    home: PathBuf,
    hooks: PathBuf,
}

impl GitProgram {
    /// Finds git and its `http-backend`. `home` is an empty folder in place of the user's;
    /// `hooks` is where the hooks of all repositories lie.
    ///
    /// # Errors
    /// [`GitError::GitMissing`].
    pub async fn find(git: Option<&Path>, home: &Path, hooks: &Path) -> Result<Self, GitError> {
        let git = match git {
            Some(git) => git.to_owned(),
            None => on_path("git").ok_or_else(|| missing("git", io::Error::from(io::ErrorKind::NotFound)))?,
        };
        let mut program =
            Self { git: git.clone(), backend: PathBuf::new(), home: home.to_owned(), hooks: hooks.to_owned() };
        let exec_path = program.text(home, &["--exec-path"]).await.map_err(|error| match error {
            GitError::File { source, .. } => missing(&git.display().to_string(), source),
            other => other,
        })?;
        program.backend = Path::new(exec_path.trim()).join("git-http-backend");
        match program.backend.metadata() {
            Ok(_) => Ok(program),
            Err(source) => Err(missing(&program.backend.display().to_string(), source)),
        }
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.git
    }

    /// The CGI program that speaks smart HTTP.
    pub fn http_backend(&self) -> Command {
        self.prepare(&self.backend)
    }

    /// A command in `dir`.
    pub fn command(&self, dir: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.prepare(&self.git);
        command.args(arguments).current_dir(dir);
        command
    }

    /// Nothing of the user's environment and configuration reaches git here.
    fn prepare(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for kept in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
            .env("HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_COUNT", (SETTINGS.len() + 1).to_string());
        for (index, (key, value)) in SETTINGS.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        let last = SETTINGS.len();
        command
            .env(format!("GIT_CONFIG_KEY_{last}"), "core.hooksPath")
            .env(format!("GIT_CONFIG_VALUE_{last}"), &self.hooks)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // One group, so that the programs git starts end with it.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// What a command prints.
    ///
    /// # Errors
    /// [`GitError`] when it fails, prints too much or takes too long.
    pub async fn output(&self, dir: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<Vec<u8>, GitError> {
        self.answer(dir, arguments, Vec::new()).await
    }

    /// The same as text; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`GitProgram::output`].
    pub async fn text(&self, dir: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<String, GitError> {
        Ok(String::from_utf8_lossy(&self.output(dir, arguments).await?).into_owned())
    }

    /// What a command prints that reads `input`.
    ///
    /// # Errors
    /// As [`GitProgram::output`].
    pub async fn answer(
        &self,
        dir: &Path,
        arguments: &[impl AsRef<OsStr>],
        input: Vec<u8>,
    ) -> Result<Vec<u8>, GitError> {
        let shown = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut command = self.command(dir, arguments);
        command.stdin(Stdio::piped());
        let child = ChildGroup::spawn(&mut command).map_err(GitError::file(&self.git))?;
        let (code, output, message) = tokio::time::timeout(DEADLINE, converse(child, input))
            .await
            .map_err(|_| GitError::Deadline { command: shown.clone(), deadline: DEADLINE })?
            .map_err(GitError::file(dir))?;
        if output.len() as u64 >= MAX_ANSWER {
            return Err(GitError::Answer { command: shown, what: format!("more than {MAX_ANSWER} bytes") });
        }
        match code {
            Some(0) => Ok(output),
            _ => {
                let message = String::from_utf8_lossy(&message).trim().to_owned();
                Err(GitError::Git { command: shown, dir: dir.to_owned(), message })
            }
        }
    }
}

async fn converse(mut child: ChildGroup, input: Vec<u8>) -> io::Result<(Option<i32>, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = child.pipes()?;
    let write = async move {
        let mut stdin = stdin;
        // A program that has read enough closes its input: its exit code says whether that is well.
        let _ = stdin.write_all(&input).await;
    };
    let read = async move {
        let mut output = Vec::new();
        stdout.take(MAX_ANSWER).read_to_end(&mut output).await.map(|_| output)
    };
    let ((), output, message) = tokio::join!(write, read, bounded(stderr));
    Ok((child.wait().await?.code(), output?, message))
}

/// The beginning of a stream of messages; the rest is read and dropped.
pub(super) async fn bounded(stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut stream = stream;
    let mut message = Vec::new();
    // Messages only inform; an error of reading them is not one of the command.
    let _ = (&mut stream).take(MAX_MESSAGE).read_to_end(&mut message).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    message
}

fn missing(what: &str, source: io::Error) -> GitError {
    GitError::GitMissing { what: what.to_owned(), source }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}

/// A program with the programs it starts; all are killed when this goes before they have ended.
pub(super) struct ChildGroup {
    child: Child,
    ended: bool,
}

/// Input, output and messages of a program.
pub(super) type Pipes = (tokio::process::ChildStdin, tokio::process::ChildStdout, tokio::process::ChildStderr);

impl ChildGroup {
    /// Starts a command whose process group is its own.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self { child: command.spawn()?, ended: false })
    }

    /// Its three pipes, once.
    pub(super) fn pipes(&mut self) -> io::Result<Pipes> {
        let taken = || io::Error::other("a stream of the program was not piped");
        let stdin = self.child.stdin.take().ok_or_else(taken)?;
        let stdout = self.child.stdout.take().ok_or_else(taken)?;
        let stderr = self.child.stderr.take().ok_or_else(taken)?;
        Ok((stdin, stdout, stderr))
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let status = self.child.wait().await?;
        self.ended = true;
        Ok(status)
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        // The id is that of the group; it is ours until the child has been waited for.
        if !self.ended {
            signal_group(self.child.id(), Signal::SIGKILL);
        }
    }
}
