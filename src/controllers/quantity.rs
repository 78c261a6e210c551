//! Resource quantities (`100m`, `1.5Gi`, `2e3`) as exact numbers.

use serde::{Deserialize, Deserializer, de::Error as _};

/// A quantity in billionths, exact for every suffix Kubernetes knows from `n` to `Ei`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// Reads the text form; `None` when it is not a quantity.
    pub fn parse(text: &str) -> Option<Self> {
        aksim_model::quantity::nanos(text).map(Self)
    }

    /// Whole units (bytes, pods), rounded up.
    pub fn units(self) -> i64 {
        saturate(-((-self.0).div_euclid(NANO)))
    }
    /// Thousandths (of a core), rounded up.
    pub fn milli(self) -> i64 {
        saturate(-((-self.0).div_euclid(NANO / 1000)))
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Number(serde_json::Number),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Text(text) => text,
            Form::Number(number) => number.to_string(),
        };
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a quantity")))
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn reads_every_form() {
        for (text, milli, units) in [
            ("0", 0, 0),
            ("100m", 100, 1),
            ("1", 1000, 1),
            ("1.5", 1500, 2),
            (".5", 500, 1),
            ("2.", 2000, 2),
            ("1Ki", 1_024_000, 1024),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("128974848", 128_974_848_000, 128_974_848),
            ("129e6", 129_000_000_000, 129_000_000),
            ("129M", 129_000_000_000, 129_000_000),
            ("1234567n", 2, 1),
            ("0.1m", 1, 1),
            ("-1", -1000, -1),
            ("+1", 1000, 1),
        ] {
            let quantity = Quantity::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((quantity.milli(), quantity.units()), (milli, units), "{text}");
        }
        for text in ["", "x", "1x", "1 Gi", "..", "1.2.3", "--1", "1e99", "Ki"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = Quantity::parse(&text).map(|q| (q.milli(), q.units()));
        }
    }
}
