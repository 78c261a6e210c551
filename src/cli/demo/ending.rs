//! How the demonstration ends when it is interrupted: what it has started ends with it.

use crate::failure::{Code, Failure};
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGINT and SIGTERM.
struct Signals(Signal, Signal);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// Does `work`, which ends in its own way once `stop` is cancelled: a first signal does that, a second one aborts.
///
/// # Errors
/// What `work` fails with, or [`Code::Interrupted`].
pub async fn until_interrupted(
    work: impl Future<Output = Result<(), Failure>>,
    stop: &CancellationToken,
    folder: &Path,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut work = std::pin::pin!(work);
    tokio::select! {
        ended = &mut work => return ended,
        () = signals.next() => stop.cancel(),
    }
    eprintln!("interrupted: ending what was started; a second time aborts");
    tokio::select! {
        ended = &mut work => ended.and(Err(interrupted())),
        () = signals.next() => {
            let failure = Failure::new(Code::Interrupted, "aborted before everything had ended");
            Err(failure.hint(way_to_stop(folder)))
        }
    }
}

/// The demonstration was interrupted.
pub fn interrupted() -> Failure {
    Failure::new(Code::Interrupted, "the demo was interrupted")
}

/// How the user ends what the demonstration left.
pub fn way_to_stop(folder: &Path) -> String {
    format!("aksim --project {} down --purge", folder.display())
}
