//! Kubernetes resource quantities (`500m`, `1Gi`; k8s.io/apimachinery `resource.Quantity`): in their
//! canonical form, and as exact numbers.
//!
//! The API stores them canonical: no fraction, the largest suffix without a remainder.

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Quantities are counted in these parts of one.
const NANO: i32 = -9;

/// An exact amount in nanounits, with the kind of suffix it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    nanos: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Decimal,
    Exponent,
}

/// The canonical text of a quantity; `None` when it is none (then kube answers
/// `quantities must match the regular expression …`).
pub fn canonical(text: &str) -> Option<String> {
    parse(text.trim())?.text()
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self::whole(0);

    /// A number of pieces.
    pub const fn whole(count: i64) -> Self {
        Self { nanos: count as i128 * 1_000_000_000, form: Form::Decimal }
    }

    /// Reads a quantity; `None` when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text.trim())
    }

    /// Reads a quantity from JSON, where a number stands for its text.
    pub fn of(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// In billionths of the unit.
    pub fn nanos(self) -> i128 {
        self.nanos
    }

    /// In thousandths of the unit, rounded up.
    pub fn milli(self) -> i128 {
        -(-self.nanos).div_euclid(1_000_000)
    }

    /// The sum, in the form of the first that is not zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let form = if self.nanos == 0 { other.form } else { self.form };
        Self { nanos: self.nanos.saturating_add(other.nanos), form }
    }

    /// The difference, in the form of the first that is not zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { nanos: -other.nanos, form: other.form })
    }

    /// The larger of both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other.nanos > self.nanos { other } else { self }
    }

    /// The canonical text.
    fn text(self) -> Option<String> {
        let nanos = self.nanos;
        const ONE: i128 = 1_000_000_000;
        // Below 1024 the suffixes of both bases differ only in what a fraction needs.
        if self.form == Form::Binary && nanos % ONE == 0 && (nanos / ONE).abs() >= 1024 {
            let (mut whole, mut suffix) = (nanos / ONE, 0);
            while whole % 1024 == 0 && suffix + 1 < BINARY.len() && whole != 0 {
                (whole, suffix) = (whole / 1024, suffix + 1);
            }
            return Some(format!("{whole}{}", BINARY[suffix]));
        }
        if nanos == 0 {
            return Some("0".into());
        }
        let (mut mantissa, mut exponent) = (nanos, NANO);
        while mantissa % 1000 == 0 && exponent < 18 && !(self.form == Form::Binary && exponent == 0) {
            (mantissa, exponent) = (mantissa / 1000, exponent + 3);
        }
        if self.form == Form::Exponent {
            return Some(if exponent == 0 { mantissa.to_string() } else { format!("{mantissa}e{exponent}") });
        }
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent)?.0;
        Some(format!("{mantissa}{suffix}"))
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Invariant: the exponent is that of a suffix, from nano in steps of three.
        f.write_str(&self.text().unwrap_or_default())
    }
}

/// The amount in nanounits (so that `500m` is 500,000,000); `None` when it is no quantity.
pub fn nanos(text: &str) -> Option<i128> {
    parse(text.trim()).map(|amount| amount.nanos)
}

/// Why a text is not a quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid quantity {0:?}")]
pub struct QuantityError(pub String);

/// Thousandths of the unit (a core, a byte), rounded up as Kubernetes does.
///
/// # Errors
/// [`QuantityError`] when the text is not a quantity or does not fit.
pub fn parse_milli(text: &str) -> Result<i128, QuantityError> {
    let nanos = nanos(text).ok_or_else(|| QuantityError(text.to_owned()))?;
    Ok(-(-nanos).div_euclid(1_000_000))
}

/// Whole units (bytes, pods), rounded up.
///
/// # Errors
/// As [`parse_milli`]; also when the value is negative or does not fit.
pub fn parse_units(text: &str) -> Result<u64, QuantityError> {
    let milli = parse_milli(text)?;
    u64::try_from((milli + 999).div_euclid(1000)).map_err(|_| QuantityError(text.to_owned()))
}

fn parse(text: &str) -> Option<Amount> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (form, multiplier) = multiplier(suffix)?;
    let (negative, number) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || whole.len() + fraction.len() == 0 || fraction.len() > 30 {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // Parts smaller than a nanounit are rounded up, as kube does.
    let nanos = match multiplier {
        Multiplier::Times(factor) => div_up(mantissa.checked_mul(factor)?, scale),
        Multiplier::Divided(divisor) => div_up(mantissa, scale.checked_mul(divisor)?),
    };
    Some(Amount { nanos: if negative { -nanos } else { nanos }, form })
}

fn div_up(dividend: i128, divisor: i128) -> i128 {
    dividend / divisor + i128::from(dividend % divisor != 0)
}

enum Multiplier {
    Times(i128),
    Divided(i128),
}

/// Nanounits of one unit of the suffix.
fn multiplier(suffix: &str) -> Option<(Form, Multiplier)> {
    let power = |exponent: i32| {
        let above = exponent - NANO;
        let magnitude = 10i128.checked_pow(above.unsigned_abs())?;
        Some(if above < 0 { Multiplier::Divided(magnitude) } else { Multiplier::Times(magnitude) })
    };
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Form::Decimal, power(*exponent)?));
    }
    if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        let one = 1i128.checked_shl(10 * u32::try_from(index).ok()?)?;
        return Some((Form::Binary, Multiplier::Times(one.checked_mul(1_000_000_000)?)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Form::Exponent, power(exponent)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_kubes() {
        let cases = [
            ("1", "1"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("2000", "2k"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0", "0"),
            ("0Mi", "0"),
            ("100Ki", "100Ki"),
            ("1e3", "1e3"),
            ("1000000", "1M"),
            ("0.1Gi", "107374182400m"),
            ("-5", "-5"),
            ("+3", "3"),
            ("128974848", "128974848"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("100n", "100n"),
            ("1u", "1u"),
            (".5", "500m"),
        ];
        for (given, wanted) in cases {
            assert_eq!(canonical(given).as_deref(), Some(wanted), "{given}");
        }
        for bad in ["", "m", "1x", "1.2.3", "--1", "1 Gi", "Gi", "1e", "1KI", "1e99999999999"] {
            assert_eq!(canonical(bad), None, "{bad}");
        }
        assert_eq!(nanos("250m"), Some(250_000_000));
    }

    #[test]
    fn numbers_are_rounded_up() {
        for (text, milli) in [
            ("1", 1000),
            ("500m", 500),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("100u", 1),
            ("-2", -2000),
        ] {
            assert_eq!(parse_milli(text), Ok(milli), "{text}");
        }
        assert_eq!(parse_units("1500m"), Ok(2));
        assert!(parse_units("-1").is_err());
        assert!(parse_milli("1gi").is_err() && parse_milli("１").is_err());
    }

    proptest::proptest! {
        #[test]
        fn canonical_is_stable_and_never_panics(text in "\\PC{0,12}|[-+]?[0-9]{1,20}(\\.[0-9]{0,9})?(m|k|Ki|Mi|Gi|G|e3|E)?") {
            if let Some(once) = canonical(&text) {
                proptest::prop_assert_eq!(canonical(&once), Some(once.clone()));
                proptest::prop_assert_eq!(nanos(&once), nanos(&text));
            }
        }
    }
}
