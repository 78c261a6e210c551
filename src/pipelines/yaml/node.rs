//! Nodes of a file.

use crate::{error::Location, expression::Value};
use std::{rc::Rc, sync::Arc};

/// A place in a file; cheap to copy around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The file, as [`Location::file`].
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl Mark {
    /// The whole file.
    pub fn file(file: &str) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }

    /// As it leaves this module.
    pub fn location(&self) -> Location {
        Location { file: self.file.to_string(), line: self.line, column: self.column }
    }
}

/// A node and its place. Children are shared, since templates and loops read them often.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub mark: Mark,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A scalar; a missing value is an empty plain one.
    Scalar(String, Style),
    /// A sequence.
    Sequence(Vec<Rc<Node>>),
    /// A mapping, in order of the file; keys are scalars.
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

/// How a scalar came to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Style {
    /// Written bare: may be a number, a boolean, nothing.
    Plain,
    /// Written in quotes or as a block: a text.
    Quoted,
    /// What an expression gave. It is not read for expressions again.
    Result(Value),
}

impl Node {
    /// Text of a scalar.
    pub fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Nothing is written: an empty plain scalar.
    pub fn is_empty(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(text, _) if text.is_empty())
    }

    /// A key's value in a mapping, exact.
    pub fn get(&self, key: &str) -> Option<&Rc<Node>> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|(k, _)| k.scalar() == Some(key)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value of a scalar as an `object` parameter takes it: bare ones by their YAML type, nothing as an empty
    /// text.
    pub fn scalar_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(_, Style::Result(Value::Null)) => Value::String(String::new()),
            Kind::Scalar(_, Style::Result(value)) => value.clone(),
            Kind::Scalar(text, Style::Quoted) => Value::String(text.clone()),
            Kind::Scalar(text, Style::Plain) => plain_value(text),
            Kind::Sequence(_) | Kind::Mapping(_) => Value::Null,
        }
    }

    /// The whole value.
    pub fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(..) => self.scalar_value(),
            Kind::Sequence(items) => items.iter().map(|item| item.value()).collect(),
            Kind::Mapping(entries) => {
                entries.iter().filter_map(|(key, value)| Some((key.scalar()?.to_owned(), value.value()))).collect()
            }
        }
    }
}

fn plain_value(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => return Value::Boolean(true),
        "false" | "False" | "FALSE" => return Value::Boolean(false),
        "null" | "Null" | "NULL" | "~" => return Value::String(String::new()),
        _ => {}
    }
    let decimal = text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+'));
    match text.parse::<f64>() {
        Ok(number) if decimal => Value::Number(number),
        _ => Value::String(text.to_owned()),
    }
}
