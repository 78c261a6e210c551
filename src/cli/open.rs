//! `aksim open`.

use super::{
    args::OpenArgs,
    context::Context,
    failure::{Code, Failure},
    output,
};
use std::process::{Command, Stdio};

/// Prints the URLs, and opens the first in a browser when there is a desktop.
pub async fn run(context: &Context, args: OpenArgs) -> Result<(), Failure> {
    let (_, _, client) = context.running()?;
    let world = client.world().await?;
    let wanted = world.services.iter().filter(|(name, _)| args.service.as_deref().is_none_or(|s| s == name.as_str()));
    let urls: Vec<String> = wanted.flat_map(|(_, s)| s.endpoints.iter().map(|e| e.url.clone())).collect();
    let Some(first) = urls.first() else {
        let what = args.service.map_or("no service has a URL".into(), |s| format!("service {s:?} has no URL"));
        return Err(Failure::new(Code::Failure, what).hint("a service gets one by an Ingress in its manifests"));
    };
    output::text(&(urls.join("\n") + "\n"))?;
    let desktop = std::env::var_os("DISPLAY").is_some() || std::env::var_os("WAYLAND_DISPLAY").is_some();
    if output::interactive() && desktop {
        let opened = Command::new("xdg-open").arg(first).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !opened.is_ok_and(|s| s.success()) {
            eprintln!("no browser could be started");
        }
    }
    Ok(())
}
