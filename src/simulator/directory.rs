//! The directory of `aksim.toml` as the issuer wants it.

use aksim_config::Config;
use aksim_identity::{ApplicationKind, ApplicationSpec, DirectorySpec, UserSpec};
use uuid::Uuid;

/// Users and applications of the project.
pub fn spec(config: &Config) -> DirectorySpec {
    let users = config.users.iter().map(|user| UserSpec {
        name: user.name.clone(),
        display_name: user.display_name.clone(),
        password: user.password.clone(),
        groups: user.groups.clone(),
        roles: user.roles.clone(),
    });
    let applications = config.apps.iter().map(|app| ApplicationSpec {
        name: app.name.clone(),
        // Validated by the configuration.
        client_id: app.client_id.as_deref().and_then(|id| Uuid::parse_str(id).ok()),
        kind: if app.public { ApplicationKind::Public } else { ApplicationKind::Confidential },
        secrets: app.secret.iter().cloned().collect(),
        redirect_uris: app.redirect_uris.clone(),
        identifier_uris: app.identifier_uri.iter().cloned().collect(),
        app_roles: app.roles.clone(),
        scopes: app.scopes.clone(),
        ..ApplicationSpec::default()
    });
    DirectorySpec {
        tenant: config.tenant.clone(),
        users: users.collect(),
        applications: applications.collect(),
        ..DirectorySpec::default()
    }
}
