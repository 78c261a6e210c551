//! What is wrong with a pipeline, and where.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A place in a pipeline file. Lines and columns count from 1; 0 means the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// Path in its repository, with `@repository` when it is not the pipeline's own.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// One mistake in a pipeline, worded as Azure Pipelines words it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{location}: {message}")]
pub struct PipelineError {
    /// Where it is.
    pub location: Location,
    /// What is wrong.
    pub message: String,
    /// The next step, where one is known.
    pub hint: Option<String>,
}

impl PipelineError {
    /// An error without a hint.
    pub fn new(location: Location, message: impl Into<String>) -> Self {
        Self { location, message: message.into(), hint: None }
    }

    /// The same error with the next step to take.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
