//! Which containers a job needs.

use crate::plan::{Container, ContainerRef, Job, Step};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// `target:` of a step that leaves the job's container.
pub const HOST: &str = "host";

/// A container of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerName {
    /// `services:`, by its key.
    Service(String),
    /// `container:` of the job.
    Job,
    /// `target:` of a step, by its alias.
    Target(String),
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job => f.write_str("of the job"),
            Self::Target(alias) => write!(f, "of the step target '{alias}'"),
            Self::Service(alias) => write!(f, "of the service '{alias}'"),
        }
    }
}

impl ContainerName {
    /// Name by which the others reach it.
    pub fn host_name(&self) -> String {
        match self {
            Self::Job => "job".to_owned(),
            Self::Target(alias) => format!("target-{}", label(alias)),
            Self::Service(alias) => alias.to_ascii_lowercase(),
        }
    }

    /// Name of its pod.
    pub fn pod_name(&self) -> String {
        match self {
            Self::Service(_) => format!("service-{}", self.host_name()),
            _ => self.host_name(),
        }
    }
}

/// Letters that names of Kubernetes do not have become dashes.
fn label(text: &str) -> String {
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    letters.collect::<String>().trim_matches('-').to_owned()
}

/// The containers that a job needs, services first.
#[derive(Debug, Default)]
pub struct Needs {
    containers: BTreeMap<ContainerName, Container>,
}

impl Needs {
    /// Reads them from a job; `expand` puts in the values of variables.
    ///
    /// # Errors
    /// An alias that is not there, a name that no host can have, an image that is not one.
    pub fn of(
        job: &Job,
        steps: &[&Step],
        resources: &[Container],
        expand: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let mut needs = Self::default();
        let resolved = |reference: &ContainerRef| resolve(reference, resources, expand);
        if let Some(reference) = &job.container
            && let Some(container) = resolved(reference)?
        {
            needs.containers.insert(ContainerName::Job, container);
        }
        for (alias, reference) in &job.services {
            let host = alias.to_ascii_lowercase();
            if host != label(alias)
                || host.is_empty()
                || host.len() > 63
                || host.starts_with(|c: char| c.is_ascii_digit())
            {
                return Err(format!(
                    "{}: '{alias}' cannot be the host name of a service here: letters, digits and dashes, a letter first",
                    job.location
                ));
            }
            if let Some(container) = resolved(reference)? {
                needs.containers.insert(ContainerName::Service(alias.clone()), container);
            }
        }
        for target in steps.iter().filter_map(|s| s.target.as_ref()?.container.as_deref()) {
            let name = ContainerName::Target(target.to_owned());
            if target != HOST && !needs.containers.contains_key(&name) {
                let found = resolved(&ContainerRef::Alias(target.to_owned()))?;
                needs.containers.extend(found.map(|container| (name, container)));
            }
        }
        Ok(needs)
    }

    /// Whether the job runs without any.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&ContainerName, &Container)> {
        self.containers.iter()
    }

    /// Where a step runs: the container's name, or none for the agent's machine.
    pub fn of_step(&self, step: &Step) -> Option<ContainerName> {
        let name = match step.target.as_ref().and_then(|t| t.container.as_deref()) {
            Some(HOST) => return None,
            Some(alias) => ContainerName::Target(alias.to_owned()),
            None => ContainerName::Job,
        };
        self.containers.contains_key(&name).then_some(name)
    }
}

/// The container that is meant, its values put in; none for an image that turned out empty (a matrix with legs that
/// run on the machine).
fn resolve(
    reference: &ContainerRef,
    resources: &[Container],
    expand: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Option<Container>, String> {
    let by_alias = |alias: &str| resources.iter().find(|c| c.alias.eq_ignore_ascii_case(alias));
    let mut container = match reference {
        ContainerRef::Alias(alias) => {
            by_alias(alias).cloned().ok_or_else(|| format!("there is no container '{alias}' under resources"))?
        }
        ContainerRef::Inline(inline) => by_alias(&expand(&inline.image)?).unwrap_or(inline).clone(),
    };
    if container.image.is_empty()
        && let Some(image) = of_azure(&container)
    {
        container.image = image;
    }
    let texts = [&mut container.image].into_iter().chain(container.env.values_mut());
    let texts = texts.chain(&mut container.ports).chain(&mut container.volumes).chain(&mut container.options);
    for text in texts {
        *text = expand(text)?;
    }
    Ok((!container.image.trim().is_empty()).then_some(container))
}

/// `REGISTRY.azurecr.io/REPOSITORY:latest` of `type: ACR`.
fn of_azure(container: &Container) -> Option<String> {
    let text = |key: &str| container.more.get(key).and_then(Value::as_str);
    text("type").filter(|t| t.eq_ignore_ascii_case("acr"))?;
    Some(format!("{}.azurecr.io/{}:latest", text("registry")?, text("repository")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Legs, Uses, Work};

    fn job(container: Option<ContainerRef>, services: &[(&str, ContainerRef)]) -> Job {
        let json = serde_json::json!({"name": "j", "work": {"steps": []}, "location": crate::Location::default()});
        let mut job: Job = serde_json::from_value(json).unwrap();
        assert!(job.legs == Legs::default() && job.uses == Uses::default() && matches!(job.work, Work::Steps(_)));
        job.container = container;
        job.services = services.iter().map(|(name, c)| ((*name).to_owned(), c.clone())).collect();
        job
    }

    fn image(image: &str) -> ContainerRef {
        ContainerRef::Inline(Box::new(Container { image: image.into(), ..Container::default() }))
    }

    #[test]
    fn aliases_values_and_registries_of_azure_are_resolved() {
        let mut acr = Container { alias: "acr".into(), ..Container::default() };
        for (key, value) in [("type", "ACR"), ("registry", "shopacr"), ("repository", "tools")] {
            acr.more.insert(key.into(), value.into());
        }
        let db = Container { alias: "db".into(), image: "mysql:$(v)".into(), ..Container::default() };
        let resources = [acr, db];
        let expand = |text: &str| Ok(text.replace("$(v)", "8").replace("$(which)", "db"));
        let found = |job: &Job| {
            let needs = Needs::of(job, &[], &resources, &expand)?;
            Ok::<_, String>(needs.all().map(|(n, c)| format!("{} {}", n.pod_name(), c.image)).collect::<Vec<_>>())
        };
        let alias = |a: &str| ContainerRef::Alias(a.into());
        assert_eq!(found(&job(Some(alias("ACR")), &[])).unwrap(), ["job shopacr.azurecr.io/tools:latest"]);
        assert_eq!(
            found(&job(Some(image("$(which)")), &[("Redis", image("redis:7"))])).unwrap(),
            ["service-redis redis:7", "job mysql:8"]
        );
        assert!(found(&job(Some(image("")), &[])).unwrap().is_empty(), "a leg without an image runs on the machine");
        assert!(found(&job(Some(alias("none")), &[])).unwrap_err().contains("'none'"));
        assert!(found(&job(None, &[("my_db", alias("db"))])).unwrap_err().contains("my_db"));
    }
}
