//! `KubernetesManifest@1`: deploy, createSecret, delete, scale, patch through the Kubernetes API.

mod rollouts;

use super::{Task, docker::connection, glob};
use crate::{
    agent::command_line::words,
    connections::ClusterConnection,
    context::{StepContext, TaskError},
};
use aksim_cluster::{
    deploy::{self, Cluster, Options, Step},
    manifests::Manifest,
};
use aksim_model::image_ref::ImageRef;
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    discovery::{ApiResource, Discovery, Scope},
};
use rollouts::Rollouts;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Field manager of what pipelines apply; labels that `aksim up` has set stay.
const FIELD_MANAGER: &str = "azure-pipelines";
/// How often a container may end on its way up: it may wait for others of the same deployment.
const RESTARTS: i32 = 3;

/// How long a rollout may take where the step does not say.
const ROLLOUT_SECONDS: u64 = 600;

/// `KubernetesManifest@0` and `@1`.
pub struct KubernetesManifest;

#[async_trait]
impl Task for KubernetesManifest {
    async fn run(&self, step: &StepContext<'_>) -> Result<(), TaskError> {
        let cluster = step.job.run.engine.config.cluster.clone();
        let cluster = cluster.ok_or_else(|| TaskError::Failed("there is no cluster in this environment".into()))?;
        if let Some(name) =
            step.input("kubernetesServiceConnection").or_else(|| step.input("azureSubscriptionConnection"))
        {
            step.log.write(&format!("Service connection '{name}' stands for the local cluster."));
        }
        let manifest = Work { step, cluster };
        let action = step.input("action").unwrap_or("deploy");
        match action.to_ascii_lowercase().as_str() {
            "deploy" => manifest.deploy().await,
            "createsecret" => manifest.create_secret().await,
            "delete" => manifest.delete().await,
            "scale" => manifest.scale().await,
            "patch" => manifest.patch().await,
            "bake" | "promote" | "reject" => Err(TaskError::Failed(format!(
                "KubernetesManifest: action '{action}' is not supported by the local agent."
            ))),
            other => Err(TaskError::Failed(format!("KubernetesManifest: '{other}' is not an action."))),
        }
    }
}

struct Work<'a, 'b> {
    step: &'a StepContext<'b>,
    cluster: ClusterConnection,
}

fn refused(what: &str, error: &kube::Error) -> TaskError {
    match error {
        kube::Error::Api(status) => TaskError::Failed(format!("{what}: {}", status.message)),
        other => TaskError::Failed(format!("{what}: {other}")),
    }
}

impl Work<'_, '_> {
    fn namespace(&self) -> Option<&str> {
        self.step.input("namespace")
    }

    async fn deploy(&self) -> Result<(), TaskError> {
        let strategy = self.step.input("strategy").unwrap_or("none");
        if !strategy.eq_ignore_ascii_case("none") {
            return Err(TaskError::Failed(format!(
                "KubernetesManifest: strategy '{strategy}' is not supported by the local agent."
            )));
        }
        let manifests = self.manifests()?;
        let seconds = self.step.input("rolloutStatusTimeout").and_then(|s| s.parse().ok()).filter(|s| *s > 0);
        let options = Options {
            field_manager: FIELD_MANAGER,
            service: None,
            images: self.images()?,
            pull_secrets: self.step.lines("imagePullSecrets"),
            deadline: Duration::from_secs(seconds.unwrap_or(ROLLOUT_SECONDS)),
            restarts: RESTARTS,
        };
        let ClusterConnection { client, dialer, environment, .. } = &self.cluster;
        let cluster = Cluster { client, dialer, environment };
        let mut rollouts = Rollouts::new(self.step, options.deadline);
        let tell = |step: Step<'_>| rollouts.hear(step);
        let deployed = deploy::deploy(cluster, manifests, &options, &self.step.cancel, tell).await;
        deployed.map_err(|error| rollouts.failed(error))
    }

    fn manifests(&self) -> Result<Vec<Manifest>, TaskError> {
        let lines = self.step.lines("manifests");
        let lines: Vec<String> = lines.iter().flat_map(|l| l.split(',')).map(|l| l.trim().to_owned()).collect();
        self.loaded(&lines)
    }

    /// Objects of the files that lines name, in the namespace of the step where it has one.
    fn loaded(&self, lines: &[String]) -> Result<Vec<Manifest>, TaskError> {
        let found = glob::find(&self.step.sources(), lines)?;
        if found.is_empty() {
            return Err(TaskError::Failed(format!("No manifest file(s) matching {} was found.", lines.join(" "))));
        }
        deploy::load(&found, self.namespace()).map_err(|e| TaskError::Failed(e.to_string()))
    }

    fn images(&self) -> Result<Vec<ImageRef>, TaskError> {
        let lines = self.step.lines("containers");
        let parse = |text: &String| text.parse::<ImageRef>().map_err(|e| TaskError::Failed(e.to_string()));
        lines.iter().map(parse).collect()
    }

    async fn create_secret(&self) -> Result<(), TaskError> {
        let name = self.step.required("secretName")?.to_owned();
        let docker = self.step.input("secretType").is_none_or(|t| t.eq_ignore_ascii_case("dockerRegistry"));
        let (kind, data) = if docker {
            let connection = connection(self.step, self.step.required("dockerRegistryEndpoint")?)?;
            let auth = STANDARD.encode(format!("{}:{}", connection.username, connection.password));
            let config = json!({"auths": {&connection.login_server: {
                "username": connection.username, "password": connection.password, "auth": auth}}});
            (
                "kubernetes.io/dockerconfigjson",
                BTreeMap::from([(".dockerconfigjson".to_owned(), config.to_string().into_bytes())]),
            )
        } else {
            ("Opaque", self.literals()?)
        };
        let data: BTreeMap<String, String> = data.into_iter().map(|(k, v)| (k, STANDARD.encode(v))).collect();
        let object =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data});
        let api: Api<Secret> = Api::namespaced(self.cluster.client.clone(), self.namespace().unwrap_or("default"));
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .map_err(|e| refused(&format!("secret {name}"), &e))?;
        self.step.log.write(&format!("secret/{name} configured"));
        Ok(())
    }

    /// `--from-literal=key=value` and `--from-file=[key=]path` of `secretArguments`.
    fn literals(&self) -> Result<BTreeMap<String, Vec<u8>>, TaskError> {
        let mut data = BTreeMap::new();
        let words = words(self.step.input("secretArguments").unwrap_or_default())?;
        let mut words = words.iter().flat_map(|w| match w.split_once('=') {
            Some((option, rest)) if option.starts_with("--") => vec![option.to_owned(), rest.to_owned()],
            _ => vec![w.clone()],
        });
        while let Some(option) = words.next() {
            let value = words.next().ok_or_else(|| TaskError::Failed(format!("{option} needs a value")))?;
            match (option.as_str(), value.split_once('=')) {
                ("--from-literal", Some((key, value))) => drop(data.insert(key.to_owned(), value.as_bytes().to_vec())),
                ("--from-file", pair) => {
                    let path = self.step.path(pair.map_or(value.as_str(), |(_, path)| path));
                    let key = pair.map_or_else(
                        || path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                        |(k, _)| k.to_owned(),
                    );
                    data.insert(key, std::fs::read(&path).map_err(|e| TaskError::file("read", &path, &e))?);
                }
                _ => return Err(TaskError::Failed(format!("secretArguments: {option} is not supported"))),
            }
        }
        Ok(data)
    }

    async fn delete(&self) -> Result<(), TaskError> {
        let words = words(self.step.required("arguments")?)?;
        let delete = Delete::parse(&words)?;
        let namespace = self.namespace().or(delete.namespace.as_deref()).unwrap_or("default");
        for (kind, name) in &delete.objects {
            let api = self.api(kind, namespace).await?;
            match api.delete(name, &DeleteParams::default()).await {
                Ok(_) => self.step.log.write(&format!("{kind}/{name} deleted")),
                Err(kube::Error::Api(status)) if status.code == 404 && delete.ignore_not_found => {
                    self.step.log.write(&format!("{kind}/{name} not found"));
                }
                Err(error) => return Err(refused(&format!("delete {kind}/{name}"), &error)),
            }
        }
        Ok(())
    }

    async fn scale(&self) -> Result<(), TaskError> {
        let (kind, name) = (self.step.required("kind")?, self.step.required("name")?);
        let replicas: u32 = self
            .step
            .required("replicas")?
            .parse()
            .map_err(|_| TaskError::Failed("replicas is not a number".into()))?;
        let patch = json!({"spec": {"replicas": replicas}});
        let api = self.api(kind, self.namespace().unwrap_or("default")).await?;
        api.patch_scale(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(|e| refused(&format!("scale {kind}/{name}"), &e))?;
        self.step.log.write(&format!("{kind}/{name} scaled to {replicas}"));
        Ok(())
    }

    /// Patches what is named, or what a file names (`resourceToPatch`).
    async fn patch(&self) -> Result<(), TaskError> {
        let named = self.step.input("resourceToPatch").is_some_and(|r| r.eq_ignore_ascii_case("name"));
        let objects: Vec<(String, String, String)> = if named {
            let namespace = self.namespace().unwrap_or("default").to_owned();
            vec![(self.step.required("kind")?.to_owned(), self.step.required("name")?.to_owned(), namespace)]
        } else {
            let found = self.loaded(&[self.step.required("resourceFileToPatch")?.to_owned()])?;
            found.iter().map(|m| (m.kind().to_owned(), m.name().to_owned(), m.namespace().to_owned())).collect()
        };
        let patch = self.patch_body()?;
        for (kind, name, namespace) in objects {
            let api = self.api(&kind, &namespace).await?;
            let done = api.patch(&name, &PatchParams::default(), &patch).await;
            done.map_err(|e| refused(&format!("patch {kind}/{name}"), &e))?;
            self.step.log.write(&format!("{}/{name} patched", kind.to_lowercase()));
        }
        Ok(())
    }

    fn patch_body(&self) -> Result<Patch<Value>, TaskError> {
        let text = self.step.required("patch")?;
        let wrong = |e: serde_json::Error| TaskError::Failed(format!("patch is not what mergeStrategy asks for: {e}"));
        Ok(match self.step.input("mergeStrategy").unwrap_or("strategic") {
            "merge" => Patch::Merge(serde_json::from_str(text).map_err(wrong)?),
            "strategic" => Patch::Strategic(serde_json::from_str(text).map_err(wrong)?),
            "json" => Patch::Json(serde_json::from_str(text).map_err(wrong)?),
            other => return Err(TaskError::Failed(format!("mergeStrategy '{other}' is not supported"))),
        })
    }

    /// The API of a kind, by kind, plural or short name as the cluster tells them.
    async fn api(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>, TaskError> {
        let discovery =
            Discovery::new(self.cluster.client.clone()).run().await.map_err(|e| refused("discovery", &e))?;
        let wanted = kind.to_lowercase();
        let short = SHORT_NAMES.iter().find(|(s, _)| *s == wanted).map_or(wanted.as_str(), |(_, kind)| *kind);
        let known = |r: &ApiResource| r.kind.to_lowercase() == short || r.plural == short;
        let found =
            discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources).find(|(r, _)| known(r));
        let (resource, capabilities) =
            found.ok_or_else(|| TaskError::Failed(format!("the cluster does not serve '{kind}'")))?;
        Ok(match capabilities.scope {
            Scope::Namespaced => Api::namespaced_with(self.cluster.client.clone(), namespace, &resource),
            Scope::Cluster => Api::all_with(self.cluster.client.clone(), &resource),
        })
    }
}

/// `arguments` of the action `delete`, as kubectl takes them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Delete {
    /// Kinds with names.
    objects: Vec<(String, String)>,
    namespace: Option<String>,
    ignore_not_found: bool,
}

impl Delete {
    fn parse(words: &[String]) -> Result<Self, TaskError> {
        let (mut delete, mut plain) = (Self::default(), Vec::new());
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (option, value) = word.split_once('=').map_or((word.as_str(), None), |(o, v)| (o, Some(v.to_owned())));
            match option {
                "-n" | "--namespace" => delete.namespace = value.or_else(|| words.next().cloned()),
                "--ignore-not-found" => delete.ignore_not_found = value.is_none_or(|v| v == "true"),
                _ if word.starts_with('-') => {
                    return Err(TaskError::Failed(format!(
                        "delete: {word} is not supported; arguments are KIND NAME… or KIND/NAME…, -n and --ignore-not-found"
                    )));
                }
                _ => plain.push(word.as_str()),
            }
        }
        let named = |(kind, name): (&str, &str)| (kind.to_owned(), name.to_owned());
        delete.objects = match plain.as_slice() {
            [kind, names @ ..] if !kind.contains('/') => names.iter().map(|name| named((kind, name))).collect(),
            all => all.iter().filter_map(|word| word.split_once('/')).map(named).collect(),
        };
        if delete.objects.is_empty() || delete.objects.len() < plain.len().saturating_sub(1) {
            return Err(TaskError::Failed("delete: arguments must be KIND NAME… or KIND/NAME…".into()));
        }
        Ok(delete)
    }
}

const SHORT_NAMES: &[(&str, &str)] = &[
    ("deploy", "deployment"),
    ("svc", "service"),
    ("cm", "configmap"),
    ("ing", "ingress"),
    ("sts", "statefulset"),
    ("ds", "daemonset"),
    ("po", "pod"),
    ("ns", "namespace"),
    ("rs", "replicaset"),
    ("hpa", "horizontalpodautoscaler"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_delete_are_those_of_kubectl() {
        let parse = |text: &str| Delete::parse(&words(text).unwrap());
        let objects =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, n)| ((*k).into(), (*n).into())).collect::<Vec<_>>();
        let many = parse("deployment a b").unwrap();
        assert_eq!(many, Delete { objects: objects(&[("deployment", "a"), ("deployment", "b")]), ..Delete::default() });
        let mixed = parse("--ignore-not-found deploy/a -n shop svc/b").unwrap();
        assert_eq!(mixed.objects, objects(&[("deploy", "a"), ("svc", "b")]));
        assert_eq!((mixed.namespace.as_deref(), mixed.ignore_not_found), (Some("shop"), true));
        assert!(!parse("deploy/a --ignore-not-found=false --namespace=x").unwrap().ignore_not_found);
        for wrong in ["", "deployment", "deploy/a b c", "pods --all", "pods -l app=web", "-f file.yaml"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
