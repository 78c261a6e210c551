//! `ResourceQuota`: what a namespace may hold at most.
//!
//! Usage is counted anew from the store for each write, and writes that are on their way to the
//! store are held in a ledger: both are looked at under one short lock, so that writes side by
//! side never pass a quota together. (kube-apiserver counts in `status.used` instead, which lags.)

use super::{Change, Part};
use crate::{
    request::status::ApiError,
    store::{Key, State},
};
use aksim_model::{
    quantity::Amount,
    quota::{self as usage, hard, used},
    resources::{self, Amounts},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};

/// An object on its way to the store.
struct Reserved {
    table: String,
    key: Key,
    object: Value,
}

/// Writes that were allowed and are not yet known to be in the store.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    next: u64,
    reserved: HashMap<u64, Reserved>,
}

/// Room that a write holds in quotas until it is dropped: after the write, which then counts
/// itself, or its failure.
#[must_use]
pub struct Reservation(Option<(Ledger, u64)>);

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((ledger, id)) = self.0.take() {
            ledger.0.lock().reserved.remove(&id);
        }
    }
}

/// Checks a valid object against the quotas of its namespace, and takes its room.
///
/// # Errors
/// 403 `exceeded quota: …` or `failed quota: …: must specify …`.
pub fn reserve(ledger: &Ledger, change: &Change<'_>, value: &Value) -> Result<Reservation, ApiError> {
    let (store, target) = (change.store, change.target);
    if !target.resource.namespaced || !matches!(change.part, Part::Whole | Part::Resize) {
        return Ok(Reservation(None));
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let quotas = store.table("resourcequotas");
    let concerned = |state: &State| -> Vec<Value> {
        let quotas = state.table(quotas).range(Some(namespace), None).map(|quota| quota.value());
        quotas.filter(|quota| concerns(quota, &target.table_name, value)).collect()
    };
    if concerned(&store.snapshot()).is_empty() {
        return Ok(Reservation(None));
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let key = target.key(namespace, name);
    let mut entries = ledger.0.lock();
    // Taken under the lock: what is not in the ledger any more is in this state.
    let state = store.snapshot();
    for quota in concerned(&state) {
        let objects = state.table(target.table).range(Some(namespace), None);
        let objects = objects.filter(|object| object.key != key).map(|object| (object.key.clone(), object.value()));
        let pending = entries.reserved.values().filter(|r| r.table == target.table_name && r.key != key);
        let pending = pending.map(|r| (r.key.clone(), r.object.clone()));
        let others = objects.chain(pending);
        let old = change.old.or_else(|| {
            entries.reserved.values().find(|r| r.table == target.table_name && r.key == key).map(|r| &r.object)
        });
        check(&quota, &target.table_name, value, old, others)
            .map_err(|cause| ApiError::forbidden(&target.resource.group_resource(), name, &cause))?;
    }
    if change.dry_run {
        return Ok(Reservation(None));
    }
    let id = entries.next;
    entries.next += 1;
    entries.reserved.insert(id, Reserved { table: target.table_name.clone(), key, object: value.clone() });
    Ok(Reservation(Some((ledger.clone(), id))))
}

fn concerns(quota: &Value, table: &str, object: &Value) -> bool {
    hard(quota).keys().any(|name| usage::counted_table(name) == Some(table))
        && usage::in_scope(&quota["spec"], table, object)
}

/// Checks one object against one quota that counts it.
fn check(
    quota: &Value,
    table: &str,
    object: &Value,
    old: Option<&Value>,
    others: impl Iterator<Item = (Key, Value)>,
) -> Result<(), String> {
    let (hard, now) = (hard(quota), Timestamp::now());
    let quota_name = quota["metadata"]["name"].as_str().unwrap_or_default();
    if table == "pods"
        && old.is_none()
        && let Some(missing) = usage::unnamed(&object["spec"], &hard)
    {
        return Err(format!("failed quota: {quota_name}: {missing}"));
    }
    let new = usage::of(table, object, now);
    let before = old.filter(|old| usage::in_scope(&quota["spec"], table, old));
    let before = before.map(|old| usage::of(table, old, now)).unwrap_or_default();
    let amount = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(Amount::ZERO);
    let more: Amounts = hard
        .keys()
        .map(|name| (name.clone(), amount(&new, name).minus(amount(&before, name))))
        .filter(|(_, delta)| delta.nanos() > 0)
        .collect();
    if more.is_empty() {
        return Ok(());
    }
    let mut held = used(quota, table, others, now);
    resources::add(&mut held, &before);
    let passed = |name: &&String| amount(&held, name).plus(amount(&more, name)).nanos() > amount(&hard, name).nanos();
    let exceeded: Vec<&String> = more.keys().filter(passed).collect();
    if exceeded.is_empty() {
        return Ok(());
    }
    let show = |amounts: &Amounts| {
        exceeded.iter().map(|name| format!("{name}={}", amount(amounts, name))).collect::<Vec<_>>().join(",")
    };
    let (requested, used, limited) = (show(&more), show(&held), show(&hard));
    Err(format!("exceeded quota: {quota_name}, requested: {requested}, used: {used}, limited: {limited}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn others(pods: &[(&str, &str)]) -> impl Iterator<Item = (Key, Value)> {
        pods.iter().map(|(name, cpu)| (Key::new("n", name), pod(cpu))).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn what_exceeds_is_told() {
        let quota =
            json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "requests.cpu": "1", "secrets": "1"}}});
        assert_eq!(check(&quota, "pods", &pod("500m"), None, others(&[("a", "500m")])), Ok(()));
        assert_eq!(
            check(&quota, "pods", &pod("600m"), None, others(&[("a", "500m")])).unwrap_err(),
            "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1"
        );
        assert_eq!(
            check(&quota, "pods", &pod("1"), None, others(&[("a", "100m"), ("b", "100m")])).unwrap_err(),
            "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=2,requests.cpu=200m, limited: pods=2,requests.cpu=1"
        );
        let silent = json!({"spec": {"containers": [{"name": "c"}]}});
        assert_eq!(
            check(&quota, "pods", &silent, None, others(&[])).unwrap_err(),
            "failed quota: q: must specify requests.cpu for: c"
        );
    }

    #[test]
    fn less_is_always_allowed() {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "1"}}});
        let full = [("a", "900m"), ("b", "900m")];
        assert_eq!(check(&quota, "pods", &pod("100m"), Some(&pod("200m")), others(&full)), Ok(()));
        assert!(check(&quota, "pods", &pod("300m"), Some(&pod("200m")), others(&full)).is_err());
    }

    #[test]
    fn an_object_that_is_stored_and_on_its_way_counts_once() {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "9"}}});
        let twice = others(&[("a", "1"), ("a", "1"), ("b", "1")]);
        assert_eq!(used(&quota, "pods", twice, Timestamp::now())["pods"].to_string(), "2");
    }
}
