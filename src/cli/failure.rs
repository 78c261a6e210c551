//! Errors as people see them, and the exit codes that the docs of the crate `aksim` list.

use aksim_config::{ConfigError, check::Problem};
use aksim_git::GitError;
use aksim_images::BuildError;
use aksim_model::advice::Advice;
pub use aksim_model::advice::ExitClass as Code;
use aksim_runtime::control::ControlError;
use aksim_scenarios::ScenarioError;
use aksim_simulator::SimulatorError;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    path::Path,
};

/// An error on its way to the screen.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: Code,
    /// What failed, on what input, why. May have several lines.
    pub message: String,
    /// Next step.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure that says and ends as the error advises.
    pub fn advised(error: &dyn Advice) -> Self {
        Self { code: error.class(), message: error.to_string(), hint: error.hint().map(Cow::into_owned) }
    }

    /// Something failed in a way that has no better class.
    pub fn other(error: impl fmt::Display) -> Self {
        Self::new(Code::Failure, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message.trim_end())?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Errors that know what to do about them become failures as they are.
macro_rules! advised {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::advised(&error)
            }
        }
    )+};
}

advised!(std::io::Error, BuildError, ControlError, GitError, SimulatorError);

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::new(Code::Failure, status.message),
            other => Self::other(other),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Self::advised(&error);
        match error {
            ConfigError::Invalid { path, text, problems } => {
                Self { message: excerpts(&path, &text, &problems), ..failure }
            }
            _ => failure,
        }
    }
}

impl From<ScenarioError> for Failure {
    fn from(error: ScenarioError) -> Self {
        let failure = Self::advised(&error);
        match error {
            ScenarioError::Invalid { path, text, problems } => {
                Self { message: excerpts(&path, &text, &problems), ..failure }
            }
            _ => failure,
        }
    }
}

/// Every problem of a file with the lines around it.
fn excerpts(path: &Path, text: &str, problems: &[Problem]) -> String {
    let mut message = format!("{} has {} problem(s)\n", path.display(), problems.len());
    for problem in problems {
        let excerpt = Excerpt {
            message: problem.message.clone(),
            hint: problem.hint.clone(),
            source: NamedSource::new(path.display().to_string(), text.to_owned()),
            label: LabeledSpan::new_with_span(None, problem.span.start..problem.span.end),
        };
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
        // Writing to a string cannot fail.
        let _ = handler.render_report(&mut message, &excerpt);
    }
    message
}

#[derive(Debug)]
struct Excerpt {
    message: String,
    hint: Option<String>,
    source: NamedSource<String>,
    label: LabeledSpan,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Excerpt {}
impl Diagnostic for Excerpt {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(self.label.clone())))
    }
}

/// Several failures of the same kind as one, each on lines of its own.
pub fn listed(code: Code, title: &str, items: impl IntoIterator<Item = (String, String)>) -> Failure {
    let mut message = title.to_owned();
    for (name, why) in items {
        // Writing to a string cannot fail.
        let _ = write!(message, "\n\n{name}: {}", why.trim_end());
    }
    Failure::new(code, message)
}
