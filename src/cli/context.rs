//! What every verb needs: the project, its home, and the running environment.

use super::failure::{Code, Failure};
use aksim_config::{Config, home::Home, project};
use aksim_runtime::control::ControlClient;
use std::path::PathBuf;

/// Where a verb was called.
pub struct Context {
    project: Option<PathBuf>,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl Context {
    /// With the `--project` and `-v` that were given.
    pub fn new(project: Option<PathBuf>, verbose: u8) -> Self {
        Self { project, verbose }
    }

    /// The project file.
    pub fn project_file(&self) -> Result<PathBuf, Failure> {
        let start = match &self.project {
            Some(path) if path.is_file() => return Ok(path.clone()),
            Some(path) => path.clone(),
            None => std::env::current_dir()?,
        };
        Ok(project::find(&std::path::absolute(start)?)?)
    }

    /// The validated project.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(project::load(&self.project_file()?)?)
    }

    /// State folder of the project's environment.
    pub fn home(&self, config: &Config) -> Result<Home, Failure> {
        Home::locate(&config.name).ok_or_else(|| {
            Failure::new(Code::Environment, "there is no folder for state: HOME is not set").hint("set AKSIM_HOME")
        })
    }

    /// The project, its home and a client of the running environment.
    pub fn running(&self) -> Result<(Config, Home, ControlClient), Failure> {
        let config = self.config()?;
        let home = self.home(&config)?;
        let client = ControlClient::new(&home.control_socket());
        Ok((config, home, client))
    }

    /// A Kubernetes client of the running environment's administrator.
    pub async fn kubernetes(&self) -> Result<kube::Client, Failure> {
        let (_, home, control) = self.running()?;
        control.info().await?;
        let path = home.kubeconfig();
        let kubeconfig = kube::config::Kubeconfig::read_from(&path).map_err(Failure::other)?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(Failure::other)?;
        Ok(kube::Client::try_from(config)?)
    }
}
