//! Volumes whose files come from the API: configMap, secret, downwardAPI, serviceAccountToken.
//! All are projected volumes; the single kinds are projections with one source.

use super::{
    VolumeError,
    atomic::{File, Payload},
    token::TokenSource,
};
use crate::kubelet::{
    downward,
    objects::{Handle, ObjectError},
    shared::Shared,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, Pod,
    ProjectedVolumeSource, Secret, SecretProjection, Volume, VolumeProjection,
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, time::Instant};

const DEFAULT_MODE: i32 = 0o644;

/// A volume of files from the API, and what it watches.
pub(super) struct Projected {
    shared: Arc<Shared>,
    volume: String,
    mode: u32,
    sources: Vec<Source>,
}

enum Source {
    ConfigMap(ConfigMapProjection, Handle<ConfigMap>),
    Secret(SecretProjection, Handle<Secret>),
    Downward(Vec<DownwardAPIVolumeFile>),
    Token(String, TokenSource),
}

/// A volume as a projection, or `None` when it is of another kind.
pub(super) fn as_projection(volume: &Volume) -> Option<ProjectedVolumeSource> {
    if let Some(projected) = &volume.projected {
        return Some(projected.clone());
    }
    let (source, default_mode) = if let Some(map) = &volume.config_map {
        let projection =
            ConfigMapProjection { name: map.name.clone(), items: map.items.clone(), optional: map.optional };
        (VolumeProjection { config_map: Some(projection), ..Default::default() }, map.default_mode)
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.clone().unwrap_or_default();
        let projection = SecretProjection { name, items: secret.items.clone(), optional: secret.optional };
        (VolumeProjection { secret: Some(projection), ..Default::default() }, secret.default_mode)
    } else if let Some(downward) = &volume.downward_api {
        let projection = DownwardAPIProjection { items: downward.items.clone() };
        (VolumeProjection { downward_api: Some(projection), ..Default::default() }, downward.default_mode)
    } else {
        return None;
    };
    Some(ProjectedVolumeSource { sources: Some(vec![source]), default_mode })
}

impl Projected {
    pub fn new(shared: &Arc<Shared>, pod: &Pod, name: &str, spec: ProjectedVolumeSource) -> Result<Self, VolumeError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let mut sources = Vec::new();
        for source in spec.sources.into_iter().flatten() {
            if let Some(map) = source.config_map {
                let handle = shared.config_maps.subscribe(namespace, &map.name);
                sources.push(Source::ConfigMap(map, handle));
            } else if let Some(secret) = source.secret {
                let handle = shared.secrets.subscribe(namespace, &secret.name);
                sources.push(Source::Secret(secret, handle));
            } else if let Some(downward) = source.downward_api {
                sources.push(Source::Downward(downward.items.unwrap_or_default()));
            } else if let Some(token) = source.service_account_token {
                sources.push(Source::Token(token.path.clone(), TokenSource::new(pod, &token)));
            } else {
                let kind = if source.cluster_trust_bundle.is_some() { "clusterTrustBundle" } else { "podCertificate" };
                return Err(VolumeError::unsupported(name, &format!("projected source {kind}")));
            }
        }
        let mode = u32::try_from(spec.default_mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644);
        Ok(Self { shared: shared.clone(), volume: name.to_owned(), mode, sources })
    }

    /// All files as they are to be now.
    pub async fn payload(&mut self, pod: &Pod) -> Result<Payload, VolumeError> {
        let mut payload = Payload::new();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        for source in &mut self.sources {
            let failed = |e: ObjectError| VolumeError::failed(&self.volume, e.to_string());
            match source {
                Source::ConfigMap(spec, handle) => {
                    let found = optional(handle.get().await, spec.optional).map_err(failed)?;
                    let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
                    if let Some(map) = &found {
                        data.extend(map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes())));
                        data.extend(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())));
                    }
                    let lenient = spec.optional == Some(true);
                    let subject = format!("configmap \"{}\"", spec.name);
                    select(&mut payload, &data, spec.items.as_ref(), self.mode, lenient, &subject)
                        .map_err(|m| VolumeError::failed(&self.volume, m))?;
                }
                Source::Secret(spec, handle) => {
                    let found = optional(handle.get().await, spec.optional).map_err(failed)?;
                    let data = found
                        .iter()
                        .flat_map(|s| s.data.iter().flatten())
                        .map(|(k, v)| (k.clone(), v.0.clone()))
                        .collect();
                    let lenient = spec.optional == Some(true);
                    let subject = format!("secret \"{}\"", spec.name);
                    select(&mut payload, &data, spec.items.as_ref(), self.mode, lenient, &subject)
                        .map_err(|m| VolumeError::failed(&self.volume, m))?;
                }
                Source::Downward(items) => {
                    for item in items {
                        let text =
                            downward_file(&self.shared, pod, item).map_err(|m| VolumeError::failed(&self.volume, m))?;
                        let mode = item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(self.mode);
                        payload.insert(item.path.clone(), File { data: text.into_bytes(), mode });
                    }
                }
                Source::Token(path, token) => {
                    let data = token
                        .get(&self.shared.client, &namespace)
                        .await
                        .map_err(|e| VolumeError::failed(&self.volume, format!("failed to fetch token: {e}")))?;
                    payload.insert(path.clone(), File { data, mode: self.mode });
                }
            }
        }
        Ok(payload)
    }

    /// Waits until the files may have to change: an object or the pod changed, a token ages.
    pub async fn changed(&mut self, pod: &mut watch::Receiver<Arc<Pod>>) {
        let mut renew: Option<Instant> = None;
        let mut waits: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
        for source in &mut self.sources {
            match source {
                Source::ConfigMap(_, handle) => waits.push(Box::pin(handle.changed())),
                Source::Secret(_, handle) => waits.push(Box::pin(handle.changed())),
                Source::Downward(_) => {}
                Source::Token(_, token) => renew = [renew, token.renew_at()].into_iter().flatten().min(),
            }
        }
        // Pod changes matter to the downward API alone, but cost next to nothing: equal files are not written.
        waits.push(Box::pin(async move {
            if pod.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        if let Some(at) = renew {
            waits.push(Box::pin(tokio::time::sleep_until(at)));
        }
        futures::future::select_all(waits).await;
    }
}

fn optional<K>(found: Result<Arc<K>, ObjectError>, optional: Option<bool>) -> Result<Option<Arc<K>>, ObjectError> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(ObjectError::NotFound { .. }) if optional == Some(true) => Ok(None),
        Err(error) => Err(error),
    }
}

fn select(
    payload: &mut Payload,
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    mode: u32,
    lenient: bool,
    subject: &str,
) -> Result<(), String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        payload.extend(data.iter().map(|(k, v)| (k.clone(), File { data: v.clone(), mode })));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(value) => {
                let mode = item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(mode);
                payload.insert(item.path.clone(), File { data: value.clone(), mode });
            }
            None if lenient => {}
            None => return Err(format!("{subject} references non-existent key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward_file(shared: &Shared, pod: &Pod, item: &DownwardAPIVolumeFile) -> Result<String, String> {
    if let Some(field) = &item.field_ref {
        return downward::field(pod, &field.field_path, None, &shared.node.name);
    }
    match &item.resource_field_ref {
        Some(resource) => downward::resource(pod, None, resource, &shared.node),
        None => Err(format!("{}: neither fieldRef nor resourceFieldRef", item.path)),
    }
}
