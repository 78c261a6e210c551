//! `aksim status` and `aksim trigger`.

use super::{
    args::{OutputArgs, TriggerArgs},
    context::Context,
    failure::Failure,
    output::{self, Table},
};
use aksim_model::{
    command::Command,
    event::{ComponentState, ServiceState},
    ids::ServiceName,
    world::World,
};
use jiff::Timestamp;

/// Prints components and services.
pub async fn run(context: &Context, args: OutputArgs) -> Result<(), Failure> {
    let (_, _, client) = context.running()?;
    let world = client.world().await?;
    let names = || world.services.keys().map(|s| format!("service/{s}")).collect();
    output::data(args.output, &world, |wide| table(&world, wide), names)
}

fn table(world: &World, wide: bool) -> Table {
    let mut table = match wide {
        true => Table::new(&["NAME", "STATE", "AGE", "VERSION", "ENDPOINT", "MESSAGE"]),
        false => Table::new(&["NAME", "STATE", "AGE", "ENDPOINT", "MESSAGE"]),
    };
    let endpoint = |endpoints: &[aksim_model::endpoint::Endpoint]| {
        endpoints.iter().map(|e| e.url.as_str()).collect::<Vec<_>>().join(",")
    };
    let mut add = |name: String, state: &str, since: Timestamp, version: String, endpoint: String, message: &str| {
        let first = message.lines().next().unwrap_or_default().to_owned();
        let mut cells = vec![name, state.to_owned(), age(since)];
        if wide {
            cells.push(version);
        }
        cells.extend([endpoint, first]);
        table.row(cells);
    };
    for (name, c) in &world.components {
        add(name.to_string(), component_state(c.state), c.since, String::new(), endpoint(&c.endpoints), &c.message);
    }
    for (name, s) in &world.services {
        let version = s.serving.clone().unwrap_or_default();
        add(format!("service/{name}"), service_state(s.state), s.since, version, endpoint(&s.endpoints), &s.message);
    }
    table
}

/// A component's state as it is printed.
pub fn component_state(state: ComponentState) -> &'static str {
    match state {
        ComponentState::Starting => "starting",
        ComponentState::Ready => "ready",
        ComponentState::Degraded => "degraded",
        ComponentState::Failed => "failed",
        ComponentState::Stopped => "stopped",
    }
}

/// A service's state as it is printed.
pub fn service_state(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Pending => "pending",
        ServiceState::Building => "building",
        ServiceState::Pushing => "pushing",
        ServiceState::RollingOut => "rolling-out",
        ServiceState::Ready => "ready",
        ServiceState::Failed => "failed",
    }
}

/// Time since, as kubectl prints ages.
pub fn age(since: Timestamp) -> String {
    let seconds = (Timestamp::now().as_second() - since.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Asks for a build and rollout.
pub async fn trigger(context: &Context, args: TriggerArgs) -> Result<(), Failure> {
    let (_, _, client) = context.running()?;
    let reply = client.command(&Command::Trigger { service: args.service.map(ServiceName::new) }).await?;
    output::text(&(reply.message + "\n"))
}
