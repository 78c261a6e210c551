//! Names by the rules of DNS, and which kind has which.

/// Words of kube-apiserver for a name that is no RFC 1123 subdomain.
pub const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// Words for a name that is no RFC 1123 label.
pub const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// Words for a name that is no RFC 1035 label.
pub const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// Whether a text is an RFC 1123 label.
pub fn is_dns_label(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Whether a text is an RFC 1123 subdomain.
pub fn is_dns_subdomain(name: &str) -> bool {
    // Kubernetes bounds the whole only, not each part.
    name.len() <= 253
        && name.split('.').all(|part| {
            let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let bytes = part.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        })
}

/// Whether a text can be a part of a path.
fn is_path_segment(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        name if name.contains('/') => Some("may not contain '/'"),
        name if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

/// What is wrong with the name of an object of this table, in kube-apiserver's words.
pub fn problem(table: &str, name: &str) -> Option<String> {
    let too_long = |limit: usize| format!("must be no more than {limit} characters");
    let (fits, words, limit) = match table {
        _ if table.ends_with(".rbac.authorization.k8s.io") || table == "apiservices.apiregistration.k8s.io" => {
            return is_path_segment(name).map(str::to_owned);
        }
        "namespaces" => (is_dns_label(name), LABEL, 63),
        "services" => (is_dns_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), SERVICE, 63),
        _ => (is_dns_subdomain(name), SUBDOMAIN, 253),
    };
    match (fits, name.len() > limit) {
        (true, _) => None,
        (false, true) => Some(too_long(limit)),
        (false, false) => Some(words.to_owned()),
    }
}

/// Whether a text is a label value.
pub fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether a text is a qualified name: `[PREFIX/]NAME`.
pub fn is_qualified_name(name: &str) -> bool {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_kind() {
        assert_eq!(problem("pods", "a.b-c"), None);
        assert_eq!(problem("pods", "Upper").as_deref(), Some(SUBDOMAIN));
        assert_eq!(problem("services", "1a").as_deref(), Some(SERVICE));
        assert_eq!(problem("namespaces", "a.b").as_deref(), Some(LABEL));
        assert_eq!(problem("clusterroles.rbac.authorization.k8s.io", "system:node"), None);
        assert!(problem("clusterroles.rbac.authorization.k8s.io", "a/b").is_some());
        assert_eq!(problem("namespaces", &"a".repeat(64)).as_deref(), Some("must be no more than 63 characters"));
        assert!(is_qualified_name("app.kubernetes.io/name") && !is_qualified_name("/x") && !is_qualified_name("a/b/c"));
    }
}
