//! `aksim.toml` → validated [`Config`], all errors at once with spans; and the paths aksim uses.

pub mod check;
pub mod document;
pub mod home;
pub mod project;
pub mod raw;

pub use project::{Config, ConfigError, GitConfig, ServiceConfig};

/// JSON schema of `aksim.toml`, as `aksim schema` prints it.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(raw::Project).to_value();
    schema["$id"] = "https://aksim.dev/schema/aksim.json".into();
    schema["title"] = "aksim project".into();
    schema
}
