//! The Git host of a project, and the remote of its checkout.

use crate::{
    SimulatorError,
    ground::Ground,
    part::{Part, Run},
};
use aksim_config::{Config, project::FILE_NAME};
use aksim_git::{
    Access, Account, BranchRule, ContentType, GitError, GitHandle, GitHost, GitHostConfig, HookSpec, RepositoryName,
    RepositorySpec,
    remote::{RemoteOutcome, RemoteSpec, set_remote},
};
use aksim_identity::Issuer;
use aksim_model::{advice::Advice, endpoint::Endpoint, event::EventBody};
use aksim_runtime::oidc::{OidcConfig, TokenVerifier};
use async_trait::async_trait;

/// Login of the pipelines: may set statuses and clone.
pub const PIPELINES_ACCOUNT: &str = "pipelines";

/// Resources whose Entra tokens the host takes: Azure DevOps and Azure Resource Manager, by client id.
const AUDIENCES: [&str; 2] = ["499b84ac-1321-427f-aa17-267ca6975798", "797f4846-ba00-4fd7-ba43-dac1f8f63013"];

/// Binds the host with the project's repository; `None`, said once, where there is no git and
/// the project does not ask for it.
///
/// # Errors
/// [`SimulatorError::Git`].
pub async fn bind(
    ground: &mut Ground,
    issuer: &Issuer,
    http: reqwest::Client,
) -> Result<Option<GitHost>, SimulatorError> {
    let (config, recorder) = (&ground.config, &ground.recorder);
    let folder = ground.home.component("git");
    let mut host = GitHostConfig::new(folder, ground.pki.clone(), &ground.options.exe, recorder.clone());
    host.port = ground.port("git", config.git.port);
    host.organization = config.git.organization.clone();
    host.repositories = vec![repository(config)];
    host.accounts = accounts(config, issuer);
    let audiences = AUDIENCES.map(str::to_owned).to_vec();
    host.entra = Some(TokenVerifier::new(OidcConfig { issuer: issuer.issuer(), audiences, http }));
    match GitHost::bind(host).await {
        Ok(bound) => {
            ground.keep_port("git", bound.address().port())?;
            Ok(Some(bound))
        }
        Err(error @ GitError::GitMissing { .. }) if !config.git.asked => {
            recorder.record(EventBody::Warning {
                subject: "git".into(),
                message: format!("there is no Git host: {error}"),
                hint: error.hint().map(std::borrow::Cow::into_owned),
            });
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The host, and then the remote of the project's checkout.
#[async_trait]
impl Part for GitHost {
    async fn start(self: Box<Self>, run: &mut Run<'_>) -> Result<(), SimulatorError> {
        let (handle, url) = (self.handle(), self.url().to_owned());
        run.component(*self, vec![Endpoint { name: "Git host".into(), url }]).await?;
        connect(run.ground, &handle).await
    }
}

fn repository(config: &Config) -> RepositorySpec {
    let git = &config.git;
    let rule =
        |pattern: &String| BranchRule { pattern: pattern.clone(), required_contexts: git.required_statuses.clone() };
    let hook = |hook: &aksim_config::raw::Webhook| HookSpec {
        secret: hook.secret.clone(),
        // Validated by the configuration.
        content_type: if hook.content_type == "form" { ContentType::Form } else { ContentType::Json },
        ..HookSpec::push(&hook.url, "")
    };
    RepositorySpec {
        description: format!("The project {}", config.name),
        default_branch: git.default_branch.clone(),
        protected: Some(git.protected.iter().map(rule).collect()),
        webhooks: git.webhooks.iter().map(hook).collect(),
        ..RepositorySpec::new(&git.repository)
    }
}

/// The first user owns the host; the others write, or only those the project names.
fn accounts(config: &Config, issuer: &Issuer) -> Vec<Account> {
    let directory = issuer.directory();
    let may_write = |user: &aksim_config::raw::User| {
        let listed = |names: &Vec<String>| names.iter().any(|n| *n == user.name || user.groups.contains(n));
        config.git.writers.as_ref().is_none_or(listed)
    };
    let account = |(index, user): (usize, &aksim_config::raw::User)| {
        let known = directory.user(&user.name);
        let access = match (index, may_write(user)) {
            (0, _) => Access::Admin,
            (_, true) => Access::Write,
            (_, false) => Access::Read,
        };
        Account {
            login: user.name.clone(),
            name: known.map_or_else(|| user.name.clone(), |u| u.display_name.clone()),
            email: known.map_or_else(String::new, |u| u.principal_name.clone()),
            object_id: known.map(|u| u.id.to_string()),
            access: Some(access),
        }
    };
    let mut accounts: Vec<Account> = config.users.iter().enumerate().map(account).collect();
    let service = |login: &str, access| Account {
        login: login.to_owned(),
        name: login.to_owned(),
        email: format!("{login}@{}.onmicrosoft.com", config.tenant),
        object_id: None,
        access: Some(access),
    };
    if accounts.is_empty() {
        accounts.push(service(OWNER, Access::Admin));
    }
    accounts.push(service(PIPELINES_ACCOUNT, Access::Write));
    accounts
}

/// Login of who works on a project without users.
const OWNER: &str = "developer";

/// Keeps the credential of the project's user, and makes the remote of the project's checkout.
async fn connect(ground: &Ground, handle: &GitHandle) -> Result<(), SimulatorError> {
    let Ground { config, options, pki, recorder, .. } = ground;
    let user = config.users.first().map_or(OWNER, |u| u.name.as_str());
    let credential = handle.keep_credential(user)?;
    let spec = RemoteSpec {
        host_url: credential.url,
        repository: RepositoryName::new(&config.git.organization, &config.git.repository).map_err(GitError::from)?,
        ca: pki.ca_path().to_owned(),
        exe: options.exe.clone(),
        project: config.root.join(FILE_NAME),
    };
    let warn = |message: String, hint: &str| {
        recorder.record(EventBody::Warning { subject: "git".into(), message, hint: Some(hint.into()) });
    };
    match set_remote(&config.root, &spec).await {
        Ok(RemoteOutcome::NotACheckout) => {
            tracing::info!(target: "git", "the project is not in a checkout of git: no remote was made");
        }
        Ok(outcome) => {
            tracing::debug!(target: "git", ?outcome, "remote aksim");
            // git prefers the variable to the remote's own CA.
            if std::env::var_os("GIT_SSL_CAINFO").is_some() {
                let message = "GIT_SSL_CAINFO is set: git will not trust the remote aksim".into();
                warn(message, "push with `env -u GIT_SSL_CAINFO git push aksim`");
            }
        }
        // A checkout of somebody else, or one that is read-only, stops nothing.
        Err(error) => {
            let message = format!("the remote aksim of {} was not made: {error}", config.root.display());
            warn(message, "`aksim git url` is the address to add by hand");
        }
    }
    Ok(())
}
