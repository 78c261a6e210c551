//! Use of resources without control groups: the sum over a container's processes.

use crate::runtime::Usage;
use std::{fs, io, path::Path};

/// Sums the processes that share a PID namespace with process `pid`. CPU time of those that have
/// ended counts as far as their parents have waited for them.
///
/// # Errors
/// When process `pid` is gone.
pub fn of_pid_namespace(pid: i32) -> io::Result<Usage> {
    let namespace = |folder: &Path| fs::read_link(folder.join("ns/pid"));
    let wanted = namespace(Path::new(&format!("/proc/{pid}")))?;
    let mut usage = Usage::default();
    for entry in fs::read_dir("/proc")?.flatten() {
        let folder = entry.path();
        let numeric = entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        if numeric && namespace(&folder).is_ok_and(|n| n == wanted) {
            let (cpu_nanos, memory) = one(&folder);
            usage.cpu_nanos += cpu_nanos;
            usage.memory_usage += memory;
        }
    }
    usage.memory_working_set = usage.memory_usage;
    Ok(usage)
}

/// CPU nanoseconds (children waited for included) and resident bytes of a process.
fn one(folder: &Path) -> (u64, u64) {
    let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
    // The name in parentheses may hold anything; fields count from behind it (proc(5): utime is 14).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let ticks: u64 = (14..=17).map(field).sum();
    let system = |name| nix::unistd::sysconf(name).ok().flatten().and_then(|v| u64::try_from(v).ok());
    let per_second = system(nix::unistd::SysconfVar::CLK_TCK).filter(|t| *t > 0).unwrap_or(100);
    let page = system(nix::unistd::SysconfVar::PAGE_SIZE).unwrap_or(4096);
    (ticks * (1_000_000_000 / per_second), field(24) * page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_this_process() {
        let usage = of_pid_namespace(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(usage.memory_usage > 1 << 20);
        let (_, resident) = one(Path::new("/proc/self"));
        assert!(resident > 1 << 20 && resident <= usage.memory_usage);
    }
}
