//! Label and field selectors.

use super::status::ApiError;
use crate::store::{Header, Key, Object};
use serde_json::Value;

/// A requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
    /// `key > number` (true) or `key < number` (false).
    Compare(String, bool, i64),
}

/// A label selector: every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// Parses `app=web,tier in (a, b),!old`.
    ///
    /// # Errors
    /// 400 with what is wrong.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let fail =
            |what: &str| ApiError::bad_request(format!("unable to parse requirement: {what} (in selector \"{text}\")"));
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            let term = term.trim();
            if term.is_empty() {
                return if text.trim().is_empty() {
                    Ok(Self::default())
                } else {
                    Err(fail("found ',', expected: identifier"))
                };
            }
            requirements.push(requirement(term).ok_or_else(|| fail(&format!("invalid term '{term}'")))?);
        }
        Ok(Self(requirements))
    }

    /// The selector of a `metav1.LabelSelector`; an empty one matches everything.
    ///
    /// # Errors
    /// 400 for an unknown operator.
    pub fn of_label_selector(selector: &Value) -> Result<Self, ApiError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut requirements: Vec<_> = selector["matchLabels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement::In(key.clone(), vec![text(value)]))
            .collect();
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = text(&expression["key"]);
            let values = expression["values"].as_array().into_iter().flatten().map(text).collect();
            requirements.push(match expression["operator"].as_str().unwrap_or_default() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Missing(key),
                other => {
                    return Err(ApiError::bad_request(format!("\"{other}\" is not a valid label selector operator")));
                }
            });
        }
        Ok(Self(requirements))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's labels fulfil it.
    pub fn matches(&self, header: &Header) -> bool {
        self.matches_by(|name| header.label(name))
    }

    /// Whether labels, looked up by name, fulfil it.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|have| values.iter().any(|v| v == have)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|have| values.iter().all(|v| v != have)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
            Requirement::Compare(key, greater, bound) => label(key)
                .and_then(|have| have.parse::<i64>().ok())
                .is_some_and(|have| if *greater { have > *bound } else { have < *bound }),
        })
    }
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0u32, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn requirement(term: &str) -> Option<Requirement> {
    if let Some(key) = term.strip_prefix('!') {
        return label_key(key.trim()).map(Requirement::Missing);
    }
    for (operator, greater) in [('>', true), ('<', false)] {
        if let Some((key, bound)) = term.split_once(operator) {
            return Some(Requirement::Compare(label_key(key.trim())?, greater, bound.trim().parse().ok()?));
        }
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Some(Requirement::NotIn(label_key(key.trim())?, vec![label_value(value.trim())?]));
    }
    if let Some((key, value)) = term.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Some(Requirement::In(label_key(key.trim())?, vec![label_value(value.trim())?]));
    }
    let Some((head, values)) = term.strip_suffix(')').and_then(|t| t.split_once('(')) else {
        return label_key(term).map(Requirement::Exists);
    };
    let (key, operator) = head.trim().split_once(char::is_whitespace)?;
    let values = values.split(',').map(|value| label_value(value.trim())).collect::<Option<Vec<_>>>()?;
    match operator.trim() {
        "in" => Some(Requirement::In(label_key(key)?, values)),
        "notin" => Some(Requirement::NotIn(label_key(key)?, values)),
        _ => None,
    }
}

fn label_key(key: &str) -> Option<String> {
    let ok =
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    ok.then(|| key.to_owned())
}

fn label_value(value: &str) -> Option<String> {
    value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')).then(|| value.to_owned())
}

/// Selectable fields of the stored tables, besides `metadata.name` and `metadata.namespace`.
const SELECTABLE: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "status.phase",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("services", &["spec.clusterIP", "spec.type"]),
    ("replicationcontrollers", &["status.replicas"]),
    ("replicasets.apps", &["status.replicas"]),
    ("jobs.batch", &["status.succeeded"]),
    ("certificatesigningrequests.certificates.k8s.io", &["spec.signerName"]),
];

/// Selectable field paths of a stored table.
pub fn selectable(table: &str) -> &'static [&'static str] {
    SELECTABLE.iter().find(|(name, _)| *name == table).map_or(&[], |(_, paths)| paths)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    Header(usize),
}

/// A field selector: every term must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(Field, bool, String)>);

impl FieldSelector {
    /// Parses `status.phase!=Running,spec.nodeName=n1` for a stored table.
    ///
    /// # Errors
    /// 400 for a field that cannot be selected by.
    pub fn parse(text: &str, table: &str) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let (path, equal, value) = match (term.split_once("!="), term.split_once('=')) {
                (Some((path, value)), _) => (path, false, value),
                (None, Some((path, value))) => (path, true, value.strip_prefix('=').unwrap_or(value)),
                (None, None) => {
                    return Err(ApiError::bad_request(format!(
                        "invalid field selector: \"{text}\"; can't understand '{term}'"
                    )));
                }
            };
            let field = match path.trim() {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                path => Field::Header(
                    header_index(path, table)
                        .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {path}")))?,
                ),
            };
            terms.push((field, equal, value.trim().to_owned()));
        }
        Ok(Self(terms))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    fn matches(&self, key: &Key, header: &Header) -> bool {
        self.0.iter().all(|(field, equal, want)| {
            let have = match field {
                Field::Name => key.name(),
                Field::Namespace => key.namespace(),
                Field::Header(index) => header.fields.get(*index).map_or("", |value| value),
            };
            // Absent truth values are false, absent numbers zero.
            let same = have == want || (have.is_empty() && (want == "false" || want == "0"));
            same == *equal
        })
    }
}

fn header_index(path: &str, table: &str) -> Option<usize> {
    // `events.k8s.io/v1` names the same fields differently.
    let path = match path.strip_prefix("regarding.") {
        Some(rest) if table == "events" => format!("involvedObject.{rest}"),
        _ if table == "events" && path == "reportingController" => "reportingComponent".into(),
        // A Job's field and its selector have had different names from the beginning.
        _ if table == "jobs.batch" && path == "status.successful" => "status.succeeded".into(),
        _ if table == "jobs.batch" && path == "status.succeeded" => return None,
        _ => path.to_owned(),
    };
    selectable(table).iter().position(|known| *known == path)
}

/// What a list, watch or collection removal picks.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Namespace; `None` for all.
    pub namespace: Option<String>,
    /// By labels.
    pub labels: Selector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether every object is picked, in its namespace.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
    /// Whether an object is picked.
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object.key.namespace() == namespace)
            && self.labels.matches(&object.header)
            && self.fields.matches(&object.key, &object.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(text: &str, have: &[(&str, &str)]) -> bool {
        let selector = Selector::parse(text).unwrap();
        selector.matches_by(|name| have.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    #[test]
    fn label_selectors() {
        let have = [("app", "web"), ("tier", "a"), ("n", "5")];
        for yes in ["", "app=web", "app==web,tier in (a, b)", "!gone", "tier notin (b),app", "gone!=x", "n>4,n<6"] {
            assert!(labels(yes, &have), "{yes}");
        }
        for no in ["app=x", "tier in (b,c)", "!app", "gone", "app notin (web)", "n>5", "gone in (a)"] {
            assert!(!labels(no, &have), "{no}");
        }
        for bad in ["a=b,", "a in b", "a in (b", "=x", "a b", "!", "a>x"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn label_selector_objects() {
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]});
        let selector = Selector::of_label_selector(&selector).unwrap();
        assert!(selector.matches_by(|name| Some(if name == "a" { "1" } else { "x" })));
        assert!(!selector.matches_by(|name| (name == "a").then_some("1")));
    }

    #[test]
    fn field_selectors() {
        let pod = json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let header = Header::of(&pod, selectable("pods"));
        let key = Key::new("ns", "p");
        for (text, want) in [
            ("spec.nodeName=n1,status.phase!=Failed", true),
            ("metadata.name==p,metadata.namespace=ns", true),
            ("status.phase=Pending", false),
            ("spec.hostNetwork=false", true),
        ] {
            assert_eq!(FieldSelector::parse(text, "pods").unwrap().matches(&key, &header), want, "{text}");
        }
        assert!(FieldSelector::parse("spec.foo=1", "pods").is_err());
        assert!(FieldSelector::parse("regarding.name=x", "events").is_ok());
    }
}
