//! Work queue of a controller: a key is held once, worked on by one worker at a time, and tried
//! again with exponential back-off after a failure.

use super::error::ControllerError;
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt::Debug,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// First delay after a failure; doubled with each one that follows.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// Longest delay after a failure.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// How long one reconciliation may take.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(60);

/// What can be a key.
pub trait Key: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static> Key for T {}

/// When to look at a key again though nothing changed.
pub type Requeue = Option<Duration>;

struct State<T> {
    ready: VecDeque<T>,
    /// Keys in `ready`, or changed while being worked on.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    delayed: BTreeMap<(Instant, T), ()>,
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
}

/// Handle to a work queue; clones share it.
pub struct WorkQueue<T> {
    state: Arc<Mutex<State<T>>>,
    changed: Arc<Notify>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), changed: self.changed.clone() }
    }
}

impl<T: Key> Default for WorkQueue<T> {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                processing: HashSet::new(),
                delayed: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
            })),
            changed: Arc::new(Notify::new()),
        }
    }
}

impl<T: Key> WorkQueue<T> {
    /// Asks for a key to be worked on now.
    pub fn add(&self, key: T) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Asks for a key to be worked on after `delay`; an earlier date already set stays.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        {
            let mut state = self.state.lock();
            if let Some(&due) = state.due.get(&key) {
                if due <= at {
                    return;
                }
                state.delayed.remove(&(due, key.clone()));
            }
            state.due.insert(key.clone(), at);
            state.delayed.insert((at, key), ());
        }
        self.changed.notify_one();
    }

    /// Works on keys with at most `workers` at a time until `shutdown`; reconciliations under way
    /// are dropped then (they are level-triggered: the next start takes them up).
    pub async fn run<F, Fut>(self, name: &'static str, workers: usize, shutdown: CancellationToken, reconcile: F)
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Result<Requeue, ControllerError>>,
    {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < workers {
                let Some(key) = self.state.lock().take() else { break };
                let work = tokio::time::timeout(RECONCILE_DEADLINE, reconcile(key.clone()));
                running.push(
                    async move { (key, work.await.unwrap_or(Err(ControllerError::Deadline(RECONCILE_DEADLINE)))) },
                );
            }
            let wake = self.state.lock().promote();
            if running.len() < workers && !self.state.lock().ready.is_empty() {
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changed.notified() => {}
                Some((key, result)) = running.next(), if !running.is_empty() => self.finish(name, key, result),
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn finish(&self, name: &'static str, key: T, result: Result<Requeue, ControllerError>) {
        let delay = match result {
            Ok(requeue) => {
                self.state.lock().failures.remove(&key);
                requeue
            }
            Err(error) => {
                let failures = {
                    let mut state = self.state.lock();
                    let failures = state.failures.entry(key.clone()).or_default();
                    *failures += 1;
                    *failures
                };
                if error.is_conflict() || failures < 4 {
                    tracing::debug!(controller = name, ?key, %error, failures, "reconciliation failed, tried again");
                } else {
                    tracing::warn!(controller = name, ?key, %error, failures, "reconciliation keeps failing");
                }
                Some(FIRST_BACKOFF.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_BACKOFF))
            }
        };
        self.state.lock().done(&key);
        if let Some(delay) = delay {
            self.add_after(key, delay);
        }
    }

    /// Takes every key that is ready, for consumers that work in batches.
    pub fn drain(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.promote();
        let keys: Vec<T> = state.ready.drain(..).collect();
        state.dirty.clear();
        keys
    }

    /// Waits until something was added or a delayed key is due.
    pub async fn wait(&self) {
        loop {
            let (wake, empty) = {
                let mut state = self.state.lock();
                (state.promote(), state.ready.is_empty())
            };
            if !empty {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }
}

impl<T: Key> State<T> {
    fn add(&mut self, key: T) {
        if self.dirty.insert(key.clone()) && !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &T) {
        self.processing.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// Moves delayed keys that are due to the ready ones; the next due date.
    fn promote(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return Some(entry.key().0);
            }
            let ((_, key), ()) = entry.remove_entry();
            self.due.remove(&key);
            self.add(key);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_key_is_never_worked_on_twice_at_once_and_changes_meanwhile_are_not_lost() {
        let queue = WorkQueue::<u32>::default();
        let (running, most, total) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let shutdown = CancellationToken::new();
        queue.add(1);
        let work = queue.clone().run("test", 4, shutdown.clone(), |key| {
            let (queue, shutdown) = (queue.clone(), shutdown.clone());
            let (running, most, total) = (&running, &most, &total);
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let times = total.fetch_add(1, Ordering::SeqCst) + 1;
                if times == 1 {
                    queue.add(key);
                    queue.add(key);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                if times == 2 {
                    shutdown.cancel();
                }
                Ok(None)
            }
        });
        work.await;
        assert_eq!((most.into_inner(), total.into_inner()), (1, 2));
    }

    #[tokio::test]
    async fn failures_back_off_exponentially() {
        let queue = WorkQueue::<u32>::default();
        let shutdown = CancellationToken::new();
        let times = Mutex::new(Vec::new());
        queue.add(1);
        let work = queue.clone().run("test", 1, shutdown.clone(), |_| {
            times.lock().push(Instant::now());
            if times.lock().len() == 4 {
                shutdown.cancel();
            }
            async { Err(ControllerError::NotYet("never".into())) }
        });
        work.await;
        let times = times.into_inner();
        let gaps: Vec<u128> = times.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
        assert_eq!(gaps.len(), 3);
        assert!(gaps[0] >= 5 && gaps[1] >= 10 && gaps[2] >= 20, "{gaps:?}");
    }

    #[tokio::test]
    async fn the_earlier_of_two_dates_counts() {
        let queue = WorkQueue::<u32>::default();
        let hour = Duration::from_secs(3600);
        queue.add_after(1, 2 * hour);
        queue.add_after(1, Duration::from_millis(1));
        queue.add_after(1, hour);
        tokio::time::timeout(hour / 2, queue.wait()).await.unwrap();
        assert_eq!(queue.drain(), [1]);
        assert_eq!(queue.state.lock().delayed.len(), 0);
    }
}
