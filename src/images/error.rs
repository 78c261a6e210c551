//! Why an image could not be built, pulled, pushed or imported.

use super::dockerfile::DockerfileError;
use aksim_model::advice::{Advice, ExitClass};
use std::{borrow::Cow, io, path::Path, time::Duration};

/// Why an image could not be built, pulled, pushed or imported.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum BuildError {
    /// The Dockerfile is wrong; carries the place.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Dockerfile(#[from] Box<DockerfileError>),
    /// A command of a RUN ended with an error; its output was streamed.
    #[error("{instruction}: the command ended with exit code {code}")]
    Command {
        /// The instruction.
        instruction: String,
        /// Its exit code; 128 + signal when killed by one.
        code: i32,
        /// Its last lines.
        output: Vec<String>,
    },
    /// A base image or one named by `--from` cannot be had.
    #[error("image {image}: {reason}")]
    #[diagnostic(help("{hint}"))]
    Image {
        /// The image.
        image: String,
        /// Why.
        reason: String,
        /// Next step.
        hint: String,
    },
    /// A registry refused, or cannot be reached.
    #[error("registry {registry}: {reason}")]
    Registry {
        /// Host of the registry.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// An archive or layout that is not what it should be.
    #[error("{what}: {reason}")]
    Malformed {
        /// File or blob.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something the builtin engine does not do.
    #[error("{what} is not supported by the builtin builder")]
    Unsupported {
        /// What.
        what: String,
    },
    /// The deadline passed.
    #[error("the build took longer than {} s", .0.as_secs())]
    Deadline(Duration),
    /// Somebody gave up.
    #[error("the build was cancelled")]
    Cancelled,
    /// An operation of the file system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A worker thread failed.
    #[error("internal error: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl From<DockerfileError> for BuildError {
    fn from(error: DockerfileError) -> Self {
        Self::Dockerfile(Box::new(error))
    }
}

impl Advice for BuildError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::Dockerfile(error) => error.hint.as_deref(),
            Self::Image { hint, .. } => Some(hint),
            Self::Deadline(_) => Some("give the build more time"),
            Self::Io { source, .. } => return source.hint(),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::Dockerfile(_) => ExitClass::Usage,
            Self::Deadline(_) => ExitClass::Deadline,
            Self::Cancelled => ExitClass::Interrupted,
            Self::Io { source, .. } => source.class(),
            _ => ExitClass::Failure,
        }
    }
}

impl BuildError {
    pub(super) fn malformed(what: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { what: what.to_string(), reason: reason.to_string() }
    }
}

/// Makes an error of an operation on a file.
pub(super) fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> BuildError + use<> {
    let doing = format!("{doing} {}", path.display());
    move |source| BuildError::Io { doing, source }
}
