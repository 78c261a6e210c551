//! Nobody grants what they do not have: checks on writes of roles and bindings.

use super::{
    rbac::{Attributes, Authorizer, PolicyRule},
    user::User,
};
use crate::request::status::ApiError;
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a role or binding that `user` wants to write; other resources pass.
///
/// # Errors
/// 403 with the rules that are missing.
pub fn check(authorizer: &Authorizer, user: &User, resource: &str, object: &Value) -> Result<(), ApiError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, namespace) = (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
    let binding = matches!(resource, "rolebindings" | "clusterrolebindings");
    let (verb, asked, asked_name, rules) = if binding {
        let role = &object["roleRef"];
        let cluster = role["kind"] == "ClusterRole";
        let rules = authorizer.role_rules((!cluster).then_some(&namespace), &text(&role["name"]));
        ("bind", if cluster { "clusterroles" } else { "roles" }, text(&role["name"]), rules.unwrap_or_default())
    } else if matches!(resource, "roles" | "clusterroles") {
        let rules = serde_json::from_value(object["rules"].clone()).unwrap_or_default();
        ("escalate", resource, name.clone(), rules)
    } else {
        return Ok(());
    };
    let want = Attributes {
        verb,
        group: GROUP,
        resource: asked,
        namespace: &namespace,
        name: &asked_name,
        ..Attributes::default()
    };
    if authorizer.allows(user, &want) {
        return Ok(());
    }
    let held = authorizer.rules(user, &namespace);
    let missing: Vec<_> = rules.iter().filter(|rule| !covered(rule, &held)).map(shown).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let cause = format!(
        "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups,
        missing.join("\n")
    );
    Err(ApiError::forbidden(&format!("{resource}.{GROUP}"), &name, &cause))
}

/// Whether each single permission of `rule` is in one of `held`.
fn covered(rule: &PolicyRule, held: &[PolicyRule]) -> bool {
    let includes = |list: &[String], item: &String| list.iter().any(|entry| entry == "*" || entry == item);
    let resource_in = |list: &[String], item: &String| {
        includes(list, item)
            || item.split_once('/').is_some_and(|(_, sub)| list.iter().any(|entry| *entry == format!("*/{sub}")))
    };
    let any_name = [String::new()];
    let names = if rule.resource_names.is_empty() { &any_name[..] } else { &rule.resource_names[..] };
    rule.verbs.iter().all(|verb| {
        let held: Vec<_> = held.iter().filter(|owned| includes(&owned.verbs, verb)).collect();
        let paths = rule.non_resource_urls.iter().all(|url| {
            held.iter().any(|owned| {
                owned
                    .non_resource_urls
                    .iter()
                    .any(|have| have == url || have.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix)))
            })
        });
        let resources = rule.api_groups.iter().all(|group| {
            rule.resources.iter().all(|resource| {
                names.iter().all(|name| {
                    held.iter().any(|owned| {
                        includes(&owned.api_groups, group)
                            && resource_in(&owned.resources, resource)
                            && (owned.resource_names.is_empty() || owned.resource_names.contains(name))
                    })
                })
            })
        });
        paths && resources
    })
}

fn shown(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<_> =
        parts.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{list:?}")).collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn single_permissions_may_come_from_several_rules() {
        let held = [
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale"]})),
            rule(json!({"verbs": ["list"], "apiGroups": ["*"], "resources": ["*"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics*"]})),
        ];
        for (want, wanted) in [
            (true, json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]})),
            (true, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]})),
            (true, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["replicationcontrollers/scale"]})),
            (true, json!({"verbs": ["get"], "nonResourceURLs": ["/metrics/x"]})),
            (false, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]})),
            (false, json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]})),
            (false, json!({"verbs": ["get"], "nonResourceURLs": ["/"]})),
        ] {
            assert_eq!(covered(&rule(wanted.clone()), &held), want, "{wanted}");
        }
    }
}
