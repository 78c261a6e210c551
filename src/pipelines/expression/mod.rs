//! Expressions: `${{ }}`, `$[ ]`, conditions, and `$( )` macros.
//!
//! The language: <https://learn.microsoft.com/azure/devops/pipelines/process/expressions>.

mod value;

pub use value::{Object, Value};

/// What an expression can see: named contexts and the functions that belong to the moment.
///
/// The general functions (`eq`, `format`, …) are not the scope's; `always`, `succeeded`, `counter` and the other
/// functions that ask the run are.
pub trait Scope {
    /// A named value, without case: `variables`, `parameters`, `dependencies`, `stageDependencies`, `pipeline`,
    /// `resources`, or a loop variable of `${{ each }}`. `None` when this moment knows no such name.
    fn context(&self, name: &str) -> Option<Value>;

    /// A function of this moment, without case; the arguments are evaluated. `None` when there is none of that
    /// name; an inner error is what is wrong with the arguments.
    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        let _ = (name, arguments);
        None
    }
}

/// An expression that cannot be read or evaluated, worded as Azure words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// A mistake at a place in the text.
    #[error("{message}. Located at position {position} within expression: {expression}")]
    At {
        /// `Unrecognized value: 'x'` and alike.
        message: String,
        /// Position in characters, from 1.
        position: usize,
        /// The expression, without its brackets.
        expression: String,
    },
    /// The text is longer than Azure's limit.
    #[error("Exceeded max expression length {limit}")]
    TooLong {
        /// Characters.
        limit: usize,
    },
    /// Brackets and calls are deeper than Azure's limit.
    #[error("Exceeded max expression depth {limit}")]
    TooDeep {
        /// Levels.
        limit: usize,
    },
    /// The result is larger than Azure's limit.
    #[error("The maximum allowed memory size was exceeded")]
    TooLarge,
}
