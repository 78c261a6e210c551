//! Containers as the daemon sees them: start, watch, stop, find again.

use super::{
    client::{Connection, io_error},
    record::{self, ContainerRecord},
    runtime::ContainerRuntime,
    shim::ExitRecord,
    spec::Plan,
    wire::{AgentRequest, Reply, ShimRequest},
};
use crate::runtime::{ContainerSpec, ContainerState, ContainerStatus, RuntimeError, Usage};
use aksim_runtime::{files::create_private_dir, process::ProcessHandle};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, sync::watch};

/// Longest wait for the end of a container that was killed.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A container.
pub struct Container {
    pub(super) record: ContainerRecord,
    pub(super) directory: PathBuf,
    state: watch::Sender<ContainerState>,
    process: Option<ProcessHandle>,
}

impl Container {
    pub(super) fn status(&self) -> ContainerStatus {
        self.record.status(self.state.borrow().clone())
    }

    pub(super) fn shim(&self) -> Result<Connection, RuntimeError> {
        if let ContainerState::Exited { .. } = *self.state.borrow() {
            return Err(RuntimeError::Start { message: format!("container {} is not running", self.record.id) });
        }
        Connection::open(&self.directory.join("shim.sock")).map_err(io_error("reach the container"))
    }

    pub(super) fn states(&self) -> watch::Receiver<ContainerState> {
        self.state.subscribe()
    }

    fn has_ended(&self) -> bool {
        matches!(*self.state.borrow(), ContainerState::Exited { .. })
    }

    async fn ended(&self) {
        // The sender is `self`; it cannot be gone.
        let _ = self.states().wait_for(|s| matches!(s, ContainerState::Exited { .. })).await;
    }

    async fn signal(&self, signal: i32) -> Result<(), RuntimeError> {
        let outcome = match self.shim() {
            Ok(shim) => shim.call(&ShimRequest::Signal(signal), &[]).await.map(drop),
            Err(_) if self.has_ended() => return Ok(()),
            Err(e) => return Err(e),
        };
        match outcome {
            // It ended while it was asked.
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => Ok(()),
            other => other.map_err(io_error("signal the container")),
        }
    }

    /// SIGKILL without asking the shim where its process is known, so that none can outlive it.
    async fn kill(&self) -> Result<(), RuntimeError> {
        match &self.process {
            Some(process) => process.signal(Signal::SIGKILL).map_err(io_error("kill the container")),
            None => self.signal(Signal::SIGKILL as i32).await,
        }
    }

    /// Stop signal, grace, SIGKILL; returns when it has ended.
    pub(super) async fn stop(&self, grace: Duration) -> Result<(), RuntimeError> {
        if self.has_ended() {
            return Ok(());
        }
        if !grace.is_zero() {
            self.signal(self.record.stop_signal).await?;
            if tokio::time::timeout(grace, self.ended()).await.is_ok() {
                return Ok(());
            }
        }
        self.kill().await?;
        tokio::time::timeout(KILL_DEADLINE, self.ended()).await.map_err(|_| RuntimeError::Start {
            message: format!("container {} has not ended {KILL_DEADLINE:?} after SIGKILL", self.record.id),
        })
    }

    pub(super) async fn reopen_log(&self) -> Result<(), RuntimeError> {
        if self.has_ended() {
            return Ok(());
        }
        self.shim()?.call(&ShimRequest::ReopenLog, &[]).await.map_err(io_error("reopen the log"))?;
        Ok(())
    }

    /// PID namespace of the container's processes.
    fn pid_namespace(&self) -> Result<std::fs::File, RuntimeError> {
        let process = self.process.as_ref().filter(|_| !self.has_ended());
        let process = process.ok_or_else(|| RuntimeError::Start {
            message: format!("target container {} is not running", self.record.id),
        })?;
        let path = format!("/proc/{}/ns/pid", process.pid());
        std::fs::File::open(path).map_err(io_error("open the target container's PID namespace"))
    }

    pub(super) fn root_path(&self) -> Result<PathBuf, RuntimeError> {
        match &self.process {
            Some(process) if !self.has_ended() => Ok(PathBuf::from(format!("/proc/{}/root", process.pid()))),
            _ => Err(RuntimeError::Start { message: format!("container {} is not running", self.record.id) }),
        }
    }
}

/// How long putting a file into a container may take.
const PUT_DEADLINE: Duration = Duration::from_secs(10);

impl Container {
    pub(super) async fn put_file(&self, exe: &Path, path: &Path, content: Option<&[u8]>) -> Result<(), RuntimeError> {
        let process = self.process.as_ref().filter(|_| !self.has_ended());
        let pid = process
            .map(|p| p.pid())
            .ok_or_else(|| RuntimeError::Start { message: format!("container {} is not running", self.record.id) })?;
        let failed = |source| RuntimeError::Io {
            doing: format!("put {} into container {}", path.display(), self.record.id),
            source,
        };
        let mut command = tokio::process::Command::new(exe);
        command.args(["__container-put", "--pid", &pid.to_string(), "--path"]).arg(path);
        if content.is_none() {
            command.arg("--remove");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let put = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(content.unwrap_or_default()).await?;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(PUT_DEADLINE, put)
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))),
        }
    }
}

impl ContainerRuntime {
    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>, RuntimeError> {
        let missing = || RuntimeError::NotFound { kind: "container", id: id.to_owned() };
        self.containers.lock().get(id).cloned().ok_or_else(missing)
    }

    pub(super) async fn start(&self, sandbox: &str, spec: ContainerSpec) -> Result<String, RuntimeError> {
        let pod = self.sandbox(sandbox)?;
        if pod.stopped {
            return Err(RuntimeError::NotFound { kind: "sandbox", id: sandbox.to_owned() });
        }
        let id = record::new_id();
        let directory = self.container_dir(&id);
        let started = self.make(&id, &directory, &pod.spec.hostname, &pod.spec.log_directory, sandbox, spec).await;
        match started {
            Ok(container) => {
                self.adopt(container);
                self.publish(sandbox, Some(&id));
                Ok(id)
            }
            Err(error) => {
                // The error of the start is the one that matters.
                let _ = self.remove_tree(&directory).await;
                let _ = self.cgroups.remove(&id);
                Err(error)
            }
        }
    }

    async fn make(
        &self,
        id: &str,
        directory: &Path,
        hostname: &str,
        log_directory: &Path,
        sandbox: &str,
        mut spec: ContainerSpec,
    ) -> Result<(Container, Option<Connection>), RuntimeError> {
        let target = spec.target_container.as_deref().map(|id| self.container(id)).transpose()?;
        create_private_dir(directory).map_err(io_error("make the container's folder"))?;
        let (image, overlay) = self.images.open_image(&spec.image_id)?;
        let group = self
            .cgroups
            .create(id, &spec.resources)
            .map_err(|e| RuntimeError::Start { message: format!("failed to set resource limits: {e}") })?;
        let log_path = log_directory.join(&spec.name).join(format!("{}.log", spec.attempt));
        let config_signal = image.config().as_ref().and_then(|c| c.stop_signal().clone());
        let stop_signal = signal_number(spec.stop_signal.as_deref().or(config_signal.as_deref()))?;
        let plan = Plan {
            container: &spec,
            image: &image,
            overlay: overlay.clone(),
            hostname,
            log_path: log_path.clone(),
            group,
            ids: self.agent.ids(),
        };
        let (config, launch) = plan.build()?;
        spec.env.clear();
        let created = Timestamp::now();
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox: sandbox.to_owned(),
            spec,
            log_path,
            created,
            stop_signal,
            overlay,
        };
        let write = || -> io::Result<()> {
            record::write(&directory.join("config.json"), &config)?;
            record::write(&directory.join("launch.json"), &launch)?;
            record::write(&directory.join("container.json"), &record)
        };
        write().map_err(io_error("write the container"))?;
        let start = |e: io::Error| RuntimeError::Start { message: e.to_string() };
        let target = target.map(|target| target.pid_namespace()).transpose()?;
        let request = AgentRequest::StartShim {
            sandbox: sandbox.to_owned(),
            directory: directory.to_owned(),
            joins_pid: target.is_some(),
        };
        let beside: Vec<_> = target.iter().map(AsFd::as_fd).collect();
        let (reply, fds) = self.agent.call_with(&request, &beside).await.map_err(start)?;
        running(record, directory, &reply, fds)
    }

    /// Keeps a running container and watches for its end.
    fn adopt(&self, (container, shim): (Container, Option<Connection>)) {
        let container = Arc::new(container);
        self.containers.lock().insert(container.record.id.clone(), container.clone());
        let events = self.events.clone();
        let pod_uid = self.sandbox(&container.record.sandbox).map(|s| s.spec.uid).unwrap_or_default();
        self.watchers.lock().spawn(async move {
            if let Some(shim) = shim {
                shim.closed().await;
            }
            let state = ended_state(&container.directory, &container.state.borrow().clone());
            container.state.send_replace(state);
            let (sandbox, id) = (container.record.sandbox.clone(), container.record.id.clone());
            // Nobody may be listening.
            let _ = events.send(crate::runtime::RuntimeEvent { pod_uid, sandbox, container: Some(id) });
        });
    }

    /// Finds a container of an earlier daemon.
    pub(super) async fn find_container(&self, id: &str) -> Result<(), RuntimeError> {
        let directory = self.container_dir(id);
        let Ok(record) = record::read::<ContainerRecord>(&directory.join("container.json")) else {
            // Its making was cut short.
            return self.remove_tree(&directory).await;
        };
        if let Ok(shim) = Connection::open(&directory.join("shim.sock"))
            && let Ok((reply, fds)) = shim.call(&ShimRequest::State, &[]).await
        {
            self.adopt(running(record, &directory, &reply, fds)?);
            return Ok(());
        }
        let state = ended_state(&directory, &ContainerState::Running { started: record.created });
        let container = Container { record, directory, state: watch::Sender::new(state), process: None };
        self.containers.lock().insert(id.to_owned(), Arc::new(container));
        Ok(())
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        container.stop(Duration::ZERO).await?;
        self.remove_tree(&container.directory).await?;
        self.end_leftovers(id).await.map_err(io_error("end the container's processes"))?;
        self.cgroups.remove(id).map_err(io_error("remove the control group"))?;
        self.containers.lock().remove(id);
        Ok(())
    }

    /// In a shared PID namespace a container's children outlive its first process.
    async fn end_leftovers(&self, id: &str) -> io::Result<()> {
        for pid in self.cgroups.processes(id) {
            // One that has ended meanwhile is what is wanted.
            let Ok(process) = ProcessHandle::open(nix::unistd::Pid::from_raw(pid)) else { continue };
            process.signal(Signal::SIGKILL)?;
            tokio::time::timeout(KILL_DEADLINE, process.ended()).await??;
        }
        Ok(())
    }

    pub(super) fn usage_of(&self, id: &str) -> Result<Usage, RuntimeError> {
        let container = self.container(id)?;
        if container.has_ended() {
            return Ok(Usage::default());
        }
        if let Some(usage) = self.cgroups.usage(id).map_err(io_error("read the control group"))? {
            return Ok(usage);
        }
        match &container.process {
            Some(process) => super::usage::of_pid_namespace(process.pid()).map_err(io_error("read /proc")),
            None => Ok(Usage::default()),
        }
    }
}

/// A container whose shim has answered with its state, and the connection that tells of its end.
fn running(
    record: ContainerRecord,
    directory: &Path,
    reply: &Reply,
    fds: Vec<std::os::fd::OwnedFd>,
) -> Result<(Container, Option<Connection>), RuntimeError> {
    let Reply::State { started_nanos } = reply else {
        return Err(RuntimeError::Start { message: "the container's shim gave no state".into() });
    };
    let started = Timestamp::from_nanosecond(*started_nanos).unwrap_or(record.created);
    let process =
        fds.into_iter().next().map(ProcessHandle::from_fd).transpose().map_err(io_error("open the process"))?;
    let state = watch::Sender::new(ContainerState::Running { started });
    let container = Container { record, directory: directory.to_owned(), state, process };
    // Refused when it has ended meanwhile; its exit record is then there.
    Ok((container, Connection::open(&directory.join("shim.sock")).ok()))
}

/// State of a container whose shim has gone: by its exit record, or unknown.
fn ended_state(directory: &Path, last: &ContainerState) -> ContainerState {
    if let Ok(exit) = record::read::<ExitRecord>(&directory.join("exit.json")) {
        return exit.into();
    }
    let started = match last {
        ContainerState::Running { started } | ContainerState::Exited { started, .. } => *started,
        ContainerState::Created => Timestamp::now(),
    };
    // The shim was killed and the container with it.
    let finished = Timestamp::now();
    let exit = ExitRecord { code: 137, signal: Some(9), started, finished, oom_killed: false };
    if let Err(e) = record::write(&directory.join("exit.json"), &exit) {
        tracing::warn!("cannot keep how container {} ended: {e}", directory.display());
    }
    exit.into()
}

fn signal_number(name: Option<&str>) -> Result<i32, RuntimeError> {
    let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(Signal::SIGTERM as i32) };
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    name.parse::<i32>()
        .ok()
        .and_then(|n| Signal::try_from(n).ok())
        .or_else(|| Signal::from_str(&full).ok())
        .map(|s| s as i32)
        .ok_or_else(|| RuntimeError::Start { message: format!("invalid container: unknown stop signal {name:?}") })
}
