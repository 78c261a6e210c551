//! Tree → value.

use super::{
    ExpressionError, Scope, Value,
    functions::{self, arity},
    parser::{Link, Tree, parse},
    value::{Object, property},
};
use std::{cell::Cell, sync::Arc};

/// Bytes one evaluation may make. Azure's limit for a whole pipeline is 20 MB.
const MAX_BYTES: usize = 8 << 20;

/// Contexts of the service, whose properties are compared without case.
const CONTEXTS: [&str; 5] = ["variables", "pipeline", "resources", "dependencies", "stageDependencies"];

/// Evaluates an expression without its brackets, as a condition has it.
///
/// # Errors
/// The text cannot be read, knows a name the scope does not, or a value does not convert.
pub fn evaluate(text: &str, scope: &dyn Scope) -> Result<Value, ExpressionError> {
    evaluate_counted(text, scope).map(|(value, _)| value)
}

/// The same, with the bytes that were read and made on the way: what an evaluation costs.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_counted(text: &str, scope: &dyn Scope) -> Result<(Value, usize), ExpressionError> {
    let tree = parse(text, scope)?;
    let evaluator = Evaluator { scope, bytes: Cell::new(text.len()) };
    let value = evaluator.value(&tree)?;
    Ok((value, evaluator.bytes.get()))
}

/// Reads an expression and checks its names; evaluates nothing.
///
/// # Errors
/// As [`evaluate`], without those of values.
pub fn check(text: &str, scope: &dyn Scope) -> Result<(), ExpressionError> {
    parse(text, scope).map(drop)
}

/// The expression in a text that is one `$[ ]`.
pub fn runtime_text(text: &str) -> Option<&str> {
    text.trim().strip_prefix("$[")?.strip_suffix(']')
}

/// Evaluates a text that is one `$[ ]`; `None` when it is not, and then it stands for itself.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_runtime(text: &str, scope: &dyn Scope) -> Result<Option<Value>, ExpressionError> {
    runtime_text(text).map(|inner| evaluate(inner, scope)).transpose()
}

struct Evaluator<'a> {
    scope: &'a dyn Scope,
    bytes: Cell<usize>,
}

impl Evaluator<'_> {
    fn value(&self, tree: &Tree) -> Result<Value, ExpressionError> {
        match tree {
            Tree::Literal(value) => Ok(value.clone()),
            Tree::Name(name) => Ok(self.scope.context(name).unwrap_or(Value::Null)),
            Tree::Call(name, arguments) => self.call(name, arguments),
            Tree::Chain(base, links) => {
                // A parameter that is not there is an error; anything else that is not there is null.
                let named = |known: &str| matches!(&**base, Tree::Name(name) if name.eq_ignore_ascii_case(known));
                let exact = !CONTEXTS.iter().any(|known| named(known));
                self.follow(self.value(base)?, links, named("parameters"), exact)
            }
        }
    }

    fn follow(&self, mut value: Value, links: &[Link], strict: bool, exact: bool) -> Result<Value, ExpressionError> {
        let mut filtered = false;
        for (at, link) in links.iter().enumerate() {
            let index = match link {
                Link::Property(name) => Value::from(name.as_str()),
                Link::Index(tree) => self.value(tree)?,
                Link::Star => {
                    value = self.sized(all_of(&value, filtered))?;
                    filtered = true;
                    continue;
                }
            };
            if strict && at == 0 {
                let name = index.text();
                let found = matches!(&value, Value::Object(map) if property(map, &name).is_some());
                if !found {
                    return Err(ExpressionError::KeyNotFound(name));
                }
            }
            // The names of parameters are compared without case; what is in their values is not.
            let exact = exact && !(strict && at == 0);
            value = if filtered { filter(&value, &index, exact) } else { value.index_by(&index, exact) };
        }
        Ok(value)
    }

    fn call(&self, name: &str, arguments: &[Tree]) -> Result<Value, ExpressionError> {
        let known = name.to_ascii_lowercase();
        if arity(&known).is_none() {
            let values = arguments.iter().map(|a| self.value(a)).collect::<Result<Vec<_>, _>>()?;
            return self.scope.call(name, &values).map_err(ExpressionError::Value);
        }
        let lazy = |want: &dyn Fn(&Value) -> bool| {
            for argument in arguments {
                let value = self.value(argument)?;
                if want(&value) {
                    return Ok(Some(value));
                }
            }
            Ok::<_, ExpressionError>(None)
        };
        match known.as_str() {
            "and" => return Ok(Value::Boolean(lazy(&|v| !v.is_true())?.is_none())),
            "or" => return Ok(Value::Boolean(lazy(&Value::is_true)?.is_some())),
            "coalesce" => {
                let there = |v: &Value| !matches!(v, Value::Null) && !matches!(v, Value::String(t) if t.is_empty());
                return Ok(lazy(&there)?.unwrap_or(Value::Null));
            }
            "in" | "notin" => {
                let left = self.value(&arguments[0])?;
                for argument in &arguments[1..] {
                    if left.equals(&self.value(argument)?) {
                        return Ok(Value::Boolean(known == "in"));
                    }
                }
                return Ok(Value::Boolean(known == "notin"));
            }
            _ => {}
        }
        let values = arguments.iter().map(|a| self.value(a)).collect::<Result<Vec<_>, _>>()?;
        for value in &values {
            self.count(value)?;
        }
        let room = MAX_BYTES.saturating_sub(self.bytes.get());
        let value = functions::call(&known, &values, room)?;
        self.sized(value)
    }

    /// Counts what an evaluation makes, so that texts cannot grow by repetition.
    fn sized(&self, value: Value) -> Result<Value, ExpressionError> {
        self.count(&value)?;
        Ok(value)
    }

    fn count(&self, value: &Value) -> Result<(), ExpressionError> {
        let size = match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.len() * size_of::<Value>(),
            Value::Object(map) => map.len() * size_of::<Value>(),
            _ => 0,
        };
        self.bytes.set(self.bytes.get() + size);
        if self.bytes.get() > MAX_BYTES { Err(ExpressionError::TooLarge) } else { Ok(()) }
    }
}

/// `*`: every item, or every property's value; of a filtered array, of each of its items.
fn all_of(value: &Value, filtered: bool) -> Value {
    match value {
        Value::Array(items) if filtered => items.iter().flat_map(children).collect(),
        other => children(other).into_iter().collect(),
    }
}

fn children(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.to_vec(),
        Value::Object(map) => map.values().cloned().collect(),
        _ => Vec::new(),
    }
}

/// A property of each item of a filtered array; items without it are left out.
fn filter(value: &Value, index: &Value, exact: bool) -> Value {
    let Value::Array(items) = value else { return Value::Null };
    let found = items.iter().filter_map(|item| match item {
        Value::Object(map) if exact => map.get(&index.text()).cloned(),
        Value::Object(map) => property(map, &index.text()).cloned(),
        Value::Array(_) => Some(item.index(index)).filter(|v| !matches!(v, Value::Null)),
        _ => None,
    });
    found.collect()
}

/// An object from pairs, for scopes.
impl From<Object> for Value {
    fn from(map: Object) -> Self {
        Self::Object(Arc::new(map))
    }
}
