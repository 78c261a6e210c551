//! What an error says besides what failed: the next step, and the class by which the program ends.

use std::{borrow::Cow, error::Error, io};

/// How the program ends by an error: its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitClass {
    /// Something failed.
    Failure = 1,
    /// Usage or configuration.
    Usage = 2,
    /// The machine lacks something.
    Environment = 3,
    /// A deadline passed.
    Deadline = 4,
    /// A check or scenario failed.
    Check = 5,
    /// A bug of aksim.
    Bug = 70,
    /// Interrupted.
    Interrupted = 130,
}

/// An error that knows what to do about it. One that wraps another passes the other's advice on.
pub trait Advice: Error {
    /// Next step for a person, where there is one.
    fn hint(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// How the program ends by it.
    fn class(&self) -> ExitClass {
        ExitClass::Failure
    }
}

impl Advice for io::Error {
    fn hint(&self) -> Option<Cow<'_, str>> {
        is_disk_full(self).then(|| DISK_FULL_HINT.into())
    }

    fn class(&self) -> ExitClass {
        if is_disk_full(self) { ExitClass::Environment } else { ExitClass::Failure }
    }
}

/// What to do about a disk that is full.
pub const DISK_FULL_HINT: &str = "free some space, or set AKSIM_HOME to a folder on another disk; \
     `aksim down --purge` removes this environment";

/// Whether a full disk or a used up quota is behind an error.
pub fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.into_iter().any(|error| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        // Some libraries give the system's error as text only.
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            || error.to_string().contains("No space left on device")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_environments_fault() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!((full.class(), full.hint().as_deref()), (ExitClass::Environment, Some(DISK_FULL_HINT)));
        let told = io::Error::other("write: No space left on device (os error 28)");
        assert_eq!(told.class(), ExitClass::Environment);
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert!(other.class() == ExitClass::Failure && other.hint().is_none());
    }
}
