//! `aksim kubeconfig` and `aksim env`.

use super::{
    args::KubeconfigArgs,
    context::Context,
    failure::{Code, Failure},
    output,
};
use aksim_cluster::kubeconfig::{self, Context as KubeContext, User};
use aksim_config::Config;
use serde_json::Value;
use std::fmt::Write as _;

/// Prints or merges the kubeconfig.
pub fn run(context: &Context, args: &KubeconfigArgs) -> Result<(), Failure> {
    let config = context.config()?;
    let home = context.home(&config)?;
    let path = home.kubeconfig();
    let text = std::fs::read_to_string(&path).map_err(|_| {
        Failure::new(Code::Failure, format!("there is no {}", path.display()))
            .hint("start the environment with `aksim up`")
    })?;
    if !args.merge && args.user.is_none() {
        return output::text(&text);
    }
    let own = read(&text, &config, args.user.as_deref())?;
    if !args.merge {
        return output::text(&kubeconfig::render(&own));
    }
    let target = kubeconfig::default_path().ok_or_else(|| {
        Failure::new(Code::Environment, "there is no kubeconfig to merge into").hint("set HOME or KUBECONFIG")
    })?;
    kubeconfig::merge(&target, &own).map_err(Failure::other)?;
    eprintln!("{} now has the context {}", target.display(), own.name);
    Ok(())
}

/// The environment's own kubeconfig as a context, for a user of the directory if one is named.
fn read(text: &str, config: &Config, user: Option<&str>) -> Result<KubeContext, Failure> {
    let value: Value = serde_saphyr::from_str(text).map_err(Failure::other)?;
    let decoded = |pointer: &str| -> Result<String, Failure> {
        use base64::Engine as _;
        let data = value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).map_err(Failure::other)?;
        String::from_utf8(bytes).map_err(Failure::other)
    };
    let mut name = value["current-context"].as_str().unwrap_or_default().to_owned();
    let credentials = match user {
        None => User::Certificate {
            certificate_pem: decoded("/users/0/user/client-certificate-data")?,
            key_pem: decoded("/users/0/user/client-key-data")?,
        },
        Some(user) => {
            if !config.users.iter().any(|u| u.name == user) {
                return Err(Failure::new(Code::Usage, format!("no user {user:?} in aksim.toml")));
            }
            name = format!("{name}-{user}");
            let exe = std::env::current_exe()?.display().to_string();
            let project = config.root.display().to_string();
            let command = [&exe, "--project", &project, "token", "--exec-credential", "--user", user];
            User::Exec { command: command.map(str::to_owned).to_vec() }
        }
    };
    Ok(KubeContext {
        name,
        server: value["clusters"][0]["cluster"]["server"].as_str().unwrap_or_default().to_owned(),
        ca_pem: decoded("/clusters/0/cluster/certificate-authority-data")?,
        user: credentials,
    })
}

/// Prints shell variables.
pub async fn env(context: &Context) -> Result<(), Failure> {
    let (config, home, client) = context.running()?;
    let world = client.world().await?;
    let url = |component: &str| {
        let status = world.components.iter().find(|(name, _)| name.as_str() == component);
        status.and_then(|(_, s)| s.endpoints.first()).map(|e| e.url.clone()).unwrap_or_default()
    };
    let mut text = String::new();
    let mut set = |key: &str, value: String| {
        if !value.is_empty() {
            // Writing to a string cannot fail. Single quotes are closed, escaped, opened again.
            let _ = writeln!(text, "export {key}='{}'", value.replace('\'', "'\\''"));
        }
    };
    set("KUBECONFIG", home.kubeconfig().display().to_string());
    set("AKSIM_CA", home.pki().join("ca.crt").display().to_string());
    set("AKSIM_API_SERVER", url("kubernetes"));
    set("AKSIM_REGISTRY", url("registry"));
    set("AKSIM_REGISTRY_NAME", format!("{}.azurecr.io", config.registry));
    set("AKSIM_ISSUER", url("identity"));
    set("AKSIM_DATABASE", url("database"));
    set("AKSIM_INGRESS", url("ingress"));
    output::text(&text)
}
