//! The pipeline service of an environment: what it is wired with.

use super::{SimulatorError, git::PIPELINES_ACCOUNT, state::State};
use aksim_config::{Config, home::Home};
use aksim_git::{Access, GitHandle, HookSpec};
use aksim_images::ImageBuilder;
use aksim_pipelines::{
    Checks, ClusterConnection, GitHost, GroupVariable, Pipelines, PipelinesConfig, RegistryConnection,
};
use aksim_registry::AdminCredentials;
use aksim_runtime::{
    files::{PRIVATE, create_private_dir, write_atomic},
    net::SharedDialer,
    pki::Pki,
};
use std::{collections::BTreeMap, path::Path};

/// The environment's Git host.
pub struct GitConnection {
    /// Makes tokens and webhooks.
    pub handle: GitHandle,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
}

/// What the service is connected to.
pub struct Connections {
    /// The Git host, when there is one.
    pub git: Option<GitConnection>,
    /// Client that knows the Azure names and the environment's CA.
    pub http: reqwest::Client,
    /// Builds and pushes.
    pub images: ImageBuilder,
    /// `shopacr.azurecr.io`.
    pub login_server: String,
    /// The registry's administrator.
    pub registry: AdminCredentials,
    /// The cluster's administrator.
    pub client: kube::Client,
    /// Reaches pods.
    pub dialer: SharedDialer,
}

/// Takes the service's listener.
///
/// # Errors
/// [`SimulatorError`].
pub async fn bind(
    config: &Config,
    home: &Home,
    state: &mut State,
    pki: &Pki,
    connections: Connections,
) -> Result<Pipelines, SimulatorError> {
    let asked = &config.pipelines;
    let mut settings = PipelinesConfig::new(home.component("pipelines"), pki.clone(), connections.http);
    settings.port = asked.port.unwrap_or_else(|| state.port("pipelines"));
    settings.organization.clone_from(&config.tenant);
    settings.project = config.name.to_string();
    settings.file.clone_from(&asked.file);
    settings.agents = asked.agents;
    settings.keep_runs = asked.keep_runs;
    settings.git = connections.git.as_ref().map(|git| git_host(git, &home.component("pipelines"), pki)).transpose()?;
    settings.images = Some(connections.images);
    // Whatever name a pipeline gives to its service connection: here is one registry.
    settings.registries = BTreeMap::from([(
        "*".to_owned(),
        RegistryConnection {
            login_server: connections.login_server,
            username: connections.registry.username,
            password: connections.registry.password,
        },
    )]);
    settings.cluster = Some(ClusterConnection {
        client: connections.client,
        dialer: connections.dialer,
        environment: state.id().to_owned(),
        kubeconfig: Some(home.kubeconfig()),
    });
    settings.groups = asked.variable_groups.iter().map(|(name, values)| (name.clone(), group(values))).collect();
    let pipelines = Pipelines::bind(settings).await?;
    for environment in &asked.environments {
        let checks = Checks { approval: environment.approval, ..Checks::default() };
        let kept = pipelines.engine().environments.set_checks(&environment.name, checks);
        kept.map_err(aksim_pipelines::PipelinesError::from)?;
    }
    if let Some(git) = &connections.git {
        let hook = HookSpec::push(pipelines.webhook_url(), pipelines.webhook_secret());
        git.handle.ensure_webhook(&config.git.repository, hook)?;
    }
    state.keep_port("pipelines", pipelines.address().port())?;
    Ok(pipelines)
}

/// The host as the service of pipelines meets it: by HTTPS, with a personal access token that is kept.
fn git_host(git: &GitConnection, state_dir: &Path, pki: &Pki) -> Result<GitHost, SimulatorError> {
    let path = state_dir.join("git-token");
    let file = |source| super::StateError::File { path: path.clone(), source };
    create_private_dir(state_dir).map_err(file)?;
    let token = match std::fs::read_to_string(&path) {
        Ok(token) => token,
        Err(_) => {
            let token = git.handle.issue_token(PIPELINES_ACCOUNT, "pipelines", Access::Write)?;
            write_atomic(&path, token.as_bytes(), PRIVATE).map_err(file)?;
            token
        }
    };
    Ok(GitHost {
        url: git.url.clone(),
        username: PIPELINES_ACCOUNT.to_owned(),
        token,
        ca: Some(pki.ca_path().to_owned()),
        api_url: Some(format!("{}/api/v3", git.url)),
    })
}

fn group(values: &BTreeMap<String, aksim_config::raw::GroupVariable>) -> BTreeMap<String, GroupVariable> {
    let one =
        |value: &aksim_config::raw::GroupVariable| GroupVariable { value: value.value.clone(), secret: value.secret };
    values.iter().map(|(name, value)| (name.clone(), one(value))).collect()
}
