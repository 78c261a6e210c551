//! A part of an environment, and what it is started in.

use crate::{SimulatorError, ground::Ground};
use aksim_model::endpoint::Endpoint;
use aksim_runtime::{
    component::Component,
    supervisor::{Supervisor, SupervisorError},
};
use async_trait::async_trait;
use std::time::Duration;

/// What a component gets to become ready.
const DEADLINE: Duration = Duration::from_secs(60);

/// An environment on its way up. The supervisor stops what it has started in reverse order.
pub struct Run<'a> {
    /// What it stands on.
    pub ground: &'a mut Ground,
    /// What runs so far.
    pub supervisor: &'a mut Supervisor,
}

impl Run<'_> {
    /// Starts a component and waits until it is ready.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn component(
        &mut self,
        component: impl Component,
        endpoints: Vec<Endpoint>,
    ) -> Result<(), SupervisorError> {
        self.supervisor.start(component, endpoints, DEADLINE).await
    }
}

/// A part of an environment that is wired and has its address: it has only to be started.
#[async_trait]
pub trait Part: Send + 'static {
    /// Starts it; the parts before it in the list run.
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError>;
}

/// A part that may not be there.
#[async_trait]
impl<P: Part> Part for Option<P> {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        match *self {
            Some(part) => Box::new(part).start(run).await,
            None => Ok(()),
        }
    }
}

/// A server that needs nothing but to be started.
pub struct Server<C> {
    component: C,
    endpoint: Endpoint,
}

impl<C> Server<C> {
    /// A server with the name and URL that people see.
    pub fn new(component: C, name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { component, endpoint: Endpoint { name: name.into(), url: url.into() } }
    }
}

#[async_trait]
impl<C: Component> Part for Server<C> {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        Ok(run.component(self.component, vec![self.endpoint]).await?)
    }
}
