//! Images of containers: pull policy, pull secrets.

use super::{events::Kind, pod::Role, shared::Shared};
use crate::runtime::{ImageStatus, RegistryCredentials, RuntimeError};
use aksim_model::image_ref::ImageRef;
use base64::Engine;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Instant};

/// An image that is not there, with the reason for the container's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageFailure {
    pub reason: &'static str,
    pub message: String,
}

/// Whether an image must be asked for although it is on the node.
pub(super) fn always_pull(container: &Container, image: &ImageRef) -> bool {
    match container.image_pull_policy.as_deref() {
        Some("Always") => true,
        Some(_) => false,
        None => image.digest.is_none() && matches!(image.tag.as_deref(), None | Some("latest")),
    }
}

/// Makes the container's image available, telling of it in events.
pub(super) async fn ensure(
    shared: &Shared,
    pod: &Pod,
    role: Role,
    container: &Container,
) -> Result<ImageStatus, ImageFailure> {
    let text = container.image.as_deref().unwrap_or_default();
    let path = || Some(role.field_path(&container.name));
    let image: ImageRef = text.parse().map_err(|error| {
        let message = format!("Failed to apply default image tag \"{text}\": {error}");
        shared.events.pod(pod, path(), Kind::Warning, "InspectFailed", message.clone());
        ImageFailure { reason: "InvalidImageName", message }
    })?;
    let present = shared.runtime.image(&image).await.map_err(|error| ImageFailure {
        reason: "ImageInspectError",
        message: format!("Failed to inspect image \"{text}\": {error}"),
    })?;
    if let Some(present) = present.filter(|_| !always_pull(container, &image)) {
        let message = format!("Container image \"{text}\" already present on machine");
        shared.events.pod(pod, path(), Kind::Normal, "Pulled", message);
        return Ok(present);
    }
    if container.image_pull_policy.as_deref() == Some("Never") {
        let message = format!("Container image \"{text}\" is not present with pull policy of Never");
        shared.events.pod(pod, path(), Kind::Warning, "ErrImageNeverPull", message.clone());
        return Err(ImageFailure { reason: "ErrImageNeverPull", message });
    }
    shared.events.pod(pod, path(), Kind::Normal, "Pulling", format!("Pulling image \"{text}\""));
    let started = Instant::now();
    match pull(shared, pod, &image).await {
        Ok(status) => {
            let took = started.elapsed().as_millis();
            let message = format!(
                "Successfully pulled image \"{text}\" in {took}ms ({took}ms including waiting). Image size: {} bytes.",
                status.size
            );
            shared.events.pod(pod, path(), Kind::Normal, "Pulled", message);
            shared.images_changed.notify_one();
            Ok(status)
        }
        Err(error) => {
            let message = error.to_string();
            let told = format!("Failed to pull image \"{text}\": {message}");
            shared.events.pod(pod, path(), Kind::Warning, "Failed", told);
            shared.events.pod(pod, path(), Kind::Warning, "Failed", "Error: ErrImagePull".into());
            Err(ImageFailure { reason: "ErrImagePull", message })
        }
    }
}

/// Tries each fitting pull secret, then none.
async fn pull(shared: &Shared, pod: &Pod, image: &ImageRef) -> Result<ImageStatus, RuntimeError> {
    let mut candidates = credentials(shared, pod, image).await;
    candidates.push(RegistryCredentials::Anonymous);
    let mut first_error = None;
    for candidate in candidates {
        match shared.runtime.pull_image(image, &candidate).await {
            Ok(status) => return Ok(status),
            // The first refusal names the cause; that anonymous was refused too says little.
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| RuntimeError::Pull { image: image.to_string(), message: "no attempt".into() }))
}

async fn credentials(shared: &Shared, pod: &Pod, image: &ImageRef) -> Vec<RegistryCredentials> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut found = Vec::new();
    for reference in pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()) {
        match shared.secrets.subscribe(namespace, &reference.name).get().await {
            Ok(secret) => found.extend(matching(&secret, image)),
            Err(error) => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                tracing::debug!(%error, "pull secret");
                shared.events.pod(pod, None, Kind::Warning, "FailedToRetrieveImagePullSecret", message);
            }
        }
    }
    found
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// Credentials of a `.dockerconfigjson` or `.dockercfg` secret that fit the image.
fn matching(secret: &Secret, image: &ImageRef) -> Vec<RegistryCredentials> {
    let data = secret.data.as_ref();
    let modern = data.and_then(|d| d.get(".dockerconfigjson"));
    let auths = match (modern, data.and_then(|d| d.get(".dockercfg"))) {
        (Some(json), _) => serde_json::from_slice::<DockerConfig>(&json.0).map(|c| c.auths),
        (None, Some(json)) => serde_json::from_slice(&json.0),
        (None, None) => return vec![],
    };
    let auths = match auths {
        Ok(auths) => auths,
        Err(error) => {
            tracing::warn!(%error, "malformed pull secret");
            return vec![];
        }
    };
    auths.into_iter().filter(|(key, _)| fits(key, image)).filter_map(|(_, auth)| decode(auth)).collect()
}

fn fits(key: &str, image: &ImageRef) -> bool {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let docker = image.registry == "docker.io" && (host == "index.docker.io" || host == "docker.io");
    if docker {
        return true;
    }
    let host_fits = match host.strip_prefix("*.") {
        Some(tail) => image.registry.split_once('.').is_some_and(|(_, rest)| rest == tail),
        None => host == image.registry,
    };
    host_fits
        && (path.is_empty()
            || matches!(path, "v1" | "v2")
            || image.repository == path
            || image.repository.starts_with(&format!("{path}/")))
}

fn decode(auth: DockerAuth) -> Option<RegistryCredentials> {
    if let (Some(username), Some(password)) = (auth.username, auth.password) {
        return Some(RegistryCredentials::Basic { username, password });
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(RegistryCredentials::Basic { username: username.into(), password: password.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> ImageRef {
        text.parse().unwrap()
    }

    #[test]
    fn policy_defaults_by_tag() {
        let container =
            |policy: Option<&str>| Container { image_pull_policy: policy.map(str::to_owned), ..Default::default() };
        assert!(always_pull(&container(None), &image("a.io/x")));
        assert!(!always_pull(&container(None), &image("a.io/x:1")));
        assert!(always_pull(&container(Some("Always")), &image("a.io/x:1")));
    }

    #[test]
    fn secrets_are_matched_by_registry() {
        let auth = base64::engine::general_purpose::STANDARD.encode("user:pa:ss");
        let json = serde_json::json!({ "auths": {
            "https://shopacr.azurecr.io/v2/": { "auth": auth },
            "other.io": { "username": "x", "password": "y" }
        } });
        let data = k8s_openapi::ByteString(json.to_string().into_bytes());
        let secret = Secret { data: Some([(".dockerconfigjson".to_owned(), data)].into()), ..Default::default() };
        let found = matching(&secret, &image("shopacr.azurecr.io/web:1"));
        let want = RegistryCredentials::Basic { username: "user".into(), password: "pa:ss".into() };
        assert!(found == vec![want]);
        assert!(matching(&secret, &image("third.io/web:1")).is_empty());
        assert!(fits("*.azurecr.io", &image("shopacr.azurecr.io/web")));
        assert!(!fits("shopacr.azurecr.io/team", &image("shopacr.azurecr.io/teamwork")));
    }
}
