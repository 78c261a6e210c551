//! `aksim image build`.

use crate::{
    args::ImageBuildArgs,
    context::Context,
    failure::{Code, Failure},
    output,
};
use aksim_images::{BuildEvent, BuildRequest, Credentials, ImageBuilder};
use aksim_model::{endpoint::AzureName, image_ref::ImageRef};
use aksim_runtime::{net::azure_http_client, pki::Pki};
use std::net::SocketAddr;

/// A client that reaches the registry of the running environment by its Azure name, and the
/// registry's administrator.
///
/// # Errors
/// When the environment is not running, or has no registry.
pub async fn registry_access(context: &Context) -> Result<(reqwest::Client, Credentials), Failure> {
    let (config, home, control) = context.running()?;
    let world = control.world().await?;
    let status = world.components.iter().find(|(name, _)| name.as_str() == "registry").map(|(_, status)| status);
    let url = status.and_then(|s| s.endpoints.first()).and_then(|e| url::Url::parse(&e.url).ok());
    let port = url.and_then(|url| url.port_or_known_default());
    let port = port.ok_or_else(|| Failure::new(Code::Failure, "the environment's registry is not ready"))?;
    let host = format!("{}.azurecr.io", config.registry);
    let password = std::fs::read_to_string(home.component("registry").join("admin-password"))?;
    let pki = Pki::open(&home.pki(), &format!("aksim {} CA", config.name)).map_err(Failure::other)?;
    let credentials = Credentials::default().with(&host, &config.registry, password.trim());
    let name = AzureName { host, port: 443, target: SocketAddr::from(([127, 0, 0, 1], port)) };
    Ok((azure_http_client(&pki, &[name]).map_err(Failure::other)?, credentials))
}

/// Builds, names and pushes an image; its digest goes to standard output.
///
/// # Errors
/// Usage errors of names and arguments; what the build or the registry says.
pub async fn run(builder: &ImageBuilder, args: ImageBuildArgs) -> Result<(), Failure> {
    let tags = args.tags.iter().map(|tag| parse(tag)).collect::<Result<Vec<ImageRef>, Failure>>()?;
    let Some(first) = tags.first() else { return Err(Failure::new(Code::Usage, "an image needs a --tag")) };
    let mut request = BuildRequest::new(args.context, first.clone());
    request.dockerfile = args.file;
    request.target = args.target;
    request.no_cache = args.no_cache;
    for argument in &args.build_args {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (argument.as_str(), std::env::var(argument).unwrap_or_default()),
        };
        request.build_args.insert(name.to_owned(), value);
    }
    let cancel = request.cancel.clone();
    let build = builder.build(request, show);
    let built = tokio::select! {
        built = build => built?,
        _ = tokio::signal::ctrl_c() => {
            cancel.cancel();
            return Err(Failure::new(Code::Interrupted, "interrupted"));
        }
    };
    if args.push {
        for tag in &tags {
            let digest = builder.push(&built, tag).await?;
            eprintln!("pushed {tag}@{digest}");
        }
    }
    output::text(&format!("{}\n", built.digest))
}

fn parse(tag: &str) -> Result<ImageRef, Failure> {
    tag.parse().map_err(|e| Failure::new(Code::Usage, format!("--tag {tag}: {e}")))
}

fn show(event: BuildEvent) {
    match event {
        BuildEvent::Step { number, total, instruction } => eprintln!("[{number}/{total}] {instruction}"),
        BuildEvent::StepDone { .. } => {}
        BuildEvent::Output { line, .. } => eprintln!("  {line}"),
        BuildEvent::Warning(text) => eprintln!("warning: {text}"),
    }
}
