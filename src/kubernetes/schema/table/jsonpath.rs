//! The JSONPath of printer columns: fields, indices, `[*]`, filters `[?(@.type=="Ready")]`.

use super::plain;
use serde_json::Value;

/// A parsed path; the default one selects nothing.
#[derive(Debug, Default)]
pub(super) struct JsonPath(Option<Vec<Step>>);

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose field (dotted) equals a text, or differs from it.
    Filter {
        field: Vec<String>,
        equal: bool,
        text: String,
    },
}

impl JsonPath {
    /// Reads `.spec.replicas`, `.status.conditions[?(@.type=='Ready')].status`, `.a['b.c'][0]`.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut rest = path.trim().trim_start_matches('$');
        rest = rest.strip_prefix('{').and_then(|r| r.strip_suffix('}')).unwrap_or(rest);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(inner) = rest.strip_prefix('[') { bracket(inner)? } else { field(rest)? };
            steps.extend(step);
            rest = after;
        }
        Some(Self(Some(steps)))
    }

    /// What the path selects, as a cell: nothing is `null`, one value itself, several joined.
    pub(super) fn cell(&self, object: &Value) -> Value {
        let Some(steps) = &self.0 else { return Value::Null };
        let mut found = vec![object];
        for step in steps {
            found = found.into_iter().flat_map(|value| step.select(value)).collect();
        }
        match found[..] {
            [] => Value::Null,
            [one] => match one {
                Value::Array(_) | Value::Object(_) => one.to_string().into(),
                other => other.clone(),
            },
            _ => found.into_iter().map(plain).collect::<Vec<_>>().join(" ").into(),
        }
    }
}

impl Step {
    fn select<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(list)) => {
                let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
                let at = if *index < 0 { length + index } else { *index };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(list)) => list.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Filter { field, equal, text }, Value::Array(list)) => list
                .iter()
                .filter(|item| {
                    let value = field.iter().try_fold(*item, |value, name| value.get(name));
                    value.is_some_and(|value| (plain(value) == *text) == *equal)
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// A field after an optional dot; a backslash takes a dot into the name.
fn field(text: &str) -> Option<(Option<Step>, &str)> {
    let text = text.strip_prefix('.').unwrap_or(text);
    let (mut name, mut characters) = (String::new(), text.char_indices());
    let mut end = text.len();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            other => name.push(other),
        }
    }
    let step = match name.as_str() {
        "" => None,
        "*" => Some(Step::All),
        _ => Some(Step::Field(name)),
    };
    (step.is_some() || end < text.len() || text.is_empty()).then_some((step, &text[end..]))
}

/// What stands in brackets, and what follows them.
fn bracket(text: &str) -> Option<(Option<Step>, &str)> {
    if let Some(filter) = text.strip_prefix("?(") {
        let (inside, rest) = filter.split_once(")]")?;
        let (left, equal, right) = match inside.split_once("==") {
            Some((left, right)) => (left, true, right),
            None => inside.split_once("!=").map(|(left, right)| (left, false, right))?,
        };
        let field = left.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let text = right.trim().trim_matches(['"', '\'']).to_owned();
        return Some((Some(Step::Filter { field, equal, text }), rest));
    }
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let (name, rest) = text[1..].split_once(quote)?;
        return Some((Some(Step::Field(name.to_owned())), rest.strip_prefix(']')?));
    }
    let (inside, rest) = text.split_once(']')?;
    let step = if inside == "*" { Step::All } else { Step::Index(inside.trim().parse().ok()?) };
    Some((Some(step), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_real_columns() {
        let object = json!({"spec":{"n":3,"a.b":"dotted"},"status":{"conditions":[
            {"type":"Ready","status":"True"},{"type":"Other","status":"False"}],"ips":["1","2"]}});
        let cases = [
            (".spec.n", json!(3)),
            ("{.spec.n}", json!(3)),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='None')].status", json!(null)),
            (".status.conditions[?(@.type!='Ready')].status", json!("False")),
            (".status.ips[0]", json!("1")),
            (".status.ips[-1]", json!("2")),
            (".status.ips[*]", json!("1 2")),
            (".status.conditions[*].type", json!("Ready Other")),
            (".spec.a\\.b", json!("dotted")),
            (".spec['a.b']", json!("dotted")),
            (".spec.missing.deep", json!(null)),
            (".status.ips", json!("[\"1\",\"2\"]")),
        ];
        for (path, wanted) in cases {
            assert_eq!(JsonPath::parse(path).unwrap().cell(&object), wanted, "{path}");
        }
        for bad in [".a[", ".a[x]", ".a[?(b)]", ".a['b]"] {
            assert!(JsonPath::parse(bad).is_none(), "{bad}");
        }
    }
}
