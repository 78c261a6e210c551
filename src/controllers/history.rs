//! ControllerRevisions: the templates that a StatefulSet or DaemonSet had, for `kubectl rollout`.

use super::{
    Context,
    deployment::revision::template_hash,
    error::ControllerError,
    informer::{Cached, ObjectKey},
    ownership::{claim_all, controlled_by, controller_of},
};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    core::{Selector, SelectorExt},
};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc};

/// Label of a pod with the revision it is of: its name for StatefulSets, its hash for DaemonSets.
pub const POD_REVISION: &str = "controller-revision-hash";
/// Names tried before a collision is left for the next time.
const NAMES: usize = 16;

/// The revision of a pod by its label.
pub fn revision_of(pod: &super::pod::Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|l| l.get(POD_REVISION)).map(String::as_str).unwrap_or_default()
}

/// What a revision keeps: a patch that puts the template back (`kubectl rollout undo` sends it).
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// What a wanted template means for the revisions there are.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is the newest of them: its place in the list.
    Newest(usize),
    /// It is an older one that becomes the newest again, with this number.
    Renumber(usize, i64),
    /// It is none of them; the new one gets this number.
    Create(i64),
}

/// Compares the wanted template with the revisions, oldest first.
pub fn step(revisions: &[Arc<ControllerRevision>], template: &PodTemplateSpec) -> Step {
    let wanted = data(template);
    let newest = revisions.last().map_or(0, |r| r.revision);
    match revisions.iter().rposition(|r| r.data.as_ref().is_some_and(|d| d.0 == wanted)) {
        Some(at) if revisions[at].revision == newest => Step::Newest(at),
        Some(at) => Step::Renumber(at, newest + 1),
        None => Step::Create(newest + 1),
    }
}

/// Revisions to delete so that at most `limit` stay besides those in use; oldest first.
pub fn surplus(
    revisions: &[Arc<ControllerRevision>],
    live: &HashSet<String>,
    limit: usize,
) -> Vec<Arc<ControllerRevision>> {
    let idle: Vec<_> = revisions.iter().filter(|r| !live.contains(&r.name_any())).cloned().collect();
    let count = idle.len().saturating_sub(limit);
    idle.into_iter().take(count).collect()
}

/// The revisions of an owner, oldest first, and the one of its template.
pub struct History {
    /// All of them.
    pub all: Vec<Arc<ControllerRevision>>,
    /// The one with the current template.
    pub newest: Arc<ControllerRevision>,
    /// Names that were taken by other templates so far, for the status.
    pub collisions: Option<i32>,
}

/// What is recorded of an owner.
pub struct Subject<'a, K> {
    /// The owner.
    pub owner: &'a K,
    /// Its pods' template.
    pub template: &'a PodTemplateSpec,
    /// Its selector.
    pub selector: &'a Selector,
    /// Names taken so far.
    pub collisions: Option<i32>,
    /// Label of a revision with its hash.
    pub hash_label: &'static str,
}

impl<K: Resource<DynamicType = ()>> Subject<'_, K> {
    /// Takes in the owner's revisions and makes sure that there is one of its template.
    ///
    /// # Errors
    /// What the API server says; too many names taken.
    pub async fn record(
        &self,
        context: &Context,
        live: impl AsyncFnOnce() -> Result<Option<String>, ControllerError>,
    ) -> Result<History, ControllerError> {
        let mut all = self.owned(context, live).await?;
        all.sort_by_key(|r| (r.revision, r.metadata.creation_timestamp.clone(), r.metadata.name.clone()));
        match step(&all, self.template) {
            Step::Newest(at) => Ok(History { newest: all[at].clone(), all, collisions: self.collisions }),
            Step::Renumber(at, number) => {
                let old = all.remove(at);
                let patch = json!({"metadata": {"resourceVersion": old.metadata.resource_version}, "revision": number});
                let newest = context.revisions.patch(None, &ObjectKey::of(old.as_ref()), patch).await?;
                all.push(newest.clone());
                Ok(History { newest, all, collisions: self.collisions })
            }
            Step::Create(number) => {
                let (newest, collisions) = self.create(context, number).await?;
                all.push(newest.clone());
                Ok(History { newest, all, collisions })
            }
        }
    }

    async fn owned(
        &self,
        context: &Context,
        live: impl AsyncFnOnce() -> Result<Option<String>, ControllerError>,
    ) -> Result<Vec<Arc<ControllerRevision>>, ControllerError> {
        let meta = self.owner.meta();
        let mut candidates = context.revisions.indexed(meta.uid.as_deref().unwrap_or_default());
        let orphans = context.revisions.in_namespace(meta.namespace.as_deref().unwrap_or_default());
        candidates.extend(
            orphans.into_iter().filter(|r| controller_of(&r.metadata).is_none() && self.selector.matches(r.labels())),
        );
        claim_all(self.owner, live, self.selector, &context.revisions, candidates).await
    }

    fn body(&self, number: i64, collisions: Option<i32>) -> ControllerRevision {
        let meta = self.owner.meta();
        let hash = template_hash(self.template, collisions.unwrap_or(0));
        let mut labels = self.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(self.hash_label.into(), hash.clone());
        // The reason given with `kubectl annotate` is what `kubectl rollout history` shows.
        let annotations = meta.annotations.clone().unwrap_or_default();
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or_default())),
                namespace: meta.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![controlled_by(self.owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data(self.template))),
            revision: number,
        }
    }

    /// Creates the revision under the first name that no other template has.
    async fn create(
        &self,
        context: &Context,
        number: i64,
    ) -> Result<(Arc<ControllerRevision>, Option<i32>), ControllerError> {
        let mut collisions = self.collisions;
        for _ in 0..NAMES {
            let body = self.body(number, collisions);
            let key = ObjectKey::of(&body);
            match context.revisions.create(&key.namespace, &body).await {
                Ok(created) => return Ok((created, collisions)),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
            let api: Api<ControllerRevision> = Api::namespaced(context.client.clone(), &key.namespace);
            let doing = format!("get ControllerRevision {key}");
            let found = api.get_opt(&key.name).await.map_err(ControllerError::api(doing))?;
            let ours = |r: &ControllerRevision| {
                controller_of(&r.metadata).is_some_and(|o| Some(&o.uid) == self.owner.meta().uid.as_ref())
            };
            match found {
                Some(found) if ours(&found) && found.data == body.data => return Ok((Arc::new(found), collisions)),
                Some(_) => collisions = Some(collisions.unwrap_or(0) + 1),
                None => {}
            }
        }
        Err(ControllerError::NotYet(format!("{NAMES} names of ControllerRevisions are taken by other templates")))
    }
}

/// Deletes revisions that nothing uses, but for the newest `limit`.
///
/// # Errors
/// What the API server says.
pub async fn truncate(
    context: &Context,
    revisions: &[Arc<ControllerRevision>],
    live: &HashSet<String>,
    limit: Option<i32>,
) -> Result<(), ControllerError> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    for revision in surplus(revisions, live, limit) {
        let only = Preconditions { uid: revision.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::background().preconditions(only);
        context.revisions.delete(&ObjectKey::of(revision.as_ref()), &params).await?;
    }
    Ok(())
}

/// The uid of the object of this kind and key that the API server has now.
///
/// # Errors
/// What the API server says.
pub async fn live_uid<K>(context: &Context, key: &ObjectKey) -> Result<Option<String>, ControllerError>
where
    K: Cached + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), &key.namespace);
    let doing = format!("get {} {key}", K::kind(&()));
    let found = api.get_metadata_opt(&key.name).await.map_err(ControllerError::api(doing))?;
    Ok(found.and_then(|f| f.metadata.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
            {"name": "c", "image": image}]}}))
        .unwrap()
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(format!("db-{image}")), ..ObjectMeta::default() },
            data: Some(RawExtension(data(&template(image)))),
            revision: number,
        })
    }

    #[test]
    fn a_template_is_found_again_and_an_older_one_becomes_the_newest() {
        let revisions = [revision("1", 1), revision("2", 2)];
        assert_eq!(step(&revisions, &template("2")), Step::Newest(1));
        assert_eq!(step(&revisions, &template("1")), Step::Renumber(0, 3));
        assert_eq!(step(&revisions, &template("3")), Step::Create(3));
        assert_eq!(step(&[], &template("3")), Step::Create(1));
        assert_eq!(template_of(&revisions[0]), Some(template("1")));
    }

    #[test]
    fn revisions_in_use_stay_whatever_the_limit() {
        let revisions: Vec<_> = (1..=5).map(|n| revision(&n.to_string(), n)).collect();
        let live = HashSet::from(["db-1".to_owned(), "db-5".to_owned()]);
        let names = |limit| surplus(&revisions, &live, limit).iter().map(|r| r.revision).collect::<Vec<_>>();
        assert_eq!(names(1), [2, 3]);
        assert_eq!(names(0), [2, 3, 4]);
        assert!(names(10).is_empty());
    }
}
