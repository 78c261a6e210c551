//! What pods ask for and are bounded by, summed up as the scheduler and quotas count it.

use crate::quantity::Amount;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Amount>;

/// `requests` or `limits` of one container.
pub fn of_container(container: &Value, kind: &str) -> Amounts {
    let amounts = container["resources"][kind].as_object().into_iter().flatten();
    amounts.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?))).collect()
}

/// Adds amounts to others.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).copied().unwrap_or(Amount::ZERO).plus(*amount);
        to.insert(name.clone(), sum);
    }
}

/// Takes the larger of both, resource by resource.
pub fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let larger = to.get(name).map_or(*amount, |own| own.max(*amount));
        to.insert(name.clone(), larger);
    }
}

/// `requests` or `limits` of a pod: its containers and sidecars together, or what its largest init
/// container takes beside the sidecars started before it; and the overhead.
pub fn of_pod(spec: &Value, kind: &str) -> Amounts {
    let mut total = Amounts::new();
    let list = |name: &str| spec[name].as_array().into_iter().flatten();
    for container in list("containers") {
        add(&mut total, &of_container(container, kind));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let own = of_container(container, kind);
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, &own);
            add(&mut total, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            raise(&mut peak, &together);
        }
    }
    raise(&mut total, &peak);
    let overhead = spec["overhead"].as_object().into_iter().flatten();
    let overhead = overhead.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?)));
    // Limits that are not set stay so: overhead bounds nothing by itself.
    let overhead = overhead.filter(|(name, _)| kind == "requests" || total.contains_key(name));
    let overhead: Amounts = overhead.collect();
    add(&mut total, &overhead);
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_count_their_larger_part() {
        let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}}});
        let mut sidecar = cpu("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"initContainers": [cpu("1"), sidecar, cpu("2")], "containers": [cpu("500m"), cpu("1")],
            "overhead": {"cpu": "10m", "memory": "1Mi"}});
        let requests = of_pod(&spec, "requests");
        assert_eq!(requests["cpu"].to_string(), "2110m");
        assert_eq!(requests["memory"].to_string(), "1Mi");
        assert!(of_pod(&spec, "limits").is_empty());
    }
}
