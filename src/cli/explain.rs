//! `aksim explain FILE`.

use super::{
    args::ExplainArgs,
    context::Context,
    failure::Failure,
    output::{self, Table},
};
use aksim_devloop::plan::{Action, Plan, Unplanned};

/// Prints what a change of the file would do. Works without a running environment.
pub fn run(context: &Context, args: &ExplainArgs) -> Result<(), Failure> {
    let config = context.config()?;
    let plan = Plan::new(&config.root, config.services);
    let file = std::path::absolute(&args.file)?;
    let decided = plan.decide(&file);
    let table = |_| {
        let mut table = Table::new(&["SERVICE", "ACTION", "WHY"]);
        match &decided {
            Ok(decisions) => {
                for d in decisions {
                    let action = match &d.action {
                        Action::Sync { to, .. } => format!("sync to {to}"),
                        Action::Apply => "apply manifests".into(),
                        Action::Rebuild => "rebuild and roll out".into(),
                    };
                    table.row([d.service.to_string(), action, d.why.clone()]);
                }
            }
            Err(Unplanned::Ignored(rule)) => table.row(["-".into(), "nothing".into(), format!("ignored: {rule}")]),
            Err(Unplanned::Unwatched) => table.row(["-".into(), "nothing".into(), "no service watches it".into()]),
        }
        table
    };
    let names = || decided.iter().flatten().map(|d| d.service.to_string()).collect();
    match &decided {
        Ok(decisions) => output::data(args.output.output, decisions, table, names),
        Err(reason) => output::data(args.output.output, reason, table, names),
    }
}
