//! The time of day, for what is due at a time of day.

use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use tokio::sync::watch;

/// The machine's clock, which a test may set ahead; clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<watch::Sender<SignedDuration>>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(watch::channel(SignedDuration::ZERO).0))
    }
}

impl Clock {
    /// What time it is.
    pub fn now(&self) -> Timestamp {
        Timestamp::now().saturating_add(*self.0.borrow()).unwrap_or(Timestamp::MAX)
    }

    /// Sets the clock ahead; whoever waits for a time looks again.
    pub fn advance(&self, by: SignedDuration) {
        self.0.send_modify(|ahead| *ahead += by);
    }

    /// Tells each time the clock was set.
    pub(super) fn was_set(&self) -> watch::Receiver<SignedDuration> {
        self.0.subscribe()
    }
}
