//! Processes of this machine, those in the containers of a cluster on it among them, found by their environment.

use nix::{sys::signal::Signal, unistd::Pid};
use std::{fs::File, io::Read, path::PathBuf, time::Duration};

/// How often a process that is just being replaced by `execve` is looked at again, and how long apart.
#[cfg(target_os = "linux")]
const REPLACED: (u32, Duration) = (50, Duration::from_millis(1));

/// The longest environment there can be: a quarter of the usual stack limit of 8 MiB (`execve(2)`), in bytes.
#[cfg(target_os = "linux")]
const ENVIRONMENT_LIMIT: usize = 2 << 20;

/// Sends a signal to every process that has `mark` (`NAME=value`) in its environment, those in containers among them;
/// process id and name of each.
///
/// Between the two halves of `execve` a process has no environment to read: one that is met there is looked at
/// again, for 50 ms at most (a process may also have been given none).
#[cfg(target_os = "linux")]
pub async fn signal_marked(mark: &str, kind: Signal) -> Vec<(i32, String)> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut unread: Vec<i32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id| *id != own)
        .collect();
    let mut buffer = vec![0; ENVIRONMENT_LIMIT];
    let mut met = Vec::new();
    for round in 0..=REPLACED.0 {
        if round > 0 {
            tokio::time::sleep(REPLACED.1).await;
        }
        unread.retain(|id| {
            let folder = PathBuf::from(format!("/proc/{id}"));
            // Processes of others, and those that have just gone, cannot be read. One call, for between two the memory
            // that is read may be given up for the next program's, which looks like the end.
            let read = File::open(folder.join("environ")).and_then(|mut file| file.read(&mut buffer));
            let Ok(read) = read else { return false };
            let environment = &buffer[..read];
            if environment.split(|b| *b == 0).any(|pair| *pair == *mark.as_bytes()) {
                let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
                if nix::sys::signal::kill(Pid::from_raw(*id), kind).is_ok() {
                    met.push((*id, name.trim().to_owned()));
                }
            }
            // Threads of the kernel and zombies have no program either.
            environment.is_empty() && std::fs::read_link(folder.join("exe")).is_ok()
        });
        if unread.is_empty() {
            break;
        }
    }
    met
}

/// Other systems do not tell the environment of a process.
#[cfg(not(target_os = "linux"))]
pub async fn signal_marked(_mark: &str, _kind: Signal) -> Vec<(i32, String)> {
    Vec::new()
}
