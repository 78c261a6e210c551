//! Why the Git host cannot do what it is asked.

use super::name::NameError;
use aksim_model::advice::{Advice, ExitClass};
use aksim_runtime::{net::HttpClientError, pki::PkiError};
use std::{borrow::Cow, io, path::PathBuf, time::Duration};

/// Why the Git host cannot start, or work on a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git, or not all of it.
    #[error("{what}: {source}")]
    GitMissing {
        /// Program that is not there.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// git refused.
    #[error("git {command} in {}: {message}", dir.display())]
    Git {
        /// Its arguments.
        command: String,
        /// Where it ran.
        dir: PathBuf,
        /// What it said.
        message: String,
    },
    /// git took too long and was ended.
    #[error("git {command}: not done within {} s", deadline.as_secs())]
    Deadline {
        /// Its arguments.
        command: String,
        /// What it had.
        deadline: Duration,
    },
    /// git answered something that is not its format.
    #[error("git {command} answered unexpectedly: {what}")]
    Answer {
        /// Its arguments.
        command: String,
        /// What is unexpected.
        what: String,
    },
    /// The port is taken.
    #[error("git host: {0}")]
    Listen(#[source] io::Error),
    /// A file of the state folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something in a request or configuration is not acceptable.
    #[error("{field}: {why}")]
    Invalid {
        /// Which part.
        field: &'static str,
        /// Why not.
        why: String,
    },
    /// The certificate cannot be issued.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The client of webhooks cannot be made.
    #[error(transparent)]
    HttpClient(#[from] HttpClientError),
}

impl Advice for GitError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::GitMissing { .. } => Some(
                "install git 2.31 or newer with its http-backend (Debian: `apt-get install git`, macOS: `brew install git`)",
            ),
            Self::Listen(_) => Some("choose another port, or 0 for a free one"),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::GitMissing { .. } => ExitClass::Environment,
            _ => ExitClass::Failure,
        }
    }
}

impl GitError {
    /// To map an error of the file system at `path`.
    pub(super) fn file(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(super) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }
}
