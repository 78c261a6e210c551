//! Claims of a pod: whether they can be had, which nodes their volumes allow, and the choice of a
//! node for those that wait for their first consumer.

use super::shape::{Labels, node_matches};
use crate::{
    Context,
    error::ControllerError,
    informer::ObjectKey,
    pod::{Pod, claim_index},
    volume::{self, plan},
};
use k8s_openapi::api::{
    core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use serde_json::json;
use std::sync::Arc;

/// Provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What one claim asks of the node.
#[derive(Clone, Debug)]
pub enum Need {
    /// Its volume is reached from these nodes; `None` is all.
    Bound(Option<NodeSelector>),
    /// One of some volumes that there are, or one that is made, where it can be.
    Open {
        /// Nodes of the volumes that would do.
        volumes: Vec<Option<NodeSelector>>,
        /// Nodes for which one can be made; `None` when none is made.
        made: Option<Option<NodeSelector>>,
    },
}

/// The claims of a pod.
#[derive(Debug, Default)]
pub struct Claims {
    /// What they ask of the node.
    pub needs: Vec<Need>,
    /// Claims that wait for a node to be chosen.
    pub open: Vec<ObjectKey>,
}

fn reaches(selector: Option<&NodeSelector>, node: &str, labels: &Labels) -> bool {
    selector.is_none_or(|selector| node_matches(selector, node, labels))
}

/// Why the claims keep a pod from a node, in the scheduler's words.
pub fn reason(needs: &[Need], node: &str, labels: &Labels) -> Option<&'static str> {
    needs.iter().find_map(|need| match need {
        Need::Bound(nodes) if reaches(nodes.as_ref(), node, labels) => None,
        Need::Bound(_) => Some("node(s) had volume node affinity conflict"),
        Need::Open { volumes, made } => {
            let there = volumes.iter().any(|nodes| reaches(nodes.as_ref(), node, labels));
            let can_be = made.as_ref().is_some_and(|nodes| reaches(nodes.as_ref(), node, labels));
            (!there && !can_be).then_some("node(s) didn't find available persistent volumes to bind")
        }
    })
}

fn nodes_of(volume: &PersistentVolume) -> Option<NodeSelector> {
    volume.spec.as_ref()?.node_affinity.as_ref()?.required.clone()
}

/// `allowedTopologies` of a class as a selector of nodes.
fn topologies(class: &StorageClass) -> Option<NodeSelector> {
    let terms = class.allowed_topologies.as_ref().filter(|terms| !terms.is_empty())?;
    let terms = terms.iter().map(|term| {
        let expressions = term.match_label_expressions.iter().flatten();
        let expressions = expressions.map(|expression| NodeSelectorRequirement {
            key: expression.key.clone(),
            operator: "In".into(),
            values: Some(expression.values.clone()),
        });
        NodeSelectorTerm { match_expressions: Some(expressions.collect()), match_fields: None }
    });
    Some(NodeSelector { node_selector_terms: terms.collect() })
}

/// Looks at the claims of a pod.
///
/// # Errors
/// Why no node will do, whatever it is.
pub fn of(context: &Context, pod: &Pod) -> Result<Claims, String> {
    let mut claims = Claims::default();
    for wanted in &pod.spec.claims {
        let name = wanted.claim_of(pod.name());
        let key = ObjectKey::new(pod.namespace(), &*name);
        let Some(claim) = context.claims.get(&key) else {
            return Err(match wanted.ephemeral {
                true => {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                }
                false => format!("persistentvolumeclaim \"{name}\" not found"),
            });
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if wanted.ephemeral && !claim.metadata.owner_references.iter().flatten().any(|owner| owner.uid == pod.uid()) {
            return Err(format!(
                "PVC {key} was not created for pod {}/{} (pod is not owner)",
                pod.namespace(),
                pod.name()
            ));
        }
        alone(context, pod, &key, &claim)?;
        need(context, &key, &claim, &mut claims)?;
    }
    Ok(claims)
}

/// A claim of one pod is refused to a second.
fn alone(context: &Context, pod: &Pod, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    let mut users = context.pods.indexed(&claim_index(&key.namespace, &key.name)).into_iter();
    let taken = users.any(|other| other.uid() != pod.uid() && other.node().is_some() && !other.is_finished());
    match taken && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        true => {
            Err("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode".into())
        }
        false => Ok(()),
    }
}

fn need(context: &Context, key: &ObjectKey, claim: &PersistentVolumeClaim, claims: &mut Claims) -> Result<(), String> {
    if let Some(volume) = volume::bound_volume(context, claim) {
        claims.needs.push(Need::Bound(nodes_of(&volume)));
        return Ok(());
    }
    let class = context.storage_classes.get(&ObjectKey::new("", plan::class_of_claim(claim)));
    let class = class.filter(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let named = volume::volume_name(claim);
    match (class, named) {
        (Some(class), None) => {
            let volumes = candidates(context, claim).iter().map(|volume| nodes_of(volume)).collect();
            let made = (class.provisioner != NO_PROVISIONER).then(|| topologies(&class));
            claims.needs.push(Need::Open { volumes, made });
            claims.open.push(key.clone());
            Ok(())
        }
        (_, Some(volume)) if plan::annotation(&claim.metadata, plan::BIND_COMPLETED).is_some() => {
            Err(format!("persistentvolumeclaim \"{}\" bound to non-existent persistentvolume \"{volume}\"", key.name))
        }
        _ => Err("pod has unbound immediate PersistentVolumeClaims".into()),
    }
}

/// Volumes that would do for a claim, the smallest first.
fn candidates(context: &Context, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
    let volumes = context.volumes.list().into_iter();
    let fits = |v: &Arc<PersistentVolume>| plan::is_candidate(claim, v) || plan::is_for(v, claim);
    let mut volumes: Vec<_> = volumes.filter(fits).collect();
    volumes.sort_by_key(|volume| plan::capacity(volume).nanos());
    volumes
}

/// Takes, for each open claim, a volume that the node reaches, or has one made for the node. The
/// pod is scheduled anew when the claims are bound.
pub async fn choose(context: &Context, open: &[ObjectKey], node: &str) -> Result<(), ControllerError> {
    let labels = context.nodes.get(&ObjectKey::new("", node)).and_then(|node| node.metadata.labels.clone());
    let labels = labels.unwrap_or_default();
    for key in open {
        let Some(claim) = context.claims.get(key) else { continue };
        let candidates = candidates(context, &claim);
        let found = candidates.iter().find(|volume| reaches(nodes_of(volume).as_ref(), node, &labels));
        if let Some(volume) = found {
            if plan::is_for(volume, &claim) {
                continue;
            }
            let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": &*key.name,
                "namespace": &*key.namespace, "uid": claim.metadata.uid});
            let metadata = json!({"resourceVersion": volume.metadata.resource_version,
                "annotations": {plan::BOUND_BY_CONTROLLER: "yes"}});
            let patch = json!({"metadata": metadata, "spec": {"claimRef": reference}});
            context.volumes.patch(None, &ObjectKey::of(volume.as_ref()), patch).await?;
        } else if plan::annotation(&claim.metadata, plan::SELECTED_NODE) != Some(node) {
            let annotations = json!({plan::SELECTED_NODE: node});
            context.claims.patch(None, key, json!({"metadata": {"annotations": annotations}})).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(node: &str) -> Option<NodeSelector> {
        let expression = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
        Some(serde_json::from_value(terms).unwrap())
    }

    #[test]
    fn volumes_bind_pods_to_nodes() {
        let labels: Labels = [("kubernetes.io/hostname".to_owned(), "a".to_owned())].into();
        let why = |need: Need| reason(&[need], "a", &labels);
        assert_eq!(why(Need::Bound(None)), None);
        assert_eq!(why(Need::Bound(only("a"))), None);
        assert_eq!(why(Need::Bound(only("b"))), Some("node(s) had volume node affinity conflict"));
        let open = |volumes: Vec<_>, made| Need::Open { volumes, made };
        assert_eq!(why(open(vec![only("b"), only("a")], None)), None);
        assert_eq!(why(open(vec![only("b")], Some(None))), None);
        let none = Some("node(s) didn't find available persistent volumes to bind");
        assert_eq!(why(open(vec![only("b")], None)), none);
        assert_eq!(why(open(vec![], Some(only("b")))), none);
    }
}
