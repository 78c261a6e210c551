//! From the proposed to the next number of replicas: stabilization windows, policies, bounds. Pure.

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerSpec};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Window in which the highest recommendation counts when scaling down, unless said otherwise.
const DOWN_WINDOW: i32 = 300;
/// Longest window that can be set.
const LONGEST: Duration = Duration::from_secs(3600);

/// What an autoscaler has recommended and done.
#[derive(Clone, Debug, Default)]
pub struct History {
    recommendations: VecDeque<(Instant, i32)>,
    /// Changes of replicas, positive and negative.
    changes: VecDeque<(Instant, i32)>,
}

impl History {
    /// Remembers that the replicas were changed.
    pub fn changed(&mut self, now: Instant, from: i32, to: i32) {
        self.changes.push_back((now, to - from));
    }

    fn trim(&mut self, now: Instant) {
        for list in [&mut self.recommendations, &mut self.changes] {
            while list.front().is_some_and(|(at, _)| now.duration_since(*at) > LONGEST) {
                list.pop_front();
            }
        }
    }

    fn within(&self, now: Instant, window: i32) -> impl Iterator<Item = i32> {
        let window = Duration::from_secs(u64::try_from(window).unwrap_or(0));
        self.recommendations.iter().filter(move |(at, _)| now.duration_since(*at) < window).map(|(_, n)| *n)
    }

    /// Replicas added and removed within a period.
    fn moved(&self, now: Instant, period: i32) -> (i32, i32) {
        let period = Duration::from_secs(u64::try_from(period).unwrap_or(0));
        let recent = self.changes.iter().filter(|(at, _)| now.duration_since(*at) < period).map(|(_, n)| *n);
        recent.fold((0, 0), |(up, down), n| if n > 0 { (up + n, down) } else { (up, down - n) })
    }
}

/// Why the number is not the proposed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The next number of replicas.
    pub replicas: i32,
    /// Reason and message of `AbleToScale`.
    pub able: (&'static str, String),
    /// Whether a bound was met, with reason and message of `ScalingLimited`.
    pub limited: (bool, &'static str, String),
}

/// The next number of replicas.
pub fn decide(
    spec: &HorizontalPodAutoscalerSpec,
    history: &mut History,
    current: i32,
    proposed: i32,
    now: Instant,
) -> Decision {
    let behavior = spec.behavior.clone().unwrap_or_default();
    let (up, down) = (behavior.scale_up.unwrap_or_default(), behavior.scale_down.unwrap_or_default());
    history.trim(now);
    history.recommendations.push_back((now, proposed));
    let stable = stabilize(history, current, proposed, &up, &down, now);
    let able = match stable.cmp(&proposed) {
        std::cmp::Ordering::Greater => (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation".into(),
        ),
        std::cmp::Ordering::Less => (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation".into(),
        ),
        std::cmp::Ordering::Equal => ("ReadyForNewScale", "recommended size matches current size".into()),
    };
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let (replicas, limited) = bound(history, current, stable, (least, most), &up, &down, now);
    Decision { replicas, able, limited }
}

fn stabilize(
    history: &History,
    current: i32,
    proposed: i32,
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    now: Instant,
) -> i32 {
    let up_window = up.stabilization_window_seconds.unwrap_or(0);
    let down_window = down.stabilization_window_seconds.unwrap_or(DOWN_WINDOW);
    let lowest = history.within(now, up_window).chain([proposed]).min().unwrap_or(proposed);
    let highest = history.within(now, down_window).chain([proposed]).max().unwrap_or(proposed);
    current.max(lowest).min(highest)
}

fn bound(
    history: &History,
    current: i32,
    wanted: i32,
    (least, most): (i32, i32),
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    now: Instant,
) -> (i32, (bool, &'static str, String)) {
    if wanted > current {
        let limit = up_limit(history, current, up, now).max(current);
        if wanted > limit.min(most) {
            return match limit >= most {
                true => (most, too_many()),
                false => (
                    limit,
                    (
                        true,
                        "ScaleUpLimit",
                        "the desired replica count is increasing faster than the maximum scale rate".into(),
                    ),
                ),
            };
        }
    } else if wanted < current {
        let limit = down_limit(history, current, down, now).min(current);
        if wanted < limit.max(least) {
            return match limit <= least {
                true => (least, too_few()),
                false => (
                    limit,
                    (
                        true,
                        "ScaleDownLimit",
                        "the desired replica count is decreasing faster than the maximum scale rate".into(),
                    ),
                ),
            };
        }
    }
    match wanted {
        w if w > most => (most, too_many()),
        w if w < least => (least, too_few()),
        w => (w, (false, "DesiredWithinRange", "the desired count is within the acceptable range".into())),
    }
}

fn too_many() -> (bool, &'static str, String) {
    (true, "TooManyReplicas", "the desired replica count is more than the maximum replica count".into())
}

fn too_few() -> (bool, &'static str, String) {
    (true, "TooFewReplicas", "the desired replica count is less than the minimum replica count".into())
}

/// `(type, value, period)` of the policies, or of the default ones.
fn policies(rules: &HPAScalingRules, defaults: &[(&str, i32, i32)]) -> Vec<(String, i32, i32)> {
    match rules.policies.as_deref() {
        Some(policies) if !policies.is_empty() => {
            policies.iter().map(|p| (p.type_.clone(), p.value, p.period_seconds)).collect()
        }
        _ => defaults.iter().map(|(type_, value, period)| ((*type_).to_owned(), *value, *period)).collect(),
    }
}

fn up_limit(history: &History, current: i32, rules: &HPAScalingRules, now: Instant) -> i32 {
    let limits = policies(rules, &[("Pods", 4, 15), ("Percent", 100, 15)]).into_iter().map(|(type_, value, period)| {
        let (added, removed) = history.moved(now, period);
        let start = current - added + removed;
        match type_.as_str() {
            "Percent" => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32,
            _ => start.saturating_add(value),
        }
    });
    match rules.select_policy.as_deref() {
        Some("Disabled") => current,
        Some("Min") => limits.min().unwrap_or(current),
        _ => limits.max().unwrap_or(current),
    }
}

fn down_limit(history: &History, current: i32, rules: &HPAScalingRules, now: Instant) -> i32 {
    let limits = policies(rules, &[("Percent", 100, 15)]).into_iter().map(|(type_, value, period)| {
        let (added, removed) = history.moved(now, period);
        let start = current - added + removed;
        match type_.as_str() {
            "Percent" => (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32,
            _ => start - value,
        }
    });
    match rules.select_policy.as_deref() {
        Some("Disabled") => current,
        // The smallest change is the largest number.
        Some("Min") => limits.max().unwrap_or(current),
        _ => limits.min().unwrap_or(current),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(behavior: Value) -> HorizontalPodAutoscalerSpec {
        serde_json::from_value(
            json!({"minReplicas": 2, "maxReplicas": 50, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                                      "behavior": behavior}),
        )
        .unwrap()
    }

    fn steps(spec: &HorizontalPodAutoscalerSpec, start: i32, proposed: &[(u64, i32)]) -> Vec<i32> {
        let (mut history, mut current, begin) = (History::default(), start, Instant::now());
        proposed
            .iter()
            .map(|(second, proposed)| {
                let now = begin + Duration::from_secs(*second);
                let next = decide(spec, &mut history, current, *proposed, now).replicas;
                if next != current {
                    history.changed(now, current, next);
                }
                current = next;
                next
            })
            .collect()
    }

    #[test]
    fn up_by_the_default_rate_down_only_after_five_quiet_minutes() {
        let plain = spec(json!(null));
        assert_eq!(steps(&plain, 2, &[(0, 40), (5, 40), (15, 40), (30, 40), (45, 40)]), [6, 6, 12, 24, 40]);
        assert_eq!(steps(&plain, 40, &[(0, 40), (15, 3), (200, 3), (301, 3)]), [40, 40, 40, 3]);
    }

    #[test]
    fn policies_bound_each_period() {
        let slow = spec(json!({"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]}}));
        assert_eq!(steps(&slow, 50, &[(0, 2), (30, 2), (61, 2)]), [45, 45, 40]);
        let gentle = spec(json!({"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]}}));
        assert_eq!(steps(&gentle, 50, &[(0, 2)]), [46]);
        let never = spec(json!({"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled"}}));
        assert_eq!(steps(&never, 50, &[(0, 2)]), [50]);
    }

    #[test]
    fn an_up_window_takes_the_lowest() {
        let calm = spec(json!({"scaleUp": {"stabilizationWindowSeconds": 60}}));
        assert_eq!(steps(&calm, 2, &[(0, 2), (15, 5), (30, 6), (61, 6)]), [2, 2, 2, 5]);
    }

    #[test]
    fn bounds_are_named() {
        let plain = spec(json!(null));
        let ask = |current, proposed| decide(&plain, &mut History::default(), current, proposed, Instant::now());
        assert_eq!(ask(40, 90).limited.1, "TooManyReplicas");
        assert_eq!(ask(2, 1).limited.1, "TooFewReplicas");
        assert_eq!(ask(2, 30).limited.1, "ScaleUpLimit");
        assert_eq!(
            ask(2, 3).limited,
            (false, "DesiredWithinRange", "the desired count is within the acceptable range".into())
        );
    }
}
