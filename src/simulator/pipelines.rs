//! The pipeline service of an environment: what it is wired with.

use crate::{
    SimulatorError, StateError,
    git::PIPELINES_ACCOUNT,
    ground::Ground,
    part::{Part, Run},
};
use aksim_cluster::provider::{Access, ClusterProvider, RegistryLogin};
use aksim_git::{Access as GitAccess, GitHandle, GitHost as GitServer, HookSpec};
use aksim_images::ImageBuilder;
use aksim_model::endpoint::Endpoint;
use aksim_pipelines::{
    Checks, ClusterConnection, GitHost, GroupVariable, Pipelines, PipelinesConfig, PipelinesError, RegistryConnection,
};
use aksim_runtime::{
    files::{PRIVATE, create_private_dir, write_atomic},
    pki::Pki,
};
use async_trait::async_trait;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// The environment's Git host.
pub struct GitConnection {
    handle: GitHandle,
    url: String,
}

impl GitConnection {
    /// To this host.
    pub fn new(host: &GitServer) -> Self {
        Self { handle: host.handle(), url: host.url().to_owned() }
    }
}

/// The service of pipelines, with what it is connected to.
pub struct PipelineService {
    /// The Git host, when there is one.
    pub git: Option<GitConnection>,
    /// Client that knows the Azure names and the environment's CA.
    pub http: reqwest::Client,
    /// Builds and pushes.
    pub images: ImageBuilder,
    /// The registry.
    pub registry: RegistryLogin,
    /// The cluster.
    pub cluster: Arc<dyn ClusterProvider>,
}

#[async_trait]
impl Part for PipelineService {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        let access = self.cluster.access()?;
        let settings = self.settings(run.ground, access)?;
        let pipelines = Pipelines::bind(settings).await?;
        self.set_checks(run.ground, &pipelines)?;
        if let Some(git) = &self.git {
            let hook = HookSpec::push(pipelines.webhook_url(), pipelines.webhook_secret());
            git.handle.ensure_webhook(&run.ground.config.git.repository, hook)?;
        }
        run.ground.keep_port("pipelines", pipelines.address().port())?;
        let url = format!("https://{}", pipelines.address());
        run.component(pipelines, vec![Endpoint { name: "pipelines".into(), url }]).await?;
        Ok(())
    }
}

impl PipelineService {
    fn settings(&self, ground: &Ground, access: Access) -> Result<PipelinesConfig, SimulatorError> {
        let (config, folder) = (&ground.config, ground.home.component("pipelines"));
        let asked = &config.pipelines;
        let mut settings = PipelinesConfig::new(&folder, ground.pki.clone(), self.http.clone());
        settings.port = ground.port("pipelines", asked.port);
        settings.organization.clone_from(&config.tenant);
        settings.project = config.name.to_string();
        settings.file.clone_from(&asked.file);
        settings.agents = asked.agents;
        settings.keep_runs = asked.keep_runs;
        settings.git = self.git.as_ref().map(|git| git_host(git, &folder, &ground.pki)).transpose()?;
        settings.images = Some(self.images.clone());
        let registry = RegistryConnection {
            login_server: self.registry.host.clone(),
            username: self.registry.username.clone(),
            password: self.registry.password.clone(),
        };
        // Whatever name a pipeline gives to its service connection: here is one registry.
        settings.registries = BTreeMap::from([("*".to_owned(), registry)]);
        settings.cluster = Some(ClusterConnection {
            client: access.client,
            dialer: access.dialer,
            environment: ground.state.id().to_owned(),
            kubeconfig: Some(ground.home.kubeconfig()),
            provider: self.cluster.clone(),
        });
        settings.groups = asked.variable_groups.iter().map(|(name, values)| (name.clone(), group(values))).collect();
        Ok(settings)
    }

    fn set_checks(&self, ground: &Ground, pipelines: &Pipelines) -> Result<(), PipelinesError> {
        for environment in &ground.config.pipelines.environments {
            let checks = Checks { approval: environment.approval, ..Checks::default() };
            pipelines.engine().environments.set_checks(&environment.name, checks)?;
        }
        Ok(())
    }
}

/// The host as the service of pipelines meets it: by HTTPS, with a personal access token that is kept.
fn git_host(git: &GitConnection, state_dir: &Path, pki: &Pki) -> Result<GitHost, SimulatorError> {
    let path = state_dir.join("git-token");
    let file = |source| StateError::File { path: path.clone(), source };
    create_private_dir(state_dir).map_err(file)?;
    let token = match std::fs::read_to_string(&path) {
        Ok(token) => token,
        Err(_) => {
            let token = git.handle.issue_token(PIPELINES_ACCOUNT, "pipelines", GitAccess::Write)?;
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
