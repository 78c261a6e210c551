//! One watch a kind, shared by every controller: a store that also takes the answers to our own
//! writes, so that a reconciliation sees what the one before it did.

use super::error::ControllerError;
use futures::{StreamExt, future::BoxFuture};
use kube::{
    Client, Resource, ResourceExt,
    api::{Api, DeleteParams, Patch, PatchParams, PostParams},
    core::Request,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::RwLock;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Debug,
    sync::{Arc, OnceLock},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Field manager of every write of the controllers.
pub const MANAGER: &str = "kube-controller-manager";

/// Namespace (empty for cluster-wide objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, empty for cluster-wide objects.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
    /// The key of an object.
    pub fn of<K: ResourceExt>(object: &K) -> Self {
        Self::new(
            object.meta().namespace.as_deref().unwrap_or_default(),
            object.meta().name.as_deref().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A kind that can be watched and cached.
pub trait Cached: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Cached for K {}

/// Told of every change: the object before and after. Called without locks held; must not block.
pub type Handler<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;
/// Values under which an object is found again with [`Informer::indexed`].
pub type Indexer<K> = fn(&K) -> Vec<String>;

struct Store<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    index: HashMap<String, BTreeSet<ObjectKey>>,
    /// Uids deleted by our own writes whose DELETED event has not come yet.
    buried: HashSet<String>,
    /// Highest revision that the watch has told of: of everything up to it the store is as the
    /// watch says, and the answer to a write of ours is no news.
    watched: u64,
    /// Keys written by ourselves since the list under way began; `None` when no list is under way.
    written: Option<HashSet<ObjectKey>>,
}

struct Shared<K> {
    client: Client,
    config: watcher::Config,
    store: RwLock<Store<K>>,
    handlers: OnceLock<Vec<Handler<K>>>,
    pending: parking_lot::Mutex<Vec<Handler<K>>>,
    slim: fn(&mut K),
    indexer: Indexer<K>,
    synced: watch::Sender<bool>,
}

/// Where an object comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Watch,
    /// The answer to a write of ours.
    Write,
}

/// Shared cache of one kind and the way to write it; clones share it.
pub struct Informer<K>(Arc<Shared<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What is done to every cache, whatever its kind.
pub trait Watched {
    /// [`Informer::synced`].
    fn synced(&self) -> BoxFuture<'_, ()>;
    /// [`Informer::run`].
    fn watch(&self, shutdown: CancellationToken) -> BoxFuture<'static, ()>;
}

impl<K: Cached> Watched for Informer<K> {
    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(Informer::synced(self))
    }

    fn watch(&self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(self.clone().run(shutdown))
    }
}

fn no_index<K>(_: &K) -> Vec<String> {
    Vec::new()
}

fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Uid of the object's controlling owner, as an index value.
pub fn by_controller<K: Resource>(object: &K) -> Vec<String> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().filter(|o| o.controller == Some(true)).map(|o| o.uid.clone()).collect()
}

fn revision<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl<K: Cached> Informer<K> {
    /// An informer of all objects of the kind, found by namespace and name only.
    pub fn new(client: Client) -> Self {
        Self::with(client, watcher::Config::default(), drop_managed_fields, no_index)
    }

    /// As [`Informer::new`], also found by the uid of the controlling owner.
    pub fn by_controller(client: Client) -> Self {
        Self::with(client, watcher::Config::default(), drop_managed_fields, by_controller)
    }

    /// As [`Informer::new`], of the objects that `config` selects.
    pub fn selected(client: Client, config: watcher::Config) -> Self {
        Self::with(client, config, drop_managed_fields, no_index)
    }

    /// An informer of the objects that `config` selects, kept as `slim` leaves them.
    pub fn with(client: Client, config: watcher::Config, slim: fn(&mut K), indexer: Indexer<K>) -> Self {
        let store = Store {
            objects: BTreeMap::new(),
            index: HashMap::new(),
            buried: HashSet::new(),
            watched: 0,
            written: None,
        };
        Self(Arc::new(Shared {
            client,
            config,
            store: RwLock::new(store),
            handlers: OnceLock::new(),
            pending: parking_lot::Mutex::default(),
            slim,
            indexer,
            synced: watch::channel(false).0,
        }))
    }

    /// Adds a handler; only before [`Informer::run`], later ones are never called.
    pub fn on_change(&self, handler: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        self.0.pending.lock().push(Box::new(handler));
    }

    /// Waits until the first list is in the store.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so this ends only with `true`.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// An object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.0.store.read().objects.get(key).cloned()
    }

    /// All objects.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.store.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = ObjectKey::new(namespace, "");
        let store = self.0.store.read();
        store.objects.range(from..).take_while(|(k, _)| &*k.namespace == namespace).map(|(_, o)| o.clone()).collect()
    }

    /// The objects with this index value.
    pub fn indexed(&self, value: &str) -> Vec<Arc<K>> {
        let store = self.0.store.read();
        let keys = store.index.get(value);
        keys.into_iter().flatten().filter_map(|k| store.objects.get(k).cloned()).collect()
    }

    /// Watches until `shutdown`. Failures of the watch are tried again with back-off.
    pub async fn run(self, shutdown: CancellationToken)
    where
        K: 'static,
    {
        let handlers = std::mem::take(&mut *self.0.pending.lock());
        // Set once: `run` is called once for each informer.
        let _ = self.0.handlers.set(handlers);
        let api: Api<K> = Api::all_with(self.0.client.clone(), &());
        let stream = watcher(api, self.0.config.clone()).default_backoff();
        futures::pin_mut!(stream);
        let mut listed = HashSet::new();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => self.take(event, &mut listed),
                Some(Err(error)) => tracing::debug!(kind = %K::kind(&()), %error, "watch failed, tried again"),
                None => return,
            }
        }
    }

    fn take(&self, event: watcher::Event<K>, listed: &mut HashSet<ObjectKey>) {
        match event {
            watcher::Event::Init => {
                listed.clear();
                self.0.store.write().written = Some(HashSet::new());
            }
            watcher::Event::InitApply(object) => {
                listed.insert(ObjectKey::of(&object));
                self.observe(object, Source::Watch);
            }
            watcher::Event::InitDone => {
                self.forget_unlisted(listed);
                self.0.synced.send_replace(true);
            }
            watcher::Event::Apply(object) => self.observe(object, Source::Watch),
            watcher::Event::Delete(object) => self.observe_deleted(&object),
        }
    }

    /// Takes an object as the server has it now; older than what is known is ignored, and so is one
    /// that the watch has shown to be gone since.
    fn observe(&self, mut object: K, source: Source) {
        (self.0.slim)(&mut object);
        let key = ObjectKey::of(&object);
        let new = Arc::new(object);
        let old = {
            let mut store = self.0.store.write();
            let told = store.watched;
            if source == Source::Watch {
                store.watched = told.max(revision(new.as_ref()));
            }
            if new.meta().uid.as_ref().is_some_and(|uid| store.buried.contains(uid)) {
                return;
            }
            let old = store.objects.get(&key).cloned();
            if old.as_ref().is_some_and(|old| revision(old.as_ref()) >= revision(new.as_ref())) {
                return;
            }
            if source == Source::Write && old.is_none() && revision(new.as_ref()) <= told {
                return;
            }
            store.unindex(&key, old.as_deref(), self.0.indexer);
            for value in (self.0.indexer)(&new) {
                store.index.entry(value).or_default().insert(key.clone());
            }
            store.objects.insert(key, new.clone());
            old
        };
        self.notify(old.as_ref(), Some(&new));
    }

    fn observe_deleted(&self, object: &K) {
        let key = ObjectKey::of(object);
        let old = {
            let mut store = self.0.store.write();
            store.watched = store.watched.max(revision(object));
            if let Some(uid) = &object.meta().uid {
                store.buried.remove(uid);
            }
            // A new object of the same name may be known already from our own write.
            match store.objects.get(&key) {
                Some(known) if known.meta().uid == object.meta().uid => store.remove(&key, self.0.indexer),
                _ => None,
            }
        };
        if let Some(old) = old {
            self.notify(Some(&old), None);
        }
    }

    fn forget_unlisted(&self, listed: &mut HashSet<ObjectKey>) {
        let gone: Vec<Arc<K>> = {
            let mut store = self.0.store.write();
            let written = store.written.take().unwrap_or_default();
            store.buried.clear();
            let keys: Vec<ObjectKey> =
                store.objects.keys().filter(|k| !listed.contains(k) && !written.contains(k)).cloned().collect();
            keys.iter().filter_map(|key| store.remove(key, self.0.indexer)).collect()
        };
        listed.clear();
        for old in &gone {
            self.notify(Some(old), None);
        }
    }

    fn notify(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        for handler in self.0.handlers.get().into_iter().flatten() {
            handler(old, new);
        }
    }

    fn wrote(&self, object: K) -> Arc<K> {
        let key = ObjectKey::of(&object);
        // Of the kinds with finalizers of ours these are let go by a plain write.
        let let_go = ["Pod", "PersistentVolume", "PersistentVolumeClaim"].contains(&&*K::kind(&()));
        if let_go && object.meta().deletion_timestamp.is_some() && !stays(&object) {
            // The write took the last finalizer off: its answer shows an object that is gone, and
            // the watch may have said so already.
            let gone = Arc::new(object);
            self.bury(&key, Some(gone.clone()));
            return gone;
        }
        if let Some(written) = &mut self.0.store.write().written {
            written.insert(key);
        }
        self.observe(object.clone(), Source::Write);
        Arc::new(object)
    }

    fn request(namespace: &str) -> Request {
        Request::new(K::url_path(&(), (!namespace.is_empty()).then_some(namespace)))
    }

    async fn send(&self, doing: String, request: http::Request<Vec<u8>>) -> Result<Arc<K>, ControllerError> {
        let object = self.0.client.request::<K>(request).await.map_err(ControllerError::api(doing))?;
        Ok(self.wrote(object))
    }

    /// Creates an object from any encoding of the kind.
    ///
    /// # Errors
    /// What the API server says; an object that cannot be encoded.
    pub async fn create(&self, namespace: &str, object: &impl Serialize) -> Result<Arc<K>, ControllerError> {
        let doing = format!("create {} in {namespace:?}", K::kind(&()));
        let body = encode(&doing, object)?;
        let request = Self::request(namespace).create(&post(), body);
        self.send(doing.clone(), request.map_err(build(doing))?).await
    }

    /// Replaces an object, or its subresource when named (`status`).
    ///
    /// # Errors
    /// What the API server says (a conflict when it changed meanwhile).
    pub async fn replace(
        &self,
        subresource: Option<&str>,
        key: &ObjectKey,
        object: &impl Serialize,
    ) -> Result<Arc<K>, ControllerError> {
        let doing = format!("update {} {key} {}", K::kind(&()), subresource.unwrap_or_default());
        let body = encode(&doing, object)?;
        let request = match subresource {
            Some(sub) => Self::request(&key.namespace).replace_subresource(sub, &key.name, &post(), body),
            None => Self::request(&key.namespace).replace(&key.name, &post(), body),
        };
        self.send(doing.clone(), request.map_err(build(doing))?).await
    }

    /// Applies a JSON merge patch to an object, or to its subresource when named.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn patch(
        &self,
        subresource: Option<&str>,
        key: &ObjectKey,
        patch: serde_json::Value,
    ) -> Result<Arc<K>, ControllerError> {
        self.send_patch(subresource, key, Patch::Merge(patch)).await
    }

    /// As [`Informer::patch`] with a strategic merge patch, which merges lists by their keys.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn patch_strategic(
        &self,
        subresource: Option<&str>,
        key: &ObjectKey,
        patch: serde_json::Value,
    ) -> Result<Arc<K>, ControllerError> {
        self.send_patch(subresource, key, Patch::Strategic(patch)).await
    }

    async fn send_patch(
        &self,
        subresource: Option<&str>,
        key: &ObjectKey,
        patch: Patch<serde_json::Value>,
    ) -> Result<Arc<K>, ControllerError> {
        let doing = format!("patch {} {key} {}", K::kind(&()), subresource.unwrap_or_default());
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let request = match subresource {
            Some(sub) => Self::request(&key.namespace).patch_subresource(sub, &key.name, &params, &patch),
            None => Self::request(&key.namespace).patch(&key.name, &params, &patch),
        };
        self.send(doing.clone(), request.map_err(build(doing))?).await
    }

    /// Deletes an object; one that is gone already is no error.
    ///
    /// # Errors
    /// What the API server says (a conflict when the uid is another's).
    pub async fn delete(&self, key: &ObjectKey, params: &DeleteParams) -> Result<(), ControllerError> {
        let doing = format!("delete {} {key}", K::kind(&()));
        let known = self.get(key);
        let request = Self::request(&key.namespace).delete(&key.name, params).map_err(build(doing.clone()))?;
        let answer = self.0.client.request::<serde_json::Value>(request).await;
        let answer = match answer.map_err(ControllerError::api(doing)) {
            Err(error) if error.is_not_found() => {
                self.bury(key, known);
                return Ok(());
            }
            other => other?,
        };
        // The answer is the object when it stays for a while (grace, finalizers) or a Status, and
        // an object without either is gone.
        match serde_json::from_value::<K>(answer.clone()) {
            Ok(object) if answer["kind"] != "Status" && stays(&object) => {
                self.wrote(object);
            }
            _ => self.bury(key, known),
        }
        Ok(())
    }

    fn bury(&self, key: &ObjectKey, known: Option<Arc<K>>) {
        let Some(uid) = known.and_then(|k| k.meta().uid.clone()) else { return };
        let old = {
            let mut store = self.0.store.write();
            match store.objects.get(key) {
                Some(now) if now.meta().uid.as_ref() == Some(&uid) => {
                    store.buried.insert(uid);
                    store.remove(key, self.0.indexer)
                }
                _ => None,
            }
        };
        if let Some(old) = old {
            self.notify(Some(&old), None);
        }
    }
}

/// Whether an object answered to a DELETE, or being deleted, still exists.
fn stays<K: Resource>(object: &K) -> bool {
    let meta = object.meta();
    let finalizers = meta.finalizers.as_ref().is_some_and(|f| !f.is_empty());
    meta.deletion_timestamp.is_some() && (finalizers || meta.deletion_grace_period_seconds.is_some_and(|g| g > 0))
}

fn post() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(MANAGER.to_owned()) }
}

fn encode(what: &str, object: &impl Serialize) -> Result<Vec<u8>, ControllerError> {
    serde_json::to_vec(object).map_err(|source| ControllerError::Encode { what: what.to_owned(), source })
}

fn build(doing: String) -> impl FnOnce(kube::core::request::Error) -> ControllerError {
    move |source| ControllerError::api(doing)(kube::Error::BuildRequest(source))
}

impl<K: Resource> Store<K> {
    fn unindex(&mut self, key: &ObjectKey, old: Option<&K>, indexer: Indexer<K>) {
        for value in old.map(indexer).unwrap_or_default() {
            if let Some(keys) = self.index.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.index.remove(&value);
                }
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey, indexer: Indexer<K>) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        self.unindex(key, Some(&old), indexer);
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn pod(revision: &str, dying: bool) -> Pod {
        let mut pod =
            json!({"metadata": {"namespace": "default", "name": "db-2", "uid": "u", "resourceVersion": revision}});
        if dying {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        }
        serde_json::from_value(pod).unwrap()
    }

    fn informer() -> Informer<Pod> {
        aksim_runtime::pki::install_crypto_provider();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Informer::new(Client::try_from(config).unwrap())
    }

    #[tokio::test]
    async fn the_answer_to_a_write_does_not_bring_back_what_the_watch_has_seen_go() {
        let (informer, mut listed) = (informer(), HashSet::new());
        let key = ObjectKey::new("default", "db-2");
        informer.take(watcher::Event::Apply(pod("5", false)), &mut listed);
        // We delete it (6); its kubelet is done with it (7) before our answer is read.
        informer.take(watcher::Event::Apply(pod("6", true)), &mut listed);
        informer.take(watcher::Event::Delete(pod("7", true)), &mut listed);
        informer.wrote(pod("6", true));
        assert!(informer.get(&key).is_none());
        // What the watch has not told of yet is news.
        informer.wrote(pod("8", false));
        assert_eq!(revision(informer.get(&key).unwrap().as_ref()), 8);
    }
}
