//! The HTTPS surface of the issuer: a file per group of endpoints.

mod authorize;
mod call;
mod device;
mod discovery;
mod graph;
mod pages;
mod reply;
mod sign_in;
mod token;

use super::{
    codes::{Codes, Devices},
    directory::{Directory, User},
    error::{EntraError, Kind, SERVER_ERROR, UNKNOWN_APPLICATION, UNKNOWN_TENANT},
    keys::KeyRing,
    seal::Seal,
    tokens::Minter,
};
use aksim_model::event::{EventBody, FlowRow};
use aksim_runtime::recorder::Recorder;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};

/// Largest request body, bytes; client assertions with certificate chains stay far below.
const MAX_BODY: usize = 64 << 10;
/// Lifetime of a refresh token, as Entra's.
const REFRESH_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Lifetime of a session cookie.
const SESSION_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What the endpoints are configured with.
pub(super) struct Settings {
    /// URL that the browser of this machine uses.
    pub local: String,
    pub token_lifetime: Duration,
    pub ask_password: bool,
}

/// State shared by the endpoints.
pub(super) struct Server {
    directory: Arc<Directory>,
    keys: Arc<KeyRing>,
    seal: Seal,
    minter: Minter,
    codes: Codes,
    devices: Devices,
    settings: Settings,
    recorder: Recorder,
}

impl Server {
    pub(super) fn new(
        directory: Arc<Directory>,
        keys: Arc<KeyRing>,
        seal: Seal,
        settings: Settings,
        recorder: Recorder,
    ) -> Self {
        let minter = Minter { directory: directory.clone(), keys: keys.clone(), lifetime: settings.token_lifetime };
        Self { directory, keys, seal, minter, codes: Codes::default(), devices: Devices::default(), settings, recorder }
    }

    /// Checks the tenant segment of a path.
    fn check_tenant(&self, segment: &str) -> Result<(), EntraError> {
        if self.directory.is_tenant(segment) {
            return Ok(());
        }
        Err(UNKNOWN_TENANT.because(format!(
            "Tenant '{segment}' not found. Check to make sure you have the correct tenant ID and are signing into the \
             correct cloud. Check with your subscription administrator, this may happen if there are no active \
             subscriptions for the tenant."
        )))
    }

    /// Checks a password in a time that does not tell how much of it was right.
    fn check_password(&self, name: &str, password: &str) -> Result<&User, EntraError> {
        let user = self.directory.user(name).ok_or_else(|| unknown_user(&self.directory))?;
        if !same_secret(&user.password, password) {
            self.record(false, format!("{} gave a wrong password", user.principal_name));
            return Err(super::error::WRONG_PASSWORD
                .because("Error validating credentials due to invalid username or password."));
        }
        Ok(user)
    }

    fn record(&self, ok: bool, message: String) {
        self.recorder.record(EventBody::Flow { row: FlowRow::Secure, ok, message });
    }
}

fn unknown_user(directory: &Directory) -> EntraError {
    super::error::UNKNOWN_USER.because(format!(
        "The user account {{EUII Hidden}} does not exist in the {} directory. To sign into this application, the \
         account must be added to the directory.",
        directory.tenant().domain
    ))
}

fn unknown_application(directory: &Directory, client_id: &str) -> EntraError {
    UNKNOWN_APPLICATION.because(format!(
        "Application with identifier '{client_id}' was not found in the directory '{}'. This can happen if the \
         application has not been installed by the administrator of the tenant or consented to by any user in the \
         tenant. You may have sent your authentication request to the wrong tenant.",
        directory.tenant().name
    ))
}

/// A token could not be signed: nothing the client can do about.
fn signing_failed(error: jsonwebtoken::errors::Error) -> EntraError {
    tracing::error!(%error, "token not signed");
    let kind: Kind = SERVER_ERROR;
    kind.because("A transient error has occurred. Please try again.")
}

/// Compares digests, so that the time taken says nothing about the secret.
fn same_secret(known: &str, given: &str) -> bool {
    Sha256::digest(known) == Sha256::digest(given)
}

/// All endpoints.
pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(discovery::configuration))
        .route("/{tenant}/discovery/v2.0/keys", get(discovery::keys))
        .route("/{tenant}/discovery/keys", get(discovery::keys))
        .route("/{tenant}/discovery/instance", get(discovery::instance))
        .route("/{tenant}/userrealm/{user}", get(discovery::user_realm))
        .route("/{tenant}/oauth2/v2.0/authorize", get(authorize::get).post(authorize::post))
        .route("/{tenant}/oauth2/v2.0/token", post(token::v2).get(token::only_post).options(token::preflight))
        .route("/{tenant}/oauth2/token", post(token::v1).get(token::only_post))
        .route("/{tenant}/oauth2/v2.0/devicecode", post(device::code).get(token::only_post))
        .route("/{tenant}/oauth2/v2.0/logout", get(sign_in::logout).post(sign_in::logout))
        .route("/{tenant}/oauth2/deviceauth", get(device::page).post(device::choose))
        .route("/{tenant}/login", post(sign_in::login))
        .route("/oidc/userinfo", get(graph::userinfo).post(graph::userinfo))
        .route("/v1.0/me", get(graph::me))
        .fallback(discovery::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn(call::harden))
        .with_state(server)
}
