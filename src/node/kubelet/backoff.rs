//! Back-off as the kubelet does it: the first restart at once, then 10 s doubling to 5 min.

use std::time::Duration;
use tokio::time::Instant;

const BASE: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);

/// Back-off of one container's restarts, or of one image's pulls.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    delay: Duration,
    updated: Option<Instant>,
}

impl Backoff {
    /// Until when a retry must wait, given when the last attempt failed; `None` when it may start.
    pub fn until(&self, failed: Instant) -> Option<Instant> {
        self.until_at(failed, Instant::now())
    }

    fn until_at(&self, failed: Instant, now: Instant) -> Option<Instant> {
        if self.delay.is_zero() || self.forgotten(now) {
            return None;
        }
        let until = failed + self.delay;
        (until > now).then_some(until)
    }

    /// Notes an attempt; the next failure waits longer.
    pub fn advance(&mut self) {
        self.advance_at(Instant::now());
    }

    fn advance_at(&mut self, now: Instant) {
        self.delay = match self.delay.is_zero() || self.forgotten(now) {
            true => BASE,
            false => (self.delay * 2).min(MAX),
        };
        self.updated = Some(now);
    }

    /// The current delay, for messages.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    fn forgotten(&self, now: Instant) -> bool {
        self.updated.is_some_and(|at| now.saturating_duration_since(at) > MAX * 2)
    }
}

/// A delay as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(super) fn go_duration(delay: Duration) -> String {
    let seconds = delay.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_five_minutes_and_forgets() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        assert_eq!(backoff.until_at(now, now), None, "the first restart is immediate");
        let mut delays = Vec::new();
        for _ in 0..7 {
            backoff.advance_at(now);
            now = backoff.until_at(now, now).unwrap();
            delays.push(backoff.delay().as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        now += Duration::from_secs(601);
        assert_eq!(backoff.until_at(now, now), None);
        backoff.advance_at(now);
        assert_eq!(backoff.delay(), BASE);
    }

    #[test]
    fn prints_as_go_does() {
        assert_eq!(go_duration(Duration::from_secs(40)), "40s");
        assert_eq!(go_duration(Duration::from_secs(160)), "2m40s");
        assert_eq!(go_duration(Duration::from_secs(300)), "5m0s");
    }
}
