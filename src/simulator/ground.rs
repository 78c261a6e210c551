//! What every start of an environment begins with.

use crate::{
    SimulatorError,
    state::{State, StateError},
};
use aksim_cluster::provider::Place;
use aksim_config::{Config, home::Home};
use aksim_model::{
    advice::{Advice, ExitClass},
    endpoint::AzureName,
};
use aksim_runtime::{
    net::{HttpClientError, azure_http_client},
    pki::Pki,
    recorder::Recorder,
};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::watch;

/// Which kubeconfig is written besides the environment's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeconfigTarget {
    /// Merged into the user's.
    User,
    /// A file of its own.
    File(PathBuf),
    /// None.
    None,
}

/// How an environment is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Watch files.
    pub watch: bool,
    /// Which kubeconfig is written.
    pub kubeconfig: KubeconfigTarget,
    /// This program, started again for containers.
    pub exe: PathBuf,
}

/// The ground that the parts of an environment stand on: project, folders, state, events, CA, names.
pub struct Ground {
    /// The project.
    pub config: Arc<Config>,
    /// Its folders.
    pub home: Home,
    /// How it is run.
    pub options: Options,
    /// What is kept between runs; locked.
    pub state: State,
    /// Facts go here.
    pub recorder: Recorder,
    /// The environment's CA.
    pub pki: Pki,
    /// The Azure names that are answered: whole once every listener is taken, and the same from then on.
    names: watch::Sender<Vec<AzureName>>,
}

impl Ground {
    /// Locks the state and opens what is on it.
    ///
    /// # Errors
    /// [`SimulatorError`]; nothing is left of an environment that is new.
    pub async fn open(config: Config, home: &Home, options: Options) -> Result<Self, SimulatorError> {
        let state = State::open(home).await?;
        let opened = (|| {
            let recorder = Recorder::open(&home.events()).map_err(SimulatorError::Events)?;
            let pki = Pki::open(&home.pki(), &format!("aksim {} CA", config.name))?;
            Ok((recorder, pki))
        })();
        match opened {
            Ok((recorder, pki)) => Ok(Self {
                config: Arc::new(config),
                home: home.clone(),
                options,
                state,
                recorder,
                pki,
                names: watch::Sender::default(),
            }),
            Err(error) => Err(given_up(error, state)),
        }
    }

    /// Gives a start up that has failed.
    pub fn give_up(self, error: SimulatorError) -> SimulatorError {
        given_up(error, self.state)
    }

    /// The port to ask for: the one in the project, else the one of last time, else any.
    pub fn port(&self, component: &str, asked: Option<u16>) -> u16 {
        asked.unwrap_or_else(|| self.state.port(component))
    }

    /// Keeps a component's port for the next run.
    ///
    /// # Errors
    /// Any error of writing.
    pub fn keep_port(&mut self, component: &str, port: u16) -> Result<(), StateError> {
        self.state.keep_port(component, port)
    }

    /// From now on these names are answered too.
    pub fn answer(&self, names: impl IntoIterator<Item = AzureName>) {
        self.names.send_modify(|all| all.extend(names));
    }

    /// The Azure names that are answered.
    pub fn azure_names(&self) -> watch::Receiver<Vec<AzureName>> {
        self.names.subscribe()
    }

    /// A client that knows the names answered so far, and trusts the CA.
    ///
    /// # Errors
    /// [`HttpClientError`].
    pub fn http(&self) -> Result<reqwest::Client, HttpClientError> {
        azure_http_client(&self.pki, &self.names.borrow())
    }

    /// Where the cluster lives.
    pub fn place(&self) -> Place {
        Place {
            config: self.config.clone(),
            home: self.home.clone(),
            exe: self.options.exe.clone(),
            id: self.state.id().to_owned(),
            pki: self.pki.clone(),
            context: crate::kubeconfig::context_name(&self.home),
        }
    }
}

/// The last of a start that failed. What a component has logged may be all there is to find out why;
/// what the machine lacks, or the project, has been said.
fn given_up(error: SimulatorError, state: State) -> SimulatorError {
    if matches!(error.class(), ExitClass::Environment | ExitClass::Usage) {
        state.forget_new();
    }
    error
}
