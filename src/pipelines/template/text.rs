//! Scalars with `${{ }}` in them.

use super::{Lazy, Loader};
use crate::{
    expression::{ExpressionError, Value, evaluate_counted},
    yaml::{Kind, Node, Style},
};
use std::rc::Rc;

/// Words that are directives when they begin an expression in a key.
const DIRECTIVES: [&str; 5] = ["if", "elseif", "else", "each", "insert"];

/// A directive: its word and what follows.
#[derive(Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// `if`, `elseif`, `else`, `each` or `insert`.
    pub word: &'a str,
    /// The rest, trimmed.
    pub rest: &'a str,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Segment<'a> {
    Text(&'a str),
    Expression(&'a str),
}

/// Splits a text at its `${{ }}`; quotes inside are respected. `None` when one is not closed.
fn segments(text: &str) -> Option<Vec<Segment<'_>>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("${{") {
        if begin > 0 {
            parts.push(Segment::Text(&rest[..begin]));
        }
        let inner = &rest[begin + 3..];
        let mut quoted = false;
        let end = inner.char_indices().find_map(|(at, c)| {
            quoted ^= c == '\'';
            (!quoted && inner[at..].starts_with("}}")).then_some(at)
        })?;
        parts.push(Segment::Expression(inner[..end].trim()));
        rest = &inner[end + 2..];
    }
    if !rest.is_empty() {
        parts.push(Segment::Text(rest));
    }
    Some(parts)
}

/// The expression of a text that is exactly one `${{ }}`.
fn lone(text: &str) -> Option<&str> {
    match segments(text)?.as_slice() {
        [Segment::Expression(expression)] => Some(expression),
        _ => None,
    }
}

/// The directive of a key or value that is one.
pub fn directive(text: &str) -> Option<Directive<'_>> {
    let expression = lone(text.trim())?;
    let word = expression.split_whitespace().next()?;
    let known = DIRECTIVES.contains(&word);
    known.then(|| Directive { word, rest: expression[word.len()..].trim() })
}

impl Loader<'_> {
    /// Expands a scalar. A lone expression may give a collection; anything else gives a text.
    /// `None` after an error, which is noted.
    pub(super) fn interpolate(&mut self, lazy: &Lazy) -> Option<Rc<Node>> {
        let Kind::Scalar(text, style) = &lazy.node.kind else { return Some(Rc::clone(&lazy.node)) };
        if matches!(style, Style::Result(_)) || !text.contains("${{") || directive(text).is_some() {
            return Some(Rc::clone(&lazy.node));
        }
        let mark = &lazy.node.mark;
        let Some(parts) = segments(text) else {
            let message = "The expression is not closed. An unescaped ${{ sequence was found, but the closing }} \
                           sequence was not found.";
            self.error(mark, message);
            return None;
        };
        if !self.spend(1 + text.len() / 64, mark) {
            return None;
        }
        if let [Segment::Expression(expression)] = parts.as_slice() {
            let value = self.evaluate(expression, lazy)?;
            return Some(Rc::new(self.placed(value, mark)));
        }
        let mut result = String::new();
        for part in parts {
            match part {
                Segment::Text(text) => result.push_str(text),
                Segment::Expression(expression) => {
                    let value = self.evaluate(expression, lazy)?;
                    let Some(text) = value.as_text() else {
                        let kind = value.type_name();
                        self.error(mark, format!("Unable to convert from {kind} to String. Value: {kind}"));
                        return None;
                    };
                    result.push_str(&text);
                }
            }
        }
        let kind = Kind::Scalar(result.clone(), Style::Result(Value::String(result)));
        Some(Rc::new(Node { kind, mark: mark.clone() }))
    }

    /// Evaluates an expression where a node stands; an error is noted at the node.
    pub(super) fn evaluate(&mut self, expression: &str, lazy: &Lazy) -> Option<Value> {
        let mark = &lazy.node.mark;
        // Names are looked up in all variables; what is read and made costs too.
        if !self.spend(1 + lazy.variables.len() / 256, mark) {
            return None;
        }
        match evaluate_counted(expression, lazy) {
            Ok((value, bytes)) => self.spend(bytes / 64 + cost(&value), mark).then_some(value),
            Err(error) => {
                let found = match &error {
                    ExpressionError::KeyNotFound(name) => format!("declare the parameter '{name}' under `parameters:`"),
                    _ => String::new(),
                };
                if found.is_empty() {
                    self.error(mark, error.to_string());
                } else {
                    self.error_hint(mark, error.to_string(), found);
                }
                None
            }
        }
    }
}

/// Units of work a value is worth.
fn cost(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() / 64,
        Value::Array(items) => items.iter().map(|item| 1 + cost(item)).sum(),
        Value::Object(map) => map.values().map(|item| 1 + cost(item)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hide_the_end() {
        assert_eq!(lone("${{ 'a }} b' }}"), Some("'a }} b'"));
        assert_eq!(lone("${{ 'my${{value' }}"), Some("'my${{value'"));
        assert_eq!(lone(" ${{ a }}"), None);
        assert_eq!(segments("${{ 'open }}"), None);
        assert_eq!(
            segments("a${{ b }}${{ c }}d").unwrap(),
            [Segment::Text("a"), Segment::Expression("b"), Segment::Expression("c"), Segment::Text("d")]
        );
    }

    #[test]
    fn directives_are_words_in_small_letters() {
        assert_eq!(directive("${{if eq(1, 1)}}"), Some(Directive { word: "if", rest: "eq(1, 1)" }));
        assert_eq!(directive("${{ IF x }}"), None);
        assert_eq!(directive("${{ iff }}"), None);
        assert_eq!(directive("${{ else }}"), Some(Directive { word: "else", rest: "" }));
    }
}
