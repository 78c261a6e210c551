//! Why a scenario cannot be read or run. A check that does not hold is no error: it is in the report.

use aksim_config::check::Problem;
use aksim_model::advice::{Advice, ExitClass};
use aksim_runtime::control::ControlError;
use std::{borrow::Cow, io, path::PathBuf};

/// Why a scenario cannot be read, or one of its parts not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not right.
    #[error("{} has {} problem(s)", path.display(), problems.len())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Its text.
        text: String,
        /// Everything that is wrong.
        problems: Vec<Problem>,
    },
    /// No scenario has this name.
    #[error("there is no scenario {name:?}")]
    Unknown {
        /// Asked for.
        name: String,
        /// What there is, or the nearest.
        hint: String,
    },
    /// The environment lacks what the scenario needs.
    #[error("the scenario needs {what}")]
    Needs {
        /// What.
        what: String,
        /// The way to get it.
        hint: String,
    },
    /// The cluster refused or does not answer.
    #[error("{doing}: {source}")]
    Cluster {
        /// What was attempted.
        doing: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The environment refused or does not answer.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// An HTTP client cannot be made, or a request failed.
    #[error("HTTP: {0}")]
    Http(#[from] reqwest::Error),
    /// The database.
    #[error("database: {0}")]
    Sql(#[from] mysql_async::Error),
    /// The environment's certificates.
    #[error(transparent)]
    Pki(#[from] aksim_runtime::pki::PkiError),
    /// An HTTP client of Azure names.
    #[error(transparent)]
    HttpClient(#[from] aksim_runtime::net::HttpClientError),
    /// Something the scenario names is not there, or not as it must be.
    #[error("{0}")]
    Missing(String),
    /// Something has not become so in time.
    #[error("{what} within {seconds} s")]
    Deadline {
        /// What has not.
        what: String,
        /// The deadline.
        seconds: u64,
    },
}

impl Advice for ScenarioError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<&str> = match self {
            Self::Unknown { hint, .. } | Self::Needs { hint, .. } => Some(hint),
            Self::Control(error) => return error.hint(),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ExitClass {
        match self {
            Self::Read { .. } | Self::Invalid { .. } | Self::Unknown { .. } => ExitClass::Usage,
            Self::Needs { .. } => ExitClass::Environment,
            Self::Control(error) => error.class(),
            Self::Deadline { .. } => ExitClass::Deadline,
            _ => ExitClass::Failure,
        }
    }
}

impl ScenarioError {
    /// For `map_err`: the cluster, while doing something.
    pub(super) fn cluster(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Cluster { doing, source: Box::new(source) }
    }
}
