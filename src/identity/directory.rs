//! Users, groups and applications of the tenant, with object ids that do not change.

use super::{
    issuer::IdentityError,
    specs::{ApplicationKind, ApplicationSpec, DEVELOPMENT_PASSWORD, DirectorySpec, UserSpec},
    wellknown::{WELL_KNOWN, WellKnown},
};
use std::collections::BTreeSet;
use url::Url;
use uuid::Uuid;

/// Ids of a tenant's objects, derived from names (UUID v5), so that manifests can name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectIds {
    tenant: Uuid,
}

impl ObjectIds {
    /// For a tenant with a given id.
    pub fn of(tenant: Uuid) -> Self {
        Self { tenant }
    }
    /// For the tenant `NAME.onmicrosoft.com` with its derived id.
    pub fn of_tenant(name: &str) -> Self {
        Self { tenant: Uuid::new_v5(&Uuid::NAMESPACE_DNS, domain(name).as_bytes()) }
    }
    /// The tenant's id (`tid`).
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }
    /// A user's object id, by the name in the configuration.
    pub fn user(&self, name: &str) -> Uuid {
        self.derive("user", name)
    }
    /// A group's object id.
    pub fn group(&self, name: &str) -> Uuid {
        self.derive("group", name)
    }
    /// An application's client id.
    pub fn application(&self, name: &str) -> Uuid {
        self.derive("application", name)
    }
    /// Object id of an application's service principal: `oid` of its own tokens.
    pub fn service_principal(&self, client_id: Uuid) -> Uuid {
        self.derive("servicePrincipal", &client_id.to_string())
    }

    fn derive(&self, kind: &str, name: &str) -> Uuid {
        Uuid::new_v5(&self.tenant, format!("{kind}:{name}").as_bytes())
    }
}

/// The tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Tenant id.
    pub id: Uuid,
    /// `contoso`.
    pub name: String,
    /// `contoso.onmicrosoft.com`.
    pub domain: String,
}

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Object id.
    pub id: Uuid,
    /// `ada`.
    pub name: String,
    /// User principal name: `ada@contoso.onmicrosoft.com`.
    pub principal_name: String,
    /// For people.
    pub display_name: String,
    /// Object ids of groups.
    pub groups: Vec<Uuid>,
    /// Values of application roles.
    pub roles: Vec<String>,
    pub(super) password: String,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Object id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
}

/// An application with its service principal.
#[derive(Clone, PartialEq, Eq)]
pub struct Application {
    /// Application (client) id.
    pub client_id: Uuid,
    /// Object id of the service principal.
    pub service_principal: Uuid,
    /// Display name.
    pub name: String,
    /// Confidential, public or single-page.
    pub kind: ApplicationKind,
    /// Registered redirect URIs.
    pub redirect_uris: Vec<Url>,
    /// Application ID URIs without trailing slash, the default one first.
    pub identifier_uris: Vec<String>,
    /// Values of declared roles.
    pub app_roles: Vec<String>,
    /// Delegated permissions it exposes.
    pub scopes: Vec<String>,
    /// Roles of its service principal.
    pub roles: Vec<String>,
    /// Whether it is one of Microsoft's, which keep the requested URI as `aud`.
    pub first_party: bool,
    pub(super) secrets: Vec<String>,
    pub(super) certificates: Vec<String>,
}

impl Application {
    /// Whether it authenticates by PKCE alone.
    pub fn is_public(&self) -> bool {
        self.kind != ApplicationKind::Confidential
    }

    /// Whether a redirect URI is registered: exactly, but for the port of a loopback host
    /// (RFC 8252 §7.3, as Entra ID does; here for `*.localhost` too).
    pub fn allows_redirect(&self, wanted: &Url) -> bool {
        self.redirect_uris.iter().any(|registered| {
            registered == wanted
                || (is_loopback(wanted) && {
                    let mut same_port = registered.clone();
                    same_port.set_port(wanted.port()).is_ok() && same_port == *wanted
                })
        })
    }

    /// Those of `roles` that this application, as the resource, knows.
    pub(super) fn known_roles<'a>(&self, roles: &'a [String]) -> Vec<&'a str> {
        let all = self.app_roles.is_empty() && !self.first_party;
        roles.iter().filter(|role| all || self.app_roles.contains(role)).map(String::as_str).collect()
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The tenant and all that is in it. Reading needs no running issuer.
#[derive(Clone)]
pub struct Directory {
    tenant: Tenant,
    users: Vec<User>,
    groups: Vec<Group>,
    applications: Vec<Application>,
}

impl Directory {
    /// Builds the directory, checking names, URIs and uniqueness.
    ///
    /// # Errors
    /// [`IdentityError::Directory`] names the first thing that is wrong.
    pub fn build(spec: &DirectorySpec) -> Result<Self, IdentityError> {
        let label = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if spec.tenant.is_empty() || spec.tenant.len() > 63 || !spec.tenant.chars().all(label) {
            return invalid(format!("tenant {:?} must be letters, digits and hyphens", spec.tenant));
        }
        let name = spec.tenant.to_ascii_lowercase();
        let ids = spec.tenant_id.map_or_else(|| ObjectIds::of_tenant(&name), ObjectIds::of);
        let tenant = Tenant { id: ids.tenant(), domain: domain(&name), name };
        let mut groups: Vec<Group> = Vec::new();
        let listed = spec.groups.iter().map(|g| (g.name.as_str(), g.id));
        let mentioned = spec.users.iter().flat_map(|u| &u.groups).map(|g| (g.as_str(), None));
        for (name, id) in listed.chain(mentioned) {
            if name.trim().is_empty() {
                return invalid("a group has no name".into());
            }
            if !groups.iter().any(|group| group.name == name) {
                groups.push(Group { id: id.unwrap_or_else(|| ids.group(name)), name: name.to_owned() });
            }
        }
        let users = spec.users.iter().map(|u| user(u, &tenant, &ids, &groups)).collect::<Result<Vec<_>, _>>()?;
        unique("user", users.iter().map(|u| u.principal_name.to_lowercase()))?;
        let mut applications: Vec<Application> = WELL_KNOWN.iter().map(|app| well_known(app, &ids)).collect();
        for app in &spec.applications {
            applications.push(application(app, &ids)?);
        }
        unique("application", applications.iter().map(|a| a.name.to_lowercase()))?;
        unique("client id", applications.iter().map(|a| a.client_id.to_string()))?;
        unique("application ID URI", applications.iter().flat_map(|a| a.identifier_uris.clone()))?;
        Ok(Self { tenant, users, groups, applications })
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
    /// All users in the order of the configuration.
    pub fn users(&self) -> &[User] {
        &self.users
    }
    /// All groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
    /// All applications, Microsoft's first.
    pub fn applications(&self) -> &[Application] {
        &self.applications
    }
    /// Issuer of all tokens: `https://login.microsoftonline.com/{tenantId}/v2.0`.
    pub fn issuer(&self) -> String {
        format!("https://{}/{}/v2.0", super::issuer::LOGIN_HOST, self.tenant.id)
    }
    /// A user by name, user principal name or object id.
    pub fn user(&self, key: &str) -> Option<&User> {
        let id = Uuid::try_parse(key).ok();
        self.users.iter().find(|u| {
            u.name.eq_ignore_ascii_case(key) || u.principal_name.eq_ignore_ascii_case(key) || Some(u.id) == id
        })
    }
    /// A group by name or object id.
    pub fn group(&self, key: &str) -> Option<&Group> {
        let id = Uuid::try_parse(key).ok();
        self.groups.iter().find(|g| g.name == key || Some(g.id) == id)
    }
    /// An application by name or client id.
    pub fn application(&self, key: &str) -> Option<&Application> {
        let id = Uuid::try_parse(key).ok();
        self.applications.iter().find(|a| a.name.eq_ignore_ascii_case(key) || Some(a.client_id) == id)
    }
    /// An application by client id alone.
    pub(super) fn client(&self, client_id: &str) -> Option<&Application> {
        let id = Uuid::try_parse(client_id).ok()?;
        self.applications.iter().find(|a| a.client_id == id)
    }
    /// An application as a resource: by client id or Application ID URI.
    pub(super) fn resource(&self, identifier: &str) -> Option<&Application> {
        let wanted = identifier.trim_end_matches('/');
        let by_uri = self.applications.iter().find(|a| a.identifier_uris.iter().any(|uri| uri == wanted));
        by_uri.or_else(|| self.client(wanted))
    }
    /// Whether a path segment means this tenant: id, name, domain, or one of the shared names.
    pub(super) fn is_tenant(&self, segment: &str) -> bool {
        self.is_this_tenant(segment) || matches!(segment, "common" | "organizations")
    }
    fn is_this_tenant(&self, segment: &str) -> bool {
        let tenant = &self.tenant;
        segment.eq_ignore_ascii_case(&tenant.name)
            || segment.eq_ignore_ascii_case(&tenant.domain)
            || Uuid::try_parse(segment).is_ok_and(|id| id == tenant.id)
    }
    pub(super) fn set_secret(&mut self, client_id: Uuid, secret: String) {
        if let Some(app) = self.applications.iter_mut().find(|a| a.client_id == client_id) {
            app.secrets = vec![secret];
        }
    }
}

fn domain(tenant: &str) -> String {
    format!("{}.onmicrosoft.com", tenant.to_ascii_lowercase())
}

fn invalid<T>(message: String) -> Result<T, IdentityError> {
    Err(IdentityError::Directory(message))
}

fn unique(what: &str, keys: impl Iterator<Item = String>) -> Result<(), IdentityError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if seen.contains(&key) {
            return invalid(format!("{what} {key} is there twice"));
        }
        seen.insert(key);
    }
    Ok(())
}

fn user(spec: &UserSpec, tenant: &Tenant, ids: &ObjectIds, groups: &[Group]) -> Result<User, IdentityError> {
    let (name, principal_name) = match spec.name.split_once('@') {
        Some((local, _)) => (local.to_owned(), spec.name.clone()),
        None => (spec.name.clone(), format!("{}@{}", spec.name, tenant.domain)),
    };
    if name.is_empty() || spec.name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return invalid(format!("user name {:?} must not be empty or contain spaces", spec.name));
    }
    let password = spec.password.clone().unwrap_or_else(|| DEVELOPMENT_PASSWORD.to_owned());
    if password.is_empty() {
        return invalid(format!("the password of user {name} is empty"));
    }
    let named = |group: &String| groups.iter().find(|g| g.name == *group).map(|g| g.id);
    Ok(User {
        id: ids.user(&name),
        display_name: spec.display_name.clone().unwrap_or_else(|| capitalized(&name)),
        principal_name,
        groups: spec.groups.iter().filter_map(named).collect(),
        roles: spec.roles.clone(),
        password,
        name,
    })
}

fn capitalized(name: &str) -> String {
    let words = name.split(['.', '-', '_']).filter(|w| !w.is_empty()).map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    });
    words.collect::<Vec<_>>().join(" ")
}

fn application(spec: &ApplicationSpec, ids: &ObjectIds) -> Result<Application, IdentityError> {
    if spec.name.trim().is_empty() {
        return invalid("an application has no name".into());
    }
    if spec.kind != ApplicationKind::Confidential && !(spec.secrets.is_empty() && spec.certificates.is_empty()) {
        return invalid(format!("application {} is public and cannot have secrets or certificates", spec.name));
    }
    if spec.secrets.iter().any(String::is_empty) {
        return invalid(format!("application {} has an empty secret", spec.name));
    }
    let client_id = spec.client_id.unwrap_or_else(|| ids.application(&spec.name));
    let redirect_uris = spec.redirect_uris.iter().map(|uri| redirect_uri(&spec.name, uri)).collect::<Result<_, _>>()?;
    let mut identifier_uris = vec![format!("api://{client_id}")];
    identifier_uris.extend(spec.identifier_uris.iter().map(|uri| uri.trim_end_matches('/').to_owned()));
    identifier_uris.dedup();
    Ok(Application {
        client_id,
        service_principal: ids.service_principal(client_id),
        name: spec.name.clone(),
        kind: spec.kind,
        redirect_uris,
        identifier_uris,
        app_roles: spec.app_roles.clone(),
        scopes: spec.scopes.clone(),
        roles: spec.roles.clone(),
        first_party: false,
        secrets: spec.secrets.clone(),
        certificates: spec.certificates.clone(),
    })
}

fn redirect_uri(application: &str, text: &str) -> Result<Url, IdentityError> {
    let wrong =
        |why: &str| IdentityError::Directory(format!("redirect URI {text:?} of application {application} {why}"));
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    match () {
        () if url.fragment().is_some() => Err(wrong("must not have a fragment")),
        () if text.contains('*') => Err(wrong("must not have a wildcard")),
        () if matches!(url.scheme(), "javascript" | "data" | "vbscript") => Err(wrong("has a scheme that runs code")),
        () if url.scheme() == "http" && !is_loopback(&url) => Err(wrong("must use https")),
        () => Ok(url),
    }
}

fn well_known(app: &WellKnown, ids: &ObjectIds) -> Application {
    let client_id = Uuid::try_parse(app.client_id).unwrap_or_default();
    let redirect = app.client.then(|| Url::parse("http://localhost").ok()).flatten();
    Application {
        client_id,
        service_principal: ids.service_principal(client_id),
        name: app.name.to_owned(),
        kind: ApplicationKind::Public,
        redirect_uris: redirect.into_iter().collect(),
        identifier_uris: app.identifier_uris.iter().map(|uri| (*uri).to_owned()).collect(),
        app_roles: Vec::new(),
        scopes: app.scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        roles: Vec::new(),
        first_party: true,
        secrets: Vec::new(),
        certificates: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DirectorySpec {
        DirectorySpec {
            tenant: "contoso".into(),
            users: vec![UserSpec {
                name: "olga.petrova".into(),
                groups: vec!["shop-admins".into()],
                roles: vec!["Shop.Admin".into()],
                ..UserSpec::default()
            }],
            applications: vec![ApplicationSpec {
                name: "shop".into(),
                redirect_uris: vec!["http://localhost/callback".into(), "https://shop.example/cb".into()],
                ..ApplicationSpec::default()
            }],
            ..DirectorySpec::default()
        }
    }

    #[test]
    fn ids_follow_from_names_alone() {
        let directory = Directory::build(&spec()).unwrap();
        let ids = ObjectIds::of_tenant("contoso");
        let olga = directory.user("OLGA.petrova@contoso.onmicrosoft.com").unwrap();
        assert_eq!(olga.display_name, "Olga Petrova");
        assert_eq!(olga.id, ids.user("olga.petrova"));
        assert_eq!(olga.groups, [ids.group("shop-admins")]);
        assert_eq!(directory.application("shop").unwrap().client_id, ids.application("shop"));
        assert!(directory.resource("https://management.azure.com/").is_some());
    }

    #[test]
    fn every_well_known_id_is_a_uuid() {
        for app in WELL_KNOWN {
            assert!(Uuid::try_parse(app.client_id).is_ok(), "{}", app.name);
        }
    }

    #[test]
    fn redirects_match_exactly_but_for_loopback_ports() {
        let directory = Directory::build(&spec()).unwrap();
        let shop = directory.application("shop").unwrap();
        let allows = |uri: &str| shop.allows_redirect(&Url::parse(uri).unwrap());
        assert!(allows("http://localhost:53211/callback"));
        assert!(allows("https://shop.example/cb"));
        for refused in [
            "http://localhost:53211/callback/more",
            "http://localhost:53211/callback?x=1",
            "https://localhost/callback",
            "https://shop.example:8443/cb",
            "https://shop.example.evil.com/cb",
            "https://shop.example/cb#f",
            "http://shop.example/cb",
            "https://user@shop.example/cb",
        ] {
            assert!(!allows(refused), "{refused}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |change: &dyn Fn(&mut DirectorySpec)| {
            let mut spec = spec();
            change(&mut spec);
            Directory::build(&spec).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(message(&|s| s.users.push(s.users[0].clone())).contains("there twice"));
        assert!(message(&|s| s.tenant = "a/b".into()).contains("a/b"));
        assert!(message(&|s| s.applications[0].redirect_uris.push("http://x.example".into())).contains("https"));
        assert!(message(&|s| s.applications[0].redirect_uris.push("javascript:alert(1)".into())).contains("code"));
        assert!(message(&|s| s.applications[0].name = "Microsoft Azure CLI".into()).contains("there twice"));
    }
}
