//! Conditions of stages, jobs and steps.

use crate::expression::{self, ExpressionError, Scope};

/// Evaluates a condition; `succeeded()` when there is none.
///
/// # Errors
/// [`ExpressionError`].
pub fn holds(condition: Option<&str>, scope: &dyn Scope) -> Result<bool, ExpressionError> {
    let text = condition.map(str::trim).filter(|c| !c.is_empty()).unwrap_or("succeeded()");
    Ok(expression::evaluate(text, scope)?.is_true())
}
