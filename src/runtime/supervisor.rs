//! Starts components in order, watches them, stops them in reverse order.

use crate::{
    component::{Component, ComponentError, RunContext, readiness},
    recorder::Recorder,
};
use aksim_model::{
    endpoint::Endpoint,
    event::{ComponentState, EventBody},
    ids::ComponentName,
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why the supervisor gave up.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A component ended with an error.
    #[error("{component} failed: {source}")]
    Failed {
        /// Which.
        component: &'static str,
        /// Why.
        #[source]
        source: ComponentError,
    },
    /// A component ended although nobody asked it to.
    #[error("{component} ended unexpectedly")]
    Ended {
        /// Which.
        component: &'static str,
    },
    /// A component did not become ready in time.
    #[error("{component} was not ready within {seconds} s")]
    NotReady {
        /// Which.
        component: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// A component panicked.
    #[error("{component} panicked: {message}")]
    Panicked {
        /// Which.
        component: &'static str,
        /// The panic's message.
        message: String,
    },
}

struct Running {
    name: &'static str,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ComponentError>>,
}

/// Owns the tasks of the components of one environment.
pub struct Supervisor {
    recorder: Recorder,
    running: Vec<Running>,
    stop_deadline: Duration,
    failed: Arc<tokio::sync::Notify>,
}

impl Supervisor {
    /// A supervisor without components. `stop_deadline` is what each component gets to stop.
    pub fn new(recorder: Recorder, stop_deadline: Duration) -> Self {
        Self { recorder, running: Vec::new(), stop_deadline, failed: Arc::new(tokio::sync::Notify::new()) }
    }

    /// Starts a component and waits until it is ready.
    ///
    /// # Errors
    /// [`SupervisorError`] when it ends, panics or is not ready within `deadline`.
    pub async fn start(
        &mut self,
        component: impl Component,
        endpoints: Vec<Endpoint>,
        deadline: Duration,
    ) -> Result<(), SupervisorError> {
        let name = component.name();
        self.record(name, ComponentState::Starting, String::new(), vec![]);
        let shutdown = CancellationToken::new();
        let (signal, mut watch) = readiness();
        let context = RunContext { shutdown: shutdown.clone(), readiness: signal, recorder: self.recorder.clone() };
        let failed = self.failed.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where a component's task is born; `stop` joins it"
        )]
        let task = tokio::spawn(async move {
            let outcome = Box::new(component).run(context).await;
            failed.notify_one();
            outcome
        });
        // Before it is ready, so that `stop` joins it where this call is given up.
        self.running.push(Running { name, shutdown, task });
        let Some(Running { task, .. }) = self.running.last_mut() else { unreachable!("pushed above") };
        let error = tokio::select! {
            ready = watch.wait() => match ready {
                true => None,
                false => Some(ended(name, task.await)),
            },
            outcome = &mut *task => Some(ended(name, outcome)),
            () = tokio::time::sleep(deadline) => {
                task.abort();
                Some(SupervisorError::NotReady { component: name, seconds: deadline.as_secs() })
            }
        };
        if let Some(error) = error {
            self.running.pop();
            self.record(name, ComponentState::Failed, error.to_string(), vec![]);
            return Err(error);
        }
        self.record(name, ComponentState::Ready, String::new(), endpoints);
        Ok(())
    }

    /// Waits until a component ends on its own, which is always a failure.
    pub async fn wait_for_failure(&mut self) -> SupervisorError {
        loop {
            if let Some(index) = self.running.iter().position(|r| r.task.is_finished()) {
                let running = self.running.remove(index);
                let error = ended(running.name, running.task.await);
                self.record(running.name, ComponentState::Failed, error.to_string(), vec![]);
                return error;
            }
            self.failed.notified().await;
            tokio::task::yield_now().await;
        }
    }

    /// Stops all components, last started first, each within the deadline.
    ///
    /// Returns the names of those that had to be aborted.
    pub async fn stop(mut self) -> Vec<&'static str> {
        let mut aborted = Vec::new();
        while let Some(mut running) = self.running.pop() {
            running.shutdown.cancel();
            match tokio::time::timeout(self.stop_deadline, &mut running.task).await {
                Ok(Ok(Ok(()))) => self.record(running.name, ComponentState::Stopped, String::new(), vec![]),
                Ok(outcome) => {
                    let error = ended(running.name, outcome);
                    self.record(running.name, ComponentState::Failed, error.to_string(), vec![]);
                }
                Err(_) => {
                    running.task.abort();
                    aborted.push(running.name);
                    self.record(running.name, ComponentState::Failed, "did not stop in time".into(), vec![]);
                }
            }
        }
        aborted
    }

    fn record(&self, name: &'static str, state: ComponentState, message: String, endpoints: Vec<Endpoint>) {
        self.recorder.record(EventBody::Component { component: ComponentName::from(name), state, message, endpoints });
    }
}

fn ended(
    component: &'static str,
    outcome: Result<Result<(), ComponentError>, tokio::task::JoinError>,
) -> SupervisorError {
    match outcome {
        Ok(Ok(())) => SupervisorError::Ended { component },
        Ok(Err(source)) => SupervisorError::Failed { component, source },
        Err(join) => SupervisorError::Panicked { component, message: join.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;

    struct Fake {
        ready: bool,
        fail: bool,
    }
    #[async_trait]
    impl Component for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }
        async fn run(self: Box<Self>, context: RunContext) -> Result<(), ComponentError> {
            if self.ready {
                context.readiness.ready();
            }
            if self.fail {
                return Err("disk on fire".into());
            }
            context.shutdown.cancelled().await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn starts_and_stops() {
        let mut supervisor = Supervisor::new(Recorder::in_memory(), Duration::from_secs(5));
        supervisor.start(Fake { ready: true, fail: false }, vec![], Duration::from_secs(5)).await.unwrap();
        assert!(supervisor.stop().await.is_empty());
    }

    #[tokio::test]
    async fn names_what_failed() {
        let mut supervisor = Supervisor::new(Recorder::in_memory(), Duration::from_secs(5));
        let error =
            supervisor.start(Fake { ready: false, fail: true }, vec![], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "fake failed: disk on fire");
    }

    #[tokio::test]
    async fn a_component_that_never_serves_is_an_error() {
        let mut supervisor = Supervisor::new(Recorder::in_memory(), Duration::from_secs(5));
        let error =
            supervisor.start(Fake { ready: false, fail: false }, vec![], Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, SupervisorError::NotReady { .. }));
    }
}
