//! RUN: a command in a container on the stage's file system; what it changed becomes a layer.

use super::{
    build::{BuildEvent, Progress, Session, Stream},
    dockerfile::{CommandLine, Heredoc, Instruction, Run, RunMount, Span},
    error::{BuildError, io_error},
    layer::{Entries, Entry, EntryKind, Layer, digest_entries},
    rootfs::{self, Ids},
    stage::StageState,
    store::digest_of,
    transfer::{Placement, parse_owner},
    tree::{Tree, clean},
};
use aksim_runtime::files::{PRIVATE, create_private_dir, write_atomic};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Lines of output that an error keeps.
const KEPT_LINES: usize = 20;
/// A line longer than this is passed on in parts, bytes.
const MAX_LINE: usize = 64 << 10;
/// Capabilities of a container of Docker.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A process as it will run.
struct Process {
    arguments: Vec<String>,
    env: Vec<String>,
    cwd: String,
    user: (u64, u64, Vec<u64>),
    network: bool,
}

/// A mount of the container, and what of it decides whether the step's result is known.
struct Prepared {
    mount: Value,
    identity: Value,
}

impl Session {
    /// Runs a RUN, or takes its layer from an earlier build; `None` when it changed nothing.
    pub(super) fn run_command(
        &mut self,
        stage: usize,
        state: &mut StageState,
        run: &Run,
        instruction: &Instruction,
    ) -> Result<Option<(Layer, bool)>, BuildError> {
        let inner = self.inner.clone();
        inner.tree(state)?;
        let script = self.temporary.path().join(format!("{:016x}.script", rand::random::<u64>()));
        let (arguments, mut mounts) = self.command(state, run, &script)?;
        let mut process = self.process(state, run, arguments)?;
        for mount in &run.mounts {
            if let Some(prepared) = self.mount(stage, state, mount, &mut process, instruction.span)? {
                mounts.push(prepared);
            }
        }
        let key = digest_of(
            json!({
                "layers": state.config.rootfs.diff_ids, "arguments": process.arguments, "env": process.env,
                "cwd": process.cwd, "user": process.user, "network": process.network, "epoch": self.epoch,
                "mounts": mounts.iter().map(|m| &m.identity).collect::<Vec<_>>(),
            })
            .to_string()
            .as_bytes(),
        );
        let record = inner.cache_dir.join("steps").join(key.trim_start_matches("sha256:"));
        if !self.request.no_cache
            && let Some(layer) = self.known(&record)?
        {
            if let Some(layer) = &layer {
                inner.tree(state)?.apply_archive(&inner.unpacked(layer)?)?;
            }
            return Ok(layer.map(|l| (l, true)));
        }
        let layer = self.run_process(state, &process, &mounts, instruction)?;
        let json = serde_json::to_vec(&layer).map_err(|e| BuildError::malformed(record.display(), e))?;
        write_atomic(&record, &json, PRIVATE).map_err(io_error("write", &record))?;
        Ok(layer.map(|l| (l, false)))
    }

    /// The layer of an earlier run of the same step, if its blob is still there.
    fn known(&self, record: &Path) -> Result<Option<Option<Layer>>, BuildError> {
        let Ok(json) = std::fs::read(record) else { return Ok(None) };
        let Ok(layer) = serde_json::from_slice::<Option<Layer>>(&json) else { return Ok(None) };
        match &layer {
            Some(known) if !self.inner.store.has(&known.digest)? => Ok(None),
            _ => Ok(Some(layer)),
        }
    }

    /// Arguments of the command; a heredoc with `#!` becomes a script that is mounted.
    fn command(
        &self,
        state: &StageState,
        run: &Run,
        script: &Path,
    ) -> Result<(Vec<String>, Vec<Prepared>), BuildError> {
        let (line, heredocs) = match (&run.command, run.heredocs.as_slice()) {
            (CommandLine::Shell(line), heredocs) if !heredocs.is_empty() => (line, heredocs),
            (command, _) => return Ok((state.arguments(command), Vec::new())),
        };
        if let [only] = heredocs
            && is_marker(line, only)
        {
            if !only.content.starts_with("#!") {
                return Ok((state.arguments(&CommandLine::Shell(only.content.clone())), Vec::new()));
            }
            write_atomic(script, only.content.as_bytes(), 0o755).map_err(io_error("write", script))?;
            let target = format!("/dev/pipes/{}", clean(&only.name).replace('/', "_"));
            let mount = bind(script, &target, true);
            let prepared = Prepared { mount, identity: json!(["script", digest_of(only.content.as_bytes())]) };
            return Ok((vec![target], vec![prepared]));
        }
        // The shell reads them itself.
        let bodies: String = heredocs.iter().map(|h| format!("\n{}{}", h.content, h.name)).collect();
        Ok((state.arguments(&CommandLine::Shell(format!("{line}{bodies}\n"))), Vec::new()))
    }

    fn process(&self, state: &mut StageState, run: &Run, arguments: Vec<String>) -> Result<Process, BuildError> {
        let mut env = state.config.config.env.clone();
        let set = |env: &[String], name: &str| env.iter().any(|e| e.split_once('=').is_some_and(|(n, _)| n == name));
        for (name, value) in &state.args {
            if !set(&env, name) {
                env.push(format!("{name}={value}"));
            }
        }
        let user = state.config.config.user.clone();
        let cwd = Some(state.config.config.working_dir.clone()).filter(|d| !d.is_empty());
        let tree = &*self.inner.tree(state)?;
        let (uid, gid, given) = parse_owner(if user.is_empty() { "0:0" } else { &user }, tree)?;
        let groups = if given { Vec::new() } else { groups_of(tree, &user)? };
        if !set(&env, "HOME") {
            env.push(format!("HOME={}", home_of(tree, uid)?));
        }
        let network = run.network.as_deref() != Some("none");
        Ok(Process { arguments, env, cwd: cwd.unwrap_or_else(|| "/".to_owned()), user: (uid, gid, groups), network })
    }

    /// Prepares a `--mount`; `None` for one that only sets an environment variable, or is optional and absent.
    fn mount(
        &mut self,
        stage: usize,
        state: &mut StageState,
        mount: &RunMount,
        process: &mut Process,
        span: Span,
    ) -> Result<Option<Prepared>, BuildError> {
        let absolute = |state: &StageState, path: &str| state.absolute(path.trim_end_matches('/'));
        Ok(Some(match mount {
            RunMount::Tmpfs { target, size } => {
                let target = absolute(state, target);
                let size = size.map(|s| format!("size={s}"));
                let options: Vec<String> = ["nosuid".to_owned(), "nodev".to_owned()].into_iter().chain(size).collect();
                let mount = json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options});
                Prepared { identity: mount.clone(), mount }
            }
            RunMount::Cache { id, target, readonly } => {
                let name = digest_of(id.as_bytes()).trim_start_matches("sha256:").to_owned();
                let folder = self.inner.cache_dir.join("mounts").join(name);
                create_private_dir(&folder).map_err(io_error("make", &folder))?;
                let target = absolute(state, target);
                // What a cache holds must not matter for the result.
                Prepared { mount: bind(&folder, &target, *readonly), identity: json!(["cache", id, target]) }
            }
            RunMount::Secret { id, target, env, required } => {
                let Some(file) = self.request.secrets.get(id).cloned() else {
                    return match required {
                        true => Err(self.error(span, format!("the build has no secret {id:?}"), None)),
                        false => Ok(None),
                    };
                };
                if let Some(name) = env {
                    let value = std::fs::read_to_string(&file).map_err(io_error("read", &file))?;
                    process.env.push(format!("{name}={}", value.trim_end_matches('\n')));
                    if target.is_none() {
                        return Ok(None);
                    }
                }
                let target = target.clone().unwrap_or_else(|| format!("/run/secrets/{id}"));
                let target = absolute(state, &target);
                Prepared { mount: bind(&file, &target, true), identity: json!(["secret", id, target]) }
            }
            RunMount::Bind { from, source, target, writable } => {
                let entries = self.bound_files(stage, from.as_deref(), source, span)?;
                let digest = digest_entries(&entries, self.epoch)?;
                let place = self.temporary.path().join(format!("{:016x}.bind", rand::random::<u64>()));
                std::fs::create_dir(&place).map_err(io_error("make", &place))?;
                rootfs::write_entries(&entries, &place, self.epoch)?;
                // A single file lies in the folder under a name of its own.
                let host = if entries.contains_key("file") { place.join("file") } else { place.join("folder") };
                let target = absolute(state, target);
                let mount = bind(&host, &target, !writable);
                Prepared { mount, identity: json!(["bind", digest, target]) }
            }
        }))
    }

    /// Files of a bind mount, below `folder`, or as `file`.
    fn bound_files(
        &mut self,
        stage: usize,
        from: Option<&str>,
        source: &str,
        span: Span,
    ) -> Result<Entries, BuildError> {
        let tree = match from {
            Some(from) => Some(self.files_of(from, stage, span)?),
            None => None,
        };
        let files: &dyn super::files::Files = match &tree {
            Some(tree) => tree,
            None => &self.context,
        };
        let real = files.resolve(&clean(source))?;
        let entry = files.entry(&real)?;
        let entry = entry.ok_or_else(|| self.error(span, format!("{source} is not there to be mounted"), None))?;
        let mut entries = Entries::new();
        if entry.kind != EntryKind::Folder {
            entries.insert("file".to_owned(), entry);
            return Ok(entries);
        }
        let empty = Tree::default();
        let placement = Placement {
            destination: "/folder/".to_owned(),
            owner: None,
            mode: None,
            link: true,
            parents: false,
            many: false,
            exclude: Default::default(),
            stage: &empty,
        };
        entries.insert("folder".to_owned(), Entry::folder());
        placement.put_source(&mut entries, files, &real)?;
        Ok(entries)
    }

    /// Runs the command on a copy of the stage's file system.
    fn run_process(
        &self,
        state: &mut StageState,
        process: &Process,
        mounts: &[Prepared],
        instruction: &Instruction,
    ) -> Result<Option<Layer>, BuildError> {
        let bundle =
            tempfile::tempdir_in(self.temporary.path()).map_err(io_error("make a folder in", self.temporary.path()))?;
        let root = bundle.path().join("rootfs");
        let tree = self.inner.tree(state)?;
        rootfs::write(tree, &root, self.epoch)?;
        let before = rootfs::snapshot(&root)?;
        let spec = specification(process, mounts);
        let targets: Vec<String> = spec["mounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|m| m["destination"].as_str())
            .map(|target| rootfs::mount_point(tree, &clean(target)))
            .collect();
        let path = bundle.path().join("config.json");
        write_atomic(&path, spec.to_string().as_bytes(), PRIVATE).map_err(io_error("write", &path))?;
        let (code, output) =
            self.wait(execute(self.inner.exe.clone(), bundle.path().to_owned(), self.progress.clone()))?;
        if code != 0 {
            return Err(BuildError::Command { instruction: instruction.text.clone(), code, output: output.into() });
        }
        rootfs::remove_mount_points(&root, &before, &targets);
        let entries = rootfs::changes(&root, &before, &Ids::of_this_process())?;
        match entries.is_empty() {
            true => Ok(None),
            false => Ok(Some(self.write(state, &entries)?.0)),
        }
    }
}

/// Whether a RUN's line is nothing but the heredoc's marker.
fn is_marker(line: &str, heredoc: &Heredoc) -> bool {
    let word = line.trim().trim_start_matches("<<").trim_start_matches('-');
    line.trim().starts_with("<<") && word.trim_matches(['"', '\'']) == heredoc.name
}

fn bind(source: &Path, target: &str, readonly: bool) -> Value {
    let mode = if readonly { "ro" } else { "rw" };
    json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", mode]})
}

/// Supplementary groups of a user by `/etc/group`.
fn groups_of(tree: &Tree, user: &str) -> Result<Vec<u64>, BuildError> {
    let Some(content) = tree.read("etc/group")? else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&content).into_owned();
    let member = |fields: &Vec<&str>| fields.get(3).is_some_and(|m| m.split(',').any(|name| name == user));
    let lines = text.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(member);
    Ok(lines.filter_map(|fields| fields.get(2)?.parse().ok()).collect())
}

fn home_of(tree: &Tree, uid: u64) -> Result<String, BuildError> {
    let default = if uid == 0 { "/root" } else { "/" };
    let Some(content) = tree.read("etc/passwd")? else { return Ok(default.to_owned()) };
    let text = String::from_utf8_lossy(&content).into_owned();
    let lines = text.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let home = lines
        .filter(|f| f.get(2).and_then(|n| n.parse().ok()) == Some(uid))
        .find_map(|f| f.get(5).map(|h| (*h).to_owned()));
    Ok(home.filter(|h| !h.is_empty()).unwrap_or_else(|| default.to_owned()))
}

/// The OCI runtime configuration (runtime specification 1.0).
fn specification(process: &Process, mounts: &[Prepared]) -> Value {
    let mut all = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
               "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]}),
    ];
    // Names are resolved as on the host, whose network the command shares.
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        if process.network && Path::new(file).is_file() {
            all.push(bind(Path::new(file), file, true));
        }
    }
    all.extend(mounts.iter().map(|m| m.mount.clone()));
    let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "mount"}), json!({"type": "ipc"})];
    if !process.network {
        namespaces.push(json!({"type": "network"}));
    }
    let (uid, gid, groups) = &process.user;
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": uid, "gid": gid, "additionalGids": groups},
            "args": process.arguments,
            "env": process.env,
            "cwd": process.cwd,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": false,
        },
        "root": {"path": "rootfs", "readonly": false},
        "mounts": all,
        "linux": {"namespaces": namespaces},
    })
}

/// Starts the container and passes its output on; exit code and last lines.
async fn execute(exe: PathBuf, bundle: PathBuf, progress: Progress) -> Result<(i32, VecDeque<String>), BuildError> {
    let failed = || io_error("run", &exe);
    let mut command = tokio::process::Command::new(&exe);
    command.arg("__container-run").arg("--bundle").arg(&bundle);
    // The container's environment is in its configuration.
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let mut child = command.spawn().map_err(failed())?;
    let kept = Arc::new(parking_lot::Mutex::new(VecDeque::new()));
    let pass = |stream: Stream| {
        let (progress, kept) = (progress.clone(), kept.clone());
        move |line: String| {
            let mut kept = kept.lock();
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line.clone());
            drop(kept);
            progress(BuildEvent::Output { stream, line });
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) =
        tokio::join!(lines(stdout, pass(Stream::Stdout)), lines(stderr, pass(Stream::Stderr)), child.wait());
    out.and(err).map_err(failed())?;
    let status = status.map_err(failed())?;
    let signal = || std::os::unix::process::ExitStatusExt::signal(&status).map_or(1, |s| 128 + s);
    let kept = std::mem::take(&mut *kept.lock());
    Ok((status.code().unwrap_or_else(signal), kept))
}

/// Reads lines, whatever bytes they hold.
async fn lines(reader: Option<impl AsyncRead + Unpin>, mut each: impl FnMut(String)) -> std::io::Result<()> {
    let Some(mut reader) = reader else { return Ok(()) };
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = reader.read(&mut buffer).await?;
        for piece in buffer[..read].split_inclusive(|b| *b == b'\n') {
            pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") || pending.len() >= MAX_LINE {
                let text = String::from_utf8_lossy(&pending);
                each(text.trim_end_matches(['\n', '\r']).to_owned());
                pending.clear();
            }
        }
        if read == 0 {
            if !pending.is_empty() {
                each(String::from_utf8_lossy(&pending).into_owned());
            }
            return Ok(());
        }
    }
}
