//! `aksim token`: a token of the issuer for a user of the project, for kubectl and for scripts.

use super::{
    args::TokenArgs,
    context::Context,
    failure::{Code, Failure},
    output,
};
use aksim_config::home::Home;
use aksim_identity::DEVELOPMENT_PASSWORD;
use aksim_model::endpoint::AzureName;
use aksim_runtime::{net::azure_http_client, pki::Pki};
use aksim_simulator::load_kept;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Azure CLI's own application, a public client of every tenant.
const AZURE_CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
/// The application that AKS clusters accept tokens for.
const AKS_SERVER: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// Prints a token.
pub async fn run(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    let config = context.config()?;
    let home = context.home(&config)?;
    let user = match &args.user {
        Some(name) => config.users.iter().find(|u| u.name == *name),
        None => config.users.first(),
    };
    let Some(user) = user else {
        let known: Vec<&str> = config.users.iter().map(|u| u.name.as_str()).collect();
        let wanted = args.user.as_deref().unwrap_or("any");
        return Err(Failure::new(Code::Usage, format!("no user {wanted:?} in aksim.toml"))
            .hint(format!("users: {}", known.join(", "))));
    };
    let scope = args.scope.clone().unwrap_or_else(|| format!("{AKS_SERVER}/.default"));
    let password = user.password.as_deref().unwrap_or(DEVELOPMENT_PASSWORD);
    let upn = format!("{}@{}.onmicrosoft.com", user.name, config.tenant);
    let answer = password_grant(&home, &config.tenant, &upn, password, &scope).await?;
    let token = answer["access_token"].as_str().unwrap_or_default();
    if !args.exec_credential {
        return output::text(&format!("{token}\n"));
    }
    let lifetime = answer["expires_in"].as_i64().unwrap_or(0);
    let expires = Timestamp::now().checked_add(lifetime.seconds()).unwrap_or(Timestamp::MAX);
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": token, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}
    });
    output::text(&format!("{credential}\n"))
}

/// Resource owner password grant: the one flow that needs no browser, for development users.
async fn password_grant(home: &Home, tenant: &str, upn: &str, password: &str, scope: &str) -> Result<Value, Failure> {
    let kept = load_kept(home).map_err(Failure::other)?;
    let Some(port) = kept.ports.get("identity") else {
        return Err(Failure::new(Code::Failure, "the environment has never run").hint("start it with `aksim up`"));
    };
    let pki = Pki::open(&home.pki(), "aksim CA").map_err(Failure::other)?;
    let host = "login.microsoftonline.com";
    let name = AzureName { host: host.into(), port: 443, target: SocketAddr::from(([127, 0, 0, 1], *port)) };
    let client = azure_http_client(&pki, &[name]).map_err(Failure::other)?;
    let form = [
        ("grant_type", "password"),
        ("client_id", AZURE_CLI),
        ("scope", scope),
        ("username", upn),
        ("password", password),
    ];
    let url = format!("https://{host}/{tenant}.onmicrosoft.com/oauth2/v2.0/token");
    let answer = client.post(url).form(&form).send().await.map_err(|error| {
        Failure::new(Code::Failure, format!("the issuer does not answer: {error}")).hint("start it with `aksim up`")
    })?;
    let ok = answer.status().is_success();
    let body: Value = answer.json().await.map_err(Failure::other)?;
    if ok {
        return Ok(body);
    }
    Err(Failure::new(Code::Failure, body["error_description"].as_str().unwrap_or("the issuer refused").to_owned()))
}
