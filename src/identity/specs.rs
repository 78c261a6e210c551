//! What a directory is made from: plain values that the simulator fills.

use uuid::Uuid;

/// Password of every user that has none of its own. Documented, for development only.
pub const DEVELOPMENT_PASSWORD: &str = "Password1!";

/// A tenant with all that is in it.
#[derive(Clone, Debug, Default)]
pub struct DirectorySpec {
    /// First label of the tenant's domain: `contoso` makes `contoso.onmicrosoft.com`.
    pub tenant: String,
    /// Tenant id; derived from the domain when absent.
    pub tenant_id: Option<Uuid>,
    /// Users.
    pub users: Vec<UserSpec>,
    /// Groups; those that only users name are added.
    pub groups: Vec<GroupSpec>,
    /// Applications, besides those of Microsoft that every tenant has.
    pub applications: Vec<ApplicationSpec>,
}

/// A user.
#[derive(Clone, Debug, Default)]
pub struct UserSpec {
    /// `ada`, or the whole user principal name `ada@contoso.onmicrosoft.com`.
    pub name: String,
    /// For people; made from the name when absent.
    pub display_name: Option<String>,
    /// Password; [`DEVELOPMENT_PASSWORD`] when absent.
    pub password: Option<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// Values of application roles; each counts at every application that declares it.
    pub roles: Vec<String>,
}

/// A security group.
#[derive(Clone, Debug, Default)]
pub struct GroupSpec {
    /// Display name.
    pub name: String,
    /// Object id; derived when absent.
    pub id: Option<Uuid>,
}

/// Whether an application can keep a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplicationKind {
    /// A web application or daemon: authenticates with a secret or certificate.
    #[default]
    Confidential,
    /// A native application or command line: authenticates by PKCE alone.
    Public,
    /// A single-page application: public, and its token requests come from a browser (CORS).
    SinglePage,
}

/// An application registration with its service principal.
#[derive(Clone, Debug, Default)]
pub struct ApplicationSpec {
    /// Display name, unique in the tenant.
    pub name: String,
    /// Application (client) id; derived from the name when absent.
    pub client_id: Option<Uuid>,
    /// Confidential, public or single-page.
    pub kind: ApplicationKind,
    /// Client secrets. A confidential application without secret and certificate gets one made,
    /// kept in the state folder: [`crate::Issuer::client_secret`].
    pub secrets: Vec<String>,
    /// Certificates (PEM) whose keys may sign client assertions.
    pub certificates: Vec<String>,
    /// Redirect URIs, matched exactly; the port does not count for loopback hosts.
    pub redirect_uris: Vec<String>,
    /// Application ID URIs, besides `api://{clientId}`.
    pub identifier_uris: Vec<String>,
    /// Values of the roles it declares; an application that declares none gets all of a user's.
    pub app_roles: Vec<String>,
    /// Delegated permissions it exposes: `access_as_user`.
    pub scopes: Vec<String>,
    /// Roles assigned to its service principal (application permissions).
    pub roles: Vec<String>,
}
