//! Rows of the tables of steps, checks and faults: a name, the schema of its arguments, how they are read.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// One kind of step, check or fault.
pub struct Row<T: ?Sized> {
    /// As files name it.
    pub name: &'static str,
    /// JSON schema of the arguments.
    pub schema: fn() -> Value,
    /// From arguments that fit the schema; the error is for people.
    pub read: fn(Value) -> Result<Box<T>, String>,
}

/// The JSON schema of a type.
pub fn schema_of<A: JsonSchema>() -> Value {
    schemars::schema_for!(A).to_value()
}

/// Arguments as their type.
///
/// # Errors
/// What is wrong with them, for people.
pub fn arguments<A: DeserializeOwned>(value: Value) -> Result<A, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}
