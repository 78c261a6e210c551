//! A write under way, as admission and the rules of kinds see it (kube's `admission.Attributes`).

use crate::{auth::User, request::target::Target, store::Store};
use parking_lot::Mutex;
use serde_json::Value;

/// The part of an object that a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where that is a subresource.
    Whole,
    /// The status.
    Status,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// Approval conditions of a certificate signing request.
    Approval,
    /// Resources of a pod's containers.
    Resize,
    /// Replicas.
    Scale,
    /// The binding of a pod to a node.
    Binding,
}

/// A write under way.
pub struct Change<'a> {
    /// All objects.
    pub store: &'a Store,
    /// Who writes.
    pub user: &'a User,
    /// For the `Warning` headers of the answer.
    pub warnings: &'a Mutex<Vec<String>>,
    /// What is written to.
    pub target: &'a Target,
    /// The object before; `None` when it is created.
    pub old: Option<&'a Value>,
    /// The part that may change.
    pub part: Part,
    /// Whether nothing is to be written in the end.
    pub dry_run: bool,
}
