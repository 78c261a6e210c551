//! `aksim journey`.

use super::{
    args::JourneyArgs,
    context::Context,
    failure::{Code, Failure},
    output::{self, Format, Table},
    status::age,
};
use aksim_model::journey::{Journey, JourneyOutcome};

/// Prints journeys, oldest first.
pub async fn run(context: &Context, args: JourneyArgs) -> Result<(), Failure> {
    let (_, _, client) = context.running()?;
    let mut journeys = client.world().await?.journeys;
    if let Some(service) = &args.service {
        journeys.retain(|j| j.service.as_str() == service);
    }
    if args.last {
        let Some(last) = journeys.pop() else {
            return Err(
                Failure::new(Code::Failure, "no journey yet").hint("save a file of a service, or `aksim trigger`")
            );
        };
        if matches!(args.output.output, Format::Table | Format::Wide) {
            return output::text(&waterfall(&last));
        }
        return output::data(args.output.output, &last, |_| Table::default(), || vec![last.id.to_string()]);
    }
    let names = || journeys.iter().map(|j| j.id.to_string()).collect();
    output::data(args.output.output, &journeys, |_| list(&journeys), names)
}

fn list(journeys: &[Journey]) -> Table {
    let mut table = Table::new(&["ID", "SERVICE", "CAUSE", "AGE", "MS", "OUTCOME"]);
    for journey in journeys {
        table.row([
            journey.id.as_str().chars().take(8).collect(),
            journey.service.to_string(),
            journey.cause.clone(),
            age(journey.started),
            journey.total_ms().to_string(),
            outcome(journey),
        ]);
    }
    table
}

fn outcome(journey: &Journey) -> String {
    match &journey.outcome {
        None => "under way".into(),
        Some(JourneyOutcome::Served) => "served".into(),
        Some(JourneyOutcome::Superseded) => "superseded".into(),
        Some(JourneyOutcome::Completed) => "completed, nothing deployed".into(),
        Some(JourneyOutcome::Failed(reason)) => format!("failed: {reason}"),
    }
}

/// One journey, hop by hop, with the time each took.
pub fn waterfall(journey: &Journey) -> String {
    let mut text = format!("{} {}: {} ({})\n", journey.id, journey.service, journey.cause, outcome(journey));
    let mut table = Table::new(&["HOP", "+MS", "AT MS", "EVIDENCE"]);
    let mut at = 0;
    for ((hop, took), record) in journey.legs().into_iter().zip(&journey.hops) {
        at += took;
        table.row([hop.name().to_owned(), took.to_string(), at.to_string(), record.detail.clone()]);
    }
    text.push_str(&table.render());
    text
}
