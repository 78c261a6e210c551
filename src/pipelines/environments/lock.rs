//! The exclusive lock of an environment: `lockBehavior: sequential` and `runLatest`.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// The lock of one environment; who asks first has it first.
pub struct EnvironmentLock {
    turn: Arc<Semaphore>,
    waiting: Mutex<Vec<Waiting>>,
}

/// A run that gives way to newer ones of its pipeline while it waits.
struct Waiting {
    pipeline: String,
    run: u64,
    newer: oneshot::Sender<u64>,
}

/// Why a run does not have a lock.
#[derive(Debug, PartialEq, Eq)]
pub enum NotLocked {
    /// It was cancelled.
    Cancelled,
    /// This newer run of its pipeline waits too.
    Newer(u64),
}

impl Default for EnvironmentLock {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: Mutex::default() }
    }
}

impl EnvironmentLock {
    /// Waits for the lock; it is free again when what is returned is dropped.
    ///
    /// # Errors
    /// [`NotLocked::Cancelled`].
    pub async fn in_turn(&self, cancel: &CancellationToken) -> Result<OwnedSemaphorePermit, NotLocked> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(NotLocked::Cancelled),
            permit = self.turn.clone().acquire_owned() => permit.map_err(|_| NotLocked::Cancelled),
        }
    }

    /// The same, for the latest run of a pipeline: one that waits gives way as soon as a newer one asks.
    ///
    /// # Errors
    /// [`NotLocked`].
    pub async fn latest(
        &self,
        pipeline: &str,
        run: u64,
        cancel: &CancellationToken,
    ) -> Result<OwnedSemaphorePermit, NotLocked> {
        let newer = self.ask(pipeline, run)?;
        let permit = tokio::select! {
            biased;
            Ok(newer) = newer => Err(NotLocked::Newer(newer)),
            permit = self.in_turn(cancel) => permit,
        };
        // Those whose end nobody hears any more: this one.
        self.waiting.lock().retain(|w| !w.newer.is_closed());
        permit
    }

    /// Tells older runs that wait to give way, and where this one hears the same.
    fn ask(&self, pipeline: &str, run: u64) -> Result<oneshot::Receiver<u64>, NotLocked> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|w| !w.newer.is_closed());
        if let Some(newer) = waiting.iter().find(|w| w.pipeline == pipeline && w.run > run) {
            return Err(NotLocked::Newer(newer.run));
        }
        for older in waiting.extract_if(.., |w| w.pipeline == pipeline && w.run < run) {
            // It may have been cancelled at this moment.
            let _ = older.newer.send(run);
        }
        let (newer, heard) = oneshot::channel();
        waiting.push(Waiting { pipeline: pipeline.to_owned(), run, newer });
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_of_a_pipeline_waits_and_others_are_left_alone() {
        let (lock, cancel) = (EnvironmentLock::default(), CancellationToken::new());
        let held = lock.latest("shop", 1, &cancel).await.unwrap();
        let release = async {
            // Joined last: the three below wait by now.
            drop(held);
        };
        let (second, other, third, ()) = tokio::join!(
            lock.latest("shop", 2, &cancel),
            async { lock.latest("docs", 1, &cancel).await.map(drop) },
            async { lock.latest("shop", 3, &cancel).await.map(drop) },
            release,
        );
        assert_eq!(second.unwrap_err(), NotLocked::Newer(3));
        assert_eq!((other, third), (Ok(()), Ok(())));
        // A run that is run again has it when nobody newer waits.
        assert!(lock.latest("shop", 2, &cancel).await.is_ok());
        cancel.cancel();
        assert_eq!(lock.latest("shop", 4, &cancel).await.unwrap_err(), NotLocked::Cancelled);
        assert!(lock.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn an_older_run_that_comes_late_gives_way() {
        let (lock, cancel) = (EnvironmentLock::default(), CancellationToken::new());
        let held = lock.in_turn(&cancel).await.unwrap();
        let (third, second) = tokio::join!(async { lock.latest("shop", 3, &cancel).await.map(drop) }, async {
            let second = lock.latest("shop", 2, &cancel).await.map(drop);
            drop(held);
            second
        });
        assert_eq!((third, second), (Ok(()), Err(NotLocked::Newer(3))));
    }
}
