//! Scopes: OpenID Connect's own, and permissions on one resource.

use super::{
    directory::{Application, Directory},
    error::{DEFAULT_SCOPE_ONLY, EntraError, INVALID_SCOPE, SEVERAL_RESOURCES, UNKNOWN_RESOURCE, UNKNOWN_SCOPE},
    wellknown::GRAPH,
};
use uuid::Uuid;

const OPENID_SCOPES: [&str; 5] = ["openid", "profile", "email", "offline_access", "address"];

/// What a request asks for, checked against the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Client id of the resource.
    pub resource: Uuid,
    /// Value of `aud`.
    pub audience: String,
    /// Values of `scp`.
    pub permissions: Vec<String>,
    /// OpenID Connect scopes asked for.
    pub openid: Vec<String>,
    /// Resource scopes as they were written, for `scope` in the answer.
    written: Vec<String>,
}

impl Grant {
    /// Parses `scope` for a delegated flow.
    pub(super) fn delegated(directory: &Directory, client: &Application, scope: &str) -> Result<Self, EntraError> {
        let (openid, wanted): (Vec<&str>, Vec<&str>) =
            scope.split_ascii_whitespace().partition(|s| OPENID_SCOPES.contains(s));
        if openid.is_empty() && wanted.is_empty() {
            return Err(INVALID_SCOPE.because(
                "The provided request must include a 'scope' input parameter. \
                 The provided value for the input parameter 'scope' is not valid.",
            ));
        }
        let identifier = wanted.first().map_or(GRAPH, |first| split(first).0);
        let resource = resource(directory, identifier)?;
        let mut permissions = Vec::new();
        for scope in &wanted {
            let (other, permission) = split(scope);
            if self::resource(directory, other)?.client_id != resource.client_id {
                return Err(SEVERAL_RESOURCES.because(format!(
                    "Provided value for the input parameter scope is not valid because it contains more than one \
                     resource. Scope {} is not valid.",
                    wanted.join(" ")
                )));
            }
            permissions.extend(granted(client, resource, permission)?);
        }
        if resource.client_id.to_string() == GRAPH {
            permissions.extend(openid.iter().filter(|s| **s != "offline_access").map(|s| (*s).to_owned()));
        }
        let mut seen = std::collections::BTreeSet::new();
        permissions.retain(|permission| seen.insert(permission.clone()));
        Ok(Self {
            resource: resource.client_id,
            audience: audience(resource, identifier),
            permissions,
            openid: openid.into_iter().map(str::to_owned).collect(),
            written: wanted.into_iter().map(str::to_owned).collect(),
        })
    }

    /// Parses `scope` for client credentials: one resource, `/.default`.
    pub(super) fn application(directory: &Directory, scope: &str) -> Result<Self, EntraError> {
        let mut scopes = scope.split_ascii_whitespace();
        let (Some(one), None) = (scopes.next(), scopes.next()) else {
            return Err(default_only(scope));
        };
        let Some(identifier) = one.strip_suffix("/.default") else {
            return Err(default_only(scope));
        };
        let resource = resource(directory, identifier)?;
        Ok(Self {
            resource: resource.client_id,
            audience: audience(resource, identifier),
            permissions: Vec::new(),
            openid: Vec::new(),
            written: vec![one.to_owned()],
        })
    }

    /// This grant, with the OpenID Connect scopes of an earlier one too.
    pub(super) fn with_openid_of(mut self, earlier: &Self) -> Self {
        for scope in &earlier.openid {
            if !self.openid.contains(scope) {
                self.openid.push(scope.clone());
            }
        }
        self
    }

    /// Whether an OpenID Connect scope was asked for.
    pub(super) fn has(&self, openid: &str) -> bool {
        self.openid.iter().any(|scope| scope == openid)
    }

    /// `scope` of the answer: what was granted, in the notation of the request. `offline_access`
    /// is not repeated, as Entra ID does.
    pub(super) fn granted(&self) -> String {
        let openid = self.openid.iter().filter(|scope| *scope != "offline_access");
        let prefix = self.written.first().map(|scope| prefix(scope)).unwrap_or_default();
        let expanded = self.permissions.iter().filter(|p| !OPENID_SCOPES.contains(&p.as_str()));
        let expanded = expanded.map(|permission| format!("{prefix}{permission}"));
        let mut all: Vec<String> = openid.cloned().chain(expanded).collect();
        for scope in &self.written {
            if !all.contains(scope) {
                all.push(scope.clone());
            }
        }
        all.join(" ")
    }
}

/// Resource identifier and permission of one scope; a bare permission is Microsoft Graph's.
fn split(scope: &str) -> (&str, &str) {
    scope.rsplit_once('/').unwrap_or((GRAPH, scope))
}

fn prefix(scope: &str) -> &str {
    scope.rfind('/').map_or("", |slash| &scope[..=slash])
}

fn resource<'a>(directory: &'a Directory, identifier: &str) -> Result<&'a Application, EntraError> {
    directory.resource(identifier).ok_or_else(|| {
        UNKNOWN_RESOURCE.because(format!(
            "The resource principal named {identifier} was not found in the tenant named {}. This can happen if the \
             application has not been installed by the administrator of the tenant or consented to by any user in \
             the tenant. You might have sent your authentication request to the wrong tenant.",
            directory.tenant().name
        ))
    })
}

fn audience(resource: &Application, identifier: &str) -> String {
    if resource.first_party && identifier != GRAPH { identifier.to_owned() } else { resource.client_id.to_string() }
}

fn granted(client: &Application, resource: &Application, permission: &str) -> Result<Vec<String>, EntraError> {
    if permission == ".default" {
        return Ok(resource.scopes.clone());
    }
    let any = resource.first_party && resource.scopes.is_empty();
    if !permission.is_empty() && (any || resource.scopes.iter().any(|scope| scope.eq_ignore_ascii_case(permission))) {
        return Ok(vec![permission.to_owned()]);
    }
    Err(UNKNOWN_SCOPE.because(format!(
        "The application '{}' asked for scope '{permission}' that doesn't exist on the resource '{}'.",
        client.name, resource.client_id
    )))
}

fn default_only(scope: &str) -> EntraError {
    DEFAULT_SCOPE_ONLY.because(format!(
        "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with \
         /.default suffixed to the resource identifier (application ID URI)."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ApplicationSpec, DirectorySpec};

    fn directory() -> Directory {
        let shop = ApplicationSpec {
            name: "shop".into(),
            identifier_uris: vec!["api://shop".into()],
            scopes: vec!["read".into(), "write".into()],
            ..ApplicationSpec::default()
        };
        let spec = DirectorySpec { tenant: "contoso".into(), applications: vec![shop], ..DirectorySpec::default() };
        Directory::build(&spec).unwrap()
    }

    #[test]
    fn a_scope_names_its_resource() {
        let directory = directory();
        let shop = directory.application("shop").unwrap();
        let parse = |scope: &str| Grant::delegated(&directory, shop, scope);
        let own = parse("openid profile api://shop/read").unwrap();
        assert_eq!(own.audience, shop.client_id.to_string());
        assert_eq!(own.permissions, ["read"]);
        assert_eq!(own.granted(), "openid profile api://shop/read");
        let all = parse("api://shop/.default offline_access").unwrap();
        assert_eq!(all.permissions, ["read", "write"]);
        assert_eq!(all.granted(), "api://shop/read api://shop/write api://shop/.default");
        let graph = parse("openid User.Read").unwrap();
        assert_eq!((graph.audience.as_str(), graph.granted().as_str()), (GRAPH, "openid User.Read"));
        let aks = parse("6dae42f8-4368-4678-94ff-3960e28e3630/.default").unwrap();
        assert_eq!(aks.audience, "6dae42f8-4368-4678-94ff-3960e28e3630");
        let arm = parse("https://management.azure.com//.default").unwrap();
        assert_eq!(arm.audience, "https://management.azure.com/");
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let directory = directory();
        let shop = directory.application("shop").unwrap();
        let code = |scope: &str| Grant::delegated(&directory, shop, scope).unwrap_err().kind.code;
        assert_eq!(code(""), 70011);
        assert_eq!(code("api://nowhere/read"), 500011);
        assert_eq!(code("api://shop/fly"), 650053);
        assert_eq!(code("api://shop/read User.Read"), 28000);
        assert_eq!(Grant::application(&directory, "api://shop/read").unwrap_err().kind.code, 1002012);
        assert!(Grant::application(&directory, "api://shop/.default").is_ok());
    }
}
