//! Durations as kubectl prints them: `5s`, `3m12s`, `47h`, `9d`.

use jiff::Timestamp;
use std::fmt;

/// Time passed since something, or that it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(Option<i64>);

impl Age {
    /// From a time in RFC 3339 to `now`; unknown when it cannot be read.
    pub fn since(time: &str, now: Timestamp) -> Self {
        Self(time.parse::<Timestamp>().ok().map(|then| now.as_second() - then.as_second()))
    }
    /// From a number of seconds.
    pub fn of_seconds(seconds: i64) -> Self {
        Self(Some(seconds))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(seconds) = self.0 else { return f.write_str("<unknown>") };
        let (minutes, hours) = (seconds / 60, seconds / 3600);
        let days = hours / 24;
        // Clocks may differ by a second.
        match seconds {
            i64::MIN..-1 => f.write_str("<invalid>"),
            -1 => f.write_str("0s"),
            0..120 => write!(f, "{seconds}s"),
            _ if minutes < 10 => two(f, minutes, "m", seconds % 60, "s"),
            _ if minutes < 180 => write!(f, "{minutes}m"),
            _ if hours < 8 => two(f, hours, "h", minutes % 60, "m"),
            _ if hours < 48 => write!(f, "{hours}h"),
            _ if hours < 192 => two(f, days, "d", hours % 24, "h"),
            _ if hours < 24 * 365 * 2 => write!(f, "{days}d"),
            _ if hours < 24 * 365 * 8 => two(f, days / 365, "y", days % 365, "d"),
            _ => write!(f, "{}y", days / 365),
        }
    }
}

fn two(f: &mut fmt::Formatter<'_>, large: i64, unit: &str, small: i64, rest: &str) -> fmt::Result {
    write!(f, "{large}{unit}")?;
    if small == 0 { Ok(()) } else { write!(f, "{small}{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectls() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_799, "7h59m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_199, "7d23h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(Age::of_seconds(seconds).to_string(), text);
        }
        assert_eq!(Age::since("never", Timestamp::UNIX_EPOCH).to_string(), "<unknown>");
    }
}
