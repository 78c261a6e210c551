//! Instructions of a Dockerfile as they are written, before variables are replaced.

use super::{error::Span, lines::Heredoc};
use serde::Serialize;
use std::time::Duration;

/// A parsed Dockerfile.
#[derive(Clone, Debug, Serialize)]
pub struct Dockerfile {
    /// Escape character.
    pub escape: char,
    /// `# syntax=`: what frontend the author had in mind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syntax: Option<String>,
    /// ARGs before the first FROM.
    pub global_args: Vec<Instruction>,
    /// Stages in order, one or more.
    pub stages: Vec<Stage>,
}

/// A stage: FROM and what follows it.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// `--platform`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Base: `scratch`, an earlier stage, or an image; variables not replaced.
    pub base: String,
    /// `AS` name, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Place of the FROM.
    #[serde(skip)]
    pub span: Span,
    /// Place of the base's name.
    #[serde(skip)]
    pub base_span: Span,
    /// Instructions in order.
    pub instructions: Vec<Instruction>,
}

/// An instruction with its place.
#[derive(Clone, Debug, Serialize)]
pub struct Instruction {
    /// What it does.
    #[serde(flatten)]
    pub kind: Kind,
    /// Its text, on one line, for progress and history.
    pub text: String,
    /// Its place.
    #[serde(skip)]
    pub span: Span,
}

/// A command as the shell's or as a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandLine {
    /// Given to the shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// A RUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The command; with heredocs, the first line.
    pub command: CommandLine,
    /// Heredocs of the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heredocs: Vec<Heredoc>,
    /// `--mount`s.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<RunMount>,
    /// `--network`: `default`, `none`, `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// A `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RunMount {
    /// Files of the context, a stage or an image.
    Bind {
        /// Stage or image; the context when absent.
        from: Option<String>,
        /// Path there.
        source: String,
        /// Path in the container.
        target: String,
        /// Writes are allowed, and lost.
        writable: bool,
    },
    /// A folder kept between builds.
    Cache {
        /// Its identity; the target when not given.
        id: String,
        /// Path in the container.
        target: String,
        /// Read-only.
        readonly: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Path in the container.
        target: String,
        /// Bytes.
        size: Option<u64>,
    },
    /// A file that leaves no trace in the image.
    Secret {
        /// Which of the build's secrets.
        id: String,
        /// Path in the container; `/run/secrets/ID` by default.
        target: Option<String>,
        /// Environment variable to pass it in instead of a file.
        env: Option<String>,
        /// Missing is an error.
        required: bool,
    },
}

/// A COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Sources, variables not replaced.
    pub sources: Vec<String>,
    /// Heredoc sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heredocs: Vec<Heredoc>,
    /// Destination, variables not replaced.
    pub destination: String,
    /// `--from`: a stage or an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `--chown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chown: Option<String>,
    /// `--chmod`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chmod: Option<String>,
    /// `--link`: the destination's symbolic links are not followed.
    pub link: bool,
    /// `--parents`: the sources' folders are kept.
    pub parents: bool,
    /// `--exclude`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// `--checksum` (ADD).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// `--unpack` (ADD).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpack: Option<bool>,
}

/// A HEALTHCHECK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// `None` is HEALTHCHECK NONE.
    pub command: Option<CommandLine>,
    /// Time between checks.
    pub interval: Option<Duration>,
    /// Time one check may take.
    pub timeout: Option<Duration>,
    /// Failures at start that do not count.
    pub start_period: Option<Duration>,
    /// Time between checks at start.
    pub start_interval: Option<Duration>,
    /// Failures until unhealthy.
    pub retries: Option<u32>,
}

/// What an instruction does.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "instruction", content = "arguments", rename_all = "UPPERCASE")]
pub enum Kind {
    /// Names with defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Names with values.
    Env(Vec<(String, String)>),
    /// Names with values.
    Label(Vec<(String, String)>),
    /// A command.
    Run(Run),
    /// Files.
    Copy(Transfer),
    /// Files, archives, URLs.
    Add(Transfer),
    /// Working directory.
    Workdir(String),
    /// User and group.
    User(String),
    /// Ports.
    Expose(Vec<String>),
    /// Folders.
    Volume(Vec<String>),
    /// Shell of shell forms.
    Shell(Vec<String>),
    /// Signal that stops.
    StopSignal(String),
    /// Health check.
    Healthcheck(Healthcheck),
    /// An instruction for images built on this one, as text.
    OnBuild(String),
    /// Program.
    Entrypoint(CommandLine),
    /// Arguments, or program.
    Cmd(CommandLine),
    /// Author.
    Maintainer(String),
}
