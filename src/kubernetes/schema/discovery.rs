//! Discovery: which groups, versions and resources there are, in the legacy form (a document per
//! group and version) and the aggregated one (`apidiscovery.k8s.io`).

use super::document::Document;
use super::name::{GroupVersion, GroupVersionKind};
use super::registry::Schema;
use super::resource::{Resource, Verb};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::sync::Arc;

/// Which half of the API an aggregated document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/api`
    Core,
    /// `/apis`
    Groups,
}

impl Schema {
    /// Groups in discovery order, each with its versions, the preferred one first.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for row in self.resources() {
            let at = groups.iter().position(|(group, _)| *group == row.group).unwrap_or_else(|| {
                groups.push((row.group.clone(), Vec::new()));
                groups.len() - 1
            });
            if !groups[at].1.contains(&row.version) {
                groups[at].1.push(row.version.clone());
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_cached_key(|version| Reverse(priority(version)));
        }
        groups
    }

    /// Resources of a group and version, in order of their names.
    pub fn resources_in(&self, group: &str, version: &str) -> Vec<&Arc<Resource>> {
        let mut rows: Vec<_> = self.resources().filter(|r| r.group == group && r.version == version).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }
}

/// Order of versions: `v2` before `v1` before `v1beta2` before `v1alpha1` before anything else.
pub fn priority(version: &str) -> (u8, u32, u32, Reverse<String>) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(digits);
        let (stability, minor) = match rest {
            "" => (3, 0),
            rest if rest.starts_with("beta") => (2, rest[4..].parse().ok()?),
            rest if rest.starts_with("alpha") => (1, rest[5..].parse().ok()?),
            _ => return None,
        };
        Some((stability, major.parse().ok()?, minor))
    };
    let (stability, major, minor) = parse().unwrap_or((0, 0, 0));
    (stability, major, minor, Reverse(version.to_owned()))
}

/// `/api`; `address` is this server's `HOST:PORT`.
pub fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

/// `/apis`.
pub fn api_group_list(schema: &Schema) -> Arc<Document> {
    schema.json_document("discovery apis", || {
        let groups = schema.groups();
        let groups: Vec<Value> = groups
            .iter()
            .filter(|(group, _)| !group.is_empty())
            .map(|(group, versions)| group_entry(group, versions))
            .collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    })
}

/// `/apis/GROUP`; `None` for a group that is not served.
pub fn api_group(schema: &Schema, group: &str) -> Option<Value> {
    let groups = schema.groups();
    let (_, versions) = groups.iter().find(|(name, _)| name == group && !name.is_empty())?;
    let mut entry = group_entry(group, versions);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

fn group_entry(group: &str, versions: &[String]) -> Value {
    let version = |version: &String| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({
        "name": group,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` for a version that is not served.
pub fn api_resource_list(schema: &Schema, group: &str, version: &str) -> Option<Arc<Document>> {
    let rows = schema.resources_in(group, version);
    let group_version = GroupVersion::new(group, version);
    (!rows.is_empty()).then(|| {
        schema.json_document(&format!("discovery {group_version}"), || {
            let resources: Vec<Value> = rows.iter().flat_map(|row| legacy_entries(row)).collect();
            json!({
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": group_version.to_string(),
                "resources": resources,
            })
        })
    })
}

/// A resource and its subresources.
fn legacy_entries(row: &Resource) -> Vec<Value> {
    let mut own = json!({
        "name": row.name,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": verbs(&row.verbs),
    });
    add_names(&mut own, row);
    let subresources = row.subresources.iter().map(|subresource| {
        let mut entry = json!({
            "name": format!("{}/{}", row.name, subresource.name),
            "singularName": "",
            "namespaced": row.namespaced,
            "kind": subresource.kind.kind,
            "verbs": verbs(&subresource.verbs),
        });
        if subresource.kind.group_version() != row.group_version() {
            entry["group"] = subresource.kind.group.clone().into();
            entry["version"] = subresource.kind.version.clone().into();
        }
        entry
    });
    std::iter::once(own).chain(subresources).collect()
}

fn add_names(entry: &mut Value, row: &Resource) {
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    let mut names: Vec<_> = verbs.iter().map(|verb| verb.as_str()).collect();
    names.sort_unstable();
    names
}

/// `/api` or `/apis` for clients that accept `as=APIGroupDiscoveryList`; `version` is `v2` or
/// `v2beta1`. The answer's content type is [`aggregated_content_type`].
pub fn aggregated(schema: &Schema, root: Root, version: &str) -> Arc<Document> {
    schema.json_document(&format!("discovery {root:?} {version}"), || {
        let groups = schema.groups();
        let items: Vec<Value> = groups
            .iter()
            .filter(|(group, _)| group.is_empty() == (root == Root::Core))
            .map(|(group, versions)| {
                let metadata = if group.is_empty() {
                    json!({ "creationTimestamp": null })
                } else {
                    json!({ "name": group, "creationTimestamp": null })
                };
                let versions: Vec<Value> = versions.iter().map(|v| aggregated_version(schema, group, v)).collect();
                json!({ "metadata": metadata, "versions": versions })
            })
            .collect();
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": items,
        })
    })
}

/// Content type of an [`aggregated`] document.
pub fn aggregated_content_type(version: &str) -> String {
    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

fn aggregated_version(schema: &Schema, group: &str, version: &str) -> Value {
    let resources: Vec<Value> =
        schema.resources_in(group, version).iter().map(|row| aggregated_resource(row)).collect();
    json!({ "version": version, "resources": resources, "freshness": "Current" })
}

fn aggregated_resource(row: &Resource) -> Value {
    let response_kind =
        |kind: &GroupVersionKind| json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    let mut entry = json!({
        "resource": row.name,
        "responseKind": response_kind(&row.gvk()),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": verbs(&row.verbs),
    });
    add_names(&mut entry, row);
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|subresource| {
            let mut entry = Map::new();
            entry.insert("subresource".into(), subresource.name.clone().into());
            entry.insert("responseKind".into(), response_kind(&subresource.kind));
            entry.insert("verbs".into(), json!(verbs(&subresource.verbs)));
            Value::Object(entry)
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = Value::Array(subresources);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_kube_sorts_them() {
        let mut versions = vec!["v1alpha1", "foo", "v11", "v1beta2", "v2", "v1beta1", "v1", "bar"];
        versions.sort_by_cached_key(|version| Reverse(priority(version)));
        assert_eq!(versions, ["v11", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo"]);
    }

    #[test]
    fn both_forms_say_the_same() {
        let schema = Schema::builtin();
        let list: Value = serde_json::from_slice(&api_resource_list(&schema, "apps", "v1").unwrap().bytes).unwrap();
        let scale = list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
        assert_eq!(
            *scale,
            json!({"name":"deployments/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1",
                "kind":"Scale","verbs":["get","patch","update"]})
        );
        let aggregated: Value = serde_json::from_slice(&aggregated(&schema, Root::Groups, "v2").bytes).unwrap();
        let legacy: Value = serde_json::from_slice(&api_group_list(&schema).bytes).unwrap();
        let names = |value: &Value, key: &str| -> Vec<Value> {
            value[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|g| g.pointer("/metadata/name").unwrap_or(&g["name"]).clone())
                .collect()
        };
        assert_eq!(names(&aggregated, "items"), names(&legacy, "groups"));
        let autoscaling = api_group(&schema, "autoscaling").unwrap();
        assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
        assert!(api_group(&schema, "").is_none());
        assert!(api_resource_list(&schema, "apps", "v9").is_none());
    }
}
