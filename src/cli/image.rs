//! `aksim image`.

mod build;

use super::{
    args::{ImageArgs, ImageVerb},
    context::Context,
    failure::{Code, Failure},
    output::{self, Table},
};
use aksim_config::home::Home;
use aksim_images::{Credentials, ImageBuilder, ImageBuilderConfig, StoredImage};
use aksim_model::{ids::EnvironmentName, image_ref::ImageRef};
use serde_json::json;
use std::time::Duration;

/// What nothing has asked for within this is removed by `prune`.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// Lists, imports or prunes the images that builds start from. Needs no project.
pub async fn run(context: &Context, args: ImageArgs) -> Result<(), Failure> {
    let name = context.config().map_or_else(|_| EnvironmentName::from("aksim"), |config| config.name);
    let home = Home::locate(&name)
        .ok_or_else(|| Failure::new(Code::Environment, "there is no folder for images: HOME is not set"))?;
    // A registry is needed to push, and reached for base images where it runs.
    let reach = match &args.verb {
        ImageVerb::Build(build) => match build::registry_access(context).await {
            Err(failure) if build.push => return Err(failure),
            reached => reached.ok(),
        },
        _ => None,
    };
    let (http, credentials) = match reach {
        Some(reach) => reach,
        None => (
            reqwest::Client::builder().tls_backend_preconfigured(trust()?).build().map_err(Failure::other)?,
            Credentials::default(),
        ),
    };
    let builder = ImageBuilder::new(ImageBuilderConfig {
        cache_dir: home.cache().join("images"),
        exe: std::env::current_exe()?,
        http,
        credentials,
    })
    .map_err(Failure::other)?;
    match args.verb {
        ImageVerb::Build(args) => build::run(&builder, args).await,
        ImageVerb::List(args) => {
            let images = builder.list().map_err(Failure::other)?;
            let table = |_| {
                let mut table = Table::new(&["NAME", "DIGEST", "SIZE"]);
                for image in &images {
                    let size = format!("{:.1} MB", image.size as f64 / 1e6);
                    table.row([image.reference.clone(), image.manifest.digest.clone(), size]);
                }
                table
            };
            let row = |i: &StoredImage| json!({"name": i.reference, "digest": i.manifest.digest, "size": i.size});
            let rows: Vec<_> = images.iter().map(row).collect();
            output::data(args.output, &rows, table, || images.iter().map(|i| i.reference.clone()).collect())
        }
        ImageVerb::Import { path, name } => {
            let name = name
                .map(|n| n.parse::<ImageRef>())
                .transpose()
                .map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
            let imported = builder.import(&path, name.as_ref()).await.map_err(Failure::other)?;
            output::text(
                &imported.iter().map(|image| format!("{} {}\n", image.reference, image.digest)).collect::<String>(),
            )
        }
        ImageVerb::Prune => {
            let pruned = builder.prune(UNUSED).map_err(Failure::other)?;
            output::text(&format!("{} file(s) removed, {:.1} MB\n", pruned.files, pruned.bytes as f64 / 1e6))
        }
    }
}

/// Trust in the machine's own certificate authorities is not needed to look at local images.
fn trust() -> Result<rustls::ClientConfig, Failure> {
    Ok(rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}
