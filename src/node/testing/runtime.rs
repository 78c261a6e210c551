//! A runtime whose containers are records: what a container does is its command.
//!
//! `run` runs until stopped, `stubborn` until killed, `exit N` ends at once, `oom` is killed for
//! its memory; `say TEXT` logs and runs. Exec knows `echo`, `cat` (stdin to stdout) and `fail N`.

use crate::runtime::*;
use aksim_model::image_ref::ImageRef;
use aksim_runtime::net::Dialer;
use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::broadcast,
};

struct State {
    sandboxes: BTreeMap<String, SandboxStatus>,
    specs: BTreeMap<String, ContainerSpec>,
    images: HashSet<String>,
    stopped_with: Vec<(String, Duration)>,
    next: u32,
}

pub struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
    network: Arc<FakeNetwork>,
}

/// Pod addresses are all 127.0.0.1 here; ports are told apart.
struct FakeNetwork;

#[async_trait]
impl Dialer for FakeNetwork {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", address.port())).await
    }
}

#[async_trait]
impl NodeNetwork for FakeNetwork {
    async fn dial_sandbox(&self, _: &str, port: u16) -> io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", port)).await
    }
    async fn add_address(&self, _: IpAddr) -> io::Result<()> {
        Ok(())
    }
    async fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(("127.0.0.1", address.port())).await
    }
    async fn listen_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind(("127.0.0.1", address.port())).await
    }
}

impl FakeRuntime {
    pub fn new() -> Arc<Self> {
        let state = State {
            sandboxes: BTreeMap::new(),
            specs: BTreeMap::new(),
            images: HashSet::new(),
            stopped_with: vec![],
            next: 0,
        };
        Arc::new(Self { state: Mutex::new(state), events: broadcast::Sender::new(64), network: Arc::new(FakeNetwork) })
    }

    /// Specs of the containers started so far, with their ids.
    pub fn started(&self) -> Vec<(String, ContainerSpec)> {
        self.state.lock().specs.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub fn sandboxes_now(&self) -> Vec<String> {
        self.state.lock().sandboxes.keys().cloned().collect()
    }

    pub fn stopped_with(&self) -> Vec<(String, Duration)> {
        self.state.lock().stopped_with.clone()
    }

    pub fn end(&self, id: &str, code: i32, oom_killed: bool) {
        let mut event = None;
        for sandbox in self.state.lock().sandboxes.values_mut() {
            let Some(container) = sandbox.containers.iter_mut().find(|c| c.id == id) else { continue };
            if let ContainerState::Running { started } = container.state {
                container.state = ContainerState::Exited { started, finished: Timestamp::now(), code, oom_killed };
                event = Some((sandbox.spec.uid.clone(), sandbox.id.clone()));
            }
        }
        if let Some((pod_uid, sandbox)) = event {
            let _ = self.events.send(RuntimeEvent { pod_uid, sandbox, container: Some(id.to_owned()) });
        }
    }

    fn image_status(image: &str) -> ImageStatus {
        ImageStatus {
            id: "sha256:1111".into(),
            repo_digests: vec![format!("{}@sha256:2222", image.split(':').next().unwrap_or_default())],
            repo_tags: vec![image.to_owned()],
            size: 7,
            user: String::new(),
        }
    }

    fn missing(kind: &'static str, id: &str) -> RuntimeError {
        RuntimeError::NotFound { kind, id: id.to_owned() }
    }
}

struct FakeControl(i32);

#[async_trait]
impl SessionControl for FakeControl {
    async fn resize(&self, _: u16, _: u16) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn wait(&self) -> Result<i32, RuntimeError> {
        Ok(self.0)
    }
    async fn kill(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

#[async_trait]
impl NodeRuntime for FakeRuntime {
    fn version(&self) -> String {
        "fake://1".into()
    }
    fn reductions(&self) -> Vec<(String, String)> {
        vec![]
    }
    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }
    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<SandboxId, RuntimeError> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("sandbox{}", state.next);
        let status = SandboxStatus { id: id.clone(), spec, ready: true, created: Timestamp::now(), containers: vec![] };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.ready = false;
        }
        Ok(())
    }
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.state.lock().sandboxes.remove(id);
        Ok(())
    }
    async fn start_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("container{}", state.next);
        state.specs.insert(id.clone(), spec.clone());
        let found = state.sandboxes.get_mut(sandbox).ok_or_else(|| Self::missing("sandbox", sandbox))?;
        let log_path = found.spec.log_directory.join(&spec.name).join(format!("{}.log", spec.attempt));
        std::fs::create_dir_all(log_path.parent().unwrap()).unwrap();
        let words: Vec<&str> = spec.command.iter().map(String::as_str).collect();
        let text = if words.first() == Some(&"say") { words[1..].join(" ") } else { "hello".into() };
        std::fs::write(&log_path, format!("{} stdout F {text}\n", Timestamp::now())).unwrap();
        let now = Timestamp::now();
        let exited = |code, oom_killed| ContainerState::Exited { started: now, finished: now, code, oom_killed };
        let state_now = match words.as_slice() {
            ["exit", code, ..] => exited(code.parse().unwrap(), false),
            ["oom"] => exited(137, true),
            _ => ContainerState::Running { started: now },
        };
        found.containers.push(ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            name: spec.name,
            attempt: spec.attempt,
            image: spec.image,
            image_id: spec.image_id,
            state: state_now,
            log_path,
        });
        let event =
            RuntimeEvent { pod_uid: found.spec.uid.clone(), sandbox: sandbox.into(), container: Some(id.clone()) };
        let _ = self.events.send(event);
        Ok(id)
    }
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let stubborn = {
            let mut state = self.state.lock();
            state.stopped_with.push((id.to_owned(), grace));
            state.specs.get(id).is_some_and(|s| s.command == ["stubborn"])
        };
        if stubborn {
            tokio::time::sleep(grace).await;
        }
        self.end(id, if stubborn { 137 } else { 143 }, false);
        Ok(())
    }
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        for sandbox in self.state.lock().sandboxes.values_mut() {
            sandbox.containers.retain(|c| c.id != id);
        }
        Ok(())
    }
    async fn reopen_log(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn exec(&self, _: &str, spec: ExecSpec) -> Result<Session, RuntimeError> {
        let (near, mut far) = tokio::io::duplex(1024);
        let words: Vec<&str> = spec.command.iter().map(String::as_str).collect();
        if words.first() == Some(&"cat") {
            let (stdout, stdin) = tokio::io::split(near);
            let (mut read, mut write) = tokio::io::split(far);
            let control = CatControl(tokio::sync::Mutex::new(Box::pin(async move {
                let copied = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
                i32::from(copied.is_err())
            })));
            return Ok(Session {
                stdin: Some(Box::new(stdin)),
                stdout: Some(Box::new(stdout)),
                stderr: None,
                control: Box::new(control),
            });
        }
        let code = match words.as_slice() {
            ["echo", rest @ ..] => {
                far.write_all(format!("{}\n", rest.join(" ")).as_bytes()).await.unwrap();
                0
            }
            ["fail", code] => code.parse().unwrap(),
            _ => return Err(RuntimeError::Start { message: format!("executable not found: {words:?}") }),
        };
        drop(far);
        Ok(Session { stdin: None, stdout: Some(Box::new(near)), stderr: None, control: Box::new(FakeControl(code)) })
    }
    async fn attach(&self, id: &str) -> Result<Session, RuntimeError> {
        self.exec(id, ExecSpec { command: vec!["echo".into(), "attached".into()], tty: false, stdin: false }).await
    }
    async fn put_file(&self, id: &str, path: &std::path::Path, _: Option<&[u8]>) -> Result<(), RuntimeError> {
        Err(RuntimeError::Start { message: format!("container {id} has no files ({})", path.display()) })
    }

    async fn root_path(&self, id: &str) -> Result<PathBuf, RuntimeError> {
        Err(Self::missing("container", id))
    }
    async fn pull_image(&self, image: &ImageRef, _: &RegistryCredentials) -> Result<ImageStatus, RuntimeError> {
        if image.repository.contains("missing") {
            return Err(RuntimeError::Pull { image: image.to_string(), message: "not found".into() });
        }
        self.state.lock().images.insert(image.to_string());
        Ok(Self::image_status(&image.to_string()))
    }
    async fn image(&self, image: &ImageRef) -> Result<Option<ImageStatus>, RuntimeError> {
        let held = self.state.lock().images.contains(&image.to_string());
        Ok(held.then(|| Self::image_status(&image.to_string())))
    }
    async fn images(&self) -> Result<Vec<ImageStatus>, RuntimeError> {
        Ok(self.state.lock().images.iter().map(|i| Self::image_status(i)).collect())
    }
    async fn usage(&self, _: &str) -> Result<Usage, RuntimeError> {
        Ok(Usage { cpu_nanos: 1_000_000_000, memory_working_set: 1 << 20, memory_usage: 2 << 20 })
    }
    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }
    fn network(&self) -> Arc<dyn NodeNetwork> {
        self.network.clone()
    }
}

type Cat = std::pin::Pin<Box<dyn Future<Output = i32> + Send>>;

/// Copies while it is waited for.
struct CatControl(tokio::sync::Mutex<Cat>);

#[async_trait]
impl SessionControl for CatControl {
    async fn resize(&self, _: u16, _: u16) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn wait(&self) -> Result<i32, RuntimeError> {
        Ok(self.0.lock().await.as_mut().await)
    }
    async fn kill(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}
