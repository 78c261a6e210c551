//! What a token allows: Docker's token scopes, and the roles of Azure that grant them.

use crate::name::RepositoryName;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// An action on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Read content.
    Pull,
    /// Write content.
    Push,
    /// Remove content.
    Delete,
    /// Read attributes (`/acr/v1`).
    MetadataRead,
    /// Change attributes.
    MetadataWrite,
    /// Everything of the resource; for the catalog the one action there is.
    #[serde(rename = "*")]
    All,
}

impl Action {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::MetadataRead => "metadata_read",
            Self::MetadataWrite => "metadata_write",
            Self::All => "*",
        })
    }
}

/// A resource with actions: `repository:web:pull,push`, `registry:catalog:*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the repository, or `catalog`.
    pub name: String,
    /// Actions asked for or granted.
    pub actions: BTreeSet<Action>,
}

impl Access {
    /// Actions on a repository.
    pub fn repository(name: &RepositoryName, actions: impl IntoIterator<Item = Action>) -> Self {
        Self { kind: "repository".into(), name: name.to_string(), actions: actions.into_iter().collect() }
    }

    /// The list of repositories.
    pub fn catalog() -> Self {
        Self { kind: "registry".into(), name: "catalog".into(), actions: BTreeSet::from([Action::All]) }
    }

    /// One scope of a token request; `None` for a text that is no scope of a registry.
    /// Actions that are not known are left out, as the specification of Docker's tokens has it.
    pub fn parse(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // `repository(plugin)` is the same resource by Docker's grammar.
        let kind = kind.split('(').next().unwrap_or(kind);
        match kind {
            "repository" if name.parse::<RepositoryName>().is_ok() => {}
            "registry" if name == "catalog" => {}
            _ => return None,
        }
        let actions = actions.split(',').filter_map(Action::parse).collect();
        Some(Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }

    /// Whether this grant covers all that `asked` wants.
    pub fn covers(&self, asked: &Access) -> bool {
        self.kind == asked.kind
            && self.name == asked.name
            && (self.actions.contains(&Action::All) || asked.actions.is_subset(&self.actions))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<String> = self.actions.iter().map(Action::to_string).collect();
        write!(f, "{}:{}:{}", self.kind, self.name, actions.join(","))
    }
}

/// A built-in role of Azure, as far as it concerns a registry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AcrRole {
    /// Pull images and list them.
    AcrPull,
    /// Pull and push images.
    AcrPush,
    /// Delete images.
    AcrDelete,
    /// Everything.
    Contributor,
    /// Everything.
    Owner,
}

impl AcrRole {
    /// Actions on every repository.
    fn actions(self) -> &'static [Action] {
        use Action::*;
        match self {
            Self::AcrPull => &[Pull, MetadataRead],
            Self::AcrPush => &[Pull, Push, MetadataRead, MetadataWrite],
            Self::AcrDelete => &[Delete],
            Self::Contributor | Self::Owner => &[Pull, Push, Delete, MetadataRead, MetadataWrite],
        }
    }
}

/// What a principal may do in the whole registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rights {
    actions: BTreeSet<Action>,
}

impl Rights {
    /// Of the admin user.
    pub fn all() -> Self {
        Self::of([AcrRole::Owner])
    }

    /// Of a principal with these roles.
    pub fn of(roles: impl IntoIterator<Item = AcrRole>) -> Self {
        Self { actions: roles.into_iter().flat_map(|r| r.actions().iter().copied()).collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// The part of `asked` that these rights grant; no actions when none.
    pub fn grant(&self, asked: &Access) -> Access {
        let actions = match asked.kind.as_str() {
            // Who may read images may list them.
            "registry" if self.actions.contains(&Action::Pull) => asked.actions.clone(),
            "registry" => BTreeSet::new(),
            _ if asked.actions.contains(&Action::All) => self.actions.clone(),
            _ => asked.actions.intersection(&self.actions).copied().collect(),
        };
        Access { actions, ..asked.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_docker_writes_them() {
        let scope = Access::parse("repository:team/web:pull,push,frobnicate").unwrap();
        assert_eq!(scope.to_string(), "repository:team/web:pull,push");
        assert_eq!(Access::parse("registry:catalog:*").unwrap(), Access::catalog());
        for bad in ["", "repository", "repository:web", "repository:../x:pull", "registry:other:*", "x:y:z"] {
            assert!(Access::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn roles_grant_what_azure_says() {
        let ask = |s: &str| Access::parse(s).unwrap();
        let pull = Rights::of([AcrRole::AcrPull]);
        assert_eq!(pull.grant(&ask("repository:web:pull,push,delete")).to_string(), "repository:web:pull");
        assert!(pull.grant(&ask("registry:catalog:*")).covers(&Access::catalog()));
        let delete = Rights::of([AcrRole::AcrDelete]);
        assert_eq!(delete.grant(&ask("repository:web:*")).to_string(), "repository:web:delete");
        assert!(!delete.grant(&ask("registry:catalog:*")).covers(&Access::catalog()));
        assert!(Rights::all().grant(&ask("repository:web:*")).covers(&ask("repository:web:pull,push,delete")));
    }
}
