//! `aksim git` and `aksim git-credential`: the Git host through its own HTTP API.

use super::{
    args::OutputArgs,
    context::Context,
    failure::{Code, Failure},
    output::{self, Table},
};
use aksim_config::{Config, home::Home};
use aksim_git::{Access, Credential};
use aksim_runtime::{net::azure_http_client, pki::Pki};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Read as _;

/// Most that git says to a credential helper, bytes.
const MAX_QUESTION: u64 = 1 << 20;

/// `aksim git`
#[derive(Debug, Args)]
pub struct GitArgs {
    /// Repository; the project's when absent.
    #[arg(long, global = true)]
    repository: Option<String>,
    /// What to do.
    #[command(subcommand)]
    verb: GitVerb,
}

/// `aksim git …`
#[derive(Debug, Subcommand)]
pub enum GitVerb {
    /// URL to clone the repository from.
    Url,
    /// Statuses of a commit, as pipelines set them.
    Status {
        /// Branch, tag or hash; the default branch when absent.
        revision: Option<String>,
        /// Form of the data.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Personal access tokens.
    Token {
        /// What to do.
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Webhooks and their deliveries.
    Webhook {
        /// What to do.
        #[command(subcommand)]
        verb: WebhookVerb,
    },
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessArg {
    /// Clone and fetch.
    Read,
    /// Push and set statuses.
    Write,
    /// Everything.
    Admin,
}

impl From<AccessArg> for Access {
    fn from(access: AccessArg) -> Self {
        match access {
            AccessArg::Read => Self::Read,
            AccessArg::Write => Self::Write,
            AccessArg::Admin => Self::Admin,
        }
    }
}

/// `aksim git token …`
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token and print it: it is not shown again.
    Create {
        /// Whose it is; the project's first user when absent.
        #[arg(long)]
        user: Option<String>,
        /// What it is for.
        #[arg(long, default_value = "")]
        note: String,
        /// Most that it allows.
        #[arg(long, value_enum, default_value = "write")]
        access: AccessArg,
        /// Days until it ends; never when absent.
        #[arg(long, value_name = "DAYS")]
        expires_in: Option<u32>,
    },
    /// Tokens that have not ended.
    List(OutputArgs),
    /// End a token.
    Revoke {
        /// Id, as `list` shows it.
        id: u64,
    },
}

/// `aksim git webhook …`
#[derive(Debug, Subcommand)]
pub enum WebhookVerb {
    /// Webhooks of the repository.
    List(OutputArgs),
    /// Tell a receiver about pushes. It is greeted with `ping`.
    Add {
        /// Where to.
        url: String,
        /// Key of the signatures; better given by the variable than on the command line.
        #[arg(long, env = "AKSIM_WEBHOOK_SECRET", hide_env_values = true)]
        secret: Option<String>,
        /// Events: `push`, `ping`.
        #[arg(long = "event", default_value = "push")]
        events: Vec<String>,
        /// Send a form with the JSON in it, as old receivers want it.
        #[arg(long)]
        form: bool,
    },
    /// Remove a webhook.
    Remove {
        /// Id, as `list` shows it.
        id: u64,
    },
    /// Send `ping`.
    Ping {
        /// Id, as `list` shows it.
        id: u64,
    },
    /// What was sent, newest first, and what came of it.
    Deliveries {
        /// Id of the webhook.
        id: u64,
        /// Form of the data.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Send a delivery again.
    Redeliver {
        /// Id of the webhook.
        id: u64,
        /// Id of the delivery, as `deliveries` shows it.
        delivery: u64,
    },
}

/// `aksim git-credential`, called by git (gitcredentials(7)).
#[derive(Debug, Args)]
pub struct CredentialArgs {
    /// `get`, `store` or `erase`.
    operation: String,
}

/// The API of the environment's Git host, as its user.
struct Api {
    http: reqwest::Client,
    credential: Credential,
    repository: String,
}

impl Api {
    fn open(config: &Config, home: &Home, repository: Option<String>) -> Result<Self, Failure> {
        let credential = kept(home)?.ok_or_else(|| {
            Failure::new(Code::Failure, "the environment has no Git host yet").hint("start it with `aksim up`")
        })?;
        let pki = Pki::open(&home.pki(), "aksim CA").map_err(Failure::other)?;
        let http = azure_http_client(&pki, &[]).map_err(Failure::other)?;
        let repository = repository.unwrap_or_else(|| config.git.repository.clone());
        Ok(Self { http, credential, repository })
    }

    /// Calls the API; `path` is below the repository unless it begins with `/`.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let Credential { url, organization, username, password } = &self.credential;
        let url = match path.strip_prefix('/') {
            Some(path) => format!("{url}/api/v3/{path}"),
            None => format!("{url}/api/v3/repos/{organization}/{}/{path}", self.repository),
        };
        let url = url.trim_end_matches('/');
        let mut request = self.http.request(method, url).basic_auth(username, Some(password));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| {
            Failure::new(Code::Failure, format!("the Git host does not answer: {error}"))
                .hint("start it with `aksim up`")
        })?;
        let status = answer.status();
        let text = answer.text().await.map_err(Failure::other)?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let detail = value["errors"][0]["message"].as_str().or(value["message"].as_str()).unwrap_or(text.trim());
        Err(Failure::new(Code::Failure, format!("{url}: {status}: {detail}")))
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }
}

fn kept(home: &Home) -> Result<Option<Credential>, Failure> {
    Ok(Credential::kept(&home.component("git"))?)
}

/// Runs `aksim git`.
///
/// # Errors
/// What the Git host refuses; that it does not run.
pub async fn run(context: &Context, args: GitArgs) -> Result<(), Failure> {
    let config = context.config()?;
    let home = context.home(&config)?;
    let api = Api::open(&config, &home, args.repository)?;
    match args.verb {
        GitVerb::Url => {
            let Credential { url, organization, .. } = &api.credential;
            output::text(&format!("{url}/{organization}/{}.git\n", api.repository))
        }
        GitVerb::Status { revision, output } => status(&api, revision, output).await,
        GitVerb::Token { verb } => token(&api, verb).await,
        GitVerb::Webhook { verb } => webhook(&api, verb).await,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A table of a list, a column a field.
fn list(format: OutputArgs, rows: &Value, header: &[&'static str], fields: &[&str]) -> Result<(), Failure> {
    let rows = rows.as_array().cloned().unwrap_or_default();
    let table = |_| {
        let mut table = Table::new(header);
        for row in &rows {
            table.row(fields.iter().map(|field| text(row.pointer(field).unwrap_or(&Value::Null))));
        }
        table
    };
    let names = || rows.iter().map(|row| text(row.pointer(fields[0]).unwrap_or(&Value::Null))).collect();
    output::data(format.output, &rows, table, names)
}

async fn status(api: &Api, revision: Option<String>, format: OutputArgs) -> Result<(), Failure> {
    let revision = match revision {
        Some(revision) => revision,
        None => text(&api.get("").await?["default_branch"]),
    };
    let combined = api.get(&format!("commits/{revision}/status")).await?;
    let statuses = combined["statuses"].as_array().cloned().unwrap_or_default();
    let table = |_| {
        let mut table = Table::new(&["CONTEXT", "STATE", "BY", "DESCRIPTION", "URL"]);
        for status in &statuses {
            let cells = ["/context", "/state", "/creator/login", "/description", "/target_url"];
            table.row(cells.iter().map(|cell| text(status.pointer(cell).unwrap_or(&Value::Null))));
        }
        table.row([format!("{:.12}", text(&combined["sha"])), text(&combined["state"])]);
        table
    };
    let names = || statuses.iter().map(|s| text(&s["context"])).collect();
    output::data(format.output, &combined, table, names)
}

async fn token(api: &Api, verb: TokenVerb) -> Result<(), Failure> {
    match verb {
        TokenVerb::Create { user, note, access, expires_in } => {
            let body = json!({
                "user": user, "note": note, "access": Access::from(access), "expires_in_days": expires_in,
            });
            let made = api.call(Method::POST, "/aksim/tokens", Some(body)).await?;
            output::text(&format!("{}\n", text(&made["token"])))
        }
        TokenVerb::List(format) => {
            let fields = ["/id", "/user", "/access", "/expires_at", "/note"];
            list(format, &api.get("/aksim/tokens").await?, &["ID", "USER", "ACCESS", "EXPIRES", "NOTE"], &fields)
        }
        TokenVerb::Revoke { id } => api.call(Method::DELETE, &format!("/aksim/tokens/{id}"), None).await.map(drop),
    }
}

async fn webhook(api: &Api, verb: WebhookVerb) -> Result<(), Failure> {
    match verb {
        WebhookVerb::List(format) => {
            let fields = ["/id", "/active", "/events", "/config/url", "/last_response/status"];
            list(format, &api.get("hooks").await?, &["ID", "ACTIVE", "EVENTS", "URL", "LAST"], &fields)
        }
        WebhookVerb::Add { url, secret, events, form } => {
            let content_type = if form { "form" } else { "json" };
            let config = json!({"url": url, "secret": secret, "content_type": content_type});
            let body = json!({"name": "web", "config": config, "events": events, "active": true});
            let hook = api.call(Method::POST, "hooks", Some(body)).await?;
            output::text(&format!("{}\n", text(&hook["id"])))
        }
        WebhookVerb::Remove { id } => api.call(Method::DELETE, &format!("hooks/{id}"), None).await.map(drop),
        WebhookVerb::Ping { id } => api.call(Method::POST, &format!("hooks/{id}/pings"), None).await.map(drop),
        WebhookVerb::Deliveries { id, output } => {
            let rows = api.get(&format!("hooks/{id}/deliveries?per_page=100")).await?;
            let header = ["ID", "EVENT", "STATE", "STATUS", "CODE", "AT", "REDELIVERY", "GUID"];
            let fields =
                ["/id", "/event", "/state", "/status", "/status_code", "/delivered_at", "/redelivery", "/guid"];
            list(output, &rows, &header, &fields)
        }
        WebhookVerb::Redeliver { id, delivery } => {
            let path = format!("hooks/{id}/deliveries/{delivery}/attempts");
            api.call(Method::POST, &path, None).await.map(drop)
        }
    }
}

/// Answers git as a credential helper. What it is asked for another host it does not answer, so
/// that git goes on with its other helpers. There is nothing to store or erase: the token is the
/// environment's, and `aksim git token revoke ID` ends it.
///
/// # Errors
/// A project or state that cannot be read.
pub fn credential(context: &Context, args: &CredentialArgs) -> Result<(), Failure> {
    let mut question = String::new();
    std::io::stdin().lock().take(MAX_QUESTION).read_to_string(&mut question)?;
    if args.operation != "get" {
        return Ok(());
    }
    let config = context.config()?;
    let home = context.home(&config)?;
    match kept(&home)?.filter(|credential| asks_for(&question, &credential.url)) {
        Some(Credential { username, password, .. }) => {
            output::text(&format!("username={username}\npassword={password}\n"))
        }
        None => Ok(()),
    }
}

/// Whether git asks for the host at `url`, in its own `key=value` lines.
fn asks_for(question: &str, url: &str) -> bool {
    let value = |key: &str| question.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    match (value("protocol"), value("host")) {
        (Some(protocol), Some(host)) => url == format!("{protocol}://{host}"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_host_is_answered() {
        let url = "https://127.0.0.1:4711";
        assert!(asks_for("protocol=https\nhost=127.0.0.1:4711\npath=contoso/shop.git\n\n", url));
        for other in
            ["protocol=http\nhost=127.0.0.1:4711\n", "protocol=https\nhost=github.com\n", "host=127.0.0.1:4711\n", ""]
        {
            assert!(!asks_for(other, url), "{other}");
        }
    }
}
