//! Owner references: who controls an object, and taking in or letting go by selector.

use super::{
    error::ControllerError,
    informer::{Cached, Informer, ObjectKey},
    pod::Pod,
    queue::WorkQueue,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{
    Resource, ResourceExt,
    core::{Selector, SelectorExt},
};
use serde_json::json;
use std::sync::Arc;

/// The controlling owner, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_deref().unwrap_or_default().iter().find(|o| o.controller == Some(true))
}

/// The key of the controlling owner when it is of this kind.
pub fn controller_key<K: Resource<DynamicType = ()>>(meta: &ObjectMeta) -> Option<ObjectKey> {
    let owner = controller_of(meta)?;
    let group = |api_version: &str| api_version.rsplit_once('/').map_or(String::new(), |(g, _)| g.to_owned());
    (owner.kind == K::kind(&()) && group(&owner.api_version) == K::group(&()))
        .then(|| ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), owner.name.as_str()))
}

/// A queue fed by the changes of the owners, of the pods that they control, and of orphans that
/// `may_take` says an owner could take in.
pub fn pod_owners<K: Cached>(
    owners: &Informer<K>,
    pods: &Informer<Pod>,
    may_take: fn(&K, &Pod) -> bool,
) -> WorkQueue<ObjectKey> {
    let queue = WorkQueue::default();
    let own = queue.clone();
    owners.on_change(move |old, new| {
        if let Some(owner) = new.or(old) {
            own.add(ObjectKey::of(owner.as_ref()));
        }
    });
    let (own, owners) = (queue.clone(), owners.clone());
    pods.on_change(move |old, new| {
        let keys = [old, new].into_iter().flatten().filter_map(|p| controller_key::<K>(&p.metadata));
        keys.for_each(|key| own.add(key));
        if let Some(orphan) = new.filter(|p| controller_of(&p.metadata).is_none()) {
            for owner in owners.in_namespace(orphan.namespace()) {
                if may_take(&owner, orphan) {
                    own.add(ObjectKey::of(owner.as_ref()));
                }
            }
        }
    });
    queue
}

/// An owner reference that makes `owner` the controller of an object.
pub fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A label selector ready to match.
///
/// # Errors
/// The selector has an operator or a form that is not known.
pub fn selector(object: &ObjectKey, selector: &LabelSelector) -> Result<Selector, ControllerError> {
    Selector::try_from(selector.clone())
        .map_err(|error| ControllerError::Invalid { object: object.to_string(), reason: error.to_string() })
}

/// Whether a selector selects everything, which no workload may.
pub fn selects_all(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|m| m.is_empty())
        && selector.match_expressions.as_ref().is_none_or(|m| m.is_empty())
}

/// What an owner does with an object it may own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It owns it.
    Mine,
    /// It takes it in: nobody controls it, and the selector matches.
    Adopt,
    /// It lets it go: the selector no longer matches.
    Release,
    /// It is none of its business.
    Other,
}

/// Decides what an owner does with an object.
pub fn claim(owner: &ObjectMeta, selector: &Selector, object: &ObjectMeta) -> Claim {
    let none = Default::default();
    let matches = selector.matches(object.labels.as_ref().unwrap_or(&none));
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Other,
        Some(_) if matches => Claim::Mine,
        Some(_) if owner.deletion_timestamp.is_some() => Claim::Other,
        Some(_) => Claim::Release,
        None if !matches || owner.deletion_timestamp.is_some() || object.deletion_timestamp.is_some() => Claim::Other,
        None => Claim::Adopt,
    }
}

/// The objects among `candidates` that `owner` owns, after taking in and letting go.
///
/// # Errors
/// What the API server says. An object that changed meanwhile is left for the next time.
pub async fn claim_all<O, K>(
    owner: &O,
    owner_live: impl AsyncFnOnce() -> Result<Option<String>, ControllerError>,
    selector: &Selector,
    informer: &Informer<K>,
    candidates: Vec<Arc<K>>,
) -> Result<Vec<Arc<K>>, ControllerError>
where
    O: Resource<DynamicType = ()>,
    K: Cached,
{
    let mut mine = Vec::new();
    let mut adopt = Vec::new();
    for object in candidates {
        match claim(owner.meta(), selector, object.meta()) {
            Claim::Mine => mine.push(object),
            Claim::Adopt => adopt.push(object),
            Claim::Release => release(owner.meta(), informer, object.as_ref()).await?,
            Claim::Other => {}
        }
    }
    // Nothing is adopted by an owner that is gone and only still in the cache.
    if !adopt.is_empty() && owner_live().await? == owner.meta().uid {
        for object in adopt {
            let mut owners = object.owner_references().to_vec();
            owners.push(controlled_by(owner));
            match set_owners(informer, object.as_ref(), owners).await {
                Ok(object) => mine.push(object),
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(mine)
}

async fn release<K: Cached>(owner: &ObjectMeta, informer: &Informer<K>, object: &K) -> Result<(), ControllerError> {
    let owners = object.owner_references().iter().filter(|o| Some(&o.uid) != owner.uid.as_ref()).cloned().collect();
    match set_owners(informer, object, owners).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

async fn set_owners<K: Cached>(
    informer: &Informer<K>,
    object: &K,
    owners: Vec<OwnerReference>,
) -> Result<Arc<K>, ControllerError> {
    let owners = if owners.is_empty() { json!(null) } else { json!(owners) };
    let patch = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(), "ownerReferences": owners,
    }});
    informer.patch(None, &ObjectKey::of(object), patch).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(value: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn claims_as_controllers_do() {
        let owner = meta(json!({"name": "web", "uid": "1"}));
        let leaving = meta(json!({"name": "web", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let wanted = Selector::from_iter([("app", "web")]);
        let owned = |uid: &str, app: &str| {
            meta(json!({"name": "p", "labels": {"app": app}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true}]}))
        };
        let orphan = |app: &str| meta(json!({"name": "p", "labels": {"app": app}}));
        let dying = meta(json!({"labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        assert_eq!(claim(&owner, &wanted, &owned("1", "web")), Claim::Mine);
        assert_eq!(claim(&owner, &wanted, &owned("1", "x")), Claim::Release);
        assert_eq!(claim(&owner, &wanted, &owned("2", "web")), Claim::Other);
        assert_eq!(claim(&owner, &wanted, &orphan("web")), Claim::Adopt);
        assert_eq!(claim(&owner, &wanted, &orphan("x")), Claim::Other);
        assert_eq!(claim(&owner, &wanted, &dying), Claim::Other);
        assert_eq!(claim(&leaving, &wanted, &orphan("web")), Claim::Other);
        assert_eq!(claim(&leaving, &wanted, &owned("1", "x")), Claim::Other);
    }
}
