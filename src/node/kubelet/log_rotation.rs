//! Container logs are kept to 5 files of 10 MiB, the kubelet's defaults. Sizes are looked at
//! every ten seconds, as the kubelet does: a notification for every write would cost more.

use super::shared::Shared;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const MAX_SIZE: u64 = 10 * 1024 * 1024;
const MAX_FILES: usize = 5;
const INTERVAL: Duration = Duration::from_secs(10);

/// Rotates logs until told to stop.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for pod in shared.pods.all() {
            for container in pod.containers.values().filter_map(|c| c.current.as_ref()) {
                let grown = std::fs::metadata(&container.log_path).is_ok_and(|m| m.len() > MAX_SIZE);
                if !grown {
                    continue;
                }
                let outcome = rotate(&container.log_path, jiff::Timestamp::now());
                if let Err(error) = outcome {
                    tracing::warn!(%error, log = %container.log_path.display(), "log not rotated");
                } else if let Err(error) = shared.runtime.reopen_log(&container.id).await {
                    tracing::warn!(%error, container = container.id, "log not reopened");
                }
            }
        }
    }
}

/// Renames the log to `LOG.TIME`, and removes the oldest beyond the limit.
fn rotate(log: &Path, now: jiff::Timestamp) -> io::Result<()> {
    let mut old = rotated(log)?;
    old.sort();
    // One place is the new file's, one this rotation's.
    let keep = MAX_FILES - 2;
    for path in old.iter().take(old.len().saturating_sub(keep)) {
        std::fs::remove_file(path)?;
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{}", now.strftime("%Y%m%d-%H%M%S")));
    std::fs::rename(log, PathBuf::from(name))
}

/// Files `LOG.*` of a log.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Ok(vec![]);
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_five_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for second in 0..8 {
            std::fs::write(&log, second.to_string()).unwrap();
            rotate(&log, jiff::Timestamp::from_second(1_000_000 + second).unwrap()).unwrap();
        }
        std::fs::write(&log, "new").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), MAX_FILES);
        assert_eq!(std::fs::read_to_string(rotated(&log).unwrap().iter().max().unwrap()).unwrap(), "7");
    }
}
