//! Expressions: `${{ }}`, `$[ ]`, conditions, and `$( )` macros.
//!
//! The language: <https://learn.microsoft.com/azure/devops/pipelines/process/expressions>. Where the page and the
//! service are known to differ (minimum arguments of `in`, `iif`, `counter`; the eager `iif`) the service counts.

mod date;
mod evaluate;
mod functions;
mod lexer;
mod macros;
mod parser;
mod slots;
mod value;

#[cfg(test)]
mod tests;

pub use evaluate::{check, evaluate, evaluate_counted, evaluate_runtime, runtime_text};
pub use macros::expand_macros;
pub use slots::{Slot, status_function};
pub use value::{Object, Value, property, same_text};

use std::ops::RangeInclusive;

/// What an expression can see: named contexts and the functions that belong to the moment.
///
/// The general functions (`eq`, `format`, …) are not the scope's; `always`, `succeeded`, `counter` and the other
/// functions that ask the run are.
pub trait Scope {
    /// A named value, without case: `variables`, `parameters`, `dependencies`, `stageDependencies`, `pipeline`,
    /// `resources`, or a loop variable of `${{ each }}`. `None` when this moment knows no such name. Give a value
    /// that is cheap to clone (collections are shared).
    fn context(&self, name: &str) -> Option<Value>;

    /// How many arguments a function of this moment takes, by name without case. `None` when there is none.
    /// [`status_function`] knows the numbers for the status functions.
    fn function(&self, name: &str) -> Option<RangeInclusive<usize>> {
        let _ = name;
        None
    }

    /// Calls a function that [`Scope::function`] knows.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let _ = arguments;
        Err(format!("Unrecognized value: '{name}'"))
    }
}

/// An expression that cannot be read or evaluated, worded as Azure words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// A mistake at a place in the text.
    #[error("{message}. Located at position {position} within expression: '{expression}'")]
    At {
        /// `Unrecognized value: 'x'` and alike.
        message: String,
        /// Position in characters, from 1.
        position: usize,
        /// The expression, without its brackets.
        expression: String,
    },
    /// There is no text.
    #[error("An expression was expected")]
    Empty,
    /// A parameter that is not there; other contexts give null.
    #[error("Key not found '{0}'")]
    KeyNotFound(String),
    /// A value that does not convert, a wrong format text.
    #[error("{0}")]
    Value(String),
    /// The text is longer than the limit.
    #[error("Exceeded max expression length {0}")]
    TooLong(usize),
    /// Brackets and calls are deeper than Azure's limit.
    #[error("Exceeded max expression depth {0}")]
    TooDeep(usize),
    /// The result is larger than the limit.
    #[error("Maximum object size exceeded")]
    TooLarge,
}
