//! Spreads endpoints over slices so that few slices change when few endpoints do. Pure.

use super::plan::{Group, MAX_PER_SLICE};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::{collections::HashMap, sync::Arc};

/// What becomes of the slices of a Service.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Slices to create (without metadata).
    pub create: Vec<EndpointSlice>,
    /// Slices to write, with their metadata as they are now.
    pub update: Vec<EndpointSlice>,
    /// Names of slices to delete.
    pub delete: Vec<String>,
}

/// Who an endpoint is, whatever its conditions.
fn identity(endpoint: &Endpoint) -> (Option<String>, Vec<String>) {
    (endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()), endpoint.addresses.clone())
}

/// Compares the wanted groups with the slices there are. A family without any endpoint keeps one
/// empty slice, so that clients see that the Service was looked at.
pub fn reconcile(groups: Vec<Group>, families: &[&'static str], existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut unused: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    unused.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut wanted = groups;
    for family in families {
        if !wanted.iter().any(|g| g.address_type == *family) {
            wanted.push(Group { address_type: family, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    for group in wanted {
        let (same, other) = unused.into_iter().partition::<Vec<_>, _>(|s| {
            s.address_type == group.address_type && s.ports.clone().unwrap_or_default() == group.ports
        });
        unused = other;
        place(group, &same, &mut changes);
    }
    changes.delete.extend(unused.into_iter().filter_map(|s| s.metadata.name.clone()));
    changes
}

fn place(group: Group, slices: &[&Arc<EndpointSlice>], changes: &mut Changes) {
    let empty = group.endpoints.is_empty();
    let mut waiting: HashMap<_, (usize, Endpoint)> =
        group.endpoints.into_iter().enumerate().map(|(i, e)| (identity(&e), (i, e))).collect();
    let mut filled: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let kept = slice.endpoints.iter().flatten().filter_map(|old| waiting.remove(&identity(old)).map(|(_, e)| e));
        filled.push((slice, kept.collect()));
    }
    let mut rest: Vec<(usize, Endpoint)> = waiting.into_values().collect();
    rest.sort_by_key(|(i, _)| *i);
    let mut rest = rest.into_iter().map(|(_, e)| e);
    // The fullest first, so that few slices change.
    filled.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut filled {
        let room = MAX_PER_SLICE.saturating_sub(endpoints.len());
        endpoints.extend(rest.by_ref().take(room));
    }
    let ports = (!group.ports.is_empty()).then_some(group.ports);
    let new = |endpoints| EndpointSlice {
        address_type: group.address_type.to_owned(),
        endpoints: Some(endpoints),
        ports: ports.clone(),
        ..EndpointSlice::default()
    };
    let mut placeholder = empty;
    for (slice, endpoints) in filled {
        if endpoints.is_empty() && !std::mem::take(&mut placeholder) {
            changes.delete.extend(slice.metadata.name.clone());
        } else if slice.endpoints.clone().unwrap_or_default() != endpoints {
            changes.update.push(EndpointSlice { metadata: slice.metadata.clone(), ..new(endpoints) });
        }
    }
    let mut rest = rest.peekable();
    while placeholder || rest.peek().is_some() {
        placeholder = false;
        changes.create.push(new(rest.by_ref().take(MAX_PER_SLICE).collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(n: usize, ready: bool) -> Endpoint {
        serde_json::from_value(json!({"addresses": [format!("10.244.{}.{}", n / 250, n % 250)],
            "conditions": {"ready": ready}, "targetRef": {"uid": n.to_string()}}))
        .unwrap()
    }

    fn group(endpoints: Vec<Endpoint>) -> Group {
        let ports = serde_json::from_value(json!([{"name": "http", "port": 8080, "protocol": "TCP"}])).unwrap();
        Group { address_type: "IPv4", ports, endpoints }
    }

    fn named(changes: Changes) -> Vec<Arc<EndpointSlice>> {
        let slices = changes.create.into_iter().chain(changes.update).enumerate();
        slices
            .map(|(i, mut slice)| {
                slice.metadata.name.get_or_insert(format!("s{i}"));
                Arc::new(slice)
            })
            .collect()
    }

    #[test]
    fn fills_slices_of_a_hundred_and_touches_only_what_changed() {
        let all: Vec<_> = (0..250).map(|n| endpoint(n, true)).collect();
        let slices = named(reconcile(vec![group(all.clone())], &["IPv4"], &[]));
        let sizes: Vec<_> = slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        assert_eq!(reconcile(vec![group(all.clone())], &["IPv4"], &slices), Changes::default());

        let mut one_changed = all.clone();
        one_changed[120] = endpoint(120, false);
        let changes = reconcile(vec![group(one_changed)], &["IPv4"], &slices);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
        assert_eq!(changes.update[0].metadata.name.as_deref(), Some("s1"));

        let changes = reconcile(vec![group(all[..100].to_vec())], &["IPv4"], &slices);
        assert_eq!((changes.update.len(), changes.delete), (0, vec!["s1".to_owned(), "s2".to_owned()]));
    }

    #[test]
    fn without_endpoints_one_empty_slice_stays() {
        let changes = reconcile(vec![], &["IPv4"], &[]);
        assert_eq!((changes.create.len(), changes.create[0].endpoints.as_deref()), (1, Some(&[][..])));
        let slices = named(changes);
        assert_eq!(reconcile(vec![], &["IPv4"], &slices), Changes::default());
        let changes = reconcile(vec![group(vec![endpoint(1, true)])], &["IPv4"], &slices);
        assert_eq!((changes.create.len(), changes.delete.len()), (1, 1));
    }
}
