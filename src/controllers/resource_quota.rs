//! `status.hard` and `status.used` of ResourceQuotas. The API server enforces by what it counts
//! itself; this is what people read.

use super::{
    Context,
    error::ControllerError,
    informer::ObjectKey,
    queue::{Requeue, WorkQueue},
};
use aksim_model::quota;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    core::ApiResource,
    discovery::Discovery,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Queue of namespaces, fed by quotas, by pods that end, and by everything that comes and goes
/// (`Context::content_changed`).
pub fn register(context: &Arc<Context>) -> WorkQueue<ObjectKey> {
    let queue = context.counted.clone();
    let own = queue.clone();
    context.quotas.on_change(move |old, new| {
        if let Some(quota) = new.or(old) {
            own.add(namespace_key(quota.metadata.namespace.as_deref()));
        }
    });
    let (own, quotas) = (queue.clone(), context.quotas.clone());
    context.pods.on_change(move |old, new| {
        let counts = |pod: Option<&Arc<super::pod::Pod>>| pod.map(|pod| (pod.is_finished(), pod.requests()));
        if let Some(pod) = new.or(old)
            && counts(old) != counts(new)
            && !quotas.in_namespace(pod.namespace()).is_empty()
        {
            own.add(namespace_key(Some(pod.namespace())));
        }
    });
    let (own, quotas) = (queue.clone(), context.quotas.clone());
    context.claims.on_change(move |old, new| {
        if let Some(claim) = new.or(old).filter(|c| has_quota(&quotas, c.metadata.namespace.as_deref())) {
            own.add(namespace_key(claim.metadata.namespace.as_deref()));
        }
    });
    let (own, quotas) = (queue.clone(), context.quotas.clone());
    context.services.on_change(move |old, new| {
        if let Some(service) = new.or(old).filter(|s| has_quota(&quotas, s.metadata.namespace.as_deref())) {
            own.add(namespace_key(service.metadata.namespace.as_deref()));
        }
    });
    queue
}

fn has_quota(quotas: &super::informer::Informer<ResourceQuota>, namespace: Option<&str>) -> bool {
    !quotas.in_namespace(namespace.unwrap_or_default()).is_empty()
}

fn namespace_key(namespace: Option<&str>) -> ObjectKey {
    ObjectKey::new("", namespace.unwrap_or_default())
}

impl Context {
    /// Something in a namespace came or went: quotas there may count it.
    pub(super) fn content_changed(&self, namespace: &str) {
        if !namespace.is_empty() && has_quota(&self.quotas, Some(namespace)) {
            self.counted.add(namespace_key(Some(namespace)));
        }
    }
}

/// Counts for the quotas of one namespace.
pub async fn reconcile(context: &Context, key: ObjectKey) -> Result<Requeue, ControllerError> {
    let namespace = &key.name;
    let mut listed: HashMap<String, Vec<Value>> = HashMap::new();
    for quota in context.quotas.in_namespace(namespace) {
        let encode = |source| ControllerError::Encode { what: format!("ResourceQuota in {namespace}"), source };
        let value = serde_json::to_value(quota.as_ref()).map_err(encode)?;
        let hard = quota::hard(&value);
        let tables: BTreeSet<&str> = hard.keys().filter_map(|name| quota::counted_table(name)).collect();
        let mut used = serde_json::Map::new();
        for table in tables {
            if !listed.contains_key(table) {
                listed.insert(table.to_owned(), list(&context.client, namespace, table).await?);
            }
            let objects = listed[table].iter().map(|object| (object_key(object), object.clone()));
            let total = quota::used(&value, table, objects, jiff::Timestamp::now());
            for name in hard.keys().filter(|name| quota::counted_table(name) == Some(table)) {
                used.insert(name.clone(), total.get(name).map_or_else(|| "0".into(), |a| a.to_string().into()));
            }
        }
        let status = json!({"hard": value["spec"]["hard"], "used": used});
        if status["hard"] != value["status"]["hard"] || status["used"] != value["status"]["used"] {
            let full = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": value["metadata"],
                "spec": value["spec"], "status": status});
            // Replaced, so that resources that are no longer bounded go from the status; a conflict
            // is tried again.
            match context.quotas.replace(Some("status"), &ObjectKey::of(quota.as_ref()), &full).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
        }
    }
    Ok(None)
}

fn object_key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// All objects of a table (`deployments.apps`) in a namespace; none when nothing serves it.
async fn list(client: &Client, namespace: &str, table: &str) -> Result<Vec<Value>, ControllerError> {
    let Some(resource) = resource(client, table).await? else { return Ok(Vec::new()) };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let list = api.list(&ListParams::default()).await.map_err(ControllerError::api(format!("list {table}")))?;
    let encode = |source| ControllerError::Encode { what: table.to_owned(), source };
    list.items.iter().map(|object| serde_json::to_value(object).map_err(encode)).collect()
}

async fn resource(client: &Client, table: &str) -> Result<Option<ApiResource>, ControllerError> {
    let (plural, group) = table.split_once('.').unwrap_or((table, ""));
    let kind = match table {
        "pods" => Some("Pod"),
        "services" => Some("Service"),
        "secrets" => Some("Secret"),
        "configmaps" => Some("ConfigMap"),
        "persistentvolumeclaims" => Some("PersistentVolumeClaim"),
        "replicationcontrollers" => Some("ReplicationController"),
        "resourcequotas" => Some("ResourceQuota"),
        _ => None,
    };
    if let Some(kind) = kind {
        let (version, plural) = ("v1".to_owned(), plural.to_owned());
        let (api_version, kind) = (version.clone(), kind.to_owned());
        return Ok(Some(ApiResource { group: String::new(), version, api_version, kind, plural }));
    }
    let discovery = Discovery::new(client.clone()).filter(&[group]).run().await;
    let discovery = discovery.map_err(ControllerError::api(format!("discover {table}")))?;
    let resources = discovery.groups().flat_map(|group| group.recommended_resources());
    Ok(resources.map(|(resource, _)| resource).find(|r| r.plural == plural && r.group == group))
}
