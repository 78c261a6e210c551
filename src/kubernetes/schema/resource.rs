//! One row of the resource table: what a resource is called, which verbs it has, how it prints.

use super::definition::{Definition, Reference};
use super::name::{GroupVersion, GroupVersionKind, GroupVersionResource};
use serde::{Deserialize, Serialize};

/// A verb of the API, as discovery and RBAC name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// POST on the collection.
    Create,
    /// DELETE on an object.
    Delete,
    /// DELETE on the collection.
    DeleteCollection,
    /// GET on an object.
    Get,
    /// GET on the collection.
    List,
    /// PATCH on an object.
    Patch,
    /// PUT on an object.
    Update,
    /// GET on the collection with `watch`.
    Watch,
}

impl Verb {
    /// As discovery and RBAC write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

impl Verb {
    /// From the name discovery and RBAC use.
    pub fn parse(name: &str) -> Option<Self> {
        serde::Deserialize::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name)).ok()
    }
}

/// A resource in one version: a row of the table, or of a CRD.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name in lower case, as in paths.
    pub name: String,
    /// Singular name in lower case.
    pub singular: String,
    /// Kind in CamelCase.
    pub kind: String,
    /// Kind of lists.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Short names kubectl accepts.
    pub short_names: Vec<String>,
    /// Categories such as `all`.
    pub categories: Vec<String>,
    /// Verbs served.
    pub verbs: Vec<Verb>,
    /// Subresources by name.
    pub subresources: Vec<Subresource>,
    /// Printer columns, the name column first.
    pub columns: Vec<Column>,
    /// Where objects are kept when another version (or group) of the same data is the stored one:
    /// `events.k8s.io/v1 events` are stored as core `v1 events`.
    pub stored_as: Option<GroupVersionResource>,
    /// Whether nothing is stored: the answer is computed from the request (access reviews) or
    /// from elsewhere (`componentstatuses`, `metrics.k8s.io`).
    pub computed: bool,
    /// See [`Self::definition`].
    pub definition: Option<Reference>,
}

impl Resource {
    /// Type of objects; `None` when the schema has none (then every field is kept).
    pub fn definition(&self) -> Option<&Definition> {
        self.definition.map(Reference::get)
    }
    /// Group, version and plural name.
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(&*self.group, &*self.version, &*self.name)
    }
    /// Group, version and kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&*self.group, &*self.version, &*self.kind)
    }
    /// Group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&*self.group, &*self.version)
    }
    /// `apiVersion` of objects.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }
    /// `deployments.apps`, or `pods` for the core group: how errors name a resource.
    pub fn group_resource(&self) -> String {
        self.gvr().group_resource()
    }
    /// Key of the stored objects: [`Self::stored_as`], else [`Self::gvr`].
    pub fn storage(&self) -> GroupVersionResource {
        self.stored_as.clone().unwrap_or_else(|| self.gvr())
    }
    /// Whether the verb is served.
    pub fn serves(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }
    /// Subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
    /// Whether `status` is written by a subresource of its own, so that other writes keep it.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// A path below an object.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Last part of the path.
    pub name: String,
    /// Kind of the body: the parent's own for `status`, `autoscaling/v1 Scale` for `scale`.
    pub kind: GroupVersionKind,
    /// Verbs served.
    pub verbs: Vec<Verb>,
    /// `scale` only: where the numbers are.
    pub scale: Option<ScalePaths>,
}

/// Where a scalable resource keeps its numbers; dotted JSON paths without leading dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas, such as `spec.replicas`.
    pub spec_replicas: String,
    /// Observed replicas, such as `status.replicas`.
    pub status_replicas: String,
    /// Label selector: a `LabelSelector` object (built-in kinds), a map (ReplicationController) or
    /// text (custom resources).
    pub selector: Option<String>,
}

impl ScalePaths {
    /// Those of every built-in scalable kind.
    pub fn builtin() -> Self {
        Self {
            spec_replicas: "spec.replicas".into(),
            status_replicas: "status.replicas".into(),
            selector: Some("spec.selector".into()),
        }
    }
}

/// A printer column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Header, such as `Ready`.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub type_: String,
    /// OpenAPI format; `name` for the name column.
    pub format: String,
    /// 0: always; 1 and above: only with `-o wide`.
    pub priority: i32,
    /// Shown by `kubectl get -o wide --show-…` help and explain.
    pub description: String,
    /// Where the cell comes from.
    pub source: ColumnSource,
}

/// Where a cell comes from.
#[derive(Clone, Debug)]
pub enum ColumnSource {
    /// JSONPath inside the object, such as `.spec.nodeName`.
    Path(String),
    /// Function of the table module, by name.
    Compute(String),
}
