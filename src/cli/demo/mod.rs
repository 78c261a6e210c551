//! `aksim demo`: the sample shop brought up by aksim's own command line and walked through as its
//! users would, each step with evidence that was fetched, not assumed.

mod browser;
mod delivery;
mod edits;
mod project;
mod properties;
mod rows;

use super::{
    args::DemoArgs,
    context::Context,
    doctor::{self, Need},
    failure::{Code, Failure},
    output::{self, Table},
    up,
};
use crate::args::{DownArgs, UpArgs};
use aksim_config::{Config, home::Home};
use aksim_model::world::World;
use aksim_runtime::control::ControlClient;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// What a step found, or why it failed.
pub type Evidence = Result<String, String>;

/// A step with its outcome.
struct Step {
    row: &'static str,
    what: &'static str,
    evidence: Evidence,
    took: Duration,
}

/// What the steps look at.
pub struct Shop {
    /// The project.
    pub config: Config,
    /// Its home.
    pub home: Home,
    /// The running environment.
    pub control: ControlClient,
    /// What it says of itself.
    pub world: World,
    /// The cluster, as administrator.
    pub client: kube::Client,
}

impl Shop {
    /// First endpoint of a component.
    pub fn endpoint(&self, component: &str) -> Result<url::Url, String> {
        let status = self.world.components.iter().find(|(name, _)| name.as_str() == component).map(|(_, s)| s);
        let url = status.and_then(|s| s.endpoints.first()).ok_or_else(|| format!("{component} has no endpoint"))?;
        url::Url::parse(&url.url).map_err(|e| format!("{}: {e}", url.url))
    }

    /// Port of a component's endpoint.
    pub fn port(&self, component: &str) -> Result<u16, String> {
        self.endpoint(component)?.port_or_known_default().ok_or_else(|| format!("{component} has no port"))
    }
}

/// Runs the demonstration.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    if args.fix {
        doctor::install_missing(&[Need::Run]).await?;
    }
    let folder = match &args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => default_folder()?,
    };
    let written = project::write(&folder)?;
    eprintln!("the sample shop is in {} ({written} file(s) written)", folder.display());
    delivery::make_checkout(&folder).await.map_err(Failure::other)?;
    let context = Context::new(Some(folder.clone()), 0);
    let started = Instant::now();
    let upped = up::run(&context, up_args(), false).await;
    let outcome = match upped {
        Ok(()) => walk(&context, started.elapsed(), !args.without_properties).await,
        Err(failure) => Err(failure),
    };
    if args.keep && outcome.is_ok() {
        return next_steps(&context).await;
    }
    let down = up::down(&context, &DownArgs { purge: true }).await;
    outcome.and(down)
}

fn default_folder() -> Result<PathBuf, Failure> {
    let name = aksim_model::ids::EnvironmentName::from(project::NAME);
    let home = Home::locate(&name)
        .ok_or_else(|| Failure::new(Code::Environment, "there is no folder for the demo: HOME is not set"))?;
    Ok(home.cache().join("demo/shop"))
}

fn up_args() -> UpArgs {
    UpArgs { detach: true, no_dashboard: true, no_watch: false, kubeconfig: None }
}

/// Walks the rows, prints the table, fails if a step did.
async fn walk(context: &Context, up: Duration, properties: bool) -> Result<(), Failure> {
    let (config, home, control) = context.running()?;
    let world = control.world().await?;
    let shop = Shop { config, home, control, world, client: context.kubernetes().await? };
    let mut steps = vec![Step { row: "-", what: "environment up", evidence: Ok(summary(&shop.world)), took: up }];
    macro_rules! step {
        ($row:literal, $what:literal, $future:expr) => {{
            let begun = Instant::now();
            let evidence = $future.await;
            let mark = if evidence.is_ok() { "ok" } else { "FAILED" };
            eprintln!("{mark}: {}", $what);
            steps.push(Step { row: $row, what: $what, evidence, took: begun.elapsed() });
        }};
    }
    step!("1", "the project is pushed to the Git host", delivery::push(&shop));
    step!("3", "images are in the registry", rows::images(&shop));
    step!("4", "workloads run in the cluster", rows::workloads(&shop));
    step!("5", "the website is served by the ingress", rows::website(&shop));
    step!("6", "a token has Entra's claims", rows::token(&shop));
    let mut ada = browser::Browser::new(&shop).map_err(Failure::other)?;
    step!("6", "ada signs in (code + PKCE)", rows::sign_in(&mut ada, "shop.localhost", "ada"));
    step!("7", "ada's order is a row in MySQL", rows::order(&shop, &mut ada));
    step!("8", "ada gets 403 from the admin portal", rows::refused(&mut ada));
    step!("8", "olga sees the order in the admin portal", rows::admin(&shop));
    step!("5", "a stylesheet is saved and served (sync)", edits::stylesheet(&shop));
    step!("3-5", "source is saved, built and served", edits::source(&shop));
    let mut change = None;
    step!("1", "a change is committed and pushed", async {
        let (pushed, evidence) = delivery::change(&shop).await?;
        change = Some(pushed);
        Ok(evidence)
    });
    if let Some(change) = &change {
        step!("2", "the push starts the pipeline", delivery::queued(&shop, change));
        step!("1-5", "built, tested, pushed, deployed, served", delivery::delivered(&shop, change));
    }
    if properties {
        step!("-", "horizontal scaling", properties::scenario(&shop, "horizontal-scaling"));
        step!("-", "self-healing", properties::scenario(&shop, "self-healing"));
        step!("-", "load balancing", properties::scenario(&shop, "load-balancing"));
        step!("-", "secret management", properties::scenario(&shop, "secret-management"));
    }
    print(&steps)
}

fn summary(world: &World) -> String {
    let names: Vec<&str> = world.components.keys().map(|n| n.as_str()).collect();
    format!("{}; {} services", names.join(", "), world.services.len())
}

fn print(steps: &[Step]) -> Result<(), Failure> {
    let mut table = Table::new(&["ROW", "STEP", "MS", "EVIDENCE"]);
    for step in steps {
        let evidence = match &step.evidence {
            Ok(found) => found.clone(),
            Err(why) => format!("FAILED: {why}"),
        };
        table.row([step.row.into(), step.what.into(), step.took.as_millis().to_string(), evidence]);
    }
    output::text(&table.render())?;
    let failed = steps.iter().filter(|s| s.evidence.is_err()).count();
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(Code::Check, format!("{failed} of {} steps failed", steps.len()))),
    }
}

async fn next_steps(context: &Context) -> Result<(), Failure> {
    let (config, _, control) = context.running()?;
    let world = control.world().await?;
    let urls = world.services.values().flat_map(|s| &s.endpoints).map(|e| format!("  {}\n", e.url)).collect::<String>();
    let users: Vec<&str> = config.users.iter().map(|u| u.name.as_str()).collect();
    let folder = config.root.display();
    output::text(&format!(
        "\nThe shop keeps running.\n{urls}  users: {} (password: {})\n\nFive things to try:\n\
         1. cd {folder}; aksim dashboard\n\
         2. change a colour in web/static/style.css and reload the page\n\
         3. change catalog/src/api.rs, then: aksim journey --last\n\
         4. eval \"$(aksim env)\"; kubectl get pods -w, and delete one\n\
         5. break the code and save: the old version keeps serving\n\nStop it: aksim down --purge\n",
        users.join(", "),
        aksim_identity::DEVELOPMENT_PASSWORD,
    ))
}
