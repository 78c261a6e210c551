//! Who owns whom, by uid. Pure: changes go in, uids to look at come out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Finalizer of an object whose dependents are deleted first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are let go first.
pub const ORPHAN: &str = "orphan";

/// Group and kind.
pub type GroupKind = (Arc<str>, Arc<str>);

/// An object in the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Group and kind.
    pub kind: GroupKind,
    /// Namespace, empty for cluster-wide objects.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// It is being deleted.
    pub deleting: bool,
    /// It is being deleted and waits for its dependents to be deleted.
    pub foreground: bool,
    /// It is being deleted and waits for its dependents to be let go.
    pub orphaning: bool,
    /// Known only as somebody's owner; whether it exists has to be asked.
    pub is_virtual: bool,
}

/// What to look at after a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Whether this object has to be deleted.
    Delete(String),
    /// Let the dependents of this object go.
    Orphan(String),
}

/// The graph of owners.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    /// Owners known to be gone: looked up before the server is asked.
    absent: HashSet<String>,
}

/// Owners remembered as gone.
const ABSENT: usize = 10_000;

/// Group of an `apiVersion`.
pub fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl Graph {
    /// A node.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Uids and nodes of those that name this uid as owner.
    pub fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }

    /// Whether an owner is known to be gone.
    pub fn is_absent(&self, uid: &str) -> bool {
        self.absent.contains(uid)
    }

    /// Remembers that an owner is gone.
    pub fn set_absent(&mut self, uid: &str) {
        if self.absent.len() >= ABSENT {
            self.absent.clear();
        }
        self.absent.insert(uid.to_owned());
    }

    /// Uids of the real objects of a kind.
    pub fn of_kind(&self, kind: &GroupKind) -> Vec<String> {
        let nodes = self.nodes.iter().filter(|(_, n)| n.kind == *kind && !n.is_virtual);
        nodes.map(|(uid, _)| uid.clone()).collect()
    }

    /// Takes an object as it is now.
    pub fn apply(&mut self, kind: &GroupKind, meta: &ObjectMeta) -> Vec<Task> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let deleting = meta.deletion_timestamp.is_some();
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        let node = Node {
            kind: kind.clone(),
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphaning: deleting && has(ORPHAN),
            is_virtual: false,
        };
        self.absent.remove(&uid);
        let mut tasks = Vec::new();
        let before = self.nodes.insert(uid.clone(), node.clone());
        let old_owners = before.as_ref().map(|b| b.owners.clone()).unwrap_or_default();
        self.link(&uid, &node, &old_owners, &mut tasks);
        let was = |state: fn(&Node) -> bool| before.as_ref().is_some_and(state);
        if node.orphaning && !was(|b| b.orphaning) {
            tasks.push(Task::Orphan(uid.clone()));
        }
        if node.foreground && !was(|b| b.foreground) {
            tasks.extend(self.dependents.get(&uid).into_iter().flatten().cloned().map(Task::Delete));
            tasks.push(Task::Delete(uid.clone()));
        }
        if before.as_ref().is_some_and(|b| b.is_virtual) {
            // Someone names this uid as owner, perhaps under another name or namespace.
            let astray = self.dependents(&uid).into_iter().filter(|(_, d)| names_other(d, &uid, &node));
            tasks.extend(astray.map(|(uid, _)| Task::Delete(uid)));
        }
        tasks
    }

    fn link(&mut self, uid: &str, node: &Node, old: &[OwnerReference], tasks: &mut Vec<Task>) {
        for gone in old.iter().filter(|o| !node.owners.iter().any(|n| n.uid == o.uid)) {
            self.unlink(uid, &gone.uid);
        }
        // An owner that waits for its dependents may wait for one less.
        let unblocked = old.iter().filter(|o| {
            o.block_owner_deletion == Some(true)
                && !node.owners.iter().any(|n| n.uid == o.uid && n.block_owner_deletion == Some(true))
        });
        for owner in unblocked.filter(|o| self.nodes.get(&o.uid).is_some_and(|n| n.foreground)) {
            tasks.push(Task::Delete(owner.uid.clone()));
        }
        for owner in node.owners.iter().filter(|n| !old.iter().any(|o| o.uid == n.uid)) {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
            match self.nodes.get(&owner.uid) {
                None => {
                    self.nodes.insert(owner.uid.clone(), virtual_owner(owner, &node.namespace));
                    tasks.push(Task::Delete(owner.uid.clone()));
                }
                Some(known) if known.is_virtual => {}
                Some(known) if names_other(node, &owner.uid, known) || known.deleting => {
                    tasks.push(Task::Delete(uid.to_owned()));
                }
                Some(_) => {}
            }
        }
    }

    fn unlink(&mut self, uid: &str, owner: &str) {
        let Some(dependents) = self.dependents.get_mut(owner) else { return };
        dependents.remove(uid);
        if dependents.is_empty() {
            self.dependents.remove(owner);
            if self.nodes.get(owner).is_some_and(|n| n.is_virtual) {
                self.nodes.remove(owner);
            }
        }
    }

    /// Takes that an object is gone: its dependents have an owner less, its owners a dependent less.
    pub fn remove(&mut self, uid: &str) -> Vec<Task> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.set_absent(uid);
        let mut tasks: Vec<Task> = self.dependents.get(uid).into_iter().flatten().cloned().map(Task::Delete).collect();
        for owner in &node.owners {
            self.unlink(uid, &owner.uid);
            if self.nodes.get(&owner.uid).is_some_and(|n| n.foreground) {
                tasks.push(Task::Delete(owner.uid.clone()));
            }
        }
        tasks
    }
}

fn virtual_owner(owner: &OwnerReference, namespace: &Arc<str>) -> Node {
    Node {
        kind: (group(&owner.api_version).into(), owner.kind.as_str().into()),
        namespace: namespace.clone(),
        name: owner.name.as_str().into(),
        owners: Vec::new(),
        deleting: false,
        foreground: false,
        orphaning: false,
        is_virtual: true,
    }
}

/// Whether a dependent names the owner of this uid by another kind, name or namespace than it has.
fn names_other(dependent: &Node, uid: &str, owner: &Node) -> bool {
    dependent.owners.iter().filter(|o| o.uid == uid).any(|o| {
        group(&o.api_version) != &*owner.kind.0
            || o.kind != *owner.kind.1
            || o.name != *owner.name
            || (!owner.namespace.is_empty() && owner.namespace != dependent.namespace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn kind() -> GroupKind {
        ("apps".into(), "ReplicaSet".into())
    }

    fn meta(uid: &str, owners: &[(&str, bool)], more: Value) -> ObjectMeta {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(uid, block)| {
                json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid,
                                       "blockOwnerDeletion": block})
            })
            .collect();
        let mut value = json!({"uid": uid, "name": uid, "namespace": "shop", "ownerReferences": owners});
        json_patch::merge(&mut value, &more);
        serde_json::from_value(value).unwrap()
    }

    fn delete(uid: &str) -> Task {
        Task::Delete(uid.into())
    }

    #[test]
    fn an_owner_not_seen_yet_is_asked_for_and_its_end_is_told_to_dependents() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(&kind(), &meta("child", &[("parent", true)], json!({}))), [delete("parent")]);
        assert!(graph.get("parent").unwrap().is_virtual);
        assert!(graph.apply(&kind(), &meta("parent", &[], json!({}))).is_empty());
        assert!(!graph.get("parent").unwrap().is_virtual);
        assert_eq!(graph.remove("parent"), [delete("child")]);
        assert!(graph.is_absent("parent"));
    }

    #[test]
    fn foreground_deletion_looks_at_dependents_first_and_at_the_owner_when_one_goes() {
        let mut graph = Graph::default();
        graph.apply(&kind(), &meta("parent", &[], json!({})));
        graph.apply(&kind(), &meta("child", &[("parent", true)], json!({})));
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        let tasks = graph.apply(&kind(), &meta("parent", &[], leaving.clone()));
        assert_eq!(tasks, [delete("child"), delete("parent")]);
        assert!(graph.apply(&kind(), &meta("parent", &[], leaving)).is_empty(), "only once");
        let freed = graph.apply(&kind(), &meta("child", &[("parent", false)], json!({})));
        assert_eq!(freed, [delete("parent")], "it no longer blocks");
        assert_eq!(graph.remove("child"), [delete("parent")]);
    }

    #[test]
    fn orphaning_is_a_task_of_its_own() {
        let mut graph = Graph::default();
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [ORPHAN]});
        assert_eq!(graph.apply(&kind(), &meta("parent", &[], leaving)), [Task::Orphan("parent".into())]);
    }

    #[test]
    fn owners_in_another_namespace_or_of_another_name_are_doubted() {
        let mut graph = Graph::default();
        graph.apply(&kind(), &meta("parent", &[], json!({"namespace": "other"})));
        assert_eq!(graph.apply(&kind(), &meta("child", &[("parent", true)], json!({}))), [delete("child")]);
    }

    #[test]
    fn nothing_is_left_of_virtual_owners_without_dependents() {
        let mut graph = Graph::default();
        graph.apply(&kind(), &meta("child", &[("parent", true)], json!({})));
        graph.apply(&kind(), &meta("child", &[], json!({})));
        assert!(graph.get("parent").is_none());
        graph.remove("child");
        assert!(graph.nodes.is_empty() && graph.dependents.is_empty());
    }
}
