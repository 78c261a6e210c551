//! Security settings of a container: its own over the pod's.

use crate::runtime::{ImageStatus, Security};
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Settings for the runtime, or why the container must not run.
pub(super) fn security(spec: &PodSpec, container: &Container, image: &ImageStatus) -> Result<Security, String> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    let user = id(own.run_as_user.or(pod.run_as_user));
    let non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    if non_root {
        check_non_root(user, image, &container.name)?;
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let mut groups: Vec<u32> = pod.supplemental_groups.iter().flatten().filter_map(|g| id(Some(*g))).collect();
    groups.extend(id(pod.fs_group));
    let privileged = own.privileged.unwrap_or(false);
    let strip = |list: Option<Vec<String>>| -> Vec<String> {
        list.into_iter().flatten().map(|c| c.strip_prefix("CAP_").map(str::to_owned).unwrap_or(c)).collect()
    };
    Ok(Security {
        run_as_user: user,
        run_as_group: id(own.run_as_group.or(pod.run_as_group)),
        supplemental_groups: groups,
        run_as_non_root: non_root,
        privileged,
        readonly_root: own.read_only_root_filesystem.unwrap_or(false),
        allow_privilege_escalation: own.allow_privilege_escalation.unwrap_or(true),
        add_capabilities: strip(capabilities.add),
        drop_capabilities: strip(capabilities.drop),
    })
}

fn check_non_root(user: Option<u32>, image: &ImageStatus, name: &str) -> Result<(), String> {
    if let Some(user) = user {
        return match user {
            0 => Err("container's runAsUser breaks non-root policy".into()),
            _ => Ok(()),
        };
    }
    let image_user = image.user.split(':').next().unwrap_or_default();
    match image_user.parse::<u32>() {
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root (container: {name})")),
        Ok(_) => Ok(()),
        Err(_) if image_user.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root (container: {name})"))
        }
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root (container: {name})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(user: &str) -> ImageStatus {
        ImageStatus { id: String::new(), repo_digests: vec![], repo_tags: vec![], size: 0, user: user.into() }
    }

    #[test]
    fn non_root_is_checked_before_start() {
        let spec: PodSpec = serde_json::from_value(
            serde_json::json!({ "containers": [], "securityContext": { "runAsNonRoot": true } }),
        )
        .unwrap();
        let container = Container { name: "c".into(), ..Default::default() };
        assert!(security(&spec, &container, &image("")).unwrap_err().contains("will run as root"));
        assert!(security(&spec, &container, &image("app")).unwrap_err().contains("non-numeric"));
        assert_eq!(security(&spec, &container, &image("65532:65532")).unwrap().run_as_user, None);
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [], "securityContext": { "runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [5] }
        }))
        .unwrap();
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "securityContext": { "runAsUser": 7, "capabilities": { "drop": ["ALL"], "add": ["CAP_NET_RAW"] } }
        }))
        .unwrap();
        let got = security(&spec, &container, &image("")).unwrap();
        assert_eq!((got.run_as_user, got.supplemental_groups), (Some(7), vec![5, 2000]));
        assert_eq!(got.add_capabilities, ["NET_RAW"]);
    }
}
