//! What is known of the objects that rollouts depend on: told by watches, and read again by time.

use crate::workload::{Membership, Workload};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ControllerRevision, ReplicaSet},
        core::v1::{Event as CoreEvent, Pod, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

/// Namespace and name.
type Key = (String, String);

/// One message of a watch.
pub(super) enum Seen {
    /// A workload, by its place in the list, and whether it is there.
    Workload(usize, Box<Value>, bool),
    Pod(Key, Option<Box<Pod>>),
    Slice(Key, Option<Box<EndpointSlice>>),
    Service(Key, Option<Box<Service>>),
    /// All Services of a namespace have been told.
    Services(String),
    /// A ReplicaSet or ControllerRevision.
    History(Membership, Key, Option<Box<Value>>),
    /// The image of the pod of this uid is on its node.
    Pulled(String),
    Trouble(watcher::Error),
}

/// What the wait knows of a workload.
#[derive(Debug, Default)]
pub(super) enum Known {
    #[default]
    NotYet,
    There(Box<Value>),
    /// Deleted; as it last was.
    Gone(Option<Box<Value>>),
}

impl Known {
    fn gone(&mut self) {
        *self = match std::mem::take(self) {
            Self::There(object) => Self::Gone(Some(object)),
            Self::Gone(last) => Self::Gone(last),
            Self::NotYet => Self::Gone(None),
        };
    }
}

/// All that is known.
pub(super) struct Observed {
    workloads: Vec<(Workload, Known)>,
    pods: BTreeMap<Key, Pod>,
    slices: BTreeMap<Key, EndpointSlice>,
    services: BTreeMap<Key, Service>,
    /// Namespaces whose Services are all known.
    pub services_known: BTreeSet<String>,
    histories: BTreeMap<(Membership, String, String), Value>,
    /// Uids.
    pulled: BTreeSet<String>,
    /// By uid: how often the containers had ended when the pod was first seen ready, and whether it had failed.
    first: BTreeMap<String, First>,
    trouble: Option<String>,
}

/// What a pod was when it was first seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct First {
    /// How often its containers had ended before it was found ready.
    pub restarts: i32,
    /// Its phase was Failed: what replaces pods has done so long ago.
    pub failed: bool,
}

impl First {
    fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else { return Self::default() };
        let containers = status.container_statuses.iter().flatten().filter(|c| c.ready);
        let restarts = containers.map(|c| c.restart_count).max().unwrap_or(0);
        Self { restarts, failed: status.phase.as_deref() == Some("Failed") }
    }
}

impl Observed {
    /// Nothing is known yet.
    pub fn of(workloads: Vec<Workload>) -> Self {
        Self {
            workloads: workloads.into_iter().map(|workload| (workload, Known::NotYet)).collect(),
            pods: BTreeMap::new(),
            slices: BTreeMap::new(),
            services: BTreeMap::new(),
            services_known: BTreeSet::new(),
            histories: BTreeMap::new(),
            pulled: BTreeSet::new(),
            first: BTreeMap::new(),
            trouble: None,
        }
    }

    /// A workload by its place in the list.
    pub fn workload(&self, index: usize) -> &Known {
        &self.workloads[index].1
    }

    /// Pods of a namespace.
    pub fn pods_of(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        of(&self.pods, namespace)
    }

    /// Services of a namespace.
    pub fn services_of(&self, namespace: &str) -> impl Iterator<Item = &Service> {
        of(&self.services, namespace)
    }

    /// EndpointSlices of a namespace.
    pub fn slices_of(&self, namespace: &str) -> impl Iterator<Item = &EndpointSlice> {
        of(&self.slices, namespace)
    }

    /// ReplicaSets and ControllerRevisions of a namespace.
    pub fn histories(&self, namespace: &str) -> Vec<&Value> {
        self.histories.iter().filter(|((_, ns, _), _)| ns == namespace).map(|(_, object)| object).collect()
    }

    /// What a pod was when it was first seen.
    pub fn first(&self, pod: &Pod) -> First {
        pod.uid().and_then(|uid| self.first.get(&uid).copied()).unwrap_or_default()
    }

    /// Whether the image of a pod is known to be on its node.
    pub fn is_pulled(&self, pod: &Pod) -> bool {
        pod.uid().is_some_and(|uid| self.pulled.contains(&uid))
    }

    /// What the cluster last said besides objects.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Takes a message in.
    pub fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Workload(index, object, true) => self.workloads[index].1 = Known::There(object),
            Seen::Workload(index, object, false) => self.workloads[index].1 = Known::Gone(Some(object)),
            Seen::Pod(key, Some(pod)) => self.keep_pod(key, *pod),
            Seen::Pod(key, None) => drop(self.pods.remove(&key)),
            Seen::Slice(key, slice) => put(&mut self.slices, key, slice),
            Seen::Service(key, service) => put(&mut self.services, key, service),
            Seen::Services(namespace) => drop(self.services_known.insert(namespace)),
            Seen::History(membership, (namespace, name), object) => {
                put(&mut self.histories, (membership, namespace, name), object);
            }
            Seen::Pulled(uid) => drop(self.pulled.insert(uid)),
            Seen::Trouble(error) => {
                // The watcher backs off and tries again by itself.
                tracing::debug!(%error, "rollout watch");
                self.trouble = Some(error.to_string());
            }
        }
    }

    fn keep_pod(&mut self, key: Key, pod: Pod) {
        if let Some(uid) = pod.uid() {
            self.first.entry(uid).or_insert_with(|| First::of(&pod));
        }
        self.pods.insert(key, pod);
    }

    fn namespaces(&self) -> BTreeSet<String> {
        self.workloads.iter().map(|(workload, _)| workload.namespace.clone()).collect()
    }

    /// Where the templates that workloads of a namespace had are kept.
    fn history_apis(&self, client: &Client, namespace: &str) -> Vec<(Membership, Api<DynamicObject>)> {
        let of_namespace = self.workloads.iter().filter(|(workload, _)| workload.namespace == namespace);
        let memberships: BTreeSet<Membership> = of_namespace.map(|(workload, _)| workload.kind.membership).collect();
        let api = |membership: Membership| {
            let resource = match membership {
                Membership::ReplicaSet => ApiResource::erase::<ReplicaSet>(&()),
                Membership::ControllerRevision => ApiResource::erase::<ControllerRevision>(&()),
                _ => return None,
            };
            Some((membership, Api::namespaced_with(client.clone(), namespace, &resource)))
        };
        memberships.into_iter().filter_map(api).collect()
    }

    /// Watches all that is waited for and depended on.
    pub fn watch(&self, client: &Client) -> BoxStream<'static, Seen> {
        let mut watches = Vec::new();
        for (index, (workload, _)) in self.workloads.iter().enumerate() {
            watches.push(watch_workload(client, index, workload));
        }
        for namespace in self.namespaces() {
            let all = watcher::Config::default;
            let pulled = all().fields("involvedObject.kind=Pod,reason=Pulled");
            watches.push(objects(typed(client, &namespace), all(), |key, pod| Some(Seen::Pod(key, pod))));
            watches.push(objects(typed(client, &namespace), all(), |key, slice| Some(Seen::Slice(key, slice))));
            watches.push(watch_services(client, &namespace));
            watches.push(objects(typed(client, &namespace), pulled, |_, event: Option<Box<CoreEvent>>| {
                Some(Seen::Pulled(event?.involved_object.uid?))
            }));
            for (membership, api) in self.history_apis(client, &namespace) {
                watches.push(objects(api, all(), move |key, object| {
                    Some(Seen::History(membership, key, object.map(|object| Box::new(json(&*object)))))
                }));
            }
        }
        futures::stream::select_all(watches).boxed()
    }

    /// Reads everything again. What cannot be read stays as it was.
    pub async fn read(&mut self, client: &Client) {
        for (workload, known) in &mut self.workloads {
            match api(client, workload).get_opt(&workload.name).await {
                Ok(Some(object)) => *known = Known::There(Box::new(json(&object))),
                Ok(None) => known.gone(),
                Err(error) => tracing::debug!(%error, %workload, "rollout read"),
            }
        }
        for namespace in self.namespaces() {
            if let Some(pods) = list::<Pod>(typed(client, &namespace)).await {
                self.pods.retain(|(ns, _), _| *ns != namespace);
                pods.into_iter().for_each(|pod| self.keep_pod(key(&pod), pod));
            }
            replace(&mut self.slices, &namespace, list(typed(client, &namespace)).await);
            let services = list(typed(client, &namespace)).await;
            if services.is_some() {
                self.services_known.insert(namespace.clone());
            }
            replace(&mut self.services, &namespace, services);
            for (membership, api) in self.history_apis(client, &namespace) {
                if let Some(objects) = list(api).await {
                    self.histories.retain(|(of, ns, _), _| *of != membership || *ns != namespace);
                    let known = objects.iter().map(|o| ((membership, namespace.clone(), o.name_any()), json(o)));
                    self.histories.extend(known);
                }
            }
        }
    }
}

fn of<'m, V>(map: &'m BTreeMap<Key, V>, namespace: &str) -> impl Iterator<Item = &'m V> + use<'m, V> {
    let from = (namespace.to_owned(), String::new());
    let namespace = namespace.to_owned();
    map.range(from..).take_while(move |((ns, _), _)| *ns == namespace).map(|(_, value)| value)
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<Box<V>>) {
    match value {
        Some(value) => drop(map.insert(key, *value)),
        None => drop(map.remove(&key)),
    }
}

fn replace<K: ResourceExt>(map: &mut BTreeMap<Key, K>, namespace: &str, objects: Option<Vec<K>>) {
    if let Some(objects) = objects {
        map.retain(|(ns, _), _| ns != namespace);
        map.extend(objects.into_iter().map(|object| (key(&object), object)));
    }
}

fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// An object as JSON; objects of the API are made of it.
fn json(object: &impl serde::Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn api(client: &Client, workload: &Workload) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &workload.namespace, &workload.kind.resource())
}

fn typed<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Api::namespaced(client.clone(), namespace)
}

async fn list<K: Resource + Clone + DeserializeOwned + Debug>(api: Api<K>) -> Option<Vec<K>> {
    match api.list(&ListParams::default()).await {
        Ok(list) => Some(list.items),
        Err(error) => {
            tracing::debug!(%error, url = api.resource_url(), "rollout read");
            None
        }
    }
}

fn watch_workload(client: &Client, index: usize, workload: &Workload) -> BoxStream<'static, Seen> {
    let config = watcher::Config::default().fields(&format!("metadata.name={}", workload.name));
    let events = watcher::watcher(api(client, workload), config);
    let seen = move |event| match event {
        Ok(Event::Apply(object) | Event::InitApply(object)) => {
            Some(Seen::Workload(index, Box::new(json(&object)), true))
        }
        Ok(Event::Delete(object)) => Some(Seen::Workload(index, Box::new(json(&object)), false)),
        Ok(_) => None,
        Err(error) => Some(Seen::Trouble(error)),
    };
    events.filter_map(move |event| std::future::ready(seen(event))).boxed()
}

fn watch_services(client: &Client, namespace: &str) -> BoxStream<'static, Seen> {
    let events = watcher::watcher(typed::<Service>(client, namespace), watcher::Config::default());
    let namespace = namespace.to_owned();
    let seen = move |event| match event {
        Ok(Event::InitDone) => Some(Seen::Services(namespace.clone())),
        other => one(other, |key, service| Some(Seen::Service(key, service))),
    };
    events.filter_map(move |event| std::future::ready(seen(event))).boxed()
}

fn objects<K>(
    api: Api<K>,
    config: watcher::Config,
    mut seen: impl FnMut(Key, Option<Box<K>>) -> Option<Seen> + Send + 'static,
) -> BoxStream<'static, Seen>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher::watcher(api, config).filter_map(move |event| std::future::ready(one(event, &mut seen))).boxed()
}

fn one<K: ResourceExt>(
    event: watcher::Result<Event<K>>,
    seen: impl FnOnce(Key, Option<Box<K>>) -> Option<Seen>,
) -> Option<Seen> {
    match event {
        Ok(Event::Apply(object) | Event::InitApply(object)) => seen(key(&object), Some(Box::new(object))),
        Ok(Event::Delete(object)) => seen(key(&object), None),
        Ok(_) => None,
        Err(error) => Some(Seen::Trouble(error)),
    }
}
