//! Every path aksim uses.

use aksim_model::ids::EnvironmentName;
use std::path::{Path, PathBuf};

/// State folder of one environment, and the cache shared by all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    cache: PathBuf,
}

impl Home {
    /// `$AKSIM_HOME/NAME`, else `$XDG_STATE_HOME/aksim/NAME`, else `~/.local/state/aksim/NAME`;
    /// cache in `$AKSIM_HOME/cache`, else `$XDG_CACHE_HOME/aksim`, else `~/.cache/aksim`.
    ///
    /// `None` when neither those variables nor `HOME` are set.
    pub fn locate(name: &EnvironmentName) -> Option<Self> {
        let variable = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(home) = variable("AKSIM_HOME") {
            return Some(Self { root: home.join(name.as_str()), cache: home.join("cache") });
        }
        let user = variable("HOME");
        let below = |tail: &str| user.as_ref().map(|h| h.join(tail));
        let state = variable("XDG_STATE_HOME").or_else(|| below(".local/state"))?;
        let cache = variable("XDG_CACHE_HOME").or_else(|| below(".cache"))?;
        Some(Self { root: state.join("aksim").join(name.as_str()), cache: cache.join("aksim") })
    }

    /// A home at explicit folders, for tests.
    pub fn at(root: impl Into<PathBuf>, cache: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), cache: cache.into() }
    }

    /// The environment's state folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Held with `flock` while the environment runs.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
    /// Private kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }
    /// CA and certificates.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }
    /// State of one component.
    pub fn component(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// The event log.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }
    /// Log files.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// Socket of the control API.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }
    /// Downloads, layers and templates, shared by all environments; safe to delete when none runs.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}
