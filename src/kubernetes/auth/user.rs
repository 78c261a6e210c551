//! The user of a request.

use std::collections::BTreeMap;

/// Group of the members that every authorizer lets pass.
pub const MASTERS: &str = "system:masters";
/// Group of everyone who is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everyone who is not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of the API server itself, which creates what a new cluster starts with.
pub const API_SERVER: &str = "system:apiserver";

/// A user as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name: a certificate's common name, `system:serviceaccount:NS:NAME`, an Entra sign-in name.
    pub name: String,
    /// Unique id, where there is one.
    pub uid: String,
    /// Groups: names, or Entra object ids.
    pub groups: Vec<String>,
    /// Facts about the credential (`authentication.kubernetes.io/pod-name`).
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A known user; `system:authenticated` is added to the groups.
    pub fn authenticated(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<_> = groups.into_iter().collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }
    /// The user without credential.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }
    /// The user of a service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self::authenticated(format!("system:serviceaccount:{namespace}:{name}"), groups)
    }
    /// Namespace and name, if the user is a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
