//! The build: stages in order, each instruction in turn, then config, manifest and name.

use super::{
    ImageBuilder, Inner,
    dockerfile::{self, Dockerfile, Instruction, Kind, Source, Span, expand, expand_text},
    error::{BuildError, io_error},
    files::Context,
    layer::{Entries, Entry, Layer, write_layer},
    manifest::{CONFIG, Descriptor, MANIFEST, Manifest, Platform},
    plan::{Base, Plan, platform_args},
    stage::StageState,
};
use aksim_model::image_ref::ImageRef;
use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Folder that COPY and ADD read.
    pub context: PathBuf,
    /// Dockerfile; `Dockerfile` in the context when absent.
    pub dockerfile: Option<PathBuf>,
    /// Stage to stop at; the last when absent.
    pub target: Option<String>,
    /// `--build-arg`s.
    pub build_args: BTreeMap<String, String>,
    /// Name of the image.
    pub tag: ImageRef,
    /// Labels added to the image.
    pub labels: BTreeMap<String, String>,
    /// Files behind `RUN --mount=type=secret,id=…`.
    pub secrets: BTreeMap<String, PathBuf>,
    /// Run every step, cached or not.
    pub no_cache: bool,
    /// How long the build may take.
    pub deadline: Option<Duration>,
    /// Cancelled when nobody wants the image any more.
    pub cancel: CancellationToken,
}

impl BuildRequest {
    /// The context's own Dockerfile, its last stage.
    pub fn new(context: impl Into<PathBuf>, tag: ImageRef) -> Self {
        Self {
            context: context.into(),
            dockerfile: None,
            target: None,
            build_args: BTreeMap::new(),
            tag,
            labels: BTreeMap::new(),
            secrets: BTreeMap::new(),
            no_cache: false,
            deadline: None,
            cancel: CancellationToken::new(),
        }
    }
}

/// Where a line of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a build is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// An instruction begins.
    Step {
        /// From 1.
        number: usize,
        /// Instructions of the stages that are built.
        total: usize,
        /// Its text.
        instruction: String,
    },
    /// An instruction has ended.
    StepDone {
        /// From 1.
        number: usize,
        /// Its result was there already.
        cached: bool,
        /// How long it took.
        took: Duration,
    },
    /// A line of output of a RUN.
    Output {
        /// Where from.
        stream: Stream,
        /// Without line end.
        line: String,
    },
    /// Something a person should know that stops nothing.
    Warning(String),
}

/// An image that was built; it is in the store under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// Name.
    pub reference: ImageRef,
    /// Digest of the manifest, as registries know it.
    pub digest: String,
    /// Bytes of the manifest.
    pub manifest_size: u64,
    /// Digest of the config, as container runtimes know it.
    pub image_id: String,
    /// Layers, lowest first.
    pub layers: Vec<Layer>,
    /// Bytes of all layers.
    pub size: u64,
    /// Steps that make layers and whose result was there already.
    pub cached_steps: usize,
    /// All steps.
    pub total_steps: usize,
    /// How long it took.
    pub took: Duration,
}

/// A progress callback.
pub(super) type Progress = Arc<dyn Fn(BuildEvent) + Send + Sync>;

impl ImageBuilder {
    /// Builds an image into the store.
    ///
    /// Dropping the future cancels the build; a running command is killed.
    ///
    /// # Errors
    /// [`BuildError`]; one of the Dockerfile carries its place.
    pub async fn build(
        &self,
        request: BuildRequest,
        progress: impl Fn(BuildEvent) + Send + Sync + 'static,
    ) -> Result<BuiltImage, BuildError> {
        let cancel = request.cancel.child_token();
        let _cancels_when_dropped = cancel.clone().drop_guard();
        let (inner, handle) = (self.inner.clone(), tokio::runtime::Handle::current());
        // Most of it is hashing and copying; what waits (network, commands) is awaited from that thread.
        let work = move || Session::open(inner, request, Arc::new(progress), handle, cancel)?.run();
        tokio::task::spawn_blocking(work).await?
    }
}

/// One build.
pub(super) struct Session {
    pub(super) inner: Arc<Inner>,
    pub(super) request: BuildRequest,
    source: Source,
    file: Dockerfile,
    plan: Plan,
    platform: Platform,
    pub(super) context: Context,
    pub(super) progress: Progress,
    handle: tokio::runtime::Handle,
    pub(super) cancel: CancellationToken,
    started: Instant,
    /// Removed with all in it when the build ends.
    pub(super) temporary: tempfile::TempDir,
    states: BTreeMap<usize, StageState>,
    /// Time of all files, seconds since 1970.
    pub(super) epoch: u64,
    created: String,
    total: usize,
    done: usize,
    cached: usize,
    used_args: std::collections::BTreeSet<String>,
}

impl Session {
    fn open(
        inner: Arc<Inner>,
        request: BuildRequest,
        progress: Progress,
        handle: tokio::runtime::Handle,
        cancel: CancellationToken,
    ) -> Result<Self, BuildError> {
        let started = Instant::now();
        let path = request.dockerfile.clone().unwrap_or_else(|| request.context.join("Dockerfile"));
        let text = std::fs::read_to_string(&path).map_err(io_error("read", &path))?;
        let source = Source { name: path.display().to_string(), text: text.into() };
        let file = dockerfile::parse(&source)?;
        let platform = Platform::host();
        let plan = Plan::new(&file, &source, &request.build_args, request.target.as_deref(), &platform)?;
        let context = Context::open(&request.context, &path)?;
        let work = inner.cache_dir.join("work");
        let temporary = tempfile::tempdir_in(&work).map_err(io_error("make a folder in", &work))?;
        let epoch = match request.build_args.get("SOURCE_DATE_EPOCH") {
            None => 0,
            Some(text) => text
                .parse()
                .map_err(|_| BuildError::malformed("SOURCE_DATE_EPOCH", "is not a number of seconds since 1970"))?,
        };
        let created = i64::try_from(epoch).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        let created = created.ok_or_else(|| BuildError::malformed("SOURCE_DATE_EPOCH", "is out of range"))?.to_string();
        let total = plan.order.iter().map(|stage| 1 + file.stages[*stage].instructions.len()).sum();
        Ok(Self {
            inner,
            request,
            source,
            file,
            plan,
            platform,
            context,
            progress,
            handle,
            cancel,
            started,
            temporary,
            states: BTreeMap::new(),
            epoch,
            created,
            total,
            done: 0,
            cached: 0,
            used_args: Default::default(),
        })
    }

    fn run(mut self) -> Result<BuiltImage, BuildError> {
        for stage in self.plan.order.clone() {
            let state = self.build_stage(stage)?;
            self.states.insert(stage, state);
        }
        for name in self.request.build_args.keys() {
            if !self.used_args.contains(name)
                && name != "SOURCE_DATE_EPOCH"
                && !self.plan.global_args.contains_key(name)
            {
                (self.progress)(BuildEvent::Warning(format!("build argument {name} is not used by any ARG")));
            }
        }
        let target = self.plan.order.last().and_then(|stage| self.states.remove(stage));
        let target = target.ok_or_else(|| BuildError::malformed("Dockerfile", "has no stage"))?;
        self.publish(target)
    }

    /// Writes config, manifest and name.
    fn publish(self, mut state: StageState) -> Result<BuiltImage, BuildError> {
        state.config.config.labels.extend(self.request.labels.clone());
        state.config.created = Some(self.created.clone());
        let encode = |e: serde_json::Error| BuildError::malformed("image config", e);
        let store = &self.inner.store;
        let config = store.put(&serde_json::to_vec(&state.config).map_err(encode)?, CONFIG)?;
        let layers = state.layers.iter().map(|l| Descriptor::new(&l.media_type, l.digest.clone(), l.size)).collect();
        let image_id = config.digest.clone();
        let manifest = Manifest { schema_version: 2, media_type: Some(MANIFEST.to_owned()), config, layers };
        let manifest = store.put(&serde_json::to_vec(&manifest).map_err(encode)?, MANIFEST)?;
        store.tag(&self.request.tag, &manifest)?;
        Ok(BuiltImage {
            reference: self.request.tag.clone(),
            digest: manifest.digest,
            manifest_size: manifest.size,
            image_id,
            size: state.layers.iter().map(|l| l.size).sum(),
            layers: state.layers,
            cached_steps: self.cached,
            total_steps: self.total,
            took: self.started.elapsed(),
        })
    }

    /// Waits for something, no longer than the build may take.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T, BuildError>>) -> Result<T, BuildError> {
        self.check()?;
        let left = self.request.deadline.map(|d| (d, d.saturating_sub(self.started.elapsed())));
        self.handle.block_on(async {
            let late = async {
                match left {
                    Some((_, left)) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = work => outcome,
                () = self.cancel.cancelled() => Err(BuildError::Cancelled),
                () = late => Err(BuildError::Deadline(left.map_or(Duration::ZERO, |(deadline, _)| deadline))),
            }
        })
    }

    /// Ends a build that nobody wants any more, or that takes too long.
    fn check(&self) -> Result<(), BuildError> {
        match self.request.deadline {
            _ if self.cancel.is_cancelled() => Err(BuildError::Cancelled),
            Some(deadline) if self.started.elapsed() >= deadline => Err(BuildError::Deadline(deadline)),
            _ => Ok(()),
        }
    }

    /// An error at an instruction.
    pub(super) fn error(&self, span: Span, message: impl Into<String>, hint: Option<String>) -> BuildError {
        self.source.error(span, message, hint).into()
    }

    fn build_stage(&mut self, index: usize) -> Result<StageState, BuildError> {
        let stage = self.file.stages[index].clone();
        let began = self.begin(&format!("FROM {}", stage.base));
        let mut state = match &self.plan.bases[index].clone() {
            Base::Scratch => StageState::scratch(self.platform.clone()),
            Base::Stage(base) => match self.states.get(base) {
                Some(state) => StageState::on_stage(state),
                None => return Err(self.error(stage.base_span, "the stage comes later", None)),
            },
            Base::Image(image) => self.image(image)?,
        };
        self.end(began, false);
        let triggers = std::mem::take(&mut state.config.config.on_build);
        self.total += triggers.len();
        for trigger in &triggers {
            let mut instruction = dockerfile::parse_onbuild(trigger)?;
            instruction.span = stage.base_span;
            self.execute(index, &mut state, &instruction)?;
        }
        for instruction in &stage.instructions {
            self.execute(index, &mut state, instruction)?;
        }
        Ok(state)
    }

    /// An image as the beginning of a stage.
    fn image(&self, image: &ImageRef) -> Result<StageState, BuildError> {
        let manifest = self.wait(self.inner.ensure(image, &self.platform))?;
        let (manifest, config) = self.inner.store.image(&manifest)?;
        let layers = manifest.layers.into_iter().zip(&config.rootfs.diff_ids).map(|(layer, diff_id)| Layer {
            media_type: layer.media_type,
            digest: layer.digest,
            size: layer.size,
            diff_id: diff_id.clone(),
        });
        let layers = layers.collect();
        Ok(StageState::on_image(config, layers))
    }

    /// File system of what `--from` names: an earlier stage, or an image.
    pub(super) fn files_of(&mut self, from: &str, stage: usize, span: Span) -> Result<super::tree::Tree, BuildError> {
        if let Some(index) = super::plan::find_stage(&self.file, from) {
            let inner = self.inner.clone();
            return match self.states.get_mut(&index) {
                Some(state) if index < stage => Ok(inner.tree(state)?.clone()),
                _ => Err(self.error(span, format!("--from={from}: only an earlier stage can be copied from"), None)),
            };
        }
        let image: ImageRef = from.parse().map_err(|e| self.error(span, format!("{e}"), None))?;
        let mut state = self.image(&image)?;
        Ok(self.inner.tree(&mut state)?.clone())
    }

    fn begin(&mut self, instruction: &str) -> Instant {
        self.done += 1;
        let (number, total) = (self.done, self.total);
        (self.progress)(BuildEvent::Step { number, total, instruction: instruction.to_owned() });
        Instant::now()
    }

    fn end(&mut self, began: Instant, cached: bool) {
        self.cached += usize::from(cached);
        (self.progress)(BuildEvent::StepDone { number: self.done, cached, took: began.elapsed() });
    }

    fn execute(&mut self, index: usize, state: &mut StageState, instruction: &Instruction) -> Result<(), BuildError> {
        self.check()?;
        let began = self.begin(&instruction.text);
        let span = instruction.span;
        let layer = match &instruction.kind {
            Kind::Arg(args) => {
                self.declare(state, args).map_err(|m| self.error(span, m, None))?;
                None
            }
            Kind::Workdir(path) => self.workdir(state, path, span)?,
            Kind::Copy(transfer) => Some(self.copy(index, state, transfer, span)?),
            Kind::Add(transfer) => Some(self.add(index, state, transfer, span)?),
            Kind::Run(run) => self.run_command(index, state, run, instruction)?,
            _ => {
                state.configure(instruction, self.file.escape).map_err(|m| self.error(span, m, None))?;
                None
            }
        };
        state.remember(&instruction.text, &self.created, layer.is_none());
        let cached = layer.as_ref().is_some_and(|(_, known)| *known);
        if let Some((layer, _)) = layer {
            state.push_layer(layer);
        }
        self.end(began, cached);
        Ok(())
    }

    /// ARG: the given value, the default, or that of the ARG before the first FROM.
    fn declare(&mut self, state: &mut StageState, args: &[(String, Option<String>)]) -> Result<(), String> {
        for (name, default) in args {
            self.used_args.insert(name.clone());
            let default = match default {
                Some(default) => Some(self.expand(state, default)?),
                None => {
                    let platform = || platform_args(&self.platform).get(name).cloned();
                    self.plan.global_args.get(name).cloned().or_else(platform)
                }
            };
            if let Some(value) = self.request.build_args.get(name).cloned().or(default) {
                state.args.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    /// A word of the Dockerfile with variables replaced and quotes removed.
    pub(super) fn expand(&self, state: &StageState, word: &str) -> Result<String, String> {
        expand(word, self.file.escape, &|name| state.variable(name)).map_err(|e| e.to_string())
    }

    /// A heredoc's text with variables replaced if its word was not quoted.
    pub(super) fn heredoc(&self, state: &StageState, heredoc: &dockerfile::Heredoc) -> Result<String, String> {
        match heredoc.expand {
            false => Ok(heredoc.content.clone()),
            true => {
                expand_text(&heredoc.content, self.file.escape, &|name| state.variable(name)).map_err(|e| e.to_string())
            }
        }
    }

    /// WORKDIR, which makes the folder if it is not there.
    fn workdir(&self, state: &mut StageState, path: &str, span: Span) -> Result<Option<(Layer, bool)>, BuildError> {
        let path = self.expand(state, path).map_err(|m| self.error(span, m, None))?;
        let absolute = state.absolute(path.trim_end_matches('/'));
        state.config.config.working_dir = absolute.clone();
        let tree = self.inner.tree(state)?;
        let resolved = tree.resolve(&absolute, true);
        if tree.is_folder(&resolved) {
            return Ok(None);
        }
        let mut entries = Entries::new();
        for (at, _) in resolved.match_indices('/').chain([(resolved.len(), "")]) {
            if !tree.is_folder(&resolved[..at]) {
                entries.insert(resolved[..at].to_owned(), Entry::folder());
            }
        }
        Ok(Some(self.write(state, &entries)?))
    }

    /// Writes a layer and puts it on the stage's file system.
    pub(super) fn write(&self, state: &mut StageState, entries: &Entries) -> Result<(Layer, bool), BuildError> {
        let written = write_layer(&self.inner.store, entries, self.epoch)?;
        if let Some(tree) = &mut state.tree {
            // From the layer rather than the sources, which may change while the build goes on.
            tree.apply_archive(&self.inner.store.blob_path(&written.0.digest)?)?;
        }
        Ok(written)
    }
}
