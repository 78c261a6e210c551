//! The state of the store at one revision: persistent maps, so a snapshot is one reference.

use super::object::{Key, Object};
use imbl::OrdMap;
use std::{ops::Bound, sync::Arc};

/// Index of a table in a [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub(super) u32);

/// Objects of one resource.
#[derive(Clone, Default)]
pub struct Table {
    objects: OrdMap<Key, Arc<Object>>,
    /// Revision of the last write to this table; its snapshot is the same until it changes.
    pub changed: u64,
}

impl Table {
    /// Number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }
    /// An object.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }
    /// Objects in key order: of one namespace or of all, from after a key on.
    pub fn range(&self, namespace: Option<&str>, after: Option<&Key>) -> impl Iterator<Item = &Arc<Object>> {
        let (low, high) = match namespace {
            Some(namespace) => {
                let (low, high) = Key::bounds(namespace);
                (Bound::Included(Key::from_text(&low)), Bound::Excluded(Key::from_text(&high)))
            }
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let low = match (after, low) {
            (Some(after), Bound::Included(low)) if *after < low => Bound::Included(low),
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, low) => low,
        };
        self.objects.range::<_, Key>((low, high)).map(|(_, object)| object)
    }
    pub(super) fn insert(&mut self, object: Arc<Object>) {
        self.changed = object.revision;
        self.objects.insert(object.key.clone(), object);
    }
    pub(super) fn remove(&mut self, key: &Key, revision: u64) {
        self.changed = revision;
        self.objects.remove(key);
    }
}

/// Every table at one revision. Cloning costs a reference a table.
#[derive(Clone, Default)]
pub struct State {
    /// The last committed revision.
    pub revision: u64,
    pub(super) tables: Vec<Table>,
}

impl State {
    /// A table; an empty one when nothing was ever written to it.
    pub fn table(&self, id: TableId) -> &Table {
        static EMPTY: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::default);
        self.tables.get(id.0 as usize).unwrap_or(&EMPTY)
    }
    pub(super) fn table_mut(&mut self, id: TableId) -> &mut Table {
        let index = id.0 as usize;
        if self.tables.len() <= index {
            self.tables.resize_with(index + 1, Table::default);
        }
        &mut self.tables[index]
    }
}
