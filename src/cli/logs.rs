//! `aksim logs`.

use super::{
    args::LogsArgs,
    context::Context,
    failure::{Code, Failure},
    output,
};
use aksim_model::{ids::ServiceName, log::LogQuery};
use futures::StreamExt;

/// Prints log lines, the service in front.
pub async fn run(context: &Context, args: LogsArgs) -> Result<(), Failure> {
    let (config, _, client) = context.running()?;
    if let Some(name) = &args.service
        && !config.services.iter().any(|s| s.name.as_str() == name)
    {
        let known: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        let hint = format!("services: {}", known.join(", "));
        return Err(Failure::new(Code::Usage, format!("no service {name:?} in aksim.toml")).hint(hint));
    }
    let query = LogQuery { service: args.service.map(ServiceName::new), tail: args.tail, follow: args.follow };
    let mut lines = std::pin::pin!(client.logs(&query).await?);
    while let Some(line) = lines.next().await {
        output::text(&format!("{} {} {}\n", line.service, line.pod, line.line))?;
    }
    Ok(())
}
