//! From credentials to a user: client certificates, bearer tokens, impersonation.

use super::{
    tokens::{BoundObject, Claims, ISSUER, TokenIssuer},
    user::{AUTHENTICATED, User},
};
use crate::{
    request::status::ApiError,
    store::{Key, Store, TableId},
};
use aksim_runtime::{
    http::ConnectionInfo,
    oidc::{self, TokenVerifier},
};
use http::{HeaderMap, header::AUTHORIZATION};
use parking_lot::RwLock;
use std::{collections::HashMap, sync::Arc};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates whose user is remembered.
const REMEMBERED: usize = 1024;

/// Finds out who asks.
pub struct Authenticator {
    store: Arc<Store>,
    accounts: TableId,
    pods: TableId,
    secrets: TableId,
    tokens: Arc<TokenIssuer>,
    oidc: Option<TokenVerifier>,
    static_tokens: HashMap<String, User>,
    certificates: RwLock<HashMap<Box<[u8]>, User>>,
}

impl Authenticator {
    /// An authenticator over the service accounts in `store`.
    pub fn new(
        store: Arc<Store>,
        tokens: Arc<TokenIssuer>,
        oidc: Option<TokenVerifier>,
        static_tokens: HashMap<String, User>,
    ) -> Self {
        Self {
            accounts: store.table("serviceaccounts"),
            pods: store.table("pods"),
            secrets: store.table("secrets"),
            store,
            tokens,
            oidc,
            static_tokens,
            certificates: RwLock::default(),
        }
    }

    /// The user of a request: by client certificate, else by bearer token, else anonymous.
    ///
    /// # Errors
    /// 401 for a token that is not good.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: Option<&ConnectionInfo>,
    ) -> Result<User, ApiError> {
        if let Some(leaf) = connection.and_then(|info| info.client_certificates.first())
            && let Some(user) = self.certificate(leaf)
        {
            return Ok(user);
        }
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok(User::anonymous()) };
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
        match bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
            Some((_, token)) => self.token(token.trim(), &[ISSUER]).await.ok_or_else(ApiError::unauthorized),
            // Other schemes are not for this server: such a client is anonymous, as in Kubernetes.
            None => Ok(User::anonymous()),
        }
    }

    /// The user of a certificate that TLS has verified: common name and organizations.
    fn certificate(&self, der: &[u8]) -> Option<User> {
        if let Some(user) = self.certificates.read().get(der) {
            return Some(user.clone());
        }
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = certificate.subject().iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
        let user = User::authenticated(name, groups);
        let mut certificates = self.certificates.write();
        if certificates.len() >= REMEMBERED {
            certificates.clear();
        }
        certificates.insert(der.into(), user.clone());
        Some(user)
    }

    /// The user of a bearer token meant for one of `audiences`, if it is good.
    pub async fn token(&self, token: &str, audiences: &[&str]) -> Option<User> {
        if let Some(user) = self.static_tokens.get(token) {
            return Some(user.clone());
        }
        if self.tokens.issued(token) {
            let claims = self.tokens.verify(token, audiences, jiff::Timestamp::now())?;
            return self.account(&claims);
        }
        match self.oidc.as_ref()?.verify(token).await {
            Ok(claims) => entra_user(&claims),
            Err(error) => {
                tracing::debug!(%error, "token refused");
                None
            }
        }
    }

    /// The user of a verified service-account token, while everything it is bound to exists.
    fn account(&self, claims: &Claims) -> Option<User> {
        let bound = &claims.kubernetes;
        let exists = |table, object: &BoundObject| {
            let found = self.store.get(table, &Key::new(&bound.namespace, &object.name));
            found.is_some_and(|found| *found.header.uid == *object.uid)
        };
        let good = exists(self.accounts, &bound.serviceaccount)
            && bound.pod.as_ref().is_none_or(|pod| exists(self.pods, pod))
            && bound.secret.as_ref().is_none_or(|secret| exists(self.secrets, secret));
        if !good {
            return None;
        }
        let mut user = User::service_account(&bound.namespace, &bound.serviceaccount.name);
        user.uid.clone_from(&bound.serviceaccount.uid);
        let mut extra = |key: &str, value: String| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        extra("credential-id", format!("JTI={}", claims.jti));
        if let Some(pod) = &bound.pod {
            extra("pod-name", pod.name.clone());
            extra("pod-uid", pod.uid.clone());
        }
        if let Some(node) = &bound.node {
            extra("node-name", node.name.clone());
            extra("node-uid", node.uid.clone());
        }
        Some(user)
    }
}

/// The user of an Entra token as AKS maps it: sign-in name for people, object id for
/// applications, groups by object id.
fn entra_user(claims: &oidc::Claims) -> Option<User> {
    let name = claims.preferred_username().or_else(|| claims.text("upn")).or_else(|| claims.oid())?;
    // Names of the system itself are not an issuer's to give.
    if name.starts_with("system:") {
        return None;
    }
    let groups = claims.groups().into_iter().filter(|group| !group.starts_with("system:")).map(str::to_owned);
    let mut user = User::authenticated(name, groups.collect::<Vec<_>>());
    if let Some(oid) = claims.oid() {
        oid.clone_into(&mut user.uid);
        user.extra.insert("oid".into(), vec![oid.to_owned()]);
    }
    Some(user)
}

/// The user that a request asks to act as, by its `Impersonate-*` headers; `None` without them.
///
/// # Errors
/// 400 for groups or extras without a user.
pub fn impersonated(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
    let Some(name) = text("impersonate-user") else {
        let asked = headers.keys().any(|name| name.as_str().starts_with("impersonate-"));
        return if asked {
            Err(ApiError::bad_request("requested impersonation without impersonating a user"))
        } else {
            Ok(None)
        };
    };
    let mut groups: Vec<String> =
        headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let mut user = match (groups.is_empty(), name.strip_prefix("system:serviceaccount:")) {
        (true, Some(rest)) => match rest.split_once(':') {
            Some((namespace, account)) => User::service_account(namespace, account),
            None => User::authenticated(name, []),
        },
        _ if name == "system:anonymous" => User { groups, ..User::anonymous() },
        _ => {
            if !groups.iter().any(|g| g == AUTHENTICATED) {
                groups.push(AUTHENTICATED.into());
            }
            User { name: name.into(), groups, ..User::default() }
        }
    };
    text("impersonate-uid").unwrap_or_default().clone_into(&mut user.uid);
    for (header, value) in headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            user.extra.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    Ok(Some(user))
}
