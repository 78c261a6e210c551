//! How many pods each ReplicaSet of a Deployment should have next. Pure.

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::{cmp::Reverse, sync::Arc};

/// Annotation of a ReplicaSet: the Deployment's replicas when it was last scaled.
pub const DESIRED_ANNOTATION: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a ReplicaSet: the most pods the Deployment might have had then.
pub const MAX_ANNOTATION: &str = "deployment.kubernetes.io/max-replicas";

/// A ReplicaSet and the replicas it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Name of the ReplicaSet.
    pub name: String,
    /// Its `spec.replicas` from now on.
    pub replicas: i32,
}

/// Desired replicas of a ReplicaSet.
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Available replicas of a ReplicaSet.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Desired replicas of a Deployment.
pub fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Whether the strategy is `RollingUpdate` (the default).
pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()).is_none_or(|t| t == "RollingUpdate")
}

/// A number or a percentage of `total`; a bad percentage counts as zero (the server refuses it).
pub fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => scaled(Some(&IntOrString::String("25%".into())), total, round_up),
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            let rounded = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// `(maxSurge, maxUnavailable)` in pods: surge rounded up, unavailable down, and never both zero.
pub fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let total = desired(deployment);
    let rolling = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), total, true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// `maxUnavailable` in pods, never more than there are.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    fenceposts(deployment).1.min(desired(deployment))
}

/// Replicas that the newest ReplicaSet may have, given all of them (the newest included).
pub fn new_replicas(deployment: &Deployment, all: &[Arc<ReplicaSet>], newest: i32) -> i32 {
    let wanted = desired(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let most = wanted.saturating_add(fenceposts(deployment).0);
    let total: i32 = all.iter().map(|s| replicas(s)).sum();
    if total >= most { newest } else { newest + (most - total).min(wanted - newest) }
}

/// The newest ReplicaSet's next size in a rolling update; `None` when it stays.
pub fn reconcile_new(deployment: &Deployment, all: &[Arc<ReplicaSet>], newest: &ReplicaSet) -> Option<i32> {
    let (now, wanted) = (replicas(newest), desired(deployment));
    let next = if now > wanted { wanted } else { new_replicas(deployment, all, now) };
    (next != now).then_some(next)
}

/// The old ReplicaSets' next sizes in a rolling update: first pods that serve nobody, then as many
/// as availability allows.
pub fn reconcile_old(deployment: &Deployment, old: &[Arc<ReplicaSet>], newest: &ReplicaSet) -> Vec<Scale> {
    let old_total: i32 = old.iter().map(|s| replicas(s)).sum();
    if old_total == 0 {
        return Vec::new();
    }
    let least_available = desired(deployment) - max_unavailable(deployment);
    let new_unavailable = replicas(newest) - available(newest);
    let budget = old_total + replicas(newest) - least_available - new_unavailable;
    if budget <= 0 {
        return Vec::new();
    }
    let mut sets: Vec<(&Arc<ReplicaSet>, i32)> = oldest_first(old).map(|s| (s, replicas(s))).collect();
    let mut cleaned = 0;
    for (set, size) in &mut sets {
        let unhealthy = (*size - available(set)).max(0).min(budget - cleaned);
        cleaned += unhealthy;
        *size -= unhealthy;
    }
    let total_available: i32 = old.iter().map(|s| available(s)).sum::<i32>() + available(newest);
    let mut allowed = (total_available - least_available).max(0);
    for (_, size) in &mut sets {
        let fewer = (*size).min(allowed);
        allowed -= fewer;
        *size -= fewer;
    }
    let changed = sets.into_iter().filter(|(set, size)| replicas(set) != *size);
    changed.map(|(set, size)| Scale { name: name(set), replicas: size }).collect()
}

/// Sizes after a change of `spec.replicas` outside a step of the rollout (`kubectl scale`, HPA,
/// paused): a single set takes all, several share in proportion.
pub fn scale(deployment: &Deployment, newest: Option<&Arc<ReplicaSet>>, old: &[Arc<ReplicaSet>]) -> Vec<Scale> {
    let wanted = desired(deployment);
    if let Some(single) = active_or_latest(newest, old) {
        return to(single, wanted).into_iter().collect();
    }
    if newest.is_some_and(|set| is_saturated(deployment, set)) {
        return old.iter().filter(|s| replicas(s) > 0).filter_map(|s| to(s, 0)).collect();
    }
    if is_rolling(deployment) { proportional(deployment, newest, old) } else { Vec::new() }
}

fn to(set: &ReplicaSet, size: i32) -> Option<Scale> {
    (replicas(set) != size).then(|| Scale { name: name(set), replicas: size })
}

fn name(set: &ReplicaSet) -> String {
    set.metadata.name.clone().unwrap_or_default()
}

fn oldest_first(sets: &[Arc<ReplicaSet>]) -> impl Iterator<Item = &Arc<ReplicaSet>> {
    let mut sorted: Vec<_> = sets.iter().collect();
    sorted.sort_by_key(|s| (s.metadata.creation_timestamp.clone(), s.metadata.name.clone()));
    sorted.into_iter()
}

/// The only set with pods; without any, the newest (or else the youngest old one); `None` when
/// several have pods.
fn active_or_latest<'a>(
    newest: Option<&'a Arc<ReplicaSet>>,
    old: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    let mut active = old.iter().chain(newest).filter(|s| replicas(s) > 0);
    match (active.next(), active.next()) {
        (None, _) => newest.or_else(|| oldest_first(old).last()),
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// Whether the newest set has all pods it should have, all available.
fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = desired(deployment);
    let told = annotation(set, DESIRED_ANNOTATION);
    replicas(set) == wanted && told == Some(wanted) && available(set) == wanted
}

/// An annotation of a ReplicaSet as a number.
pub fn annotation(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

fn proportional(deployment: &Deployment, newest: Option<&Arc<ReplicaSet>>, old: &[Arc<ReplicaSet>]) -> Vec<Scale> {
    let mut sets: Vec<&Arc<ReplicaSet>> = old.iter().chain(newest).filter(|s| replicas(s) > 0).collect();
    let total: i32 = sets.iter().map(|s| replicas(s)).sum();
    let wanted = desired(deployment);
    let allowed = if wanted > 0 { wanted + fenceposts(deployment).0 } else { 0 };
    let to_add = allowed - total;
    let born = |s: &ReplicaSet| s.metadata.creation_timestamp.clone();
    if to_add > 0 {
        sets.sort_by_key(|s| (Reverse(replicas(s)), Reverse(born(s))));
    } else {
        sets.sort_by_key(|s| (Reverse(replicas(s)), born(s)));
    }
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
    for set in &sets {
        let left = to_add - added;
        let share = if left == 0 { 0 } else { share(deployment, set, allowed) };
        let share = if to_add > 0 { share.min(left) } else { share.max(left) };
        added += share;
        sizes.push(replicas(set) + share);
    }
    // What rounding left goes to the largest.
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sets.iter().zip(sizes).filter_map(|(set, size)| to(set, size)).collect()
}

/// How much a set grows or shrinks when the Deployment's most pods become `allowed`.
fn share(deployment: &Deployment, set: &ReplicaSet, allowed: i32) -> i32 {
    let now = replicas(set);
    if desired(deployment) == 0 {
        return -now;
    }
    let observed = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let before = annotation(set, MAX_ANNOTATION).filter(|m| *m > 0).unwrap_or(observed);
    if before <= 0 {
        return 0;
    }
    let exact = f64::from(now) * f64::from(allowed) / f64::from(before);
    exact.round() as i32 - now
}

/// Old ReplicaSets to delete so that at most `limit` stay, oldest revision first; those with pods
/// or with a change not yet seen stay.
pub fn cleanup(old: &[Arc<ReplicaSet>], limit: i32, revision: impl Fn(&ReplicaSet) -> i64) -> Vec<String> {
    let mut alive: Vec<&Arc<ReplicaSet>> = old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|s| (revision(s), s.metadata.creation_timestamp.clone()));
    let idle = |s: &ReplicaSet| {
        let status = s.status.clone().unwrap_or_default();
        status.replicas == 0
            && replicas(s) == 0
            && s.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0)
    };
    alive.into_iter().take(surplus).filter(|s| idle(s)).map(|s| name(s)).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
