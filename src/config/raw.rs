//! The project file as it is written. Doc comments become the published JSON schema.

use schemars::JsonSchema;
use serde::Deserialize;

/// An aksim project: `aksim.toml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Project {
    /// Name of the environment: a DNS label; also the kubeconfig context `aksim-NAME`.
    pub name: String,
    /// The cluster.
    #[serde(default)]
    pub cluster: Cluster,
    /// The registry.
    #[serde(default)]
    pub registry: Registry,
    /// The database server; without it there is none.
    pub database: Option<Database>,
    /// The directory: tenant, users, applications.
    #[serde(default)]
    pub identity: Identity,
    /// The front door.
    #[serde(default)]
    pub ingress: Ingress,
    /// The Git host; it is there without this section too, where git is installed.
    pub git: Option<Git>,
    /// The project's own services.
    #[serde(default, rename = "service")]
    pub services: Vec<Service>,
}

/// Where workloads run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Cluster {
    /// `embedded`, `kind`, `k3s` or `context:NAME`.
    pub provider: String,
    /// Kubernetes version that is wanted.
    pub kubernetes: String,
    /// Node pools; one system pool of one node when empty.
    pub node_pools: Vec<NodePool>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { provider: "embedded".into(), kubernetes: "1.36".into(), node_pools: Vec::new() }
    }
}

/// A pool of equal nodes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodePool {
    /// Name: lower-case letters and digits, at most 12, as in AKS.
    pub name: String,
    /// `System` or `User`.
    #[serde(default = "system")]
    pub mode: String,
    /// Number of nodes.
    #[serde(default = "one")]
    pub count: u32,
    /// Nodes without a container runtime.
    #[serde(default)]
    pub simulated: bool,
    /// Size of the virtual machines that the nodes claim to be.
    #[serde(default = "vm_size")]
    pub vm_size: String,
    /// Availability zones, `1` to `3`.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Extra node labels.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Extra node taints, `key=value:Effect`.
    #[serde(default)]
    pub taints: Vec<String>,
}

fn system() -> String {
    "System".into()
}
fn one() -> u32 {
    1
}
fn vm_size() -> String {
    "Standard_D2s_v5".into()
}

/// The registry.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Registry {
    /// `NAME.azurecr.io`; letters and digits, 5 to 50. `PROJECTacr` when absent.
    pub name: Option<String>,
    /// Loopback port; a free one, kept across restarts, when absent.
    pub port: Option<u16>,
}

/// The database server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Database {
    /// `NAME.mysql.database.azure.com`.
    pub name: String,
    /// `auto` or `process` or `process:/path/to/mysqld`.
    #[serde(default = "auto")]
    pub engine: String,
    /// Loopback port; a free one, kept across restarts, when absent.
    pub port: Option<u16>,
}

fn auto() -> String {
    "auto".into()
}

/// The directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Identity {
    /// Tenant name: `contoso` is `contoso.onmicrosoft.com`.
    pub tenant: String,
    /// People.
    pub users: Vec<User>,
    /// Application registrations.
    #[serde(rename = "app")]
    pub apps: Vec<App>,
    /// Groups whose members administer the cluster (bound to `cluster-admin`).
    pub cluster_admin_groups: Vec<String>,
    /// Loopback port; a free one, kept across restarts, when absent.
    pub port: Option<u16>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            tenant: "contoso".into(),
            users: Vec::new(),
            apps: Vec::new(),
            cluster_admin_groups: Vec::new(),
            port: None,
        }
    }
}

/// A person who can sign in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// User name; `NAME@TENANT.onmicrosoft.com` is the user principal name.
    pub name: String,
    /// For people; the capitalised name when absent.
    pub display_name: Option<String>,
    /// Password of the sign-in form; `Password1!` when absent (a development default, not a secret).
    pub password: Option<String>,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// App roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// An application registration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct App {
    /// Display name; a service of the same name gets a Secret `NAME-identity`.
    pub name: String,
    /// Application (client) id, a UUID; derived from tenant and name when absent.
    pub client_id: Option<String>,
    /// Client secret; generated and kept when absent.
    pub secret: Option<String>,
    /// A public client has no secret (native and single-page applications).
    #[serde(default)]
    pub public: bool,
    /// Redirect URIs; any port matches for `localhost` and `*.localhost`.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// Application ID URI of the API that the application is: `api://shop`.
    pub identifier_uri: Option<String>,
    /// Delegated scopes that the API exposes.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// App roles that can be given.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// The front door on loopback.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ingress {
    /// HTTPS port; 8443 or a free one when absent.
    pub port: Option<u16>,
}

/// The Git host.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Git {
    /// Organization in the URLs; the tenant's name when absent.
    pub organization: Option<String>,
    /// The project's repository; the project's name when absent.
    pub repository: Option<String>,
    /// Branch that a clone checks out; `main` when absent.
    pub default_branch: Option<String>,
    /// Branches that take no forced push and no deletion; `*` stands for anything but `/`.
    pub protected: Vec<String>,
    /// Contexts of commit statuses that must be `success` before a protected branch takes a commit.
    pub required_statuses: Vec<String>,
    /// Users and groups that may push; every user when absent. The first user of the project may always.
    pub writers: Option<Vec<String>>,
    /// Receivers that are told about pushes.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<Webhook>,
    /// Loopback port; a free one, kept across restarts, when absent.
    pub port: Option<u16>,
}

/// A receiver of pushes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// Key of the signatures (`X-Hub-Signature-256`); unsigned when absent.
    pub secret: Option<String>,
    /// `json` or `form`.
    #[serde(default = "json")]
    pub content_type: String,
}

fn json() -> String {
    "json".into()
}

/// A service of the project: a Dockerfile with manifests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Service {
    /// Name: a DNS label; by default also the repository of its image.
    pub name: String,
    /// Folder, relative to the project.
    pub path: String,
    /// Command run in the project folder before the image is built; its output is streamed.
    #[serde(default)]
    pub build: Vec<String>,
    /// Build context, relative to the project; the service's folder when absent.
    pub context: Option<String>,
    /// Dockerfile, relative to the service's folder.
    #[serde(default = "dockerfile")]
    pub dockerfile: String,
    /// Build arguments.
    #[serde(default)]
    pub build_args: std::collections::BTreeMap<String, String>,
    /// Repository of the image in the registry; the service's name when absent.
    pub image: Option<String>,
    /// Manifest files and folders, relative to the service's folder.
    #[serde(default = "manifests")]
    pub manifests: Vec<String>,
    /// Schema in the database server; the Secret `NAME-database` then holds its credentials.
    pub database: Option<String>,
    /// Files and folders whose change rebuilds the service, relative to its folder; the whole folder when empty.
    #[serde(default)]
    pub watch: Vec<String>,
    /// Files that are copied into running containers instead of rebuilding.
    #[serde(default)]
    pub sync: Vec<Sync>,
    /// Services that must answer before this one is deployed.
    #[serde(default)]
    pub depends_on: Vec<String>,
}

fn dockerfile() -> String {
    "Dockerfile".into()
}
fn manifests() -> Vec<String> {
    vec!["k8s".into()]
}

/// A folder kept the same in running containers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sync {
    /// Folder or file, relative to the service's folder.
    pub from: String,
    /// Absolute path in the container.
    pub to: String,
}
