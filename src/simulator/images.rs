//! The image builder of an environment, and the same as the inner loop's packager.

use crate::ground::Ground;
use aksim_cluster::provider::RegistryLogin;
use aksim_config::ServiceConfig;
use aksim_devloop::{LineSink, Packager};
use aksim_images::{BuildError, BuildEvent, BuildRequest, BuiltImage, Credentials, ImageBuilder, ImageBuilderConfig};
use aksim_model::{advice::Advice, image_ref::ImageRef};
use async_trait::async_trait;
use std::{collections::BTreeMap, time::Duration};

/// Digits of the content that become a tag.
const TAG_DIGITS: usize = 12;

/// How long one image may take.
const BUILD_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// A builder that pushes to the environment's registry.
///
/// # Errors
/// [`BuildError`] of its cache.
pub fn builder(ground: &Ground, login: &RegistryLogin, http: reqwest::Client) -> Result<ImageBuilder, BuildError> {
    ImageBuilder::new(ImageBuilderConfig {
        cache_dir: ground.home.cache().join("images"),
        exe: ground.options.exe.clone(),
        http,
        credentials: Credentials::default().with(&login.host, &login.username, &login.password),
    })
}

/// Builds with the builtin engine and pushes to the environment's registry.
pub struct BuiltinPackager {
    builder: ImageBuilder,
    environment: String,
    built: parking_lot::Mutex<BTreeMap<ImageRef, BuiltImage>>,
}

impl BuiltinPackager {
    /// A packager that labels its images with the environment's id.
    pub fn new(builder: ImageBuilder, environment: &str) -> Self {
        Self { builder, environment: environment.to_owned(), built: parking_lot::Mutex::default() }
    }
}

#[async_trait]
impl Packager for BuiltinPackager {
    async fn build(&self, service: &ServiceConfig, on_line: LineSink) -> Result<ImageRef, String> {
        let mut request = BuildRequest::new(service.context.clone(), service.image.clone());
        request.dockerfile = Some(service.dockerfile.clone());
        request.build_args = service.build_args.clone();
        request.labels =
            BTreeMap::from([(aksim_cluster::apply::ENVIRONMENT_LABEL.to_owned(), self.environment.clone())]);
        request.deadline = Some(BUILD_DEADLINE);
        let built = self.builder.build(request, move |event| tell(event, &on_line)).await.map_err(|e| in_full(&e))?;
        let digits: String = built.digest.trim_start_matches("sha256:").chars().take(TAG_DIGITS).collect();
        let image = service.image.with_tag(&format!("sha-{digits}"));
        self.built.lock().insert(image.clone(), built);
        Ok(image)
    }

    async fn push(&self, image: &ImageRef) -> Result<String, String> {
        let built = self.built.lock().remove(image).ok_or_else(|| format!("{image} has not been built"))?;
        let digest = self.builder.push(&built, image).await.map_err(|e| in_full(&e))?;
        Ok(digest.to_string())
    }
}

fn tell(event: BuildEvent, on_line: &LineSink) {
    match event {
        BuildEvent::Step { number, total, instruction } => on_line(&format!("[{number}/{total}] {instruction}")),
        BuildEvent::StepDone { .. } => {}
        BuildEvent::Output { line, .. } => on_line(&line),
        BuildEvent::Warning(text) => on_line(&format!("warning: {text}")),
    }
}

/// The error with its next step.
fn in_full(error: &BuildError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}
