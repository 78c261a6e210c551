//! JSON and YAML bodies into values, with the keys that were given twice.

use super::{CodecError, Decoded};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// How many duplicates are reported at most.
const MOST_DUPLICATES: usize = 100;

/// Reads one JSON document.
pub(super) fn json(body: &[u8]) -> Result<Decoded, CodecError> {
    let duplicates = RefCell::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Recorder { duplicates: &duplicates, path: None };
    let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let value = value.map_err(|error| CodecError::Malformed(error.to_string()))?;
    Ok(Decoded { value, duplicates: duplicates.into_inner() })
}

/// Reads one YAML document, anchors and aliases within the parser's budget.
pub(super) fn yaml(body: &[u8]) -> Result<Decoded, CodecError> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    let document: Document = serde_saphyr::from_slice_with_options(body, options)
        .map_err(|error| CodecError::Malformed(format!("error converting YAML to JSON: yaml: {error}")))?;
    Ok(Decoded { value: document.0, duplicates: document.1 })
}

/// A value with its duplicate keys; for deserializers that take no seed.
struct Document(Value, Vec<String>);

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let duplicates = RefCell::default();
        let value = Recorder { duplicates: &duplicates, path: None }.deserialize(deserializer)?;
        Ok(Self(value, duplicates.into_inner()))
    }
}

/// One step of the way to a value.
struct Step<'a> {
    parent: Option<&'a Step<'a>>,
    name: Name<'a>,
}

enum Name<'a> {
    Key(&'a str),
    Index(usize),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match (&self.name, self.parent) {
            (Name::Key(key), None) => f.write_str(key),
            (Name::Key(key), Some(_)) => write!(f, ".{key}"),
            (Name::Index(index), _) => write!(f, "[{index}]"),
        }
    }
}

/// Builds a value; the last of duplicate keys wins and the path is noted.
#[derive(Clone, Copy)]
struct Recorder<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    path: Option<&'a Step<'a>>,
}

impl<'de> DeserializeSeed<'de> for Recorder<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Recorder<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let step = Step { parent: self.path, name: Name::Index(list.len()) };
            match items.next_element_seed(Recorder { path: Some(&step), ..self })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let step = Step { parent: self.path, name: Name::Key(&key) };
            let value = entries.next_value_seed(Recorder { path: Some(&step), ..self })?;
            if map.contains_key(&key) && self.duplicates.borrow().len() < MOST_DUPLICATES {
                let path = step.to_string();
                self.duplicates.borrow_mut().push(path);
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_named_and_the_last_wins() {
        let decoded = super::json(br#"{"a":1,"spec":{"c":[{"n":"x"},{"n":"y","n":"z"}],"r":1,"r":2}}"#).unwrap();
        assert_eq!(decoded.value, json!({"a":1,"spec":{"c":[{"n":"x"},{"n":"z"}],"r":2}}));
        assert_eq!(decoded.duplicates, ["spec.c[1].n", "spec.r"]);
    }

    #[test]
    fn yaml_reads_as_kubectl_writes_it() {
        let text =
            b"kind: ConfigMap\ndata:\n  a: \"yes\"\n  b: |\n    x\n    y\n  n: 5\n  t: true\n  f: 1.5\n  e: null\n";
        let decoded = yaml(text).unwrap();
        assert_eq!(
            decoded.value,
            json!({"kind":"ConfigMap","data":{"a":"yes","b":"x\ny\n","n":5,"t":true,"f":1.5,"e":null}})
        );
        let twice = yaml(b"a: 1\nb:\n  c: 1\n  c: 2\n").unwrap();
        assert_eq!(twice.duplicates, ["b.c"]);
        assert!(matches!(yaml(b"a: [1"), Err(CodecError::Malformed(_))));
        assert!(matches!(super::json(b"{\"a\":1} x"), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let p = i - 1;
            text += &format!("a{i}: &a{i} [*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p}]\n");
        }
        assert!(matches!(yaml(text.as_bytes()), Err(CodecError::Malformed(_))));
    }
}
