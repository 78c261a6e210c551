//! Deliveries on disk: written down before they are made, kept afterwards as a bounded log.

use super::{
    super::{GitError, records},
    Hook,
};
use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Finished deliveries that are kept of one webhook.
const KEPT: usize = 100;

/// Whether a delivery has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Still to be made, or made again.
    Pending,
    /// The receiver took it.
    Delivered,
    /// It was given up.
    Failed,
}

/// One try of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// `OK`, or what went wrong.
    pub status: String,
    /// HTTP status, if there was an answer.
    pub status_code: Option<u16>,
    /// Headers of the answer.
    pub response_headers: BTreeMap<String, String>,
    /// Beginning of the answer's body.
    pub response_body: String,
}

/// An event on its way to a webhook, or arrived there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Id; grows.
    pub id: u64,
    /// `X-GitHub-Delivery`; a redelivery has that of the first.
    pub guid: Uuid,
    /// The webhook.
    pub hook: u64,
    /// `ORGANIZATION/REPOSITORY`.
    pub repository: String,
    /// `push` or `ping`.
    pub event: String,
    /// Where it goes, or went.
    pub url: String,
    /// Whether somebody asked for it again.
    pub redelivery: bool,
    /// When it was written down.
    pub queued_at: Timestamp,
    /// State.
    pub state: DeliveryState,
    /// When it is tried next, while pending.
    pub next_at: Timestamp,
    /// Headers it was last sent with.
    pub request_headers: BTreeMap<String, String>,
    /// Tries, oldest first.
    pub attempts: Vec<Attempt>,
}

impl Delivery {
    /// One that is to be made at once; the id is given when it is written down.
    pub(super) fn new(repository: String, hook: &Hook, event: &str, guid: Uuid, redelivery: bool) -> Self {
        let now = Timestamp::now();
        Self {
            id: 0,
            guid,
            hook: hook.id,
            repository,
            event: event.to_owned(),
            url: hook.url.clone(),
            redelivery,
            queued_at: now,
            state: DeliveryState::Pending,
            next_at: now,
            request_headers: BTreeMap::new(),
            attempts: Vec::new(),
        }
    }
}

pub(super) struct Deliveries {
    dir: PathBuf,
    ids: records::Ids,
    known: parking_lot::Mutex<BTreeMap<u64, Delivery>>,
}

impl Deliveries {
    /// Those of a folder.
    pub(super) fn open(dir: &Path) -> Result<Self, GitError> {
        create_private_dir(dir).map_err(GitError::file(dir))?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(GitError::file(dir))? {
            let path = entry.map_err(GitError::file(dir))?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Some(delivery) = records::read::<Delivery>(&path)?
            {
                known.insert(delivery.id, delivery);
            }
        }
        Ok(Self { dir: dir.to_owned(), ids: records::Ids::default(), known: parking_lot::Mutex::new(known) })
    }

    fn record_path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn payload_path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id}.payload"))
    }

    /// Writes down a delivery with its payload, and gives it its id.
    pub(super) fn insert(&self, mut delivery: Delivery, payload: &[u8]) -> Result<Delivery, GitError> {
        delivery.id = self.ids.next();
        let path = self.payload_path(delivery.id);
        // The payload first: a record without payload could not be sent.
        write_atomic(&path, payload, PRIVATE).map_err(GitError::file(&path))?;
        self.update(&delivery)?;
        Ok(delivery)
    }

    /// Writes down what became of a delivery.
    pub(super) fn update(&self, delivery: &Delivery) -> Result<(), GitError> {
        records::write(&self.record_path(delivery.id), delivery)?;
        self.known.lock().insert(delivery.id, delivery.clone());
        match delivery.state {
            DeliveryState::Pending => Ok(()),
            _ => self.prune(delivery.hook),
        }
    }

    /// Tries a delivery again later that could not be written down.
    pub(super) fn postpone(&self, delivery: &Delivery, pause: std::time::Duration) {
        let pause = jiff::SignedDuration::try_from(pause).unwrap_or(jiff::SignedDuration::ZERO);
        let mut again = delivery.clone();
        again.state = DeliveryState::Pending;
        again.next_at = Timestamp::now().checked_add(pause).unwrap_or(Timestamp::MAX);
        self.known.lock().insert(again.id, again);
    }

    fn prune(&self, hook: u64) -> Result<(), GitError> {
        let finished = |d: &&Delivery| d.hook == hook && d.state != DeliveryState::Pending;
        let old: Vec<u64> = self.known.lock().values().rev().filter(finished).skip(KEPT).map(|d| d.id).collect();
        for id in old {
            // The record first: a payload alone is not seen.
            records::remove(&self.record_path(id))?;
            records::remove(&self.payload_path(id))?;
            self.known.lock().remove(&id);
        }
        Ok(())
    }

    /// The payload of a delivery.
    pub(super) fn payload(&self, id: u64) -> Result<Vec<u8>, GitError> {
        let path = self.payload_path(id);
        std::fs::read(&path).map_err(GitError::file(&path))
    }

    /// Deliveries of a webhook, newest first.
    pub(super) fn of_hook(&self, hook: u64) -> Vec<Delivery> {
        self.known.lock().values().rev().filter(|d| d.hook == hook).cloned().collect()
    }

    /// Deliveries that are still to be made, oldest first.
    pub(super) fn pending(&self) -> Vec<Delivery> {
        self.known.lock().values().filter(|d| d.state == DeliveryState::Pending).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::HookSpec;
    use super::*;

    #[test]
    fn the_log_is_bounded_and_what_is_pending_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let deliveries = Deliveries::open(dir.path()).unwrap();
        let spec = HookSpec::push("http://x/", "s");
        let now = Timestamp::now();
        let hook = Hook {
            id: 7,
            url: spec.url,
            content_type: spec.content_type,
            secret: None,
            insecure_ssl: false,
            events: spec.events,
            active: true,
            created_at: now,
            updated_at: now,
        };
        let new = || Delivery::new("o/r".into(), &hook, "push", Uuid::new_v4(), false);
        let waiting = deliveries.insert(new(), b"{}").unwrap();
        for _ in 0..KEPT + 5 {
            let mut delivery = deliveries.insert(new(), b"{}").unwrap();
            delivery.state = DeliveryState::Delivered;
            deliveries.update(&delivery).unwrap();
        }
        let again = Deliveries::open(dir.path()).unwrap();
        assert_eq!(again.of_hook(7).len(), KEPT + 1);
        assert_eq!(again.pending(), [waiting]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2 * (KEPT + 1));
    }
}
