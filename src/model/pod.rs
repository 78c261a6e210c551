//! What a pod's status says of the pod.

use k8s_openapi::api::core::v1::Pod;

/// Whether the pod's Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    says_ready(conditions.map(|condition| (condition.type_.as_str(), condition.status.as_str())))
}

/// Whether these conditions of a pod, each its type and its status, say that it is ready.
pub fn says_ready<'a>(conditions: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
    conditions.into_iter().any(|condition| condition == ("Ready", "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_the_condition_of_that_name_says() {
        let pod = |conditions: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({ "status": { "conditions": conditions } })).unwrap()
        };
        assert!(is_ready(&pod(serde_json::json!([
            { "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" },
        ]))));
        for status in ["False", "Unknown"] {
            assert!(!is_ready(&pod(serde_json::json!([
                { "type": "ContainersReady", "status": "True" }, { "type": "Ready", "status": status },
            ]))));
        }
        assert!(!is_ready(&pod(serde_json::json!([]))));
        assert!(!is_ready(&Pod::default()));
    }
}
