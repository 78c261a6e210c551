//! The kubeconfigs that an environment writes, and what it gives back.

use crate::{SimulatorError, ground::Ground, ground::KubeconfigTarget, state::State, state::StateError};
use aksim_cluster::kubeconfig::{self, Context, KubeconfigError};
use aksim_config::home::Home;
use aksim_runtime::files::{PRIVATE, write_atomic};
use std::path::Path;

/// Name of our kubeconfig context.
pub fn context_name(home: &Home) -> String {
    let name = home.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("aksim-{name}")
}

/// Writes the environment's own kubeconfig, and the one that was asked for.
///
/// # Errors
/// [`SimulatorError`] of the file.
pub fn write(ground: &mut Ground, context: &Context) -> Result<(), SimulatorError> {
    let write = |path: &Path| {
        write_atomic(path, kubeconfig::render(context).as_bytes(), PRIVATE)
            .map_err(|source| StateError::File { path: path.to_owned(), source })
    };
    write(&ground.home.kubeconfig())?;
    match &ground.options.kubeconfig {
        KubeconfigTarget::None => {}
        KubeconfigTarget::File(path) => write(path)?,
        KubeconfigTarget::User => {
            let Some(path) = kubeconfig::default_path() else { return Ok(()) };
            // A run that was killed has left our context current: what was there before it counts.
            let kept = ground.state.kubeconfig();
            let before = kept.filter(|(p, _)| *p == path).and_then(|(_, previous)| previous.clone());
            let previous = kubeconfig::merge(&path, context)?.or(before);
            ground.state.keep_kubeconfig(Some((path, previous)))?;
        }
    }
    Ok(())
}

/// Takes our context out of the kubeconfig that it was merged into, if it is still there. Writes nothing else.
///
/// # Errors
/// [`KubeconfigError`].
pub fn take_out(home: &Home, state: &State) -> Result<(), KubeconfigError> {
    match state.kubeconfig() {
        Some((path, previous)) => kubeconfig::remove(path, &context_name(home), previous.as_deref()),
        None => Ok(()),
    }
}

/// The same at the end of a run, which the next one need not know of.
///
/// # Errors
/// [`SimulatorError`] of the file.
pub fn give_back(ground: &mut Ground) -> Result<(), SimulatorError> {
    take_out(&ground.home, &ground.state)?;
    if ground.state.kubeconfig().is_some() {
        ground.state.keep_kubeconfig(None)?;
    }
    Ok(())
}
