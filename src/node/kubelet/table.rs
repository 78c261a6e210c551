//! The pods of this node as the kubelet's API sees them; workers publish, handlers read.

use crate::runtime::{ContainerStatus, SandboxId};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// A pod with what runs of it.
#[derive(Clone)]
pub(in crate::kubelet) struct PodView {
    /// As last seen, with the status that this kubelet computed.
    pub pod: Arc<Pod>,
    /// Its sandbox, once there is one.
    pub sandbox: Option<SandboxId>,
    /// Containers by name.
    pub containers: HashMap<String, ContainerView>,
}

/// A container with the attempt before.
#[derive(Clone, Default)]
pub(in crate::kubelet) struct ContainerView {
    pub current: Option<ContainerStatus>,
    pub previous: Option<ContainerStatus>,
    /// Why it does not run: `ContainerCreating`.
    pub waiting: Option<String>,
}

/// Pods by uid.
#[derive(Default)]
pub(in crate::kubelet) struct PodTable {
    pods: Mutex<HashMap<String, Arc<PodView>>>,
}

impl PodTable {
    pub fn publish(&self, uid: &str, view: PodView) {
        self.pods.lock().insert(uid.to_owned(), Arc::new(view));
    }

    pub fn remove(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }

    pub fn all(&self) -> Vec<Arc<PodView>> {
        self.pods.lock().values().cloned().collect()
    }

    /// A pod by name; of two with the same name, the one that is not being deleted.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        let pods = self.pods.lock();
        let named = |v: &&Arc<PodView>| {
            v.pod.metadata.namespace.as_deref() == Some(namespace) && v.pod.metadata.name.as_deref() == Some(name)
        };
        pods.values().filter(named).min_by_key(|v| v.pod.metadata.deletion_timestamp.is_some()).cloned()
    }
}
