//! Where a resource's objects are kept, and how they come in and out in the version asked for.

use super::status::ApiError;
use crate::{
    schema::{GroupVersionKind, Resource, convert},
    store::{Draft, Key, Object, Store, TableId},
};
use serde_json::Value;
use std::sync::Arc;

/// A resource and its table.
pub struct Target {
    /// The row of the resource, in the version asked for.
    pub resource: Arc<Resource>,
    /// Its table.
    pub table: TableId,
    /// The table's name: `deployments.apps`.
    pub table_name: String,
    /// Selectable fields of the table.
    fields: &'static [&'static str],
    /// Kind that is stored, when it is another one.
    stored: Option<GroupVersionKind>,
}

impl Target {
    /// The target of a resource.
    pub fn new(store: &Store, resource: &Arc<Resource>) -> Self {
        let table_name = resource.storage().group_resource();
        let stored = resource
            .stored_as
            .as_ref()
            .map(|stored| GroupVersionKind::new(&*stored.group, &*stored.version, &*resource.kind));
        Self {
            table: store.table(&table_name),
            fields: store.fields(&table_name),
            resource: resource.clone(),
            table_name,
            stored,
        }
    }

    /// Whether stored bytes are what clients get.
    pub fn is_stored_version(&self) -> bool {
        self.stored.is_none()
    }

    /// An object decoded, in the version asked for.
    ///
    /// # Errors
    /// 500 when it cannot be converted.
    pub fn decode(&self, object: &Object) -> Result<Value, ApiError> {
        let mut value = object.value();
        if self.stored.is_some() {
            convert::convert(&mut value, &self.resource.gvk()).map_err(ApiError::internal)?;
        }
        Ok(value)
    }

    /// An object encoded for the store, in the version that is stored.
    ///
    /// # Errors
    /// 500 when it cannot be converted.
    pub fn draft(&self, value: &Value) -> Result<Draft, ApiError> {
        match &self.stored {
            None => Ok(Draft::new(value, self.fields)),
            Some(kind) => {
                let mut value = value.clone();
                convert::convert(&mut value, kind).map_err(ApiError::internal)?;
                Ok(Draft::new(&value, self.fields))
            }
        }
    }

    /// The key of a name in the namespace of a request.
    pub fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(if self.resource.namespaced { namespace } else { "" }, name)
    }

    /// `Deployment.apps`: how validation errors name a kind.
    pub fn group_kind(&self) -> String {
        match self.resource.group.as_str() {
            "" => self.resource.kind.clone(),
            group => format!("{}.{group}", self.resource.kind),
        }
    }

    /// The error for a missing object.
    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.resource.group_resource(), name)
    }
}
