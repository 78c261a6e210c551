//! What every namespace has: the `default` ServiceAccount and the `kube-root-ca.crt` ConfigMap.

use super::{
    Context,
    error::ControllerError,
    informer::{Cached, Informer, ObjectKey},
    queue::{Requeue, WorkQueue},
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// Name of the ServiceAccount that pods use unless they name one.
const DEFAULT_ACCOUNT: &str = "default";
/// Name of the ConfigMap with the cluster's CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// Queue of namespaces, fed by the changes of them and of the two objects.
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    context.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            own.add(ObjectKey::of(namespace.as_ref()));
        }
    });
    watch_owned(&context.service_accounts, &queue);
    watch_owned(&context.root_certificates, &queue);
    queue
}

fn watch_owned<K: Cached>(informer: &Informer<K>, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    informer.on_change(move |old, new| {
        if let Some(object) = new.or(old) {
            queue.add(ObjectKey::new("", object.meta().namespace.as_deref().unwrap_or_default()));
        }
    });
}

fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// Makes sure that one namespace has both.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    if !context.namespaces.get(&key).is_some_and(|n| is_active(&n)) {
        return Ok(None);
    }
    let namespace = key.name.clone();
    let meta = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_string()),
        ..ObjectMeta::default()
    };
    if context.service_accounts.get(&ObjectKey::new(namespace.clone(), DEFAULT_ACCOUNT)).is_none() {
        let account = ServiceAccount { metadata: meta(DEFAULT_ACCOUNT), ..ServiceAccount::default() };
        unless_there(context.service_accounts.create(&namespace, &account).await)?;
    }
    let ca_key = ObjectKey::new(namespace.clone(), ROOT_CA);
    let data = BTreeMap::from([("ca.crt".to_owned(), context.config.root_ca_pem.clone())]);
    match context.root_certificates.get(&ca_key) {
        Some(current) if current.data.as_ref() == Some(&data) => {}
        Some(_) => {
            context.root_certificates.patch(None, &ca_key, json!({"data": data})).await?;
        }
        None => {
            let mut metadata = meta(ROOT_CA);
            let why = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
                       such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
                       distributions of Kubernetes clusters.";
            metadata.annotations = Some([("kubernetes.io/description".to_owned(), why.to_owned())].into());
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            unless_there(context.root_certificates.create(&namespace, &map).await)?;
        }
    }
    Ok(None)
}

/// Someone else made it, or the namespace is going: both fine.
fn unless_there<T>(result: Result<T, ControllerError>) -> Result<(), ControllerError> {
    match result {
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}
