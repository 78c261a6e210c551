//! Parameters that all writes share, and the body of a write.

use crate::{
    request::{status::ApiError, target::Target},
    schema::{GroupVersionKind, fields},
    server::api::Call,
};
use http::header;
use jiff::Timestamp;
use serde_json::Value;

/// What to do with fields that the schema does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Warn.
    Warn,
    /// Drop them silently.
    Ignore,
}

/// Parameters of a write.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Do everything but write.
    pub dry_run: bool,
    /// Who owns the fields written.
    pub manager: String,
    /// Treatment of unknown fields.
    pub validation: FieldValidation,
    /// Time of the request.
    pub now: Timestamp,
}

impl WriteOptions {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// 422 for values that are not supported.
    pub fn of(call: &Call) -> Result<Self, ApiError> {
        let query = &call.info.query;
        let dry_run = match query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => return Err(unsupported("dryRun", other, "\"All\"")),
        };
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => return Err(unsupported("fieldValidation", other, "\"\", \"Ignore\", \"Strict\", \"Warn\"")),
        };
        let agent = call.header(header::USER_AGENT).and_then(|agent| agent.split('/').next());
        let manager = query.get("fieldManager").or(agent).filter(|name| !name.is_empty()).unwrap_or("unknown");
        if manager.chars().count() > 128 {
            return Err(unsupported("fieldManager", manager, "at most 128 characters"));
        }
        Ok(Self { dry_run, manager: manager.to_owned(), validation, now: Timestamp::now() })
    }
}

fn unsupported(name: &str, value: &str, supported: &str) -> ApiError {
    ApiError::unprocessable(format!("{name}: Unsupported value: \"{value}\": supported values: {supported}"))
}

/// Decodes the body of a create or update, checks that it is of the target's kind, and removes
/// or refuses what the schema does not have.
///
/// # Errors
/// 400, 415.
pub fn body(call: &Call, target: &Target, options: &WriteOptions) -> Result<Value, ApiError> {
    let decoded = call.decode()?;
    let mut value = decoded.value;
    if !value.is_object() {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    }
    check_kind(&mut value, &target.resource.gvk())?;
    normalize(call, target, options, &mut value, &decoded.duplicates)?;
    Ok(value)
}

/// Checks `apiVersion` and `kind`, and fills them in where they are missing.
///
/// # Errors
/// 400 when they are of another kind.
pub fn check_kind(value: &mut Value, want: &GroupVersionKind) -> Result<(), ApiError> {
    let api_version = want.api_version();
    for (field, want) in [("apiVersion", api_version.as_str()), ("kind", want.kind.as_str())] {
        match value[field].as_str() {
            None | Some("") => value[field] = want.into(),
            Some(found) if found == want => {}
            Some(found) => {
                let what = if field == "kind" { "kind" } else { "API version" };
                let message = format!("the {what} in the data ({found}) does not match the expected {what} ({want})");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    Ok(())
}

/// Drops nulls and unknown fields, checks types.
///
/// # Errors
/// 400 for a field of the wrong type; for unknown ones with strict validation.
pub fn normalize(
    call: &Call,
    target: &Target,
    options: &WriteOptions,
    value: &mut Value,
    duplicates: &[String],
) -> Result<(), ApiError> {
    let resource = &target.resource;
    let prefix = || format!("{0} in version \"{1}\" cannot be handled as a {0}", resource.kind, resource.version);
    let unknown = match resource.definition() {
        Some(definition) => fields::normalize(definition, value)
            .map_err(|error| ApiError::bad_request(format!("{}: {error}", prefix())))?,
        None => Vec::new(),
    };
    match options.validation {
        FieldValidation::Strict => match fields::strict_error(&unknown, duplicates) {
            Some(text) => Err(ApiError::bad_request(format!("{}: {text}", prefix()))),
            None => Ok(()),
        },
        FieldValidation::Warn => {
            fields::warnings(&unknown, duplicates).into_iter().for_each(|text| call.warn(text));
            Ok(())
        }
        FieldValidation::Ignore => Ok(()),
    }
}
