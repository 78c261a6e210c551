//! The single writer of events: numbers them, appends them to `events.jsonl`, folds the world.

use aksim_model::{
    event::{Event, EventBody},
    world::World,
};
use jiff::Timestamp;
use std::{
    io::{BufRead, Write},
    path::Path,
    sync::Arc,
};
use tokio::sync::{broadcast, watch};

/// Handle to the recorder; clones write to the same log.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    // Held for the length of one append: events are few, and their order is the lock's order.
    log: parking_lot::Mutex<Log>,
    world: watch::Sender<Arc<World>>,
    stream: broadcast::Sender<Arc<Event>>,
}

struct Log {
    file: Option<std::fs::File>,
    next: u64,
}

impl Recorder {
    /// Opens the event log, folding what it holds; a torn last line (`kill -9`) is cut off.
    ///
    /// # Errors
    /// Any error of reading or truncating the file.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut world = World::default();
        let mut good = 0u64;
        if let Ok(file) = std::fs::File::open(path) {
            let mut reader = std::io::BufReader::new(file);
            let mut line = String::new();
            loop {
                line.clear();
                let read = reader.read_line(&mut line)?;
                if read == 0 || !line.ends_with('\n') {
                    break;
                }
                let Ok(event) = serde_json::from_str::<Event>(&line) else { break };
                world.apply(&event);
                good += read as u64;
            }
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(good)?;
        Ok(Self::with(world, Some(file)))
    }

    /// A recorder that writes no file, for tests and one-shot commands.
    pub fn in_memory() -> Self {
        Self::with(World::default(), None)
    }

    fn with(world: World, file: Option<std::fs::File>) -> Self {
        let next = world.seq + 1;
        Self {
            inner: Arc::new(Inner {
                log: parking_lot::Mutex::new(Log { file, next }),
                world: watch::Sender::new(Arc::new(world)),
                stream: broadcast::Sender::new(1024),
            }),
        }
    }

    /// Records a fact. Never fails: an event that cannot be written to disk is still published.
    pub fn record(&self, body: EventBody) -> Arc<Event> {
        let mut log = self.inner.log.lock();
        let event = Arc::new(Event { seq: log.next, at: Timestamp::now(), body });
        log.next += 1;
        if let Some(file) = &mut log.file {
            let written = serde_json::to_vec(&*event).map_err(std::io::Error::from).and_then(|mut line| {
                line.push(b'\n');
                file.write_all(&line)
            });
            if let Err(error) = written {
                tracing::error!(%error, seq = event.seq, "event not written to events.jsonl");
            }
        }
        self.inner.world.send_modify(|world| Arc::make_mut(world).apply(&event));
        // No receiver is not an error: nobody is looking.
        let _ = self.inner.stream.send(event.clone());
        event
    }

    /// The world now.
    pub fn world(&self) -> Arc<World> {
        self.inner.world.borrow().clone()
    }

    /// The world, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Arc<World>> {
        self.inner.world.subscribe()
    }

    /// Events from now on. A reader told that it lagged takes a new [`Recorder::world`].
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.inner.stream.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warn(n: u32) -> EventBody {
        EventBody::Warning { subject: n.to_string(), message: "m".into(), hint: None }
    }

    #[test]
    fn survives_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let first = Recorder::open(&path).unwrap();
        first.record(warn(1));
        first.record(warn(2));
        drop(first);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"seq\":3,\"at\":").unwrap();
        let again = Recorder::open(&path).unwrap();
        assert_eq!(again.world().warnings.len(), 2);
        assert_eq!(again.record(warn(3)).seq, 3);
        assert_eq!(Recorder::open(&path).unwrap().world().seq, 3);
    }
}
