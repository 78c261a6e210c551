//! What a request asks for: verb, resource, namespace, name, subresource, parameters
//! (kube-apiserver's `RequestInfo`).

use super::status::ApiError;
use http::Method;

/// A request, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Path as sent, decoded.
    pub path: String,
    /// Verb as RBAC names it; for paths that are no resource the HTTP method in lower case.
    pub verb: String,
    /// Whether the path is below `/api/VERSION` or `/apis/GROUP/VERSION`.
    pub is_resource: bool,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace; empty when there is none in the path.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Name of the object; empty for collections.
    pub name: String,
    /// Subresource; empty without.
    pub subresource: String,
    /// What follows the subresource in the path (`proxy/…`), without leading slash.
    pub rest: String,
    /// Parameters.
    pub query: Query,
}

/// Parameters of a request, decoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=1&b=2`.
    pub fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }
    /// First value of a parameter, if it is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    /// The parameters as they are sent.
    pub fn encoded(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
    /// Whether a parameter says yes: `true`, `1`, or is there without value.
    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(key, value)| key == name && matches!(value.as_str(), "true" | "1" | ""))
    }
    /// A number.
    ///
    /// # Errors
    /// 400 when it is not one.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax ({name})"))
                })
            })
            .transpose()
    }
}

impl RequestInfo {
    /// Takes a request apart.
    ///
    /// # Errors
    /// 400 for a path that is not UTF-8 once decoded.
    pub fn parse(method: &Method, path: &str, query: &str) -> Result<Self, ApiError> {
        let query = Query::parse(query);
        let mut info =
            Self { path: decode(path)?, verb: method.as_str().to_ascii_lowercase(), query, ..Self::default() };
        let parts = path.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Result<Vec<_>, _>>()?;
        let rest = match parts.split_first() {
            Some((root, [version, rest @ ..])) if root == "api" && !rest.is_empty() => {
                info.version.clone_from(version);
                rest
            }
            Some((root, [group, version, rest @ ..])) if root == "apis" && !rest.is_empty() => {
                info.group.clone_from(group);
                info.version.clone_from(version);
                rest
            }
            _ => return Ok(info),
        };
        info.is_resource = true;
        info.resource_path(method, rest);
        Ok(info)
    }

    fn resource_path(&mut self, method: &Method, parts: &[String]) {
        let mut parts = parts;
        let mut watch = false;
        if let [first, rest @ ..] = parts
            && first == "watch"
            && !rest.is_empty()
        {
            watch = true;
            parts = rest;
        }
        if let [first, namespace, rest @ ..] = parts
            && first == "namespaces"
        {
            self.namespace.clone_from(namespace);
            // `namespaces/NAME`, `namespaces/NAME/status` and `…/finalize` are the namespace itself.
            if !rest.is_empty() && !matches!(rest[0].as_str(), "status" | "finalize") {
                parts = rest;
            }
        }
        let part = |index: usize| parts.get(index).cloned().unwrap_or_default();
        (self.resource, self.name, self.subresource) = (part(0), part(1), part(2));
        self.rest = parts.get(3..).unwrap_or_default().join("/");
        watch |= self.query.flag("watch") && self.name.is_empty();
        self.verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD if watch => "watch",
            Method::GET | Method::HEAD if self.name.is_empty() => "list",
            Method::GET | Method::HEAD => "get",
            _ => "",
        }
        .into();
        // A list or watch of one name is authorized as that name.
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection")
            && let Some(selector) = self.query.get("fieldSelector")
            && let Some(name) = selector.split(',').find_map(|term| term.strip_prefix("metadata.name="))
        {
            name.trim_start_matches('=').clone_into(&mut self.name);
        }
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    percent_decode(text).ok_or_else(|| ApiError::bad_request("the path is not UTF-8"))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        RequestInfo::parse(&method, path, query).unwrap()
    }

    #[test]
    fn paths_are_taken_apart_as_kube_apiserver_does() {
        for (method, uri, want) in [
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "get //v1 ns=a pods/b/log"),
            (Method::GET, "/api/v1/namespaces/a", "get //v1 ns=a namespaces/a/"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update //v1 ns=a namespaces/a/finalize"),
            (Method::GET, "/apis/apps/v1/deployments?watch=1", "watch /apps/v1 ns= deployments//"),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch //v1 ns=a pods//"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection //v1 ns=a pods//"),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list //v1 ns= pods/x/"),
            (Method::POST, "/api/v1/namespaces/a%2Fb/pods", "create //v1 ns=a/b pods//"),
        ] {
            let i = parse(method, uri);
            let got = format!(
                "{} /{}/{} ns={} {}/{}/{}",
                i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource
            );
            assert_eq!(got, want, "{uri}");
        }
        assert!(!parse(Method::GET, "/apis/apps/v1").is_resource);
        assert_eq!(parse(Method::GET, "/api/v1/namespaces/a/services/b/proxy/x/y").rest, "x/y");
        assert!(RequestInfo::parse(&Method::GET, "/api/v1/%zz", "").is_err());
    }
}
