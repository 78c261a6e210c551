//! The general functions.

use super::{ExpressionError, Value, date::format_date, value::fold};
use std::{cmp::Ordering, ops::RangeInclusive};

/// Functions that every expression has, with the number of arguments they take.
const FUNCTIONS: [(&str, usize, usize); 27] = [
    ("and", 2, usize::MAX),
    ("coalesce", 2, usize::MAX),
    ("contains", 2, 2),
    ("containsValue", 2, 2),
    ("convertToJson", 1, 1),
    ("endsWith", 2, 2),
    ("eq", 2, 2),
    ("format", 1, usize::MAX),
    ("ge", 2, 2),
    ("gt", 2, 2),
    ("iif", 3, 3),
    ("in", 2, usize::MAX),
    ("join", 2, 2),
    ("le", 2, 2),
    ("length", 1, 1),
    ("lower", 1, 1),
    ("lt", 2, 2),
    ("ne", 2, 2),
    ("not", 1, 1),
    ("notIn", 2, usize::MAX),
    ("or", 2, usize::MAX),
    ("replace", 3, 3),
    ("split", 2, 2),
    ("startsWith", 2, 2),
    ("trim", 1, 1),
    ("upper", 1, 1),
    ("xor", 2, 2),
];

/// How many arguments a general function takes; `None` when there is none of that name.
pub fn arity(name: &str) -> Option<RangeInclusive<usize>> {
    FUNCTIONS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|&(_, fewest, most)| fewest..=most)
}

/// Calls a function by its lower-case name; the number of arguments is checked. `room` is how many bytes the
/// result may have.
///
/// # Errors
/// A value that does not convert, a wrong format text, a result beyond `room`.
pub fn call(name: &str, values: &[Value], room: usize) -> Result<Value, ExpressionError> {
    let text = |at: usize| {
        let value = &values[at];
        let kind = value.type_name();
        value
            .as_text()
            .ok_or_else(|| ExpressionError::Value(format!("Unable to convert from {kind} to String. Value: {kind}")))
    };
    let order = || values[0].compare(&values[1]).map_err(ExpressionError::Value);
    Ok(match name {
        "contains" => fold(&text(0)?).contains(&fold(&text(1)?)).into(),
        "startswith" => fold(&text(0)?).starts_with(&fold(&text(1)?)).into(),
        "endswith" => fold(&text(0)?).ends_with(&fold(&text(1)?)).into(),
        "containsvalue" => contains_value(&values[0], &values[1]).into(),
        "eq" => values[0].equals(&values[1]).into(),
        "ne" => (!values[0].equals(&values[1])).into(),
        "lt" => (order()? == Ordering::Less).into(),
        "le" => (order()? != Ordering::Greater).into(),
        "gt" => (order()? == Ordering::Greater).into(),
        "ge" => (order()? != Ordering::Less).into(),
        "not" => (!values[0].is_true()).into(),
        "xor" => (values[0].is_true() != values[1].is_true()).into(),
        "iif" => values[if values[0].is_true() { 1 } else { 2 }].clone(),
        "lower" => text(0)?.to_lowercase().into(),
        "upper" => text(0)?.to_uppercase().into(),
        "trim" => text(0)?.trim().into(),
        "length" => length(&values[0])?,
        "join" => join(&text(0)?, &values[1], room)?,
        "split" => split(&text(0)?, &text(1)?),
        "replace" => replace(&text(0)?, &text(1)?, &text(2)?, room)?,
        "format" => format(&text(0)?, &values[1..], room)?.into(),
        "converttojson" => serde_json::to_string_pretty(&values[0].to_json())
            .map_err(|e| ExpressionError::Value(e.to_string()))?
            .into(),
        other => return Err(ExpressionError::Value(format!("Unrecognized value: '{other}'"))),
    })
}

fn contains_value(collection: &Value, value: &Value) -> bool {
    match collection {
        Value::Array(items) => items.iter().any(|item| value.equals(item)),
        Value::Object(map) => map.values().any(|item| value.equals(item)),
        _ => false,
    }
}

fn length(value: &Value) -> Result<Value, ExpressionError> {
    let length = match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        other => other.text().chars().count(),
    };
    u32::try_from(length).map(|n| Value::Number(f64::from(n))).map_err(|_| ExpressionError::TooLarge)
}

fn join(separator: &str, value: &Value, room: usize) -> Result<Value, ExpressionError> {
    let Value::Array(items) = value else { return Ok(Value::String(value.text())) };
    let parts: Vec<String> = items.iter().map(Value::text).collect();
    let size = parts.iter().map(String::len).sum::<usize>() + separator.len().saturating_mul(parts.len());
    if size > room { Err(ExpressionError::TooLarge) } else { Ok(parts.join(separator).into()) }
}

fn split(text: &str, delimiter: &str) -> Value {
    if delimiter.is_empty() {
        return [Value::from(text)].into_iter().collect();
    }
    text.split(delimiter).map(Value::from).collect()
}

fn replace(text: &str, old: &str, new: &str, room: usize) -> Result<Value, ExpressionError> {
    if old.is_empty() {
        return Ok(text.into());
    }
    let size = text.len() + text.matches(old).count().saturating_mul(new.len());
    if size > room { Err(ExpressionError::TooLarge) } else { Ok(text.replace(old, new).into()) }
}

/// `{0}`, `{{`, `}}`, and `{0:yyyyMMdd}` for times.
fn format(format: &str, values: &[Value], room: usize) -> Result<String, ExpressionError> {
    let invalid = || ExpressionError::Value(format!("The following format string is invalid: '{format}'"));
    let mut result = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        result.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            result.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(invalid());
        }
        let end = rest.find('}').ok_or_else(invalid)?;
        let (index, specifier) = rest[..end].split_once(':').unwrap_or((&rest[..end], ""));
        let index: usize = index.parse().map_err(|_| invalid())?;
        let value = values.get(index).ok_or_else(|| {
            ExpressionError::Value(format!(
                "The following format string references more arguments than were supplied: '{format}'"
            ))
        })?;
        let kind = value.type_name();
        let text = value
            .as_text()
            .ok_or_else(|| ExpressionError::Value(format!("Unable to convert from {kind} to String. Value: {kind}")))?;
        result.push_str(&if specifier.is_empty() { text } else { dated(&text, specifier).ok_or_else(invalid)? });
        rest = &rest[end + 1..];
        if result.len() > room {
            return Err(ExpressionError::TooLarge);
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// A time (`pipeline.startTime`, ISO 8601) in a .NET date format.
fn dated(text: &str, specifier: &str) -> Option<String> {
    let time = text.parse::<jiff::civil::DateTime>().ok().or_else(|| {
        let stamp: jiff::Timestamp = text.trim().replacen(' ', "T", 1).parse().ok()?;
        Some(stamp.to_zoned(jiff::tz::TimeZone::UTC).datetime())
    })?;
    Some(format_date(specifier, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_case() {
        assert_eq!(arity("CONTAINSVALUE"), Some(2..=2));
        assert_eq!(arity("counter"), None);
    }
}
