use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn deployment(replicas: i32, surge: Value, unavailable: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {}, "template": {},
                 "strategy": {"type": "RollingUpdate",
                              "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}},
        "status": {"replicas": replicas},
    }))
    .unwrap()
}

fn set(name: &str, replicas: i32, available: i32, age: i32) -> Arc<ReplicaSet> {
    let value = json!({
        "metadata": {"name": name, "generation": 1, "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", 59 - age)},
        "spec": {"replicas": replicas, "selector": {}},
        "status": {"replicas": replicas, "availableReplicas": available, "observedGeneration": 1},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn with_max(set: Arc<ReplicaSet>, max: i32) -> Arc<ReplicaSet> {
    let mut set = Arc::unwrap_or_clone(set);
    set.metadata.annotations = Some([(MAX_ANNOTATION.to_owned(), max.to_string())].into());
    Arc::new(set)
}

fn sizes(scales: &[Scale]) -> Vec<(&str, i32)> {
    scales.iter().map(|s| (s.name.as_str(), s.replicas)).collect()
}

#[test]
fn surge_rounds_up_unavailable_down_and_never_both_zero() {
    for (replicas, surge, unavailable, want) in [
        (10, json!("25%"), json!("25%"), (3, 2)),
        (1, json!("25%"), json!("25%"), (1, 0)),
        (3, json!("25%"), json!("25%"), (1, 0)),
        (4, json!(0), json!("25%"), (0, 1)),
        (3, json!(0), json!("25%"), (0, 1)),
        (10, json!(0), json!(0), (0, 1)),
        (10, json!(2), json!(0), (2, 0)),
        (0, json!("25%"), json!("25%"), (0, 1)),
    ] {
        assert_eq!(
            fenceposts(&deployment(replicas, surge.clone(), unavailable.clone())),
            want,
            "{replicas} {surge} {unavailable}"
        );
    }
    let plain: Deployment =
        serde_json::from_value(json!({"metadata": {}, "spec": {"replicas": 10, "selector": {}, "template": {}}}))
            .unwrap();
    assert_eq!(fenceposts(&plain), (3, 2), "25% is the default");
}

#[test]
fn the_new_set_grows_into_the_surge() {
    for (replicas, surge, old, new, want) in [
        (10, 0, 10, 0, None),
        (10, 2, 10, 0, Some(2)),
        (10, 2, 5, 0, Some(7)),
        (10, 2, 10, 2, None),
        (10, 2, 0, 12, Some(10)),
    ] {
        let deployment = deployment(replicas, json!(surge), json!(0));
        let newest = set("new", new, new, 0);
        let all = [set("old", old, old, 9), newest.clone()];
        assert_eq!(reconcile_new(&deployment, &all, &newest), want, "old {old} new {new} surge {surge}");
    }
}

#[test]
fn old_sets_shrink_as_availability_allows() {
    for (name, unavailable, old, old_available, new, new_available, want) in [
        ("nothing to give", 0, 10, 10, 0, 0, None),
        ("two may be missing", 2, 10, 10, 0, 0, Some(8)),
        ("new pods not yet available do not count", 2, 8, 8, 2, 0, None),
        ("new pods available", 2, 8, 8, 2, 2, Some(6)),
        ("unhealthy old pods go first, though no more are available", 2, 10, 8, 0, 0, Some(8)),
        ("all the broken ones within the budget", 2, 10, 0, 0, 0, Some(8)),
        ("surge replaced", 0, 10, 10, 2, 2, Some(8)),
    ] {
        let deployment = deployment(10, json!(2), json!(unavailable));
        let newest = set("new", new, new_available, 0);
        let scales = reconcile_old(&deployment, &[set("old", old, old_available, 9)], &newest);
        assert_eq!(scales.first().map(|s| s.replicas), want, "{name}");
    }
}

#[test]
fn the_oldest_set_shrinks_first() {
    let deployment = deployment(10, json!(0), json!(4));
    let old = [set("younger", 5, 5, 1), set("oldest", 3, 3, 9)];
    let scales = reconcile_old(&deployment, &old, &set("new", 2, 2, 0));
    assert_eq!(sizes(&scales), [("oldest", 0), ("younger", 4)]);
}

#[test]
fn scaling_in_a_rollout_is_proportional() {
    // The example of the documentation: 10 replicas, maxSurge 3, maxUnavailable 2; old 8, new 5;
    // scaled to 15: three more for the old, two for the new.
    let deployment = deployment(15, json!(3), json!(2));
    let (old, new) = (with_max(set("old", 8, 8, 9), 13), with_max(set("new", 5, 0, 0), 13));
    let scales = scale(&deployment, Some(&new), &[old]);
    assert_eq!(sizes(&scales), [("old", 11), ("new", 7)]);
}

#[test]
fn scaling_down_in_a_rollout_is_proportional_and_to_zero_is_complete() {
    let (old, new) = (with_max(set("old", 8, 8, 9), 13), with_max(set("new", 5, 0, 0), 13));
    let scales = scale(&deployment(5, json!(3), json!(2)), Some(&new), std::slice::from_ref(&old));
    assert_eq!(scales.iter().map(|s| s.replicas).sum::<i32>(), 8);
    let scales = scale(&deployment(0, json!(3), json!(2)), Some(&new), &[old]);
    assert_eq!(sizes(&scales), [("old", 0), ("new", 0)]);
}

#[test]
fn a_single_active_set_takes_the_whole_change() {
    let scales = scale(&deployment(7, json!(1), json!(0)), Some(&set("new", 3, 3, 0)), &[set("old", 0, 0, 9)]);
    assert_eq!(sizes(&scales), [("new", 7)]);
    let scales = scale(&deployment(2, json!(1), json!(0)), None, &[set("old", 0, 0, 9), set("older", 0, 0, 20)]);
    assert_eq!(sizes(&scales), [("old", 2)], "paused without a new set: the youngest old one");
}

#[test]
fn history_keeps_the_newest_revisions_and_sets_with_pods() {
    let sets: Vec<_> = (1..=5).map(|n| set(&format!("r{n}"), i32::from(n == 2), 0, 50 - n)).collect();
    let revision = |s: &ReplicaSet| s.metadata.name.as_deref().unwrap()[1..].parse().unwrap();
    assert_eq!(cleanup(&sets, 2, revision), ["r1", "r3"]);
    assert!(cleanup(&sets, 10, revision).is_empty());
}

proptest! {
    /// Whatever the sizes, a rollout in which pods become available ends, never has more pods than
    /// replicas + maxSurge, and never plans fewer available than replicas - maxUnavailable.
    #[test]
    fn rollouts_end_within_their_bounds(
        wanted in 1..40_i32, surge in 0..10_i32, unavailable in 0..10_i32,
    ) {
        let deployment = deployment(wanted, json!(surge), json!(unavailable));
        let (surge, _) = fenceposts(&deployment);
        let least = wanted - max_unavailable(&deployment);
        let (mut old, mut new, mut new_available) = (wanted, 0, 0);
        for _ in 0..400 {
            let newest = set("new", new, new_available, 0);
            let old_set = set("old", old, old, 9);
            if let Some(next) = reconcile_new(&deployment, &[old_set.clone(), newest.clone()], &newest) {
                new = next;
            } else if let Some(next) = reconcile_old(&deployment, &[old_set], &newest).first() {
                old = next.replicas;
            } else if new_available < new {
                new_available += 1;
            } else {
                break;
            }
            prop_assert!(old + new <= wanted + surge);
            prop_assert!(old + new_available >= least);
        }
        prop_assert_eq!((old, new), (0, wanted));
    }
}
