//! Config maps and secrets that pods name: each watched while somebody uses it, so a change
//! arrives at once and a second pod costs no request.

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::{collections::HashMap, fmt::Debug, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

/// How long a first answer may take before a pod's start is tried again.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why an object could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ObjectError {
    /// It does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: String, name: String },
    /// The API server refused or did not answer.
    #[error("failed to sync {kind} cache: {message}")]
    Unavailable { kind: String, message: String },
}

/// What is known of an object.
#[derive(Clone, Debug)]
enum State<K> {
    Unknown,
    Failing(String),
    Absent,
    Present(Arc<K>),
}

/// An object in use; the watch ends when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Handle<K> {
    name: String,
    state: watch::Receiver<State<K>>,
}

/// Objects of one kind in use by the pods of this node.
pub(super) struct ObjectCache<K> {
    client: Client,
    inner: Arc<Mutex<Inner<K>>>,
}

struct Inner<K> {
    entries: HashMap<(String, String), watch::Sender<State<K>>>,
    tasks: JoinSet<()>,
}

impl<K> ObjectCache<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    pub fn new(client: Client) -> Self {
        Self { client, inner: Arc::new(Mutex::new(Inner { entries: HashMap::new(), tasks: JoinSet::new() })) }
    }

    /// Begins to use an object; [`Handle::get`] waits for it.
    pub fn subscribe(&self, namespace: &str, name: &str) -> Handle<K> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut inner = self.inner.lock();
        while inner.tasks.try_join_next().is_some() {}
        if let Some(sender) = inner.entries.get(&key).filter(|s| !s.is_closed()) {
            return Handle { name: name.to_owned(), state: sender.subscribe() };
        }
        let (sender, receiver) = watch::channel(State::Unknown);
        inner.entries.insert(key.clone(), sender.clone());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        inner.tasks.spawn(follow(api, key, sender, Arc::downgrade(&self.inner)));
        Handle { name: name.to_owned(), state: receiver }
    }
}

async fn follow<K>(
    api: Api<K>,
    key: (String, String),
    sender: watch::Sender<State<K>>,
    inner: std::sync::Weak<Mutex<Inner<K>>>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed = None;
    loop {
        let event = tokio::select! {
            () = sender.closed() => break,
            event = stream.next() => event,
        };
        match event {
            Some(Ok(watcher::Event::Init)) => listed = None,
            Some(Ok(watcher::Event::InitApply(object))) => listed = Some(object),
            Some(Ok(watcher::Event::InitDone)) => {
                sender.send_replace(listed.take().map_or(State::Absent, |o| State::Present(Arc::new(o))));
            }
            Some(Ok(watcher::Event::Apply(object))) => {
                sender.send_replace(State::Present(Arc::new(object)));
            }
            Some(Ok(watcher::Event::Delete(_))) => {
                sender.send_replace(State::Absent);
            }
            // A known object stays in use while the API server is away.
            Some(Err(error)) => {
                sender.send_if_modified(|state| match state {
                    State::Unknown | State::Failing(_) => {
                        *state = State::Failing(error.to_string());
                        true
                    }
                    _ => false,
                });
            }
            None => break,
        }
    }
    if let Some(inner) = inner.upgrade() {
        let mut inner = inner.lock();
        if inner.entries.get(&key).is_some_and(|s| s.same_channel(&sender)) {
            inner.entries.remove(&key);
        }
    }
}

impl<K: Resource<DynamicType = ()>> Handle<K> {
    /// The object, once known.
    pub async fn get(&mut self) -> Result<Arc<K>, ObjectError> {
        let kind = K::kind(&()).to_lowercase();
        let name = self.name.clone();
        let known = tokio::time::timeout(DEADLINE, self.state.wait_for(|s| !matches!(s, State::Unknown))).await;
        match known {
            Ok(Ok(state)) => match &*state {
                State::Present(object) => Ok(object.clone()),
                State::Failing(message) => Err(ObjectError::Unavailable { kind, message: message.clone() }),
                _ => Err(ObjectError::NotFound { kind, name }),
            },
            _ => Err(ObjectError::Unavailable { kind, message: "timed out waiting for the condition".into() }),
        }
    }

    /// Waits for the next change; forever when the cache is gone.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
