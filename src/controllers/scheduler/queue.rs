//! Pods that wait for a node: by priority, then by age; those that no node would take sleep until
//! something happens that could help them.

use crate::informer::ObjectKey;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::Instant;

/// Attempts that are repeated at once when something changed.
const QUICK_ATTEMPTS: u32 = 3;
/// Delay after the attempts that follow; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest delay.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    BackingOff(Instant),
    Unschedulable,
    InFlight,
}

/// What may help a pod that no node would take; room that is made always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Room.
    Room,
    /// Its rules look at other pods, so that a pod placed anywhere may help.
    Company,
    /// It has claims: a change of storage may help, or a pod placed anywhere.
    Claims,
}

#[derive(Debug)]
struct Entry {
    priority: i32,
    arrival: u64,
    attempts: u32,
    last_attempt: Instant,
    state: State,
    waits: WaitsFor,
}

/// Pods that wait for a node.
#[derive(Debug, Default)]
pub struct SchedulingQueue {
    entries: HashMap<ObjectKey, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, ObjectKey)>,
    backing_off: BTreeSet<(Instant, ObjectKey)>,
    arrivals: u64,
}

impl SchedulingQueue {
    /// Adds a pod; one that is known becomes active again if it was asleep.
    pub fn add(&mut self, key: ObjectKey, priority: i32, now: Instant) {
        if let Some(entry) = self.entries.get(&key) {
            if entry.state == State::Unschedulable {
                self.wake(&key, now);
            }
            return;
        }
        self.arrivals += 1;
        let entry = Entry {
            priority,
            arrival: self.arrivals,
            attempts: 0,
            last_attempt: now,
            state: State::Active,
            waits: WaitsFor::Room,
        };
        self.active.insert((Reverse(priority), entry.arrival, key.clone()));
        self.entries.insert(key, entry);
    }

    /// Forgets a pod: it is gone, ended or bound.
    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.active.remove(&(Reverse(entry.priority), entry.arrival, key.clone()));
            if let State::BackingOff(due) = entry.state {
                self.backing_off.remove(&(due, key.clone()));
            }
        }
    }

    /// The next pod to decide about.
    pub fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some((due, key)) = self.backing_off.first().cloned() {
            if due > now {
                break;
            }
            self.backing_off.pop_first();
            self.activate(&key);
        }
        let (_, _, key) = self.active.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = State::InFlight;
            entry.attempts += 1;
            entry.last_attempt = now;
        }
        Some(key)
    }

    /// Whether a pod can be decided about now.
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// When the next pod's delay ends.
    pub fn next_due(&self) -> Option<Instant> {
        self.backing_off.first().map(|(due, _)| *due)
    }

    /// Puts a pod to sleep until something changes.
    pub fn sleep(&mut self, key: &ObjectKey, waits: WaitsFor) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.state = State::Unschedulable;
            entry.waits = waits;
        }
    }

    /// Tries a pod again after its delay, whatever happens.
    pub fn retry(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            let due = entry.last_attempt + backoff(entry.attempts);
            entry.state = State::BackingOff(due);
            self.backing_off.insert((due, key.clone()));
        }
    }

    /// Wakes every sleeping pod: room was made or a node changed.
    pub fn wake_all(&mut self, now: Instant) {
        self.wake_where(now, |_| true);
    }

    /// Wakes the sleeping pods whose rules look at other pods.
    pub fn wake_company(&mut self, now: Instant) {
        self.wake_where(now, |entry| entry.waits != WaitsFor::Room);
    }

    /// Wakes the sleeping pods that have claims.
    pub fn wake_claims(&mut self, now: Instant) {
        self.wake_where(now, |entry| entry.waits == WaitsFor::Claims);
    }

    fn wake_where(&mut self, now: Instant, holds: impl Fn(&Entry) -> bool) {
        let asleep = self.entries.iter().filter(|(_, e)| e.state == State::Unschedulable && holds(e));
        let keys: Vec<ObjectKey> = asleep.map(|(k, _)| k.clone()).collect();
        for key in keys {
            self.wake(&key, now);
        }
    }

    fn wake(&mut self, key: &ObjectKey, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let due = entry.last_attempt + backoff(entry.attempts.saturating_sub(QUICK_ATTEMPTS));
        if entry.attempts <= QUICK_ATTEMPTS || due <= now {
            self.activate(key);
        } else {
            entry.state = State::BackingOff(due);
            self.backing_off.insert((due, key.clone()));
        }
    }

    fn activate(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.state = State::Active;
            self.active.insert((Reverse(entry.priority), entry.arrival, key.clone()));
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    #[test]
    fn priority_then_arrival() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10)] {
            queue.add(key(name), priority, now);
            queue.add(key(name), priority, now);
        }
        queue.remove(&key("c"));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
        assert_eq!(order, [key("b"), key("d"), key("a")]);
    }

    #[test]
    fn sleepers_wake_by_events_at_once_then_more_slowly() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.add(key("a"), 0, now);
        for _ in 0..QUICK_ATTEMPTS {
            assert!(queue.pop(now).is_some());
            queue.sleep(&key("a"), WaitsFor::Room);
            assert!(queue.pop(now).is_none());
            queue.wake_company(now);
            assert!(!queue.has_active(), "a pod elsewhere does not help it");
            queue.wake_all(now);
        }
        assert!(queue.pop(now).is_some());
        queue.sleep(&key("a"), WaitsFor::Company);
        queue.wake_company(now);
        assert!(queue.pop(now).is_none());
        let due = queue.next_due().unwrap();
        assert_eq!(due - now, FIRST_BACKOFF);
        assert_eq!(queue.pop(due), Some(key("a")));
    }

    #[test]
    fn a_failed_binding_is_tried_again_after_a_delay() {
        let (mut queue, now) = (SchedulingQueue::default(), Instant::now());
        queue.add(key("a"), 0, now);
        queue.pop(now);
        queue.retry(&key("a"));
        assert_eq!((queue.pop(now), queue.next_due()), (None, Some(now + FIRST_BACKOFF)));
        queue.remove(&key("a"));
        assert_eq!(queue.next_due(), None);
    }
}
