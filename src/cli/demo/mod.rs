//! `aksim demo`: the sample shop brought up by aksim's own command line and walked through as its
//! users would, each step with evidence that was fetched, not assumed.

mod browser;
mod delivery;
mod edits;
mod ending;
pub mod project;
mod properties;
mod report;
mod rows;

use super::{
    args::DemoArgs,
    context::Context,
    doctor::{self, Need},
    failure::{Code, Failure},
    output::{self, Format},
    up,
};
use crate::args::{DownArgs, UpArgs};
use aksim_config::{Config, home::Home};
use aksim_model::world::World;
use aksim_runtime::control::ControlClient;
use report::Report;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What a step found, or why it failed.
pub type Evidence = Result<String, String>;

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
    let folder = match &args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => default_folder()?,
    };
    let stop = CancellationToken::new();
    ending::until_interrupted(demonstrate(&args, &folder, &stop), &stop, &folder).await
}

/// Everything from the sample's files to the end of the environment, which comes early once `stop` is cancelled.
async fn demonstrate(args: &DemoArgs, folder: &Path, stop: &CancellationToken) -> Result<(), Failure> {
    let prepared = stop.run_until_cancelled(prepare(args, folder)).await;
    prepared.unwrap_or_else(|| Err(ending::interrupted()))?;
    let context = Context::new(Some(folder.to_owned()), 0);
    let mut report = Report::new(Instant::now());
    let outcome = match start(&context, args, stop).await {
        Ok(()) => {
            let walked = stop.run_until_cancelled(walk(&context, !args.without_properties, &mut report)).await;
            walked.unwrap_or_else(|| Err(ending::interrupted()))
        }
        Err(failure) => Err(failure),
    };
    let outcome = outcome.and_then(|()| report.print(args.output.output));
    if args.keep && stop.is_cancelled() {
        return outcome.map_err(|failure| failure.hint(format!("stop it: {}", ending::way_to_stop(folder))));
    }
    if args.keep && outcome.is_ok() {
        return next_steps(&context, args.output.output).await;
    }
    let down = up::down(&context, &DownArgs { purge: true }).await;
    match (outcome, down) {
        (Err(failure), Err(down)) => {
            let message = format!("{}; then: {}", failure.message, down.message);
            Err(Failure { code: failure.code, message, hint: Some(ending::way_to_stop(folder)) })
        }
        (outcome, down) => outcome.and(down),
    }
}

/// The sample's files, its crates, and a checkout of it.
async fn prepare(args: &DemoArgs, folder: &Path) -> Result<(), Failure> {
    let needs: &[Need] = if args.fix { &[Need::Run, Need::Demo] } else { &[Need::Demo] };
    doctor::install_missing(needs).await?;
    let written = project::write(folder)?;
    eprintln!("the sample shop is in {} ({written} file(s) written)", folder.display());
    delivery::make_checkout(folder).await.map_err(Failure::other)
}

/// Brings the environment up. One that is to be kept goes on by itself when the demonstration is interrupted.
async fn start(context: &Context, args: &DemoArgs, stop: &CancellationToken) -> Result<(), Failure> {
    let up_args = UpArgs { detach: true, no_dashboard: true, no_watch: false, kubeconfig: None };
    if !args.keep {
        let upped = up::detach(context, &up_args, stop.cancelled()).await;
        return upped.map_err(|failure| if stop.is_cancelled() { ending::interrupted() } else { failure });
    }
    let up = up::detach(context, &up_args, std::future::pending());
    stop.run_until_cancelled(up).await.unwrap_or_else(|| Err(ending::interrupted()))
}

fn default_folder() -> Result<PathBuf, Failure> {
    let name = aksim_model::ids::EnvironmentName::from(project::NAME);
    let home = Home::locate(&name)
        .ok_or_else(|| Failure::new(Code::Environment, "there is no folder for the demo: HOME is not set"))?;
    Ok(home.cache().join("demo/shop"))
}

/// Walks the rows and the properties.
async fn walk(context: &Context, properties: bool, report: &mut Report) -> Result<(), Failure> {
    let up = report.elapsed();
    let (config, home, control) = context.running()?;
    let world = control.world().await?;
    let shop = Shop { config, home, control, world, client: context.kubernetes().await? };
    report.row(None, "environment up", Ok(summary(&shop.world)), up);
    macro_rules! step {
        ($row:literal, $what:literal, $future:expr) => {{
            let begun = Instant::now();
            let evidence = $future.await;
            report.row(Some($row), $what, evidence, begun.elapsed());
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
        for (name, scenario) in properties::ALL {
            let begun = Instant::now();
            let evidence = properties::scenario(&shop, scenario).await;
            report.property(name, evidence, begun.elapsed());
        }
    }
    Ok(())
}

fn summary(world: &World) -> String {
    let names: Vec<&str> = world.components.keys().map(|n| n.as_str()).collect();
    format!("{}; {} services", names.join(", "), world.services.len())
}

async fn next_steps(context: &Context, format: Format) -> Result<(), Failure> {
    let (config, _, control) = context.running()?;
    let world = control.world().await?;
    let urls = world.services.values().flat_map(|s| &s.endpoints).map(|e| format!("  {}\n", e.url)).collect::<String>();
    let users: Vec<&str> = config.users.iter().map(|u| u.name.as_str()).collect();
    let folder = config.root.display();
    let text = format!(
        "\nThe shop keeps running.\n{urls}  users: {} (password: {})\n\nFive things to try:\n\
         1. cd {folder}; aksim dashboard\n\
         2. change a colour in web/static/style.css and reload the page\n\
         3. change catalog/src/api.rs, then: aksim journey --last\n\
         4. eval \"$(aksim env)\"; kubectl get pods -w, and delete one\n\
         5. break the code and save: the old version keeps serving\n\nStop it: aksim down --purge\n",
        users.join(", "),
        aksim_identity::DEVELOPMENT_PASSWORD,
    );
    match format {
        Format::Table | Format::Wide => output::text(&text),
        // Standard output is for data.
        Format::Json | Format::Yaml | Format::Name => {
            eprint!("{text}");
            Ok(())
        }
    }
}
