//! Reading the store back: the newest whole snapshot, then the log after it.

use super::{
    StoreConfig, StoreError, Tables,
    hub::{Event, EventKind},
    log::{self, Operation, Record, Segment},
    object::{Header, Object},
    state::State,
};
use std::{
    fs::{File, TryLockError},
    sync::Arc,
};

pub(super) struct Recovered {
    pub state: State,
    pub tables: Tables,
    pub segment: Segment,
    pub lock: File,
}

/// Reads what is in `config.dir`, cuts a torn tail off the last segment, opens it for appending.
pub(super) fn recover(config: &StoreConfig) -> Result<Recovered, StoreError> {
    let dir = &config.dir;
    aksim_runtime::files::create_private_dir(dir).map_err(StoreError::file(dir))?;
    let lock_path = dir.join("LOCK");
    let lock = File::create(&lock_path).map_err(StoreError::file(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: lock_path }),
        Err(TryLockError::Error(source)) => return Err(StoreError::File { path: lock_path, source }),
    }
    let mut reader = Reader { state: State::default(), tables: Tables::default(), config };
    let base = reader.snapshot()?;
    let segments = log::files(dir, "log-")?;
    let mut last = (base, 0);
    for (index, (revision, path)) in segments.iter().enumerate() {
        let data = log::read(path)?;
        let good = log::decode(&data, |record| reader.apply(record, base));
        if good < data.len() {
            if index + 1 < segments.len() {
                return Err(StoreError::Damaged { path: path.clone(), good });
            }
            tracing::warn!(path = %path.display(), cut = data.len() - good, "torn end of the store's log cut off");
        }
        last = (*revision, good as u64);
    }
    let segment = Segment::open(dir, last.0, last.1, config.sync)?;
    Ok(Recovered { state: reader.state, tables: reader.tables, segment, lock })
}

struct Reader<'a> {
    state: State,
    tables: Tables,
    config: &'a StoreConfig,
}

impl Reader<'_> {
    /// Loads the newest whole snapshot; its revision, 0 without one.
    fn snapshot(&mut self) -> Result<u64, StoreError> {
        let Some((revision, path)) = log::files(&self.config.dir, "snapshot-")?.pop() else { return Ok(0) };
        let data = log::read(&path)?;
        self.tables.base = revision;
        let mut whole = false;
        let good = log::decode(&data, |record| match record.operation {
            Operation::End => whole = true,
            _ => self.insert(record),
        });
        if !whole || good < data.len() {
            return Err(StoreError::Damaged { path, good });
        }
        self.state.revision = revision;
        Ok(revision)
    }

    fn insert(&mut self, record: Record) {
        let id = self.tables.add(&record.table, self.config.history);
        let object = Arc::new(self.object(record));
        let table = self.state.table_mut(id);
        let changed = table.changed.max(object.revision);
        table.insert(object);
        table.changed = changed;
    }

    /// Applies a record of the log that is newer than the snapshot at `base`.
    fn apply(&mut self, record: Record, base: u64) {
        if record.revision <= base || record.operation == Operation::End {
            return;
        }
        let id = self.tables.add(&record.table, self.config.history);
        self.state.revision = record.revision;
        let operation = record.operation;
        let object = Arc::new(self.object(record));
        let table = self.state.table_mut(id);
        let previous = table.get(&object.key).cloned();
        let kind = match (operation, &previous) {
            (Operation::Delete, _) => EventKind::Deleted,
            (_, None) => EventKind::Added,
            (_, Some(_)) => EventKind::Modified,
        };
        match kind {
            EventKind::Deleted => table.remove(&object.key, object.revision),
            EventKind::Added | EventKind::Modified => table.insert(object.clone()),
        }
        self.tables.hubs[id.0 as usize].publish([Arc::new(Event { kind, object, previous })]);
    }

    fn object(&self, record: Record) -> Object {
        let value = serde_json::from_slice(&record.bytes).unwrap_or_default();
        let header = Header::of(&value, (self.config.fields)(&record.table));
        // A copy: a slice would keep the whole file in memory.
        let bytes = bytes::Bytes::copy_from_slice(&record.bytes);
        Object { key: record.key, revision: record.revision, header, bytes }
    }
}
