//! The RBAC authorizer: roles and bindings of the store, indexed by subject.

use super::user::{MASTERS, User};
use crate::store::{Object, State, Store, TableId};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};

/// What a user wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural name; empty for a path that is no resource.
    pub resource: &'a str,
    /// Subresource; empty without.
    pub subresource: &'a str,
    /// Namespace; empty for all, or for cluster-scoped resources.
    pub namespace: &'a str,
    /// Name; empty for all.
    pub name: &'a str,
    /// Path, when it is no resource.
    pub path: &'a str,
}

/// A rule of a role (`rbac.authorization.k8s.io/v1 PolicyRule`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs; `*` for all.
    pub verbs: Vec<String>,
    /// API groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources, `pods/log` for subresources, `*/scale` for one of all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths, `*` at the end for all below.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == value)
}

impl PolicyRule {
    /// Whether the rule allows it.
    pub fn allows(&self, want: &Attributes<'_>) -> bool {
        if !has(&self.verbs, want.verb) {
            return false;
        }
        if want.resource.is_empty() {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => want.path.starts_with(prefix),
                None => url == want.path,
            });
        }
        has(&self.api_groups, want.group)
            && self.resources.iter().any(|entry| resource_matches(entry, want))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == want.name))
    }
}

fn resource_matches(entry: &str, want: &Attributes<'_>) -> bool {
    match entry.split_once('/') {
        None if entry == "*" => true,
        None => want.subresource.is_empty() && entry == want.resource,
        Some((resource, subresource)) => {
            subresource == want.subresource && (resource == "*" || resource == want.resource)
        }
    }
}

type Rules = Arc<Vec<PolicyRule>>;

/// What a subject holds: rules, each valid in a namespace, or everywhere when `None`.
#[derive(Default)]
struct Grants {
    cluster: Vec<Rules>,
    namespaced: HashMap<String, Vec<Rules>>,
}

#[derive(Default)]
struct Index {
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
}

/// Decides by RBAC.
pub struct Authorizer {
    store: Arc<Store>,
    roles: TableId,
    cluster_roles: TableId,
    role_bindings: TableId,
    cluster_role_bindings: TableId,
    index: RwLock<([u64; 4], Arc<Index>)>,
}

#[derive(Deserialize)]
struct Role {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
    #[serde(default, rename = "aggregationRule")]
    aggregation: Option<Aggregation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Aggregation {
    cluster_role_selectors: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

impl Authorizer {
    /// An authorizer over the roles and bindings in `store`.
    pub fn new(store: Arc<Store>) -> Self {
        let table = |name| store.table(&format!("{name}.rbac.authorization.k8s.io"));
        Self {
            roles: table("roles"),
            cluster_roles: table("clusterroles"),
            role_bindings: table("rolebindings"),
            cluster_role_bindings: table("clusterrolebindings"),
            index: RwLock::new(([u64::MAX; 4], Arc::default())),
            store,
        }
    }

    /// Whether the user may.
    pub fn allows(&self, user: &User, want: &Attributes<'_>) -> bool {
        if user.is_in(MASTERS) {
            return true;
        }
        let mut allowed = false;
        self.each_rule(user, want.namespace, |rule| {
            allowed = rule.allows(want);
            !allowed
        });
        allowed
    }

    /// All rules the user holds in a namespace, those for everywhere included.
    pub fn rules(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        if user.is_in(MASTERS) {
            let all = || vec!["*".to_owned()];
            let resources = PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() };
            rules.push(resources);
            rules.push(PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() });
        }
        self.each_rule(user, namespace, |rule| {
            rules.push(rule.clone());
            true
        });
        rules
    }

    /// The rules of a role, or of a cluster role when `namespace` is `None`.
    pub fn role_rules(&self, namespace: Option<&str>, name: &str) -> Option<Vec<PolicyRule>> {
        let state = self.store.snapshot();
        match namespace {
            Some(namespace) => {
                let key = crate::store::Key::new(namespace, name);
                let object = state.table(self.roles).get(&key)?;
                Some(parse::<Role>(object)?.rules.unwrap_or_default())
            }
            None => cluster_rules(&state, self.cluster_roles).get(name).map(|rules| rules.to_vec()),
        }
    }

    fn each_rule(&self, user: &User, namespace: &str, mut each: impl FnMut(&PolicyRule) -> bool) {
        let index = self.index();
        let grants = index
            .users
            .get(&user.name)
            .into_iter()
            .chain(user.groups.iter().filter_map(|group| index.groups.get(group)));
        for grant in grants {
            let here = grant.namespaced.get(namespace).filter(|_| !namespace.is_empty());
            for rule in grant.cluster.iter().chain(here.into_iter().flatten()).flat_map(|rules| rules.iter()) {
                if !each(rule) {
                    return;
                }
            }
        }
    }

    fn index(&self) -> Arc<Index> {
        let state = self.store.snapshot();
        let changed = [self.roles, self.cluster_roles, self.role_bindings, self.cluster_role_bindings]
            .map(|table| state.table(table).changed);
        {
            let cached = self.index.read();
            if cached.0 == changed {
                return cached.1.clone();
            }
        }
        let index = Arc::new(self.build(&state));
        *self.index.write() = (changed, index.clone());
        index
    }

    fn build(&self, state: &State) -> Index {
        let cluster_roles = cluster_rules(state, self.cluster_roles);
        let roles: HashMap<_, Rules> = state
            .table(self.roles)
            .range(None, None)
            .filter_map(|object| Some((&object.key, Arc::new(parse::<Role>(object)?.rules.unwrap_or_default()))))
            .collect();
        let mut index = Index::default();
        for (table, namespaced) in [(self.cluster_role_bindings, false), (self.role_bindings, true)] {
            for object in state.table(table).range(None, None) {
                let Some(binding) = parse::<Binding>(object) else { continue };
                let namespace = object.key.namespace();
                let rules = match binding.role_ref.kind.as_str() {
                    "ClusterRole" => cluster_roles.get(&binding.role_ref.name),
                    _ => roles.get(&crate::store::Key::new(namespace, &binding.role_ref.name)),
                };
                let Some(rules) = rules else { continue };
                for subject in binding.subjects.unwrap_or_default() {
                    index.grant(&subject, namespaced.then_some(namespace), rules);
                }
            }
        }
        index
    }
}

impl Index {
    fn grant(&mut self, subject: &Subject, namespace: Option<&str>, rules: &Rules) {
        let grants = match subject.kind.as_str() {
            "Group" => self.groups.entry(subject.name.clone()),
            "ServiceAccount" => {
                let home = subject.namespace.as_deref().or(namespace).unwrap_or_default();
                self.users.entry(format!("system:serviceaccount:{home}:{}", subject.name))
            }
            _ => self.users.entry(subject.name.clone()),
        }
        .or_default();
        match namespace {
            Some(namespace) => grants.namespaced.entry(namespace.to_owned()).or_default().push(rules.clone()),
            None => grants.cluster.push(rules.clone()),
        }
    }
}

/// Rules of the cluster roles by name, aggregated ones filled.
fn cluster_rules(state: &State, table: TableId) -> HashMap<String, Rules> {
    let mut plain: HashMap<String, Rules> = HashMap::new();
    let mut aggregated = Vec::new();
    for object in state.table(table).range(None, None) {
        let Some(role) = parse::<Role>(object) else { continue };
        if let Some(aggregation) = role.aggregation {
            aggregated.push((object.key.name().to_owned(), aggregation));
        }
        plain.insert(object.key.name().to_owned(), Arc::new(role.rules.unwrap_or_default()));
    }
    // Twice: `admin` gathers `edit`, which gathers `view`.
    for _ in 0..2 {
        for (name, aggregation) in &aggregated {
            let mut rules = plain.get(name).map(|rules| rules.to_vec()).unwrap_or_default();
            for object in state.table(table).range(None, None) {
                let selected = aggregation.cluster_role_selectors.iter().any(|selector| {
                    crate::request::selector::Selector::of_label_selector(selector)
                        .is_ok_and(|selector| selector.matches(&object.header))
                });
                let Some(more) = plain.get(object.key.name()).filter(|_| selected && object.key.name() != name) else {
                    continue;
                };
                for rule in more.iter() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            plain.insert(name.clone(), Arc::new(rules));
        }
    }
    plain
}

fn parse<T: serde::de::DeserializeOwned>(object: &Arc<Object>) -> Option<T> {
    serde_json::from_slice(&object.bytes).ok()
}
