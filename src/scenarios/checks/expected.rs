//! What a value must be.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// All that is named must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Expected {
    /// Equal to this.
    #[serde(default)]
    pub is: Option<Scalar>,
    /// A number not smaller.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// A number not larger.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// A text that contains this.
    #[serde(default)]
    pub contains: Option<String>,
}

/// A text, a number or a boolean; compared as text, as `kubectl -o jsonpath` prints.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Scalar(Value);

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "number", "integer", "boolean"]})
    }
}

/// A value as text: texts without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Expected {
    /// Whether the text, as found, is as it must be.
    pub fn holds(&self, found: &str) -> bool {
        let number = found.parse::<f64>().ok();
        self.is.as_ref().is_none_or(|is| plain(&is.0) == found)
            && self.at_least.is_none_or(|least| number.is_some_and(|n| n >= least))
            && self.at_most.is_none_or(|most| number.is_some_and(|n| n <= most))
            && self.contains.as_ref().is_none_or(|part| found.contains(part.as_str()))
    }

    /// For people.
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.is.as_ref().map(|is| format!("is {}", plain(&is.0))));
        words.extend(self.at_least.map(|n| format!("is at least {n}")));
        words.extend(self.at_most.map(|n| format!("is at most {n}")));
        words.extend(self.contains.as_ref().map(|part| format!("contains {part:?}")));
        if words.is_empty() { "is there".into() } else { words.join(" and ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_need_numbers_and_equality_is_of_texts() {
        let expected = |json: Value| serde_json::from_value::<Expected>(json).unwrap();
        assert!(expected(serde_json::json!({"is": 2})).holds("2"));
        assert!(expected(serde_json::json!({"is": true})).holds("true"));
        assert!(!expected(serde_json::json!({"is": "2"})).holds("20"));
        assert!(expected(serde_json::json!({"at-least": 2, "at-most": 3})).holds("2.5"));
        assert!(!expected(serde_json::json!({"at-least": 2})).holds("many"));
        assert!(!expected(serde_json::json!({"contains": "x"})).holds("abc"));
    }
}
