//! Limits and use of resources by control groups: version 2, version 1, or none (rootless).

use crate::{
    container::launch,
    runtime::{Resources, Usage},
};
use nix::mount::{MsFlags, mount};
use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Length of a CPU period, microseconds.
const PERIOD: u64 = 100_000;
/// Version 1 controllers in use.
const V1: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// The control groups of one environment.
#[derive(Clone, Debug)]
pub struct Cgroups {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Folder of each controller's hierarchy.
    V1(BTreeMap<&'static str, PathBuf>),
    /// Mount point.
    V2(PathBuf),
    None(String),
}

/// A container's groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Files that a process of one thread enters by.
    pub procs: Vec<PathBuf>,
    /// File that counts kills for lack of memory.
    pub oom_events: Option<PathBuf>,
}

fn mounts_of(kind: &str, mounts: &str) -> Vec<(PathBuf, Vec<String>)> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_device, point, found) = (fields.next()?, fields.next()?, fields.next()?);
            let options = fields.next()?.split(',').map(str::to_owned).collect();
            (found == kind).then(|| (PathBuf::from(point), options))
        })
        .collect()
}

fn has_controllers(folder: &Path) -> bool {
    let have = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    ["cpu", "memory", "pids"].iter().all(|c| have.split_whitespace().any(|h| h == *c))
}

fn detect(mounts: &str) -> Kind {
    if let Some((point, _)) = mounts_of("cgroup2", mounts).into_iter().find(|(point, _)| has_controllers(point)) {
        return Kind::V2(point);
    }
    let v1 = mounts_of("cgroup", mounts);
    let found: BTreeMap<&'static str, PathBuf> = V1
        .into_iter()
        .filter_map(|c| Some((c, v1.iter().find(|(_, options)| options.iter().any(|o| o == c))?.0.clone())))
        .collect();
    if found.contains_key("memory") { Kind::V1(found) } else { Kind::None("no memory controller is mounted".into()) }
}

impl Cgroups {
    /// Finds what there is and makes the environment's group `aksim-ENVIRONMENT`.
    pub fn open(environment: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut groups = Self { name: format!("aksim-{environment}"), kind: detect(&mounts) };
        if let Err(e) = groups.prepare() {
            groups.kind = Kind::None(e.to_string());
        }
        groups
    }

    /// Without limits, for a process that may not make groups.
    pub fn none(reason: &str) -> Self {
        Self { name: String::new(), kind: Kind::None(reason.into()) }
    }

    /// Why there are no limits, if so.
    pub fn missing(&self) -> Option<&str> {
        match &self.kind {
            Kind::None(reason) => Some(reason),
            _ => None,
        }
    }

    fn parents(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.values().map(|h| h.join(&self.name)).collect(),
            Kind::V2(root) => vec![root.join(&self.name)],
            Kind::None(_) => vec![],
        }
    }

    fn prepare(&self) -> io::Result<()> {
        for folder in self.parents() {
            make(&folder)?;
        }
        if let Kind::V2(root) = &self.kind {
            for folder in [root.clone(), root.join(&self.name)] {
                write(&folder.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
            }
        }
        Ok(())
    }

    /// Makes a container's groups with its limits.
    ///
    /// # Errors
    /// A limit that cannot be set.
    pub fn create(&self, id: &str, limits: &Resources) -> io::Result<Group> {
        match &self.kind {
            Kind::None(_) => Ok(Group::default()),
            Kind::V1(hierarchies) => self.create_v1(hierarchies, id, limits),
            Kind::V2(root) => {
                let folder = root.join(&self.name).join(id);
                make(&folder)?;
                if let Some(bytes) = limits.memory_bytes {
                    write(&folder.join("memory.max"), &bytes.to_string())?;
                    write_if_there(&folder.join("memory.swap.max"), "0")?;
                    write_if_there(&folder.join("memory.oom.group"), "1")?;
                }
                if let Some(millis) = limits.cpu_millis {
                    write(&folder.join("cpu.max"), &format!("{} {PERIOD}", quota(millis)))?;
                }
                if let Some(millis) = limits.cpu_request_millis {
                    // The kubelet's conversion of shares 2..262144 to weight 1..10000.
                    let weight = 1 + (shares(millis) - 2) * 9999 / 262_142;
                    write(&folder.join("cpu.weight"), &weight.to_string())?;
                }
                if let Some(pids) = limits.pids {
                    write(&folder.join("pids.max"), &pids.to_string())?;
                }
                Ok(Group { procs: vec![folder.join("cgroup.procs")], oom_events: Some(folder.join("memory.events")) })
            }
        }
    }

    fn create_v1(
        &self,
        hierarchies: &BTreeMap<&'static str, PathBuf>,
        id: &str,
        limits: &Resources,
    ) -> io::Result<Group> {
        let mut group = Group::default();
        for (controller, root) in hierarchies {
            let folder = root.join(&self.name).join(id);
            make(&folder)?;
            match *controller {
                "memory" => {
                    if let Some(bytes) = limits.memory_bytes {
                        write(&folder.join("memory.limit_in_bytes"), &bytes.to_string())?;
                        write_if_there(&folder.join("memory.memsw.limit_in_bytes"), &bytes.to_string())?;
                    }
                    group.oom_events = Some(folder.join("memory.oom_control"));
                }
                "cpu" => {
                    if let Some(millis) = limits.cpu_request_millis {
                        write_if_there(&folder.join("cpu.shares"), &shares(millis).to_string())?;
                    }
                    if let Some(millis) = limits.cpu_millis {
                        write_if_there(&folder.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
                        write_if_there(&folder.join("cpu.cfs_quota_us"), &quota(millis).to_string())?;
                    }
                }
                "pids" => {
                    if let Some(pids) = limits.pids {
                        write(&folder.join("pids.max"), &pids.to_string())?;
                    }
                }
                _ => {}
            }
            // A process of one thread may enter by `tasks`, which spares it the kernel's wait for all
            // threads of the machine that `cgroup.procs` costs (up to 40 ms).
            group.procs.push(folder.join("tasks"));
        }
        // `cpu` and `cpuacct` may be one hierarchy.
        group.procs.sort();
        group.procs.dedup_by_key(|p| p.canonicalize().unwrap_or_else(|_| p.clone()));
        Ok(group)
    }

    /// Processes in a container's group.
    pub fn processes(&self, id: &str) -> Vec<i32> {
        let folder = match &self.kind {
            Kind::V1(h) => h.get("memory").map(|m| m.join(&self.name).join(id)),
            Kind::V2(root) => Some(root.join(&self.name).join(id)),
            Kind::None(_) => None,
        };
        let text = folder.and_then(|f| std::fs::read_to_string(f.join("cgroup.procs")).ok()).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }

    /// Use of resources; `None` without groups.
    ///
    /// # Errors
    /// A group that is gone.
    pub fn usage(&self, id: &str) -> io::Result<Option<Usage>> {
        let read = |path: PathBuf| std::fs::read_to_string(path);
        let number = |text: String| text.trim().parse::<u64>().unwrap_or(0);
        let (memory_usage, inactive, cpu_nanos) = match &self.kind {
            Kind::None(_) => return Ok(None),
            Kind::V2(root) => {
                let folder = root.join(&self.name).join(id);
                let stat = read(folder.join("memory.stat"))?;
                let cpu = read(folder.join("cpu.stat"))?;
                (
                    number(read(folder.join("memory.current"))?),
                    field(&stat, "inactive_file"),
                    field(&cpu, "usage_usec") * 1000,
                )
            }
            Kind::V1(hierarchies) => {
                let folder = |c: &str| hierarchies.get(c).map(|h| h.join(&self.name).join(id));
                let memory = folder("memory").ok_or(io::ErrorKind::NotFound)?;
                let stat = read(memory.join("memory.stat"))?;
                let cpu = folder("cpuacct").map(|f| read(f.join("cpuacct.usage"))).transpose()?.map_or(0, number);
                (number(read(memory.join("memory.usage_in_bytes"))?), field(&stat, "total_inactive_file"), cpu)
            }
        };
        Ok(Some(Usage { cpu_nanos, memory_usage, memory_working_set: memory_usage.saturating_sub(inactive) }))
    }

    /// Removes a container's groups; not an error when they are gone.
    ///
    /// # Errors
    /// Processes are still in it.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        self.parents().into_iter().try_for_each(|folder| remove(&folder.join(id)))
    }

    /// Removes every group of the environment.
    ///
    /// # Errors
    /// Processes are still in one.
    pub fn remove_all(&self) -> io::Result<()> {
        for parent in self.parents() {
            let children = match std::fs::read_dir(&parent) {
                Ok(children) => children,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            for child in children.flatten().filter(|c| c.path().is_dir()) {
                remove(&child.path())?;
            }
            remove(&parent)?;
        }
        Ok(())
    }
}

fn shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

fn quota(millis: u64) -> u64 {
    (millis.saturating_mul(PERIOD) / 1000).max(1000)
}

fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

fn make(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display()))),
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    std::fs::write(file, value).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}

/// Kernels are built without swap accounting or CPU quota.
fn write_if_there(file: &Path, value: &str) -> io::Result<()> {
    if file.exists() { write(file, value) } else { Ok(()) }
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display()))),
    }
}

/// Mounts the process's own groups in a container, read-only unless said otherwise. A view that
/// cannot be mounted (rootless) is left out: programs then see no limits, as there are none.
pub fn mount_view(root: &OwnedFd, path: &Path, flags: MsFlags) -> io::Result<()> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let controllers: Vec<&str> = own.lines().filter_map(|l| l.split(':').nth(1)).filter(|c| !c.is_empty()).collect();
    let target = match launch::make_target(root, path, true) {
        Ok(target) => target,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::EPERM) => return Ok(()),
        Err(e) => return Err(e),
    };
    let none = None::<&str>;
    if controllers.is_empty() {
        let _ = mount(Some("cgroup2"), &launch::fd_path(&target), Some("cgroup2"), flags, none);
        return Ok(());
    }
    let tmpfs = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if mount(Some("tmpfs"), &launch::fd_path(&target), Some("tmpfs"), tmpfs, Some("mode=755,size=64k")).is_err() {
        return Ok(());
    }
    for controller in controllers {
        let folder = controller.trim_start_matches("name=");
        let point = launch::make_target(root, &path.join(folder), true)?;
        let _ = mount(Some("cgroup"), &launch::fd_path(&point), Some("cgroup"), flags, Some(controller));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_version_1_in_a_hybrid_layout() {
        let mounts = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /nonexistent/unified cgroup2 rw 0 0\n";
        let Kind::V1(found) = detect(mounts) else { panic!("not version 1") };
        assert_eq!(found["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["cpu", "cpuacct", "memory"]);
        assert!(matches!(detect("proc /proc proc rw 0 0"), Kind::None(_)));
    }

    #[test]
    fn converts_as_the_kubelet_does() {
        assert_eq!((shares(0), shares(250), shares(1000)), (2, 256, 1024));
        assert_eq!((quota(1), quota(500)), (1000, 50_000));
        assert_eq!(field("a 1\ninactive_file 42\n", "inactive_file"), 42);
    }
}
