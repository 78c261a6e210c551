//! Composition root: builds the components of an environment, wires them, runs and stops them.
//!
//! Order of start: state and CA, then the listeners of issuer, registry and database, so that the
//! table of Azure names is whole before anything uses it; then node and API server; then what
//! talks to the API server. Stopping is the reverse.

mod commands;
mod directory;
mod environment;
mod error;
mod file_sync;
mod git;
mod images;
mod machines;
mod nodes;
mod objects;
mod pipelines;
mod secrets;
mod start;
mod state;

pub use environment::Environment;
pub use error::SimulatorError;
pub use start::{KubeconfigTarget, Options, Simulator};
pub use state::{Kept, StateError, load as load_kept};

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
    nodes::teardown(home, exe, state.id()).await?;
    if let Some((path, previous)) = state.kubeconfig() {
        let name = start::context_name(home);
        aksim_cluster::kubeconfig::remove(path, &name, previous.as_deref())?;
    }
    if purge {
        std::fs::remove_dir_all(home.root())
            .map_err(|source| StateError::File { path: home.root().to_owned(), source })?;
    }
    Ok(())
}
