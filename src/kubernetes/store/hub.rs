//! The watch hub: per table a ring of events that every watcher reads at its own pace.

use super::object::Object;
use parking_lot::RwLock;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was not there before.
    Added,
    /// It replaced `previous`.
    Modified,
    /// It was removed; the object is its last state at the revision of its removal.
    Deleted,
}

/// A committed change.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after it.
    pub object: Arc<Object>,
    /// The object before it; `None` when it was added.
    pub previous: Option<Arc<Object>>,
}

/// The history that a watcher asked for is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Compacted {
    /// Revision asked for.
    pub asked: u64,
    /// Oldest revision that can be resumed from.
    pub oldest: u64,
}

struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Number of the first event in `events`, counted from the start of the process.
    first: u64,
    /// Events after this revision are all in the ring.
    complete_after: u64,
}

/// Events of one table.
pub(super) struct Hub {
    ring: RwLock<Ring>,
    capacity: usize,
    /// Number after the last event; watchers wait for it to change.
    end: watch::Sender<u64>,
}

impl Hub {
    pub fn new(complete_after: u64, capacity: usize) -> Self {
        let ring = Ring { events: VecDeque::new(), first: 0, complete_after };
        Self { ring: RwLock::new(ring), capacity, end: watch::Sender::new(0) }
    }

    /// Adds events in revision order and wakes the watchers.
    pub fn publish(&self, events: impl IntoIterator<Item = Arc<Event>>) {
        let mut ring = self.ring.write();
        for event in events {
            if ring.events.len() >= self.capacity
                && let Some(old) = ring.events.pop_front()
            {
                ring.first += 1;
                ring.complete_after = old.object.revision;
            }
            ring.events.push_back(event);
        }
        let end = ring.first + ring.events.len() as u64;
        drop(ring);
        self.end.send_replace(end);
    }

    /// A subscription to the events after `revision`.
    pub fn subscribe(self: &Arc<Self>, revision: u64) -> Result<Subscription, Compacted> {
        let changed = self.end.subscribe();
        let ring = self.ring.read();
        if revision < ring.complete_after {
            return Err(Compacted { asked: revision, oldest: ring.complete_after });
        }
        let skip = ring.events.partition_point(|event| event.object.revision <= revision);
        let next = ring.first + skip as u64;
        drop(ring);
        Ok(Subscription { hub: self.clone(), next, seen: revision, changed })
    }
}

/// A watcher's place in the events of a table.
pub struct Subscription {
    hub: Arc<Hub>,
    next: u64,
    seen: u64,
    changed: watch::Receiver<u64>,
}

impl Subscription {
    /// Waits for events and gives all there are, up to `limit`, oldest first; never none.
    ///
    /// # Errors
    /// [`Compacted`] when the watcher fell behind what the ring keeps.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, Compacted> {
        loop {
            // Marked before looking, so that an event after the look wakes the wait below.
            self.changed.mark_unchanged();
            let ready = self.ready(limit)?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            if self.changed.changed().await.is_err() {
                // The hub lives as long as `self.hub`: its sender cannot have gone.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Events that are there now, without waiting; may be none.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub fn ready(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, Compacted> {
        let ring = self.hub.ring.read();
        if self.next < ring.first {
            return Err(Compacted { asked: self.seen, oldest: ring.complete_after });
        }
        // Both are counts of events held in memory.
        let from = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX).min(ring.events.len());
        let mut ready: Vec<_> = ring.events.range(from..).take(limit).cloned().collect();
        drop(ring);
        self.next += ready.len() as u64;
        // A state is published before its events: those may be older than what was subscribed from.
        let seen = self.seen;
        if let Some(last) = ready.last() {
            self.seen = seen.max(last.object.revision);
        }
        ready.retain(|event| event.object.revision > seen);
        Ok(ready)
    }
}
