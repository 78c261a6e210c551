//! [`Schema`]: everything served at one moment; [`SchemaHandle`]: swaps it when CRDs come and go.

use super::SchemaError;
use super::document::Documents;
use super::name::{GroupVersionKind, GroupVersionResource};
use super::resource::Resource;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;

/// An immutable snapshot of all resources served. Look-ups are hash maps.
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
    /// A snapshot of these rows.
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

/// The current [`Schema`], shared by all requests.
#[derive(Clone, Debug)]
pub struct SchemaHandle(Arc<RwLock<Arc<Schema>>>);

impl SchemaHandle {
    /// Starts with this snapshot.
    pub fn new(schema: Schema) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(schema))))
    }
    /// The snapshot to use for one request.
    pub fn load(&self) -> Arc<Schema> {
        self.0.read().clone()
    }
    /// Replaces the snapshot by what `change` makes of it; the old one stays on error.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn update(&self, change: impl FnOnce(&Schema) -> Result<Schema, SchemaError>) -> Result<(), SchemaError> {
        let mut current = self.0.write();
        *current = Arc::new(change(&current)?);
        Ok(())
    }
}
