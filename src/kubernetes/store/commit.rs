//! The commit thread: the one writer. It takes what waits, gives each write its revision,
//! appends all of them to the log with one write(2), publishes the new state, and answers.
//!
//! A write wakes the thread only after every other task that is ready has had its turn: what
//! those write joins the batch, and a wake and a write(2) serve all of them.

use super::{
    CommitError, StoreError, Tables,
    hub::{Event, EventKind, Hub},
    log::{self, Operation, Segment},
    object::{Draft, Key, Object},
    state::{State, TableId},
};
use parking_lot::{Condvar, Mutex, RwLock};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::oneshot;

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such object.
    Absent,
    /// The object is there at this revision.
    Revision(u64),
}

/// What a write does.
#[derive(Debug)]
pub enum Change {
    /// Puts the object.
    Put(Draft),
    /// Removes the object; the draft is its last state, for watchers.
    Delete(Draft),
}

/// A write to the store.
#[derive(Debug)]
pub struct Write {
    /// Table written to.
    pub table: TableId,
    /// Object written.
    pub key: Key,
    /// Condition.
    pub expect: Expect,
    /// Change.
    pub change: Change,
}

pub(super) struct Submission {
    pub write: Write,
    pub reply: oneshot::Sender<Result<Arc<Object>, CommitError>>,
}

/// Writes that wait for the commit thread.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Number of the batch that writes join now.
    batch: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    submissions: Vec<Submission>,
    /// The batch is to be committed now.
    due: bool,
    closed: bool,
}

/// Has the batch of a write committed when dropped; so a caller that goes away leaves nobody's
/// writes waiting.
pub(super) struct Due<'a> {
    queue: &'a Queue,
    batch: u64,
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        // Most are not the first of their batch.
        if self.queue.batch.load(Ordering::Acquire) != self.batch {
            return;
        }
        let mut waiting = self.queue.waiting.lock();
        if !std::mem::replace(&mut waiting.due, true) {
            drop(waiting);
            self.queue.changed.notify_one();
        }
    }
}

impl Queue {
    /// Adds a write to the batch, which is committed when the first [`Due`] of it is dropped.
    ///
    /// # Errors
    /// [`CommitError::Closed`].
    pub fn push(&self, submission: Submission) -> Result<Due<'_>, CommitError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(CommitError::Closed);
        }
        waiting.submissions.push(submission);
        Ok(Due { queue: self, batch: self.batch.load(Ordering::Acquire) })
    }

    /// Takes no more writes; the thread ends when it has committed those that wait.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.changed.notify_one();
    }

    /// The next batch, once it is due; `None` when there never will be one.
    fn take(&self) -> Option<Vec<Submission>> {
        let mut waiting = self.waiting.lock();
        while !waiting.due && !waiting.closed {
            self.changed.wait(&mut waiting);
        }
        waiting.due = false;
        self.batch.fetch_add(1, Ordering::AcqRel);
        let batch = std::mem::take(&mut waiting.submissions);
        (!batch.is_empty() || !waiting.closed).then_some(batch)
    }
}

/// However the commit thread ends, nobody waits for it after.
struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        waiting.submissions.clear();
    }
}

pub(super) struct Committer {
    pub dir: PathBuf,
    pub current: Arc<RwLock<Arc<State>>>,
    pub tables: Arc<RwLock<Tables>>,
    pub segment: Segment,
    /// A new segment is begun when the current one is larger than this and than twice the state.
    pub segment_limit: u64,
    pub sync: bool,
    pub snapshot: Option<JoinHandle<()>>,
    /// Length of the last snapshot, bytes.
    pub snapshot_length: u64,
}

type Reply = (oneshot::Sender<Result<Arc<Object>, CommitError>>, Result<Arc<Object>, CommitError>);

#[derive(Default)]
struct Batch {
    frames: Vec<u8>,
    events: Vec<(TableId, Arc<Event>)>,
    replies: Vec<Reply>,
}

impl Committer {
    /// Commits until the queue is closed and empty.
    pub fn run(mut self, queue: &Queue) {
        let _ending = Ending(queue);
        let mut batch = Batch::default();
        while let Some(submissions) = queue.take() {
            let mut next = State::clone(&self.current.read());
            for submission in submissions {
                self.stage(&mut next, &mut batch, submission);
            }
            self.finish(next, &mut batch);
            self.rotate();
        }
        if let Some(snapshot) = self.snapshot.take() {
            // A panic there has been reported by the panic hook; the log is whole without it.
            let _ = snapshot.join();
        }
    }

    fn stage(&self, next: &mut State, batch: &mut Batch, submission: Submission) {
        let Submission { write, reply } = submission;
        let found = next.table(write.table).get(&write.key).cloned();
        let outcome = match (write.expect, &found) {
            (Expect::Absent, None) => Ok(()),
            (Expect::Absent, Some(_)) => Err(CommitError::Exists),
            (Expect::Revision(want), Some(found)) if found.revision == want => Ok(()),
            (Expect::Revision(_), _) => Err(CommitError::Conflict),
        };
        if let Err(error) = outcome {
            batch.replies.push((reply, Err(error)));
            return;
        }
        next.revision += 1;
        let revision = next.revision;
        let (operation, draft) = match write.change {
            Change::Put(draft) => (Operation::Put, draft),
            Change::Delete(draft) => (Operation::Delete, draft),
        };
        let object = Arc::new(draft.at(write.key, revision));
        log::encode(&mut batch.frames, operation, &self.tables.read().names[write.table.0 as usize], &object);
        let kind = match (operation, &found) {
            (Operation::Delete, _) => EventKind::Deleted,
            (_, None) => EventKind::Added,
            (_, Some(_)) => EventKind::Modified,
        };
        let table = next.table_mut(write.table);
        match kind {
            EventKind::Deleted => table.remove(&object.key, revision),
            EventKind::Added | EventKind::Modified => table.insert(object.clone()),
        }
        let event = Event { kind, object: object.clone(), previous: found };
        batch.events.push((write.table, Arc::new(event)));
        batch.replies.push((reply, Ok(object)));
    }

    /// Logs, publishes and answers. When the log cannot be written, nothing of the batch happens.
    fn finish(&mut self, next: State, batch: &mut Batch) {
        let logged = if batch.frames.is_empty() { Ok(()) } else { self.segment.append(&batch.frames) };
        batch.frames.clear();
        let failure = match logged {
            Ok(()) => {
                if !batch.events.is_empty() {
                    *self.current.write() = Arc::new(next);
                    self.publish(&mut batch.events);
                }
                None
            }
            Err(error) => {
                batch.events.clear();
                Some(Arc::new(error))
            }
        };
        for (reply, outcome) in batch.replies.drain(..) {
            let outcome = match (&failure, outcome) {
                (Some(error), Ok(_)) => Err(CommitError::Log(error.clone())),
                (_, outcome) => outcome,
            };
            // A caller that went away does not want to know.
            let _ = reply.send(outcome);
        }
    }

    fn publish(&self, events: &mut Vec<(TableId, Arc<Event>)>) {
        // Stable: within a table the order of revisions stays.
        events.sort_by_key(|(table, _)| *table);
        let mut events = events.drain(..).peekable();
        while let Some((table, first)) = events.next() {
            let hub: Arc<Hub> = self.tables.read().hubs[table.0 as usize].clone();
            let mut group = vec![first];
            while let Some((_, event)) = events.next_if(|(next, _)| *next == table) {
                group.push(event);
            }
            hub.publish(group);
        }
    }

    /// Begins a new segment when the current one is long; a thread of its own then writes the
    /// snapshot that makes the old ones superfluous.
    fn rotate(&mut self) {
        let long = self.segment.length() > self.segment_limit.max(2 * self.snapshot_length);
        let busy = self.snapshot.as_ref().is_some_and(|thread| !thread.is_finished());
        if !long || busy {
            return;
        }
        let state = self.current.read().clone();
        match Segment::open(&self.dir, state.revision, 0, self.sync) {
            Ok(segment) => self.segment = segment,
            Err(error) => {
                tracing::warn!(%error, "cannot begin a new log segment; the old one grows");
                return;
            }
        }
        self.snapshot_length =
            state.tables.iter().flat_map(|t| t.range(None, None)).map(|o| o.bytes.len() as u64).sum();
        let (dir, names) = (self.dir.clone(), self.tables.read().names.clone());
        self.snapshot = std::thread::Builder::new()
            .name("store-snapshot".into())
            .spawn(move || {
                if let Err(error) = compact(&dir, &state, &names) {
                    tracing::warn!(%error, "cannot write a snapshot; the log is kept");
                }
            })
            .ok();
    }
}

/// Writes the snapshot of `state`, then removes the files it makes superfluous.
pub(super) fn compact(dir: &Path, state: &State, names: &[Arc<str>]) -> Result<(), StoreError> {
    let objects = state
        .tables
        .iter()
        .zip(names)
        .flat_map(|(table, name)| table.range(None, None).map(move |object| (&**name, &**object)));
    log::write_snapshot(dir, state.revision, objects).map_err(StoreError::file(dir))?;
    for prefix in ["log-", "snapshot-"] {
        for (_, path) in log::files(dir, prefix)?.into_iter().filter(|(revision, _)| *revision < state.revision) {
            std::fs::remove_file(&path).map_err(StoreError::file(&path))?;
        }
    }
    Ok(())
}
