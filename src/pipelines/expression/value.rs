//! Values of expressions, and how Azure converts them.

use indexmap::IndexMap;
use serde_json::Value as Json;
use std::{cmp::Ordering, sync::Arc};

/// Properties of an object; names are compared without case.
pub type Object = IndexMap<String, Value>;

/// A value. Collections are shared: an expression reads them, nothing changes them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Null, which is also what a property that is not there gives.
    Null,
    /// Boolean.
    Boolean(bool),
    /// Number.
    Number(f64),
    /// Text.
    String(String),
    /// Two to four numbers (`1.2.3`), written bare.
    Version(Vec<u32>),
    /// Sequence.
    Array(Arc<Vec<Value>>),
    /// Mapping.
    Object(Arc<Object>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl FromIterator<(String, Value)> for Value {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(pairs: I) -> Self {
        Self::Object(Arc::new(pairs.into_iter().collect()))
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        Self::Array(Arc::new(items.into_iter().collect()))
    }
}

impl Value {
    /// From JSON.
    pub fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Boolean(*value),
            Json::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::String(text.clone()),
            Json::Array(items) => items.iter().map(Self::from_json).collect(),
            Json::Object(map) => map.iter().map(|(k, v)| (k.clone(), Self::from_json(v))).collect(),
        }
    }

    /// To JSON. Whole numbers are written without a fraction.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Boolean(value) => Json::Bool(*value),
            Self::Number(number) => {
                serde_json::from_str(&number_text(*number)).unwrap_or_else(|_| Json::String(number_text(*number)))
            }
            Self::String(text) => Json::String(text.clone()),
            Self::Version(_) => Json::String(self.text()),
            Self::Array(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Self::Object(map) => Json::Object(map.iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
        }
    }

    /// The text Azure makes of it; collections give an empty text.
    pub fn text(&self) -> String {
        self.as_text().unwrap_or_default()
    }

    /// The same, `None` for collections, which have no text.
    pub fn as_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => String::new(),
            Self::Boolean(true) => "True".to_owned(),
            Self::Boolean(false) => "False".to_owned(),
            Self::Number(number) => number_text(*number),
            Self::String(text) => text.clone(),
            Self::Version(parts) => parts.iter().map(u32::to_string).collect::<Vec<_>>().join("."),
            Self::Array(_) | Self::Object(_) => return None,
        })
    }

    /// Truth: false are null, `false`, 0 and the empty text; everything else is true, collections too.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Boolean(value) => *value,
            Self::Number(number) => *number != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::Version(_) | Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// A property (objects, without case) or an item (arrays, by number); null when there is none.
    pub fn index(&self, index: &Value) -> Value {
        self.index_by(index, false)
    }

    /// The same; `exact` properties are compared with case, as in the values of parameters.
    pub fn index_by(&self, index: &Value, exact: bool) -> Value {
        match self {
            Self::Object(map) => {
                let found = index.as_text().and_then(|name| match exact {
                    true => map.get(&name).cloned(),
                    false => property(map, &name).cloned(),
                });
                found.unwrap_or(Self::Null)
            }
            Self::Array(items) => match index.number() {
                // Azure truncates the index; a negative or huge one gives no item.
                Some(at) if at >= 0.0 && at < items.len() as f64 => items[at as usize].clone(),
                _ => Self::Null,
            },
            _ => Self::Null,
        }
    }

    /// As a number, if it converts.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Null => Some(0.0),
            Self::Boolean(value) => Some(f64::from(u8::from(*value))),
            Self::Number(number) => Some(*number),
            Self::String(text) => text_number(text),
            Self::Version(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// As a version, if it converts.
    pub fn version(&self) -> Option<Vec<u32>> {
        match self {
            Self::Version(parts) => Some(parts.clone()),
            Self::String(text) => parse_version(text),
            // `1.2` written bare is a number and converts by its text.
            Self::Number(number) => parse_version(&number_text(*number)),
            _ => None,
        }
    }

    /// What error messages call its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "Null",
            Self::Boolean(_) => "Boolean",
            Self::Number(_) => "Number",
            Self::String(_) => "String",
            Self::Version(_) => "Version",
            Self::Array(_) => "Array",
            Self::Object(_) => "Object",
        }
    }

    /// `eq`: the right side is converted to the type of the left; what does not convert is not equal.
    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Array(a), Self::Array(b)) => Arc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b),
            (Self::Array(_) | Self::Object(_), _) => false,
            (Self::Null, other) => match other {
                Self::Null => true,
                Self::String(text) => text.is_empty(),
                _ => false,
            },
            (Self::Boolean(a), other) => *a == other.is_true(),
            (Self::Number(a), other) => other.number().is_some_and(|b| *a == b),
            (Self::String(a), other) => other.as_text().is_some_and(|b| same_text(a, &b)),
            (Self::Version(a), other) => other.version().is_some_and(|b| compare_versions(a, &b).is_eq()),
        }
    }

    /// `lt` and its family: the right side is converted to the type of the left.
    ///
    /// # Errors
    /// Which value cannot be compared or converted.
    pub fn compare(&self, other: &Value) -> Result<Ordering, String> {
        let cannot =
            |to: &str| format!("Unable to convert from {} to {to}. Value: {}", other.type_name(), other.shown());
        match self {
            Self::Boolean(a) => Ok(a.cmp(&other.is_true())),
            Self::Number(a) => {
                let b = other.number().ok_or_else(|| cannot("Number"))?;
                a.partial_cmp(&b).ok_or_else(|| cannot("Number"))
            }
            Self::String(a) => {
                let b = other.as_text().ok_or_else(|| cannot("String"))?;
                Ok(fold(a).cmp(&fold(&b)))
            }
            Self::Version(a) => Ok(compare_versions(a, &other.version().ok_or_else(|| cannot("Version"))?)),
            Self::Null | Self::Array(_) | Self::Object(_) => {
                Err(format!("Unable to convert from {} to Number. Value: {}", self.type_name(), self.shown()))
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::String(text) => format!("'{text}'"),
            other => other.as_text().unwrap_or_else(|| other.type_name().to_owned()),
        }
    }
}

/// A property of an object, by name without case.
pub fn property<'a>(map: &'a Object, name: &str) -> Option<&'a Value> {
    map.get(name).or_else(|| map.iter().find(|(key, _)| same_text(key, name)).map(|(_, value)| value))
}

/// Azure compares texts without case, by ordinal.
pub fn same_text(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && fold(a) == fold(b))
}

/// A text as it is compared.
pub fn fold(text: &str) -> String {
    text.to_uppercase()
}

/// A number as Azure writes it: no fraction when whole, no exponent.
pub fn number_text(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { format!("{number}") }
}

fn text_number(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0.0);
    }
    let digits = text.replace(',', "");
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+'));
    if !plain { None } else { digits.parse().ok() }
}

/// Two to four numbers between dots.
pub fn parse_version(text: &str) -> Option<Vec<u32>> {
    let parts: Vec<&str> = text.trim().split('.').collect();
    if !(2..=4).contains(&parts.len()) {
        return None;
    }
    parts.iter().map(|part| part.parse::<u32>().ok().filter(|_| !part.starts_with('+'))).collect()
}

fn compare_versions(a: &[u32], b: &[u32]) -> Ordering {
    // A part that is not there is less than 0, as in .NET's Version.
    let part = |parts: &[u32], at: usize| parts.get(at).map_or(-1, |p| i64::from(*p));
    (0..4).map(|at| part(a, at).cmp(&part(b, at))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}
