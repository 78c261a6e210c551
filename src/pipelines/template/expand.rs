//! Sequences and mappings with directives in them.

use super::{
    Entry, Env, Lazy, Loader, Map,
    text::{Directive, directive},
};
use crate::{
    expression::{Value, same_text},
    yaml::{Kind, Node},
};
use std::{collections::HashSet, rc::Rc};

/// Where an `if … elseif … else` stands. An ordinary item between does not end it; another directive does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chain {
    /// There is no `if`.
    None,
    /// No condition was true yet.
    Open,
    /// One was.
    Taken,
}

/// What a directive leaves to do: its body, and where.
struct Body {
    node: Rc<Node>,
    env: Rc<Env>,
}

impl Loader<'_> {
    /// The items of a sequence. A node that is none is an error, and has no items.
    pub fn items(&mut self, lazy: &Lazy) -> Vec<Lazy> {
        let Some(node) = self.interpolate(lazy) else { return Vec::new() };
        let mut items = Vec::new();
        match &node.kind {
            Kind::Sequence(nodes) => self.sequence(nodes, lazy, &mut items),
            Kind::Mapping(_) => self.error(&node.mark, "A mapping was not expected"),
            Kind::Scalar(text, _) if text.is_empty() => {}
            Kind::Scalar(text, _) => self.error(&node.mark, format!("Unexpected value '{text}'")),
        }
        items
    }

    /// The entries of a mapping; `None`, after an error, when it is none.
    pub fn map(&mut self, lazy: &Lazy) -> Option<Map> {
        let node = self.interpolate(lazy)?;
        let Kind::Mapping(nodes) = &node.kind else {
            let message = match &node.kind {
                Kind::Sequence(_) => "A sequence was not expected".to_owned(),
                _ => format!("Unexpected value '{}'", node.scalar().unwrap_or_default()),
            };
            self.error(&node.mark, message);
            return None;
        };
        let mut entries = Vec::new();
        self.mapping(nodes, lazy, &mut entries);
        let mut seen = HashSet::new();
        entries.retain(|entry: &Entry| {
            let fresh = seen.insert(entry.key.to_lowercase());
            if !fresh {
                self.error(&entry.mark, format!("'{}' is already defined", entry.key));
            }
            fresh
        });
        Some(Map { mark: node.mark.clone(), entries, asked: Vec::new() })
    }

    /// The text of a scalar; `None`, after an error, when it is none.
    pub fn text(&mut self, lazy: &Lazy) -> Option<String> {
        let node = self.interpolate(lazy)?;
        let message = match &node.kind {
            Kind::Scalar(text, _) if directive(text).is_some() => format!("Unexpected value '{text}'"),
            Kind::Scalar(text, _) => return Some(text.clone()),
            Kind::Sequence(_) => "A sequence was not expected".to_owned(),
            Kind::Mapping(_) => "A mapping was not expected".to_owned(),
        };
        self.error(&node.mark, message);
        None
    }

    /// The node itself, when it is not an expression that gives a collection.
    pub fn resolved(&mut self, lazy: &Lazy) -> Option<Lazy> {
        Some(lazy.at(self.interpolate(lazy)?))
    }

    /// Expands everything below a node.
    pub fn deep(&mut self, lazy: &Lazy) -> Option<Rc<Node>> {
        let node = self.interpolate(lazy)?;
        if !self.spend(1, &node.mark) {
            return None;
        }
        let kind = match &node.kind {
            Kind::Scalar(..) => return Some(node),
            Kind::Sequence(_) => {
                let items = self.items(&lazy.at(Rc::clone(&node)));
                Kind::Sequence(items.iter().filter_map(|item| self.deep(item)).collect())
            }
            Kind::Mapping(_) => {
                let mut map = self.map(&lazy.at(Rc::clone(&node)))?;
                let mut entries = Vec::new();
                for entry in map.rest() {
                    let key = self.placed(Value::from(entry.key), &entry.mark);
                    entries.push((Rc::new(key), self.deep(&entry.value)?));
                }
                Kind::Mapping(entries)
            }
        };
        Some(Rc::new(Node { kind, mark: node.mark.clone() }))
    }

    fn sequence(&mut self, nodes: &[Rc<Node>], lazy: &Lazy, out: &mut Vec<Lazy>) {
        let mut chain = Chain::None;
        for node in nodes {
            if !self.spend(1, &node.mark) {
                return;
            }
            match &node.kind {
                Kind::Mapping(entries) if !entries.is_empty() && entries.iter().all(|(key, _)| splices(key)) => {
                    for (key, value) in entries {
                        let Some(found) = key.scalar().and_then(directive) else { continue };
                        for body in self.directive(&found, key, value, lazy, &mut chain, true) {
                            let inner = Lazy { env: body.env, ..lazy.at(Rc::clone(&body.node)) };
                            match &body.node.kind {
                                Kind::Sequence(nodes) => self.sequence(nodes, &inner, out),
                                _ if body.node.is_empty() => {}
                                _ => self.sequence(&[body.node], &inner, out),
                            }
                        }
                    }
                }
                Kind::Scalar(..) => {
                    let Some(node) = self.interpolate(&lazy.at(Rc::clone(node))) else { continue };
                    match &node.kind {
                        Kind::Sequence(items) => out.extend(items.iter().map(|item| lazy.at(Rc::clone(item)))),
                        _ => out.push(lazy.at(node)),
                    }
                }
                _ => out.push(lazy.at(Rc::clone(node))),
            }
        }
    }

    fn mapping(&mut self, nodes: &[(Rc<Node>, Rc<Node>)], lazy: &Lazy, out: &mut Vec<Entry>) {
        let mut chain = Chain::None;
        for (key, value) in nodes {
            if !self.spend(1, &key.mark) {
                return;
            }
            let Some(found) = key.scalar().and_then(directive).filter(|_| is_written(key)) else {
                let Some(expanded) = self.interpolate(&lazy.at(Rc::clone(key))) else { continue };
                match expanded.scalar() {
                    Some(text) => out.push(Entry {
                        key: text.to_owned(),
                        mark: key.mark.clone(),
                        value: lazy.at(Rc::clone(value)),
                    }),
                    None => self.error(&key.mark, "Expected a scalar value"),
                }
                continue;
            };
            for body in self.directive(&found, key, value, lazy, &mut chain, false) {
                let inner = Lazy { env: body.env, ..lazy.at(body.node) };
                let Some(node) = self.interpolate(&inner) else { continue };
                match &node.kind {
                    Kind::Mapping(entries) => self.mapping(entries, &inner, out),
                    _ => self.error(&node.mark, "Expected a mapping"),
                }
            }
        }
    }

    /// Runs a directive; gives the bodies it takes (none, one, or one for each turn of a loop).
    fn directive(
        &mut self,
        found: &Directive<'_>,
        key: &Rc<Node>,
        body: &Rc<Node>,
        lazy: &Lazy,
        chain: &mut Chain,
        in_sequence: bool,
    ) -> Vec<Body> {
        let one = || vec![Body { node: Rc::clone(body), env: Rc::clone(&lazy.env) }];
        let here = lazy.at(Rc::clone(key));
        match found.word {
            "if" => {
                *chain = Chain::Taken;
                let rest = if found.rest.is_empty() { "if" } else { found.rest };
                let Some(value) = self.evaluate(rest, &here) else { return Vec::new() };
                if value.is_true() {
                    return one();
                }
                *chain = Chain::Open;
            }
            "elseif" | "else" => {
                if *chain == Chain::None {
                    let message = format!("The expression directive '{}' is not supported in this context", found.word);
                    self.error(&key.mark, message);
                    if in_sequence {
                        self.error(&key.mark, format!("Unexpected value '{}'", key.scalar().unwrap_or_default()));
                    }
                    return Vec::new();
                }
                let open = *chain == Chain::Open;
                if found.word == "else" {
                    *chain = Chain::None;
                    if !self.no_parameters(found, &here) || !open {
                        return Vec::new();
                    }
                    return one();
                }
                if open {
                    let rest = if found.rest.is_empty() { "elseif" } else { found.rest };
                    let Some(value) = self.evaluate(rest, &here) else { return Vec::new() };
                    if value.is_true() {
                        *chain = Chain::Taken;
                        return one();
                    }
                }
            }
            "each" => {
                *chain = Chain::None;
                return self.each(found, body, &here);
            }
            _ => {
                *chain = Chain::None;
                if self.no_parameters(found, &here) {
                    return one();
                }
            }
        }
        Vec::new()
    }

    fn no_parameters(&mut self, found: &Directive<'_>, here: &Lazy) -> bool {
        if found.rest.is_empty() {
            return true;
        }
        let count = found.rest.split_whitespace().count();
        let message = format!(
            "Exactly 0 parameter(s) were expected following the directive '{}'. Actual parameter count: {count}",
            found.word
        );
        self.error(&here.node.mark, message);
        false
    }

    fn each(&mut self, found: &Directive<'_>, body: &Rc<Node>, here: &Lazy) -> Vec<Body> {
        let mark = &here.node.mark;
        let mut words = found.rest.splitn(2, char::is_whitespace);
        let (name, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim_start());
        let separator = rest.split_whitespace().next().unwrap_or_default();
        if separator != "in" {
            let message = format!(
                "The value '{separator}' is unexpected. The expected format of an 'each' expression is: \
                 ${{ each <identifier> in <value> }}"
            );
            self.error(mark, message);
            return Vec::new();
        }
        let taken = ["parameters", "variables"].iter().any(|known| same_text(known, name))
            || here.env.locals.iter().any(|(local, _)| same_text(local, name));
        if taken {
            self.error(mark, format!("The identifier '{name}' has already been defined within the current scope"));
            return Vec::new();
        }
        let Some(collection) = self.evaluate(&rest["in".len()..], here) else { return Vec::new() };
        let values: Vec<Value> = match collection {
            Value::Array(items) => items.to_vec(),
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| [("key".to_owned(), Value::from(k.as_str())), ("value".to_owned(), v.clone())])
                .map(|pair| pair.into_iter().collect())
                .collect(),
            // An object parameter that was left empty arrives as an empty text.
            Value::String(text) if text.is_empty() => Vec::new(),
            Value::Null => Vec::new(),
            other => {
                let kind = other.type_name();
                self.error(mark, format!("Expected a sequence or mapping. Actual value type: {kind}"));
                return Vec::new();
            }
        };
        let mut bodies = Vec::new();
        for value in values {
            if !self.spend(1 + here.env.locals.len(), mark) {
                break;
            }
            let mut locals = here.env.locals.clone();
            locals.push((name.to_owned(), value));
            let env = Env { file: here.env.file.clone(), parameters: here.env.parameters.clone(), locals };
            bodies.push(Body { node: Rc::clone(body), env: Rc::new(env) });
        }
        bodies
    }
}

/// A key that is a directive for the sequence its item is in. With an ordinary key beside it, the item is a mapping
/// and its directives are the mapping's.
fn splices(key: &Rc<Node>) -> bool {
    is_written(key) && key.scalar().and_then(directive).is_some_and(|found| found.word != "insert")
}

/// Not the result of an expression, which is never read again.
fn is_written(key: &Rc<Node>) -> bool {
    !matches!(&key.kind, Kind::Scalar(_, crate::yaml::Style::Result(_)))
}
