//! A node of its own for a test, and an image of busybox.

use aksim::node::{
    container::{ContainerRuntime, ContainerRuntimeConfig},
    runtime::{
        ContainerSpec, ContainerState, ContainerStatus, ExecSpec, NodeRuntime, Resources, RuntimeError, SandboxSpec,
        Security,
    },
};
use oci_spec::image::ImageConfiguration;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const IMAGE: &str = "shopacr.azurecr.io/busybox:1";
/// No step of a test takes so long; a test fails rather than hangs.
pub const DEADLINE: Duration = Duration::from_secs(120);

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "id", "env", "sleep", "true", "false", "ls", "ps", "kill", "nc", "hostname", "dd", "tail",
    "stty", "touch", "rm", "mkdir", "grep", "wc", "seq", "head", "mount", "pwd", "test", "yes", "readlink", "stat",
    "ip", "wget", "set", "printf", "ulimit", "awk", "chown",
];

fn busybox() -> PathBuf {
    let path = Path::new("/bin/busybox");
    assert!(path.is_file(), "hint: apt-get install busybox-static");
    path.to_owned()
}

/// The program under test; an ordinary user gets a copy that he can reach.
pub fn program() -> PathBuf {
    std::env::var_os("AKSIM_TEST_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_aksim").into(), PathBuf::from)
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A tar of files (path, mode, content); a link where the content starts with `->`.
pub fn tar_of(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        if let Some(target) = content.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, std::str::from_utf8(target).unwrap()).unwrap();
        } else if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, path, &[][..]).unwrap();
        } else {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, *content).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Layers of a small system: busybox, users, and a second layer that hides a file of the first.
pub fn busybox_layers() -> Vec<Vec<u8>> {
    let program = std::fs::read(busybox()).unwrap();
    let links: Vec<String> = APPLETS.iter().map(|a| format!("bin/{a}")).collect();
    let mut files: Vec<(&str, u32, &[u8])> = vec![
        ("bin/", 0o755, b""),
        ("bin/busybox", 0o755, &program),
        ("etc/", 0o755, b""),
        ("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/srv:/bin/false\n"),
        ("etc/group", 0o644, b"root:x:0:\nwww:x:34:\nlogs:x:50:www\n"),
        ("etc/hidden", 0o644, b"first layer"),
        ("root/", 0o700, b""),
        ("srv/", 0o755, b""),
        ("tmp/", 0o1777, b""),
        ("gone/", 0o755, b""),
        ("gone/old", 0o644, b"old"),
    ];
    files.extend(links.iter().map(|l| (l.as_str(), 0o777, &b"->/bin/busybox"[..])));
    let upper = tar_of(&[
        ("etc/.wh.hidden", 0o644, b""),
        ("gone/", 0o755, b""),
        ("gone/.wh..wh..opq", 0o644, b""),
        ("gone/new", 0o644, b"new"),
    ]);
    vec![tar_of(&files), upper]
}

/// Writes an OCI layout of one image.
pub fn layout(folder: &Path, name: &str, layers: &[Vec<u8>], config: serde_json::Value) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let hex = sha256(bytes);
        std::fs::write(blobs.join(&hex), bytes).unwrap();
        serde_json::json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    };
    let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", sha256(l))).collect();
    let config = serde_json::json!({
        "architecture": oci_spec::image::Arch::default().to_string(), "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let parsed: Result<ImageConfiguration, _> = serde_json::from_value(config.clone());
    parsed.unwrap();
    let config = put(&serde_json::to_vec(&config).unwrap(), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> = layers.iter().map(|l| put(&gzip(l), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers,
    });
    let mut manifest = put(&serde_json::to_vec(&manifest).unwrap(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": name });
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(folder.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

pub fn busybox_config() -> serde_json::Value {
    serde_json::json!({ "Env": ["FROM_IMAGE=1", "BOTH=image"], "Cmd": ["/bin/sh"], "WorkingDir": "/srv" })
}

/// A node and its folders. What is left of it when a test fails is taken down too.
pub struct Node {
    pub runtime: Arc<ContainerRuntime>,
    pub folder: tempfile::TempDir,
    pub image_id: String,
}

impl Node {
    pub fn config(folder: &Path) -> ContainerRuntimeConfig {
        let id = folder.file_name().unwrap().to_string_lossy().trim_start_matches('.').to_lowercase();
        ContainerRuntimeConfig::new(program(), folder.join("node"), folder.join("cache"), &id)
    }

    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = ContainerRuntime::open(Self::config(folder.path())).await.unwrap();
        let image = folder.path().join("layout");
        layout(&image, IMAGE, &busybox_layers(), busybox_config());
        let images = runtime.import_oci_layout(&image, None).await.unwrap();
        Self { image_id: images[0].id.clone(), runtime, folder }
    }

    pub async fn pod(&self, ip: [u8; 2]) -> String {
        self.runtime.run_sandbox(self.pod_spec(ip)).await.unwrap()
    }

    pub fn pod_spec(&self, ip: [u8; 2]) -> SandboxSpec {
        SandboxSpec {
            namespace: "default".into(),
            name: format!("pod-{}-{}", ip[0], ip[1]),
            uid: format!("uid-{}-{}", ip[0], ip[1]),
            attempt: 0,
            hostname: format!("pod-{}-{}", ip[0], ip[1]),
            ip: IpAddr::V4(Ipv4Addr::new(10, 244, ip[0], ip[1])),
            host_network: false,
            share_process_namespace: false,
            sysctls: BTreeMap::new(),
            log_directory: self.folder.path().join(format!("logs/{}-{}", ip[0], ip[1])),
            labels: BTreeMap::new(),
        }
    }

    pub fn shell(&self, script: &str) -> ContainerSpec {
        ContainerSpec {
            name: "main".into(),
            attempt: 0,
            image_id: self.image_id.clone(),
            image: IMAGE.into(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            args: vec![],
            working_dir: None,
            env: vec![],
            mounts: vec![],
            resources: Resources::default(),
            security: Security::default(),
            tty: false,
            stdin: false,
            stdin_once: false,
            stop_signal: None,
            target_container: None,
        }
    }

    pub async fn status(&self, id: &str) -> ContainerStatus {
        let all = self.runtime.sandboxes().await.unwrap();
        all.into_iter().flat_map(|s| s.containers).find(|c| c.id == id).expect("the container is known")
    }

    /// Waits by events, never by time.
    pub async fn ended(&self, id: &str) -> (i32, bool) {
        let mut events = self.runtime.events();
        tokio::time::timeout(DEADLINE, async {
            loop {
                if let ContainerState::Exited { code, oom_killed, .. } = self.status(id).await.state {
                    return (code, oom_killed);
                }
                events.recv().await.unwrap();
            }
        })
        .await
        .expect("the container ends")
    }

    /// Runs a script in a new container of a pod; its exit code and log.
    pub async fn run(&self, pod: &str, spec: ContainerSpec) -> (i32, String) {
        let id = self.runtime.start_container(pod, spec).await.unwrap();
        let (code, _) = self.ended(&id).await;
        let log = self.log(&id).await;
        self.runtime.remove_container(&id).await.unwrap();
        std::fs::remove_dir_all(log_folder(&log.0)).unwrap();
        (code, log.1)
    }

    /// Path and text of a log, without the CRI heads.
    pub async fn log(&self, id: &str) -> (PathBuf, String) {
        let path = self.status(id).await.log_path;
        let raw = std::fs::read_to_string(&path).unwrap();
        (path, raw.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap().to_owned() + "\n").collect())
    }

    /// Runs a command in a container; exit code, stdout, stderr.
    pub async fn exec(&self, id: &str, command: &[&str], input: Option<&str>) -> (i32, String, String) {
        let spec =
            ExecSpec { command: command.iter().map(|c| (*c).to_owned()).collect(), tty: false, stdin: input.is_some() };
        let mut session = self.runtime.exec(id, spec).await.unwrap();
        if let (Some(input), Some(mut stdin)) = (input, session.stdin.take()) {
            stdin.write_all(input.as_bytes()).await.unwrap();
        }
        let (mut out, mut err) = (String::new(), String::new());
        let (mut stdout, mut stderr) = (session.stdout.take().unwrap(), session.stderr.take().unwrap());
        tokio::time::timeout(DEADLINE, async {
            let (a, b) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
            (a.unwrap(), b.unwrap())
        })
        .await
        .expect("the process ends");
        (session.control.wait().await.unwrap(), out, err)
    }

    /// Whether the runtime says that something is reduced here.
    pub fn reduced(&self, what: &str) -> bool {
        self.runtime.reductions().iter().any(|(reduction, _)| reduction.contains(what))
    }

    pub async fn stop(self) {
        self.runtime.teardown().await.unwrap();
    }
}

/// A test that failed half-way leaves nothing either.
impl Drop for Node {
    fn drop(&mut self) {
        if !self.folder.path().join("node/agent.sock").exists() {
            return;
        }
        let config = Self::config(self.folder.path());
        let take_down = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { ContainerRuntime::open(config).await?.teardown().await })
        });
        if let Ok(Err(e)) = take_down.join() {
            eprintln!("left behind: {e}");
        }
    }
}

fn log_folder(file: &Path) -> &Path {
    file.parent().unwrap()
}

/// Waits for a line in a log by watching its folder.
pub async fn log_has(node: &Node, id: &str, text: &str) {
    let path = node.status(id).await.log_path;
    let (sender, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event| drop(sender.send(event))).unwrap();
    notify::Watcher::watch(&mut watcher, log_folder(&path), notify::RecursiveMode::NonRecursive).unwrap();
    tokio::time::timeout(DEADLINE, async {
        while !std::fs::read_to_string(&path).is_ok_and(|log| log.contains(text)) {
            changes.recv().await.unwrap().unwrap();
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the log never says {text:?}: {:?}", std::fs::read_to_string(&path)));
}

pub fn start_error(error: RuntimeError) -> String {
    match error {
        RuntimeError::Start { message } => message,
        other => panic!("{other:?}"),
    }
}

/// A script that runs a server and says `listening` once its port is.
pub fn serve(command: &str, port: u16) -> String {
    format!(
        "{command} & until grep -q ':{port:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6; do :; done; echo listening; wait"
    )
}
