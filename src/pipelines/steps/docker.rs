//! `Docker@2`: build and push by the builtin image builder, to the environment's registry.

use super::{Task, glob};
use crate::{
    agent::command_line::words,
    connections::RegistryConnection,
    context::{StepContext, TaskError},
};
use aksim_images::{BuildError, BuildEvent, BuildRequest, ImageBuilder};
use aksim_model::{advice::Advice, event::FlowRow, image_ref::ImageRef, journey::Hop};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// `Docker@2`.
pub struct Docker;

#[async_trait]
impl Task for Docker {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let command = step.input("command").unwrap_or("buildAndPush").to_ascii_lowercase();
        match command.as_str() {
            "login" => login(step),
            "logout" => {
                step.log.write("Logged out; the builder keeps no sign-in between steps.");
                Ok(())
            }
            "build" => build(step).await,
            "push" => push(step).await,
            "buildandpush" => {
                build(step).await?;
                push(step).await
            }
            other => {
                Err(TaskError::Failed(format!("Docker@2: command '{other}' is not supported by the local agent.")))
            }
        }
    }
}

/// The registry behind a service connection. A name that the project does not declare stands for the local registry.
pub(super) fn connection<'a>(step: &'a StepContext<'_>, name: &str) -> Result<&'a RegistryConnection, TaskError> {
    let registries = &step.job.run.engine.config.registries;
    let found = registries.get(name).or_else(|| {
        let default = registries.get("*")?;
        step.log.write(&format!("Service connection '{name}' stands for the local registry {}.", default.login_server));
        Some(default)
    });
    found.ok_or_else(|| {
        TaskError::Failed(format!("The service connection '{name}' does not exist, and there is no local registry."))
    })
}

fn login(step: &StepContext<'_>) -> Result<(), TaskError> {
    let connection = connection(step, step.required("containerRegistry")?)?;
    step.log.write(&format!("Login Succeeded: {} as {}", connection.login_server, connection.username));
    Ok(())
}

fn builder<'a>(step: &'a StepContext<'_>) -> Result<&'a ImageBuilder, TaskError> {
    let builder = step.job.run.engine.config.images.as_ref();
    builder.ok_or_else(|| TaskError::Failed("there is no image builder in this environment".into()))
}

/// Names of the image: the repository at the registry of the connection, once for each tag.
fn names(step: &StepContext<'_>) -> Result<Vec<ImageRef>, TaskError> {
    let repository = step.required("repository")?.to_ascii_lowercase();
    let repository = match step.input("containerRegistry") {
        Some(name) => {
            let server = &connection(step, name)?.login_server;
            let bare = repository.strip_prefix(&format!("{server}/")).unwrap_or(&repository);
            format!("{server}/{bare}")
        }
        None => repository,
    };
    let mut tags: Vec<String> =
        step.lines("tags").iter().flat_map(|l| l.split(',')).map(|t| t.trim().to_owned()).collect();
    tags.retain(|t| !t.is_empty());
    if tags.is_empty() {
        tags.push(step.variable("Build.BuildId").unwrap_or_else(|| "latest".into()));
    }
    let parse = |tag: &String| format!("{repository}:{tag}").parse::<ImageRef>();
    tags.iter().map(|t| parse(t).map_err(|e| TaskError::Failed(e.to_string()))).collect()
}

async fn build(step: &StepContext<'_>) -> Result<(), TaskError> {
    let builder = builder(step)?;
    let dockerfile = dockerfile(step)?;
    let context = match step.input("buildContext") {
        None | Some("**") => dockerfile.parent().unwrap_or(Path::new("/")).to_owned(),
        Some(folder) => step.path(folder),
    };
    let arguments = Arguments::parse(&words(step.input("arguments").unwrap_or_default())?)?;
    let mut built = None;
    for name in names(step)? {
        let mut request = BuildRequest::new(context.clone(), name.clone());
        request.dockerfile = Some(dockerfile.clone());
        request.build_args.clone_from(&arguments.build_args);
        request.target.clone_from(&arguments.target);
        request.no_cache = arguments.no_cache && built.is_none();
        request.labels = labels(step);
        request.labels.extend(arguments.labels.clone());
        request.cancel = step.cancel.clone();
        step.log.command(&format!("docker build -f {} -t {name} {}", dockerfile.display(), context.display()));
        let log = Sink(step);
        // The second name of an image takes every layer from the cache.
        let quiet = built.is_some();
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let building = builder.build(request, move |event| {
            // The receiver lives as long as the build.
            let _ = sender.send(event);
        });
        let telling = async {
            while let Some(event) = events.recv().await {
                if !quiet {
                    log.tell(event);
                }
            }
        };
        let (image, ()) = tokio::join!(building, telling);
        let image = image.map_err(|e| failed(&e))?;
        step.log.write(&format!("Successfully built {} and tagged {name}", image.digest));
        built = Some(image);
    }
    if let Some(image) = built {
        let run = &step.job.run;
        run.journey.hop(&run.engine, Hop::Built, &image.digest);
        let name = step.required("repository")?;
        run.journey.flow(&run.engine, FlowRow::Package, true, format!("{name} built by run {}", run.id));
    }
    Ok(())
}

async fn push(step: &StepContext<'_>) -> Result<(), TaskError> {
    let builder = builder(step)?;
    let run = &step.job.run;
    for name in names(step)? {
        step.log.command(&format!("docker push {name}"));
        let pushing = builder.push_stored(&name, &name);
        let digest = tokio::select! {
            () = step.cancel.cancelled() => return Err(TaskError::Cancelled),
            digest = pushing => digest.map_err(|e| failed(&e))?,
        };
        step.log.write(&format!("{}: digest: {digest}", name.tag.as_deref().unwrap_or_default()));
        run.journey.hop(&run.engine, Hop::Pushed, &format!("{name}@{digest}"));
        run.journey.flow(&run.engine, FlowRow::Package, true, format!("{name} pushed by run {}", run.id));
    }
    Ok(())
}

fn failed(error: &BuildError) -> TaskError {
    match error {
        BuildError::Cancelled => TaskError::Cancelled,
        _ => TaskError::Failed(match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        }),
    }
}

struct Sink<'a, 'b>(&'a StepContext<'b>);

impl Sink<'_, '_> {
    fn tell(&self, event: BuildEvent) {
        match event {
            BuildEvent::Step { number, total, instruction } => {
                self.0.log.write(&format!("Step {number}/{total} : {instruction}"));
            }
            BuildEvent::StepDone { cached: true, .. } => self.0.log.write(" ---> Using cache"),
            BuildEvent::StepDone { .. } => {}
            BuildEvent::Output { line, .. } => self.0.log.write(&line),
            BuildEvent::Warning(text) => self.0.log.warning(&text),
        }
    }
}

fn dockerfile(step: &StepContext<'_>) -> Result<PathBuf, TaskError> {
    let pattern = step.input("Dockerfile").unwrap_or("**/Dockerfile").to_owned();
    let found = glob::find(&step.sources(), std::slice::from_ref(&pattern))?;
    let file = found.into_iter().find(|f| f.is_file());
    file.ok_or_else(|| {
        let folder = step.sources();
        TaskError::Failed(format!("Unhandled: No Dockerfile matching {pattern} was found in {}", folder.display()))
    })
}

/// Labels by which an image tells its run (`addPipelineData`), and whose it is.
fn labels(step: &StepContext<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if let Some(cluster) = &step.job.run.engine.config.cluster {
        labels.insert(aksim_cluster::apply::ENVIRONMENT_LABEL.to_owned(), cluster.environment.clone());
    }
    if step.flag("addPipelineData", true) {
        for (label, variable) in [
            ("com.azure.dev.image.build.buildnumber", "Build.BuildNumber"),
            ("com.azure.dev.image.build.builduri", "Build.BuildUri"),
            ("com.azure.dev.image.build.definitionname", "Build.DefinitionName"),
            ("com.azure.dev.image.build.repository.name", "Build.Repository.Name"),
            ("com.azure.dev.image.build.repository.uri", "Build.Repository.Uri"),
            ("com.azure.dev.image.build.sourcebranchname", "Build.SourceBranchName"),
            ("com.azure.dev.image.build.sourceversion", "Build.SourceVersion"),
            ("com.azure.dev.image.system.teamproject", "System.TeamProject"),
        ] {
            labels.extend(step.variable(variable).map(|value| (label.to_owned(), value)));
        }
    }
    labels
}

/// What `arguments` may say to the builder.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    target: Option<String>,
    no_cache: bool,
}

impl Arguments {
    fn parse(words: &[String]) -> Result<Self, TaskError> {
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let mut value = || {
                value
                    .clone()
                    .or_else(|| words.next().cloned())
                    .ok_or_else(|| TaskError::Failed(format!("{option} needs a value")))
            };
            let pair = |text: String| {
                text.split_once('=').map_or((text.clone(), String::new()), |(k, v)| (k.into(), v.into()))
            };
            match option {
                "--build-arg" => parsed.build_args.extend([pair(value()?)]),
                "--label" => parsed.labels.extend([pair(value()?)]),
                "--target" => parsed.target = Some(value()?),
                "--no-cache" => parsed.no_cache = true,
                "--pull" | "--rm" | "--force-rm" | "-q" | "--quiet" => {}
                "--progress" => drop(value()?),
                _ => return Err(TaskError::Failed(format!("argument {word} is not supported by the builtin builder"))),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_mean_something_else_are_refused() {
        let parse = |t: &str| Arguments::parse(&words(t).unwrap());
        let parsed = parse("--build-arg A=1 --build-arg=B=x=y --target run --no-cache").unwrap();
        assert_eq!(parsed.build_args, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "x=y".into())]));
        assert_eq!((parsed.target.as_deref(), parsed.no_cache), (Some("run"), true));
        assert!(parse("--network host").is_err() && parse("--target").is_err());
    }
}
