//! A pod's container as an OCI `config.json` and what goes beside it.

use crate::{
    container::{
        cgroup::Group,
        launch::{Launch, overlay::Overlay, user::UserRequest},
        wire::IdMapping,
    },
    runtime::{ContainerSpec, Mount as NodeMount, RuntimeError, Security},
};
use oci_spec::{
    OciSpecError,
    image::ImageConfiguration,
    runtime::{
        Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
        Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    },
};
use std::path::{Path, PathBuf};

/// Capabilities of a container, Docker's default.
const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything a container is made from.
pub struct Plan<'a> {
    /// As the kubelet asked.
    pub container: &'a ContainerSpec,
    /// The image's configuration.
    pub image: &'a ImageConfiguration,
    /// Its layers.
    pub overlay: Overlay,
    /// Host name of the pod, for `HOSTNAME`.
    pub hostname: &'a str,
    /// Log file.
    pub log_path: PathBuf,
    /// Control groups made for it.
    pub group: Group,
    /// How ids are mapped.
    pub ids: IdMapping,
}

impl Plan<'_> {
    /// `config.json` and `launch.json`.
    ///
    /// # Errors
    /// [`RuntimeError::Start`] when the container has no command or asks for what does not exist.
    pub fn build(self) -> Result<(Spec, Launch), RuntimeError> {
        let start = |e: OciSpecError| RuntimeError::Start { message: format!("invalid container: {e}") };
        let container = self.container;
        let security = &container.security;
        let config = self.image.config().clone().unwrap_or_default();
        let args = arguments(container, config.entrypoint().as_deref(), config.cmd().as_deref())?;
        let cwd = match (&container.working_dir, config.working_dir()) {
            (Some(dir), _) | (None, Some(dir)) if !dir.is_empty() => dir.clone(),
            _ => "/".to_owned(),
        };
        let process = ProcessBuilder::default()
            .terminal(container.tty)
            .args(args)
            .env(environment(config.env().as_deref().unwrap_or_default(), self.hostname, &container.env))
            .cwd(cwd)
            .no_new_privileges(!security.allow_privilege_escalation && !security.privileged)
            .capabilities(capabilities(security)?)
            .rlimits(vec![
                PosixRlimitBuilder::default()
                    .typ(PosixRlimitType::RlimitNofile)
                    .soft(1_048_576_u64)
                    .hard(1_048_576_u64)
                    .build()
                    .map_err(start)?,
            ])
            .oom_score_adj(0)
            .build()
            .map_err(start)?;
        let namespaces = [LinuxNamespaceType::Pid, LinuxNamespaceType::Mount, LinuxNamespaceType::Cgroup]
            .into_iter()
            .filter(|kind| *kind != LinuxNamespaceType::Cgroup || self.ids == IdMapping::Root)
            .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(start)?;
        let hidden = |paths: &[&str]| -> Vec<String> {
            if security.privileged { vec![] } else { paths.iter().map(|p| (*p).to_owned()).collect() }
        };
        let linux = LinuxBuilder::default()
            .namespaces(namespaces)
            .masked_paths(hidden(&MASKED))
            .readonly_paths(hidden(&READONLY))
            .build()
            .map_err(start)?;
        let root = RootBuilder::default().path("rootfs").readonly(security.readonly_root).build().map_err(start)?;
        let spec = SpecBuilder::default()
            .version("1.2.0")
            .root(root)
            .process(process)
            .mounts(mounts(&container.mounts, security.privileged, self.ids).map_err(start)?)
            .linux(linux)
            .build()
            .map_err(start)?;
        let launch = Launch {
            overlay: Some(self.overlay),
            user: Some(UserRequest {
                image: config.user().clone().unwrap_or_default(),
                uid: security.run_as_user,
                gid: security.run_as_group,
                groups: security.supplemental_groups.clone(),
                non_root: security.run_as_non_root,
            }),
            log_path: self.log_path,
            stdin: container.stdin,
            stdin_once: container.stdin_once,
            cgroup_procs: self.group.procs,
            oom_events: self.group.oom_events,
        };
        Ok((spec, launch))
    }
}

/// Command and arguments by Kubernetes' rules: `command` replaces the entry point and, with it,
/// the image's `CMD`; `args` alone replaces `CMD`.
fn arguments(
    container: &ContainerSpec,
    entrypoint: Option<&[String]>,
    cmd: Option<&[String]>,
) -> Result<Vec<String>, RuntimeError> {
    let image = |part: Option<&[String]>| part.unwrap_or_default().to_vec();
    let mut all = if container.command.is_empty() { image(entrypoint) } else { container.command.clone() };
    if !container.args.is_empty() {
        all.extend(container.args.iter().cloned());
    } else if container.command.is_empty() {
        all.extend(image(cmd));
    }
    if all.is_empty() {
        return Err(RuntimeError::Start { message: "no command specified".into() });
    }
    Ok(all)
}

fn environment(image: &[String], hostname: &str, pod: &[(String, String)]) -> Vec<String> {
    let mut all: indexmap::IndexMap<&str, &str> = indexmap::IndexMap::new();
    all.insert("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    all.insert("HOSTNAME", hostname);
    all.extend(image.iter().filter_map(|e| e.split_once('=')));
    all.extend(pod.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn capabilities(security: &Security) -> Result<oci_spec::runtime::LinuxCapabilities, RuntimeError> {
    use std::str::FromStr;
    let parse = |name: &String| {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        Capability::from_str(bare)
            .map_err(|_| RuntimeError::Start { message: format!("invalid container: unknown capability {name:?}") })
    };
    let all =
        || caps::all().into_iter().filter_map(|c| Capability::from_str(c.to_string().trim_start_matches("CAP_")).ok());
    let mut set: Capabilities =
        if security.privileged { all().collect() } else { DEFAULT_CAPABILITIES.into_iter().collect() };
    if security.drop_capabilities.iter().any(|c| c == "ALL") {
        set.clear();
    }
    for name in &security.add_capabilities {
        if name == "ALL" {
            set.extend(all());
        } else {
            set.insert(parse(name)?);
        }
    }
    for name in security.drop_capabilities.iter().filter(|c| *c != "ALL") {
        set.remove(&parse(name)?);
    }
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(Capabilities::default())
        .ambient(Capabilities::default())
        .build()
        .map_err(|e| RuntimeError::Start { message: format!("invalid container: {e}") })
}

/// A mount as in `config.json`.
pub fn mount(
    to: impl AsRef<Path>,
    kind: &str,
    from: impl AsRef<Path>,
    options: &[&str],
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(to.as_ref())
        .typ(kind)
        .source(from.as_ref())
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
}

/// What every container has.
pub fn base_mounts(privileged: bool, ids: IdMapping) -> Result<Vec<Mount>, OciSpecError> {
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if ids != IdMapping::Single {
        // Group tty; where only one id exists it cannot be given.
        pts.push("gid=5");
    }
    let access = if privileged { "rw" } else { "ro" };
    Ok(vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount("/dev/pts", "devpts", "devpts", &pts)?,
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access])?,
    ])
}

fn mounts(wanted: &[NodeMount], privileged: bool, ids: IdMapping) -> Result<Vec<Mount>, OciSpecError> {
    let mut all = base_mounts(privileged, ids)?;
    let mut own: Vec<&NodeMount> = wanted.iter().collect();
    // A folder before what is mounted in it, else in the given order.
    own.sort_by_key(|m| m.container_path.components().count());
    for item in own {
        let access = if item.readonly { "ro" } else { "rw" };
        let built = match item.tmpfs {
            Some(0) => mount(&item.container_path, "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777", access])?,
            Some(bytes) => {
                let size = format!("size={bytes}");
                mount(&item.container_path, "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777", access, &size])?
            }
            None => mount(&item.container_path, "bind", &item.host_path, &["rbind", access])?,
        };
        // A mount of the same place replaces the base one (a pod's own /dev/shm).
        all.retain(|m| m.destination() != built.destination());
        all.push(built);
    }
    Ok(all)
}
