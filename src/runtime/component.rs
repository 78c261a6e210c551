//! The contract of a running part: bind first, then run until told to stop.

use crate::recorder::Recorder;
use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Error that ends a component; the supervisor reports it with the component's name.
pub type ComponentError = Box<dyn std::error::Error + Send + Sync>;

/// A running part of an environment.
///
/// A component's constructor (`bind`) takes its listeners, so its addresses are known before
/// anything runs and tests use port 0. Everything long-running happens in [`Component::run`];
/// tasks live in a `JoinSet` that `run` owns and joins.
#[async_trait]
pub trait Component: Send + 'static {
    /// Name, also of its folder in the state directory and of its log target.
    fn name(&self) -> &'static str;

    /// Runs until `context.shutdown` is cancelled, then ends within the supervisor's deadline.
    ///
    /// Calls `context.readiness.ready()` once it serves. Returning before being told to, with
    /// `Ok` or `Err`, is a failure of the component.
    async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError>;
}

/// What the supervisor hands to a component.
#[derive(Clone)]
pub struct RunContext {
    /// Cancelled when the component must stop.
    pub shutdown: CancellationToken,
    /// To say that it serves.
    pub readiness: Readiness,
    /// To record facts.
    pub recorder: Recorder,
}

impl RunContext {
    /// A context with nobody at the other end, for tests of one component.
    pub fn detached(recorder: Recorder) -> Self {
        Self { shutdown: CancellationToken::new(), readiness: readiness().0, recorder }
    }
}

/// The component's end of a readiness signal.
#[derive(Clone)]
pub struct Readiness(std::sync::Arc<watch::Sender<bool>>);

/// The waiting end of a readiness signal.
#[derive(Clone)]
pub struct ReadinessWatch(watch::Receiver<bool>);

/// A fresh readiness signal, not ready.
pub fn readiness() -> (Readiness, ReadinessWatch) {
    let (sender, receiver) = watch::channel(false);
    (Readiness(std::sync::Arc::new(sender)), ReadinessWatch(receiver))
}

impl Readiness {
    /// Says that the component serves. Saying it again changes nothing.
    pub fn ready(&self) {
        self.0.send_replace(true);
    }
}

impl ReadinessWatch {
    /// Whether it serves now.
    pub fn is_ready(&self) -> bool {
        *self.0.borrow()
    }
    /// Waits until it serves; `false` if the component went away first.
    pub async fn wait(&mut self) -> bool {
        self.0.wait_for(|ready| *ready).await.is_ok()
    }
}
