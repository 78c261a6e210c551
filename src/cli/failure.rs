//! Errors as people see them, and the exit codes that the docs of the crate `aksim` list.

use aksim_config::ConfigError;
use aksim_runtime::control::ControlError;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use std::fmt::{self, Write as _};

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Something failed.
    Failure = 1,
    /// Usage or configuration.
    Usage = 2,
    /// The machine lacks something.
    Environment = 3,
    /// A deadline passed.
    Deadline = 4,
    /// A check or scenario failed.
    Check = 5,
    /// A bug of aksim.
    Bug = 70,
    /// Interrupted.
    Interrupted = 130,
}

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

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match aksim_simulator::is_disk_full(&error) {
            true => Self::new(Code::Environment, error.to_string()).hint(aksim_simulator::DISK_FULL_HINT),
            false => Self::other(error),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::new(Code::Failure, status.message),
            other => Self::other(other),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let hint = match &error {
            ControlError::NotRunning { .. } => Some("start it with `aksim up`".to_owned()),
            _ => None,
        };
        Self { code: Code::Failure, message: error.to_string(), hint }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Invalid { path, text, problems } => {
                let mut message = format!("{} has {} problem(s)\n", path.display(), problems.len());
                for problem in &problems {
                    let excerpt = Excerpt {
                        message: problem.message.clone(),
                        hint: problem.hint.clone(),
                        source: NamedSource::new(path.display().to_string(), text.clone()),
                        label: LabeledSpan::new_with_span(None, problem.span.start..problem.span.end),
                    };
                    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
                    // Writing to a string cannot fail.
                    let _ = handler.render_report(&mut message, &excerpt);
                }
                Self::new(Code::Usage, message)
            }
            ConfigError::NotFound { .. } => Self::new(Code::Usage, error.to_string())
                .hint("make one with `aksim init`, or name its folder with --project"),
            ConfigError::Read { .. } => Self::new(Code::Usage, error.to_string()),
        }
    }
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
