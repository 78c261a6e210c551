//! The request chain: authn → impersonation → authz → request info → codec → verb handler.

use super::{addresses::ServiceAddresses, computed, non_resource, response, subresources, verbs};
use crate::{
    admission::{Change, Part, quota::Ledger},
    auth::{Attributes, Authenticator, Authorizer, TokenIssuer, User, authenticate},
    codec::{self, Negotiated},
    request::{info::RequestInfo, status::ApiError, target::Target},
    schema::{Resource, Schema, Verb},
    store::Store,
    stream::Upstream,
};
use aksim_runtime::http::ConnectionInfo;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// Largest request body, bytes (kube-apiserver's own limit).
const BODY_LIMIT: usize = 3 << 20;
/// How long a request that is no watch or stream may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Everything that requests share.
pub struct Api {
    /// Objects.
    pub store: Arc<Store>,
    /// Kinds.
    pub schema: Arc<Schema>,
    /// Who asks.
    pub authenticator: Authenticator,
    /// Whether they may.
    pub authorizer: Authorizer,
    /// Service-account tokens.
    pub tokens: Arc<TokenIssuer>,
    /// ClusterIPs and node ports.
    pub addresses: ServiceAddresses,
    /// The way to kubelets and pods.
    pub upstream: Arc<Upstream>,
    /// Room in quotas that writes under way hold.
    pub quota: Ledger,
    /// Cached list answers.
    pub lists: verbs::list::Cache,
    /// `host:port` that clients reach the server at.
    pub advertise: String,
    /// Counters for `/metrics`.
    pub metrics: super::metrics_text::Counters,
    /// Cancelled when the server stops: watches end then.
    pub shutdown: tokio_util::sync::CancellationToken,
}

/// Marks a request of the in-process client, with its user.
#[derive(Clone)]
pub struct InProcessUser(pub Arc<User>);

/// A request on its way through the handlers.
pub struct Call {
    /// What all requests share.
    pub api: Arc<Api>,
    /// What is asked for.
    pub info: RequestInfo,
    /// By whom.
    pub user: User,
    /// Headers of the request.
    pub headers: HeaderMap,
    /// What to answer with.
    pub accept: Negotiated,
    /// Body of the request; empty for those that have none.
    pub body: Bytes,
    /// For the `Warning` headers of the answer.
    pub warnings: parking_lot::Mutex<Vec<String>>,
}

impl Call {
    /// Adds a warning to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }
    /// A write of this call: of `part` of an object that is `old`, or is created.
    pub fn change<'a>(&'a self, target: &'a Target, old: Option<&'a Value>, part: Part, dry_run: bool) -> Change<'a> {
        Change { store: &self.api.store, user: &self.user, warnings: &self.warnings, target, old, part, dry_run }
    }
    /// A header as text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
    /// Decodes the body, or `Null` when there is none.
    ///
    /// # Errors
    /// 400, 415.
    pub fn decode(&self) -> Result<codec::Decoded, ApiError> {
        codec::decode(self.header(header::CONTENT_TYPE), &self.body).map_err(codec_error)
    }
}

/// A codec error as clients see it.
pub fn codec_error(error: codec::CodecError) -> ApiError {
    use http::StatusCode;
    let text = error.to_string();
    match error {
        codec::CodecError::UnsupportedMediaType(_) => {
            ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", text)
        }
        codec::CodecError::NotAcceptable(_) => ApiError::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", text),
        codec::CodecError::Malformed(_) => ApiError::bad_request(text),
    }
}

impl Api {
    /// Answers a request.
    pub async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let metrics = self.clone();
        let mut response = match self.chain(request).await {
            Ok(response) => response,
            Err(error) => response::error(&error, accept.as_deref()),
        };
        metrics.metrics.count(response.status());
        response.headers_mut().insert("audit-id", response::audit_id());
        response
    }

    async fn chain(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let uri = request.uri();
        let info = RequestInfo::parse(request.method(), uri.path(), uri.query().unwrap_or_default())?;
        let user = match request.extensions().get::<InProcessUser>() {
            Some(user) => User::clone(&user.0),
            None => {
                let connection = request.extensions().get::<ConnectionInfo>();
                self.authenticator.authenticate(request.headers(), connection).await?
            }
        };
        let user = self.impersonate(user, request.headers())?;
        self.authorize(&user, &info)?;
        if !info.is_resource {
            return non_resource::handle(&self, &info, &user, request.headers());
        }
        let resource = self.schema.resource(&info.group, &info.version, &info.resource).cloned();
        let Some(resource) = resource else { return Err(ApiError::no_such_path()) };
        if resource.namespaced == info.namespace.is_empty() && !cluster_wide(&resource, &info) {
            return Err(ApiError::no_such_path());
        }
        if subresources::is_stream(&info) {
            return subresources::stream(&self, &info, &user, &resource, request).await;
        }
        let (parts, body) = request.into_parts();
        let accept = codec::accept::negotiate(parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()))
            .map_err(codec_error)?;
        let body = read_body(body).await?;
        let call = Call { api: self, info, user, headers: parts.headers, accept, body, warnings: Default::default() };
        let answer = dispatch(&call, &resource);
        let mut response = tokio::time::timeout(DEADLINE, answer).await.map_err(|_| {
            ApiError::new(http::StatusCode::GATEWAY_TIMEOUT, "Timeout", "the server did not finish within 60 s")
        })??;
        response::add_warnings(&mut response, &call.warnings.lock());
        Ok(response)
    }

    fn impersonate(&self, user: User, headers: &HeaderMap) -> Result<User, ApiError> {
        let Some(wanted) = authenticate::impersonated(headers)? else { return Ok(user) };
        let check = |group, resource: &str, namespace: &str, name: &str| {
            let want = Attributes { verb: "impersonate", group, resource, namespace, name, ..Attributes::default() };
            if self.authorizer.allows(&user, &want) {
                return Ok(());
            }
            let cause = format!(
                "User \"{}\" cannot impersonate resource \"{resource}\" in API group \"{group}\" at the cluster scope",
                user.name
            );
            Err(ApiError::forbidden(resource, name, &cause))
        };
        match wanted.as_service_account() {
            Some((namespace, name)) => check("", "serviceaccounts", namespace, name)?,
            None => check("", "users", "", &wanted.name)?,
        }
        let implied =
            |group: &str| group == crate::auth::user::AUTHENTICATED || group.starts_with("system:serviceaccounts");
        for group in wanted.groups.iter().filter(|group| !implied(group)) {
            check("", "groups", "", group)?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                check("authentication.k8s.io", &format!("userextras/{key}"), "", value)?;
            }
        }
        Ok(wanted)
    }

    fn authorize(&self, user: &User, info: &RequestInfo) -> Result<(), ApiError> {
        let want = Attributes {
            verb: &info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
        };
        if self.authorizer.allows(user, &want) {
            return Ok(());
        }
        if !info.is_resource {
            return Err(ApiError::forbidden_path(&user.name, &info.verb, &info.path));
        }
        let group_resource = response::group_resource(&info.group, &info.resource);
        let shown = if info.subresource.is_empty() {
            info.resource.clone()
        } else {
            format!("{}/{}", info.resource, info.subresource)
        };
        let scope = match info.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let cause = format!(
            "User \"{}\" cannot {} resource \"{shown}\" in API group \"{}\" {scope}",
            user.name, info.verb, info.group
        );
        Err(ApiError::forbidden(&group_resource, &info.name, &cause))
    }
}

/// Lists and watches over all namespaces, and namespaces themselves, have no namespace of their own.
fn cluster_wide(resource: &Resource, info: &RequestInfo) -> bool {
    if resource.namespaced {
        info.namespace.is_empty() && (matches!(info.verb.as_str(), "list" | "watch") || resource.computed)
    } else {
        resource.name == "namespaces" && (info.namespace == info.name || info.name.is_empty())
    }
}

async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Err(error) => Err(ApiError::bad_request(format!("unable to read the request body: {error}"))),
    }
}

async fn dispatch(call: &Call, resource: &Arc<Resource>) -> Result<Response<Body>, ApiError> {
    if !call.info.subresource.is_empty() {
        return subresources::handle(call, resource).await;
    }
    let verb = match call.info.verb.as_str() {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        _ => return Err(ApiError::method_not_allowed()),
    };
    if !resource.serves(verb) {
        return Err(ApiError::method_not_allowed());
    }
    if resource.computed {
        return computed::handle(call, resource, verb).await;
    }
    let target = Target::new(&call.api.store, resource);
    match verb {
        Verb::Get => verbs::get::handle(call, &target),
        Verb::List => verbs::list::handle(call, &target),
        Verb::Watch => verbs::watch::handle(call, &target),
        Verb::Create => verbs::create::handle(call, &target).await,
        Verb::Update => verbs::update::handle(call, &target, Part::Whole).await,
        Verb::Patch => verbs::patch::handle(call, &target, Part::Whole).await,
        Verb::Delete => verbs::delete::handle(call, &target).await,
        Verb::DeleteCollection => verbs::delete::collection(call, &target).await,
    }
}
