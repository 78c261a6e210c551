//! Forwards requests to endpoints over pooled connections.

use super::{RouteTable, certificates::LOCAL_SUFFIX};
use aksim_model::endpoint::AzureName;
use aksim_runtime::{http::ConnectionInfo, net::SharedDialer};
use axum::body::{Body, Bytes};
use futures::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, HOST, LOCATION, UPGRADE},
};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client, Error as ClientError,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use rustls::pki_types::ServerName;
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

/// How long an endpoint may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long an endpoint may take to begin its answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Endpoints tried before giving up.
const TRIES: usize = 3;
/// Longest body that is kept so that it can be sent again, bytes.
const KEPT_BODY: u64 = 64 * 1024;
/// Headers of one connection, not of the request (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// What the proxy needs.
pub struct ProxyConfig {
    pub routes: watch::Receiver<Arc<RouteTable>>,
    pub azure_names: Vec<AzureName>,
    pub port: u16,
    pub dialer: SharedDialer,
    pub tls: Arc<rustls::ClientConfig>,
    /// Told when a host is first reached, and when it starts or stops failing.
    pub on_change: Box<dyn Fn(bool, String) + Send + Sync>,
}

/// A tower service that answers requests from endpoints.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    config: ProxyConfig,
    client: Client<Connector, Body>,
    next: AtomicUsize,
    /// Connections that have changed their protocol.
    upgraded: TaskTracker,
    stop: CancellationToken,
    last: parking_lot::Mutex<std::collections::HashMap<String, bool>>,
}

enum Destination {
    Endpoints { name: String, endpoints: Vec<SocketAddr> },
    Azure(AzureName),
}

impl Destination {
    fn name(&self) -> &str {
        match self {
            Self::Endpoints { name, .. } => name,
            Self::Azure(azure) => &azure.host,
        }
    }
}

/// The body of a request on its way out.
enum Payload {
    /// Short enough to be sent again.
    Kept(Bytes),
    /// Sent once.
    Once(Option<Body>),
}

impl Payload {
    async fn take(body: Incoming, upgrade: bool) -> Result<Self, String> {
        let length = hyper::body::Body::size_hint(&body).exact();
        let body = Body::new(body);
        let Some(length) = length.filter(|length| *length <= KEPT_BODY && !upgrade) else {
            return Ok(Self::Once(Some(body)));
        };
        let read = axum::body::to_bytes(body, usize::try_from(length).unwrap_or(usize::MAX));
        match tokio::time::timeout(ANSWER_DEADLINE, read).await {
            Ok(Ok(bytes)) => Ok(Self::Kept(bytes)),
            Ok(Err(error)) => Err(format!("The body of the request broke off: {error}")),
            Err(_) => Err("The body of the request did not come within 60 s.".into()),
        }
    }

    /// The body for the next try, if there can be one.
    fn next(&mut self) -> Option<Body> {
        match self {
            Self::Kept(bytes) => Some(Body::from(bytes.clone())),
            Self::Once(body) => body.take(),
        }
    }
}

impl Proxy {
    pub fn new(config: ProxyConfig) -> Self {
        let connector = Connector {
            dialer: config.dialer.clone(),
            tls: config.tls.clone(),
            azure_names: config.azure_names.clone().into(),
        };
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(20)).build(connector);
        let shared = Shared {
            config,
            client,
            next: AtomicUsize::new(0),
            upgraded: TaskTracker::new(),
            stop: CancellationToken::new(),
            last: parking_lot::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Ends the connections that have changed their protocol.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.upgraded.close();
        self.shared.upgraded.wait().await;
    }
}

impl Service<Request<Incoming>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { Ok(shared.answer(request).await) })
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let authority = request.uri().authority().map(|a| a.as_str().to_owned());
        let header = request.headers().get(HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
        let Some(authority) = authority.or(header) else {
            return page(StatusCode::BAD_REQUEST, "The request names no host.".into());
        };
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(h, _)| h).to_ascii_lowercase();
        let Some(destination) = self.destination(&host, request.uri().path()) else {
            let hosts: Vec<String> =
                self.config.routes.borrow().hosts().map(|h| format!("https://{h}:{}", self.config.port)).collect();
            let text = format!("No Ingress routes {host}{}.\n\nHosts: {}", request.uri().path(), hosts.join(", "));
            return page(StatusCode::NOT_FOUND, text);
        };
        let mut response = self.forward(request, &authority, &host, destination).await;
        self.note(&host, response.status());
        self.localise(response.headers_mut());
        response
    }

    fn destination(&self, host: &str, path: &str) -> Option<Destination> {
        if let Some(name) = host.strip_suffix(LOCAL_SUFFIX)
            && let Some(azure) = self.config.azure_names.iter().find(|a| a.host == name && a.port == 443)
        {
            return Some(Destination::Azure(azure.clone()));
        }
        let routes = self.config.routes.borrow().clone();
        let backend = routes.find(host, path)?;
        Some(Destination::Endpoints { name: backend.name.clone(), endpoints: backend.endpoints.clone() })
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        authority: &str,
        host: &str,
        destination: Destination,
    ) -> Response<Body> {
        let upgrade = request.headers().get(UPGRADE).cloned();
        let client_upgrade = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let peer = head.extensions.get::<ConnectionInfo>().map(|i| i.peer);
        forwarded_headers(&mut head.headers, authority, peer, self.config.port);
        if let Some(protocol) = upgrade {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, protocol);
        }
        if matches!(destination, Destination::Azure(_)) {
            // The server is asked by the name it knows itself by.
            head.headers.remove(HOST);
        }
        let mut payload = match Payload::take(body, client_upgrade.is_some()).await {
            Ok(payload) => payload,
            Err(text) => return page(StatusCode::BAD_REQUEST, text),
        };
        let name = destination.name().to_owned();
        match self.attempt(&head, &mut payload, host, destination).await {
            Ok(response) => self.answered(response, client_upgrade),
            Err((status, text)) => page(status, format!("{name} {text}")),
        }
    }

    /// The first answer of an endpoint. One that does not accept, or breaks off a request that may
    /// be made twice, is not the last word: a pod that is going away does that.
    async fn attempt(
        &self,
        head: &http::request::Parts,
        payload: &mut Payload,
        host: &str,
        mut destination: Destination,
    ) -> Result<Response<Incoming>, (StatusCode, String)> {
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let (mut tried, mut failure) = (Vec::new(), String::new());
        while tried.len() < TRIES {
            let origins = self.origins(&destination);
            let Some(origin) = origins.iter().find(|o| !tried.contains(*o)).or(origins.first()).cloned() else {
                return Err((StatusCode::SERVICE_UNAVAILABLE, "has no ready endpoint.".into()));
            };
            let uri = format!("{origin}{path}").parse::<Uri>().map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
            let Some(body) = payload.next() else { break };
            let request = outgoing(&head.method, uri, &head.headers, body);
            match tokio::time::timeout(ANSWER_DEADLINE, self.client.request(request)).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => {
                    failure = describe(&error);
                    tracing::debug!(origin, failure, "endpoint");
                    if !(error.is_connect() || idempotent(&head.method)) {
                        break;
                    }
                }
                Err(_) => return Err((StatusCode::GATEWAY_TIMEOUT, "did not answer within 60 s.".into())),
            }
            tried.push(origin);
            // The endpoints may be others by now.
            destination = self.destination(host, head.uri.path()).unwrap_or(destination);
        }
        Err((StatusCode::BAD_GATEWAY, format!("failed: {failure}")))
    }

    fn answered(&self, mut response: Response<Incoming>, client: Option<hyper::upgrade::OnUpgrade>) -> Response<Body> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = client
        {
            let server = hyper::upgrade::on(&mut response);
            let (head, _) = response.into_parts();
            // Lives as long as the two connections that it joins; each end closes the other.
            let joined = async move {
                if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    // Either end going away is how such a connection ends.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            };
            let stop = self.stop.clone();
            self.upgraded.spawn(async move { stop.run_until_cancelled(joined).await });
            return Response::from_parts(head, Body::empty());
        }
        for name in HOP_BY_HOP {
            response.headers_mut().remove(name);
        }
        response.map(Body::new)
    }

    fn origins(&self, destination: &Destination) -> Vec<String> {
        match destination {
            Destination::Azure(azure) => vec![format!("https://{}", azure.host)],
            Destination::Endpoints { endpoints, .. } => self.order(endpoints),
        }
    }

    /// The endpoints, a different one first each time.
    fn order(&self, endpoints: &[SocketAddr]) -> Vec<String> {
        if endpoints.is_empty() {
            return Vec::new();
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) % endpoints.len();
        endpoints[start..].iter().chain(&endpoints[..start]).map(|e| format!("http://{e}")).collect()
    }

    fn note(&self, host: &str, status: StatusCode) {
        let ok = !status.is_server_error();
        let before = self.last.lock().insert(host.to_owned(), ok);
        if before != Some(ok) {
            (self.config.on_change)(ok, format!("https://{host}:{} answered {}", self.config.port, status.as_u16()));
        }
    }

    /// Sends the browser to where it can reach an Azure name.
    fn localise(&self, headers: &mut HeaderMap) {
        let Some(location) = headers.get(LOCATION).and_then(|l| l.to_str().ok()) else { return };
        let Some(rest) = location.strip_prefix("https://") else { return };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, tail) = rest.split_at(end);
        if self.config.azure_names.iter().any(|a| a.host == host && a.port == 443)
            && let Ok(local) =
                HeaderValue::from_str(&format!("https://{host}{LOCAL_SUFFIX}:{}{tail}", self.config.port))
        {
            headers.insert(LOCATION, local);
        }
    }
}

fn idempotent(method: &Method) -> bool {
    method.is_safe() || method == Method::PUT || method == Method::DELETE
}

fn describe(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn forwarded_headers(headers: &mut HeaderMap, authority: &str, peer: Option<SocketAddr>, port: u16) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("host", authority);
    // What a client claims is not passed on: nothing in front of this door is trusted.
    set("x-forwarded-host", authority);
    set("x-forwarded-proto", "https");
    set("x-forwarded-port", &port.to_string());
    set("x-forwarded-for", &peer.map_or_else(|| "127.0.0.1".into(), |p| p.ip().to_string()));
    set("x-request-id", &uuid::Uuid::new_v4().simple().to_string());
}

fn outgoing(method: &Method, uri: Uri, headers: &HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers.clone();
    request
}

fn page(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{status}\n\n{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Dials endpoints plainly and Azure names by TLS.
#[derive(Clone)]
struct Connector {
    dialer: SharedDialer,
    tls: Arc<rustls::ClientConfig>,
    azure_names: Arc<[AzureName]>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let connect = this.connect(uri);
            let stream =
                tokio::time::timeout(CONNECT_DEADLINE, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connector {
    async fn connect(&self, uri: Uri) -> io::Result<Stream> {
        let invalid = |e: String| io::Error::new(io::ErrorKind::InvalidInput, e);
        let authority = uri.authority().ok_or_else(|| invalid("no authority".into()))?.as_str();
        if uri.scheme_str() != Some("https") {
            let address = authority.parse().map_err(|_| invalid(format!("{authority} is not an address")))?;
            return Ok(Stream::Plain(self.dialer.dial(address).await?));
        }
        let azure = self.azure_names.iter().find(|a| a.host == authority).ok_or_else(|| invalid(authority.into()))?;
        let stream = TcpStream::connect(azure.target).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(azure.host.clone()).map_err(|e| invalid(e.to_string()))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, data),
            Self::Tls(s) => Pin::new(s).poll_write(cx, data),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
