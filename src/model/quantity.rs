//! Kubernetes resource quantities: `500m`, `128Mi`, `1e3` (k8s.io/apimachinery `resource.Quantity`).

/// Why a text is not a quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid quantity {0:?}")]
pub struct QuantityError(pub String);

/// Thousandths of the unit (a core, a byte), rounded up as Kubernetes does.
///
/// # Errors
/// [`QuantityError`] when the text is not a quantity or does not fit.
pub fn parse_milli(text: &str) -> Result<i128, QuantityError> {
    let fail = || QuantityError(text.to_owned());
    let digits = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (negative, number) = match number.as_bytes().first() {
        Some(b'-') => (true, &number[1..]),
        Some(b'+') => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    // Bounds keep the arithmetic below inside i128.
    if whole.len() + fraction.len() == 0 || whole.len() > 19 || fraction.len() > 9 {
        return Err(fail());
    }
    if !all_digits(whole) || !all_digits(fraction) {
        return Err(fail());
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().map_err(|_| fail())?;
    let (multiplier, divisor) = scale(suffix).ok_or_else(fail)?;
    let numerator = mantissa.checked_mul(multiplier).and_then(|n| n.checked_mul(1000)).ok_or_else(fail)?;
    let denominator = divisor * 10i128.pow(u32::try_from(fraction.len()).map_err(|_| fail())?);
    let milli = (numerator + denominator - 1) / denominator;
    Ok(if negative { -milli } else { milli })
}

/// Whole units (bytes, pods), rounded up.
///
/// # Errors
/// As [`parse_milli`]; also when the value is negative or does not fit.
pub fn parse_units(text: &str) -> Result<u64, QuantityError> {
    let milli = parse_milli(text)?;
    u64::try_from((milli + 999).div_euclid(1000)).map_err(|_| QuantityError(text.to_owned()))
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.abs() <= 18)?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_kubernetes_reads() {
        for (text, milli) in [
            ("1", 1000),
            ("500m", 500),
            ("0.5", 500),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("100u", 1),
            ("-2", -2000),
            (".5", 500),
        ] {
            assert_eq!(parse_milli(text), Ok(milli), "{text}");
        }
        assert_eq!(parse_units("1500m"), Ok(2));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "m", "1.2.3", "1 Gi", "1gi", "--1", "1e99", "99999999999999999999", "１"] {
            assert!(parse_milli(text).is_err(), "{text}");
        }
        assert!(parse_units("-1").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            let _ = parse_units(&text);
        }
    }
}
