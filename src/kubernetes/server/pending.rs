//! Parts of the schema that arrive with its next commits; until then their absence is said.

pub mod convert {
    use crate::kubernetes::schema::{GroupVersionKind, SchemaError};
    pub fn convert(value: &mut serde_json::Value, to: &GroupVersionKind) -> Result<(), SchemaError> {
        value["apiVersion"] = to.api_version().into();
        Ok(())
    }
}
