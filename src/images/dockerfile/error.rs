//! What is wrong with a Dockerfile, where, and what was probably meant.

use miette::{Diagnostic, NamedSource, SourceSpan};
use std::sync::Arc;

/// An error with its place in the Dockerfile.
#[derive(Clone, Debug, thiserror::Error, Diagnostic)]
#[error("{file}:{line}:{column}: {message}")]
pub struct DockerfileError {
    /// Name of the file as the user gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[help]
    pub hint: Option<String>,
    #[source_code]
    source_code: Arc<NamedSource<Arc<String>>>,
    #[label("here")]
    span: SourceSpan,
}

/// A Dockerfile's text with its name.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user gave it.
    pub name: String,
    /// Its text.
    pub text: Arc<String>,
}

impl Source {
    /// An error at a byte range of the text.
    pub fn error(&self, span: Span, message: impl Into<String>, hint: Option<String>) -> DockerfileError {
        let mut begin = span.begin.min(self.text.len());
        while !self.text.is_char_boundary(begin) {
            begin -= 1;
        }
        let line_begin = self.text[..begin].rfind('\n').map_or(0, |n| n + 1);
        DockerfileError {
            file: self.name.clone(),
            line: self.text[..begin].matches('\n').count() + 1,
            column: self.text[line_begin..begin].chars().count() + 1,
            message: message.into(),
            hint,
            source_code: Arc::new(NamedSource::new(&self.name, self.text.clone())),
            span: (begin, span.end.saturating_sub(begin)).into(),
        }
    }
}

impl DockerfileError {
    /// The error with the lines around it and a caret, as it is printed.
    pub fn excerpt(&self) -> String {
        let mut text = String::new();
        let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
        match handler.with_links(false).render_report(&mut text, self) {
            Ok(()) => text,
            // Writing to a text does not fail; the plain message would do.
            Err(_) => self.to_string(),
        }
    }
}

/// A byte range of the Dockerfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub begin: usize,
    /// Byte after the last.
    pub end: usize,
}
