//! The receiver of webhooks as GitHub sends them.
//!
//! A delivery is taken when its signature over the raw body is right and its id is new, and it is on disk before it is
//! answered: `kill -9` loses none.

use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// GitHub's limit of a payload.
pub const LARGEST: usize = 25 << 20;
/// Delivery ids that are remembered.
const REMEMBERED: usize = 10_000;

/// Why a delivery is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// Not JSON by its own word.
    #[error("Content-Type must be application/json")]
    ContentType,
    /// No signature, or a wrong one.
    #[error("X-Hub-Signature-256 is missing or wrong")]
    Signature,
    /// No delivery id.
    #[error("X-GitHub-Delivery is missing or malformed")]
    Delivery,
    /// The id was there before.
    #[error("delivery {0} was received before")]
    Replay(String),
    /// No event.
    #[error("X-GitHub-Event is missing")]
    Event,
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    Body(String),
    /// It cannot be kept.
    #[error("the delivery cannot be kept: {0}")]
    Disk(String),
}

impl Refusal {
    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Signature => StatusCode::UNAUTHORIZED,
            Self::Replay(_) => StatusCode::CONFLICT,
            Self::Delivery | Self::Event | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Disk(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A delivery that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// `X-GitHub-Delivery`.
    pub id: String,
    /// `X-GitHub-Event`.
    pub event: String,
    /// Its payload.
    pub payload: Value,
}

/// Deliveries on their way, and the ids of those before.
pub struct Inbox {
    folder: PathBuf,
    seen_path: PathBuf,
    seen: Mutex<VecDeque<String>>,
    /// Deliveries that wait for the run before them (`batch`).
    held: Mutex<BTreeSet<String>>,
    turn: Mutex<()>,
    sender: Mutex<Option<mpsc::UnboundedSender<Delivery>>>,
}

impl Inbox {
    /// Opens the inbox of a state folder.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(state: &Path) -> io::Result<Self> {
        let (folder, seen_path) = (state.join("inbox"), state.join("deliveries.json"));
        create_private_dir(&folder)?;
        let seen = match std::fs::read(&seen_path) {
            Ok(json) => serde_json::from_slice(&json)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            folder,
            seen_path,
            seen: Mutex::new(seen),
            held: Mutex::default(),
            turn: Mutex::default(),
            sender: Mutex::new(None),
        })
    }

    /// Where deliveries come out; the last caller has them.
    pub fn deliveries(&self) -> mpsc::UnboundedReceiver<Delivery> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.sender.lock() = Some(sender);
        receiver
    }

    /// Deliveries that were taken and not done with when the last process ended, oldest first.
    pub fn waiting(&self) -> Vec<Delivery> {
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> =
            files.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
        files.sort_by_key(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok());
        files.iter().filter_map(|p| serde_json::from_slice(&std::fs::read(p).ok()?).ok()).collect()
    }

    /// Whoever releases what is held, one at a time.
    pub fn turn(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// A delivery waits for the run before it.
    pub fn hold(&self, id: &str) {
        self.held.lock().insert(id.to_owned());
    }

    /// Deliveries that wait for the run before them, oldest first.
    pub fn held(&self) -> Vec<Delivery> {
        let held = self.held.lock().clone();
        self.waiting().into_iter().filter(|d| held.contains(&d.id)).collect()
    }

    /// A delivery is done with.
    pub fn done(&self, id: &str) {
        self.held.lock().remove(id);
        if let Err(error) = std::fs::remove_file(self.path(id)) {
            tracing::debug!(%error, id, "delivery");
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Takes a delivery, or says why not.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn take(&self, secret: &str, headers: &HeaderMap, body: &Bytes) -> Result<Delivery, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let content = text(header::CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default().trim().to_owned();
        if !content.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::ContentType);
        }
        if !signed(secret, text("x-hub-signature-256"), body) {
            return Err(Refusal::Signature);
        }
        let id = text("x-github-delivery").to_owned();
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Refusal::Delivery);
        }
        let event = text("x-github-event").to_owned();
        if event.is_empty() || event.len() > 64 {
            return Err(Refusal::Event);
        }
        let payload: Value = serde_json::from_slice(body).map_err(|e| Refusal::Body(e.to_string()))?;
        let delivery = Delivery { id: id.clone(), event, payload };
        self.keep(&delivery)?;
        if let Some(sender) = self.sender.lock().as_ref() {
            // Nobody listens while the service stops; it is on disk.
            let _ = sender.send(delivery.clone());
        }
        Ok(delivery)
    }

    fn keep(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let disk = |e: io::Error| Refusal::Disk(e.to_string());
        let mut seen = self.seen.lock();
        if seen.contains(&delivery.id) {
            return Err(Refusal::Replay(delivery.id.clone()));
        }
        let json = serde_json::to_vec(delivery).map_err(|e| disk(e.into()))?;
        write_atomic(&self.path(&delivery.id), &json, PRIVATE).map_err(disk)?;
        seen.push_back(delivery.id.clone());
        if seen.len() > REMEMBERED {
            seen.pop_front();
        }
        let json = serde_json::to_vec(&*seen).map_err(|e| disk(e.into()))?;
        write_atomic(&self.seen_path, &json, PRIVATE).map_err(disk)
    }
}

/// Whether `sha256=HEX` is the HMAC of the body, compared in constant time.
pub fn signed(secret: &str, signature: &str, body: &[u8]) -> bool {
    let Some(given) = signature.strip_prefix("sha256=").and_then(|h| hex::decode(h).ok()) else { return false };
    let wanted = hmac(secret.as_bytes(), body);
    if given.len() != wanted.len() {
        return false;
    }
    // Every byte is looked at, whatever the first ones say.
    given.iter().zip(&wanted).fold(0u8, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// HMAC-SHA-256 (RFC 2104).
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.map(|b| b ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn signature(secret: &str, body: &[u8]) -> String {
        format!("sha256={}", hex::encode(hmac(secret.as_bytes(), body)))
    }

    #[test]
    fn the_example_of_githubs_documentation() {
        let wanted = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(signed("It's a Secret to Everybody", wanted, b"Hello, World!"));
        assert!(!signed("It's a Secret to Everybody", wanted, b"Hello, World?"));
        for bad in ["", "sha256=", "sha1=00", "sha256=zz", "757107ea"] {
            assert!(!signed("It's a Secret to Everybody", bad, b"Hello, World!"));
        }
    }

    #[test]
    fn what_is_refused_and_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(dir.path()).unwrap();
        let body = Bytes::from_static(b"{\"a\":1}");
        let good = signature("s", &body);
        let take = |inbox: &Inbox, kind: &str, signature: &str, id: &str, body: &Bytes| {
            let headers = headers(&[
                ("content-type", kind),
                ("x-hub-signature-256", signature),
                ("x-github-delivery", id),
                ("x-github-event", "push"),
            ]);
            inbox.take("s", &headers, body)
        };
        assert_eq!(take(&inbox, "text/plain", &good, "1", &body), Err(Refusal::ContentType));
        assert_eq!(take(&inbox, "application/json", &signature("t", &body), "1", &body), Err(Refusal::Signature));
        assert_eq!(take(&inbox, "application/json", &good, "../1", &body), Err(Refusal::Delivery));
        let broken = Bytes::from_static(b"{");
        assert!(matches!(
            take(&inbox, "application/json", &signature("s", &broken), "1", &broken),
            Err(Refusal::Body(_))
        ));
        take(&inbox, "application/json; charset=utf-8", &good, "1", &body).unwrap();
        assert_eq!(take(&inbox, "application/json", &good, "1", &body), Err(Refusal::Replay("1".into())));
        let again = Inbox::open(dir.path()).unwrap();
        assert_eq!(again.waiting().len(), 1);
        assert_eq!(take(&again, "application/json", &good, "1", &body), Err(Refusal::Replay("1".into())));
        again.done("1");
        assert!(again.waiting().is_empty());
    }
}
