//! Composition root: builds the components of an environment, wires them, runs and stops them.
//!
//! `ground` is what every start begins with: state, events, CA. On it stand the parts, a file each, wired and
//! listed in `start`: first every listener is taken, so that the table of Azure names is whole before anything
//! uses it, then they start in the order of the list, and stop in reverse. Which cluster the workloads run in is
//! the project's choice from `providers`.

mod cluster;
mod commands;
mod control;
mod database;
mod directory;
mod error;
mod file_sync;
mod git;
mod ground;
mod images;
mod ingress;
mod issuer;
mod kubeconfig;
mod objects;
mod part;
mod pipelines;
mod providers;
mod registry;
mod secrets;
mod start;
mod state;

pub use error::SimulatorError;
pub use ground::{KubeconfigTarget, Options};
pub use providers::PROVIDERS;
pub use start::Simulator;
pub use state::{Kept, StateError, load as load_kept};

use aksim_cluster::provider::Remains;
use aksim_config::home::Home;
use std::path::Path;

/// Removes what an environment that is not running has left: containers, mounts, namespaces,
/// its kubeconfig context, and with `purge` its whole state.
///
/// # Errors
/// [`SimulatorError`], also when it is running.
pub async fn clean_up(home: &Home, exe: &Path, purge: bool) -> Result<(), SimulatorError> {
    if !home.root().exists() {
        return Ok(());
    }
    let state = state::State::lock(home).await?;
    let remains = Remains { home: home.clone(), exe: exe.to_owned(), id: state.id().to_owned() };
    // The project may have asked for another one when it ran.
    for provider in PROVIDERS {
        provider.clean_up(&remains).await?;
    }
    kubeconfig::take_out(home, &state)?;
    if purge {
        std::fs::remove_dir_all(home.root())
            .map_err(|source| StateError::File { path: home.root().to_owned(), source })?;
    }
    Ok(())
}
