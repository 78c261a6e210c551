//! [`Schema`]: everything served.

use super::SchemaError;
use super::document::Documents;
use super::name::{GroupVersionKind, GroupVersionResource};
use super::resource::Resource;
use std::collections::HashMap;
use std::sync::Arc;

/// All resources served, immutable. Look-ups are hash maps.
#[derive(Debug, Default)]
pub struct Schema {
    resources: Vec<Arc<Resource>>,
    by_resource: HashMap<GroupVersionResource, Arc<Resource>>,
    by_kind: HashMap<GroupVersionKind, Arc<Resource>>,
    pub(super) documents: Documents,
}

impl Schema {
    /// The built-in resources of Kubernetes 1.36.
    ///
    /// # Panics
    /// Never: the table is part of the binary, and a test reads it.
    pub fn builtin() -> Self {
        let rows = super::rows::builtin().expect("resources.toml is well-formed");
        Self::new(rows.into_iter().map(Arc::new)).expect("resources.toml has no duplicates")
    }
    /// A schema of these rows.
    ///
    /// # Errors
    /// [`SchemaError::Duplicate`] when two rows share group, version and name.
    pub fn new(rows: impl IntoIterator<Item = Arc<Resource>>) -> Result<Self, SchemaError> {
        let mut schema = Self::default();
        for row in rows {
            if schema.by_resource.insert(row.gvr(), row.clone()).is_some() {
                return Err(SchemaError::Duplicate(row.gvr()));
            }
            schema.by_kind.entry(row.gvk()).or_insert_with(|| row.clone());
            schema.resources.push(row);
        }
        Ok(schema)
    }
    /// All rows, in discovery order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }
    /// Row by group, version and plural name.
    pub fn resource(&self, group: &str, version: &str, name: &str) -> Option<&Arc<Resource>> {
        self.by_resource.get(&GroupVersionResource::new(group, version, name))
    }
    /// Row by kind.
    pub fn resource_of(&self, kind: &GroupVersionKind) -> Option<&Arc<Resource>> {
        self.by_kind.get(kind)
    }
}
