//! A stage while it is built: config, layers, file system, and the instructions that only change the config.

use super::{
    dockerfile::{CommandLine, Healthcheck, Instruction, Kind, expand},
    error::BuildError,
    layer::Layer,
    manifest::{ContainerConfig, History, ImageConfig, Platform, RootFs},
    tree::{Tree, clean},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `PATH` of images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage while it is built.
#[derive(Clone, Debug)]
pub struct StageState {
    /// Config so far.
    pub config: ImageConfig,
    /// Layers so far.
    pub layers: Vec<Layer>,
    /// File system so far; `None` until something needs it.
    pub tree: Option<Tree>,
    /// ARGs declared so far.
    pub args: BTreeMap<String, String>,
    /// CMD was set in this stage, so ENTRYPOINT leaves it.
    cmd_set: bool,
}

impl StageState {
    /// An empty stage.
    pub fn scratch(platform: Platform) -> Self {
        let config = ContainerConfig { env: vec![format!("PATH={DEFAULT_PATH}")], ..Default::default() };
        let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() };
        let config = ImageConfig { created: None, author: None, platform, config, rootfs, history: Vec::new() };
        Self { config, layers: Vec::new(), tree: Some(Tree::default()), args: BTreeMap::new(), cmd_set: false }
    }

    /// A stage on an image.
    pub fn on_image(config: ImageConfig, layers: Vec<Layer>) -> Self {
        Self { config, layers, tree: None, args: BTreeMap::new(), cmd_set: false }
    }

    /// A stage on an earlier one.
    pub fn on_stage(base: &StageState) -> Self {
        Self { args: BTreeMap::new(), cmd_set: false, ..base.clone() }
    }

    /// Value of a variable: ENV goes before ARG.
    pub fn variable(&self, name: &str) -> Option<String> {
        let of = |entry: &String| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        self.config.config.env.iter().find_map(of).or_else(|| self.args.get(name).cloned())
    }

    /// Sets an environment variable of the image.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let prefix = format!("{name}=");
        match self.config.config.env.iter_mut().find(|e| e.starts_with(&prefix)) {
            Some(old) => *old = entry,
            None => self.config.config.env.push(entry),
        }
    }

    /// A path that may be relative to the working directory, as an absolute one; a slash at its end stays.
    pub fn absolute(&self, path: &str) -> String {
        let joined =
            if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.config.config.working_dir) };
        let folder = path.ends_with('/') || path == "." || path.ends_with("/.");
        let cleaned = clean(&joined);
        if folder && !cleaned.is_empty() { format!("/{cleaned}/") } else { format!("/{cleaned}") }
    }

    /// The shell of shell forms.
    pub fn shell(&self) -> Vec<String> {
        self.config.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    /// A command as program and arguments.
    pub fn arguments(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(line) => {
                let mut words = self.shell();
                words.push(line.clone());
                words
            }
        }
    }

    /// Adds a step to the history.
    pub fn remember(&mut self, instruction: &str, created: &str, empty_layer: bool) {
        let (created, created_by) = (Some(created.to_owned()), Some(instruction.to_owned()));
        self.config.history.push(History { created, created_by, empty_layer });
    }

    /// Adds a layer.
    pub fn push_layer(&mut self, layer: Layer) {
        self.config.rootfs.diff_ids.push(layer.diff_id.clone());
        self.layers.push(layer);
    }

    /// Applies an instruction that changes the config alone; `false` for any other.
    ///
    /// # Errors
    /// What is wrong with its arguments.
    pub fn configure(&mut self, instruction: &Instruction, escape: char) -> Result<bool, String> {
        let state = self.clone_for_lookup();
        let text = |word: &str| expand(word, escape, &|name| state.variable(name)).map_err(|e| e.to_string());
        let config = &mut self.config.config;
        match &instruction.kind {
            Kind::Env(pairs) => {
                // All values see the environment before this instruction.
                for (name, value) in pairs {
                    let (name, value) = (text(name)?, text(value)?);
                    self.set_env(&name, &value);
                }
            }
            Kind::Label(pairs) => {
                for (name, value) in pairs {
                    config.labels.insert(text(name)?, text(value)?);
                }
            }
            Kind::User(user) => config.user = text(user)?,
            Kind::Expose(ports) => {
                for port in ports {
                    for port in text(port)?.split_whitespace() {
                        config.exposed_ports.extend(exposed(port)?.into_iter().map(|p| (p, Map::new())));
                    }
                }
            }
            Kind::Volume(paths) => {
                for path in paths {
                    config.volumes.insert(text(path)?, Map::new());
                }
            }
            Kind::Shell(words) => config.shell = Some(words.clone()),
            Kind::StopSignal(signal) => config.stop_signal = text(signal)?,
            Kind::Healthcheck(check) => config.healthcheck = Some(healthcheck(check)),
            Kind::OnBuild(trigger) => config.on_build.push(trigger.clone()),
            Kind::Maintainer(author) => self.config.author = Some(author.clone()),
            Kind::Entrypoint(command) => {
                let words = self.arguments(command);
                self.config.config.entrypoint = Some(words).filter(|w| !w.is_empty());
                if !self.cmd_set {
                    self.config.config.cmd = None;
                }
            }
            Kind::Cmd(command) => {
                let words = self.arguments(command);
                self.config.config.cmd = Some(words).filter(|w| !w.is_empty());
                self.cmd_set = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What variables are looked up in while the config changes.
    fn clone_for_lookup(&self) -> Variables {
        Variables { env: self.config.config.env.clone(), args: self.args.clone() }
    }
}

struct Variables {
    env: Vec<String>,
    args: BTreeMap<String, String>,
}

impl Variables {
    fn variable(&self, name: &str) -> Option<String> {
        let of = |entry: &String| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        self.env.iter().find_map(of).or_else(|| self.args.get(name).cloned())
    }
}

/// `8080`, `53/udp`, `8000-8002/tcp` → ports of the config.
fn exposed(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{text:?} is not a port, PORT/tcp, PORT/udp or a range of ports");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(wrong());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    match first <= last && first > 0 {
        true => Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect()),
        false => Err(wrong()),
    }
}

fn healthcheck(check: &Healthcheck) -> Value {
    let test = match &check.command {
        None => json!(["NONE"]),
        Some(CommandLine::Shell(line)) => json!(["CMD-SHELL", line]),
        Some(CommandLine::Exec(words)) => {
            json!(["CMD".to_owned()].iter().chain(words).collect::<Vec<_>>())
        }
    };
    let mut value = Map::from_iter([("Test".to_owned(), test)]);
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, duration) in times {
        if let Some(duration) = duration {
            value.insert(name.to_owned(), json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)));
        }
    }
    if let Some(retries) = check.retries {
        value.insert("Retries".to_owned(), json!(retries));
    }
    Value::Object(value)
}

impl super::Inner {
    /// The stage's file system, read from its layers when first asked for.
    pub(super) fn tree<'a>(&self, state: &'a mut StageState) -> Result<&'a mut Tree, BuildError> {
        if state.tree.is_none() {
            let mut tree = Tree::default();
            for layer in &state.layers {
                tree.apply_archive(&self.unpacked(layer)?)?;
            }
            state.tree = Some(tree);
        }
        // Filled just above.
        state.tree.as_mut().ok_or_else(|| BuildError::malformed("stage", "has no file system"))
    }
}
