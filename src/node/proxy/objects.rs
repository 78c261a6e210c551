//! Objects of one kind as a watch tells them, whole at any time.

use kube::{ResourceExt, runtime::watcher::Event};
use std::collections::BTreeMap;

/// Objects by namespace and name.
pub(crate) struct Objects<K> {
    pub all: BTreeMap<(String, String), K>,
    listing: BTreeMap<(String, String), K>,
    /// The first list is complete.
    pub known: bool,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), listing: BTreeMap::new(), known: false }
    }
}

impl<K: kube::Resource> Objects<K> {
    /// Takes an event in; true when [`Objects::all`] may have changed.
    pub fn take(&mut self, event: Event<K>) -> bool {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.meta().name.clone().unwrap_or_default());
        match event {
            Event::Init => {
                self.listing.clear();
                return false;
            }
            Event::InitApply(object) => {
                self.listing.insert(key(&object), object);
                return false;
            }
            Event::InitDone => {
                self.all = std::mem::take(&mut self.listing);
                self.known = true;
            }
            Event::Apply(object) => {
                self.all.insert(key(&object), object);
            }
            Event::Delete(object) => {
                self.all.remove(&key(&object));
            }
        }
        true
    }
}
